//! A relay between a peer and a target that both are played here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, timeout};

use super::{Forward, OPTIONS, Settings};
use crate::address::Address;
use crate::endpoint::Endpoint;
use crate::handler::Handler;
use crate::handlers::echo::Echo;
use crate::handlers::rehearsal::{Rehearsal, Stage, links, serve, session};
use crate::link::{Capabilities, Link};
use crate::options::OptionDoc;
use crate::registry::{Item, Registry};
use crate::session::Session;
use crate::transport::{BindError, ConnectError, Dialled, Listener, Transport};

const LOOPBACK: &str = "127.0.0.1:5000";

/// A transport that hands out prepared links, and refuses once it has none.
struct Prepared {
    capabilities: Capabilities,
    links: Mutex<VecDeque<Link>>,
    remote: Address,
    never: bool,
}

#[async_trait]
impl Transport for Prepared {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn bind(&self, at: &Endpoint) -> Result<Listener, BindError> {
        Err(BindError::unsuitable(at, "nobody listens here"))
    }

    async fn connect(&self, to: &Endpoint) -> Result<Dialled, ConnectError> {
        if self.never {
            std::future::pending::<()>().await;
        }
        match self.links.lock().unwrap().pop_front() {
            Some(link) => Ok(Dialled::new(link, Address::Unnamed, self.remote.clone())),
            None => Err(ConnectError::new(to, "connect", std::io::ErrorKind::ConnectionRefused.into())),
        }
    }
}

/// What stands behind the relay.
struct Behind {
    stage: Stage,
    links: usize,
    remote: Address,
    never: bool,
}

impl Behind {
    fn over(stage: Stage) -> Self {
        Behind { stage, links: 1, remote: Address::named("behind"), never: false }
    }

    /// The relay, and the target's ends of the links.
    fn build(self, options: &str, scheme: &'static str) -> (Forward, Vec<Session>) {
        let (ours, theirs): (VecDeque<Link>, Vec<Link>) = (0..self.links).map(|_| links(self.stage)).unzip();
        let transport = Arc::new(Prepared {
            capabilities: self.stage.capabilities(),
            links: Mutex::new(ours),
            remote: self.remote,
            never: self.never,
        });
        let mut registry = Registry::empty();
        registry
            .add_transport(Item::new(scheme, "prepared links"), move |_: crate::registry::NoOptions| {
                Ok(transport.clone())
            })
            .unwrap();
        registry
            .add_framing(Item::new("raw", "bytes"), |_: crate::registry::NoOptions, largest| {
                Ok(Arc::new(crate::framings::raw::Raw { largest }))
            })
            .unwrap();
        let settings = Settings { to: Some(format!("{scheme}://behind?{options}")) };
        let forward = Forward::new(&settings, &registry).unwrap();
        (forward, theirs.into_iter().map(|link| session(link, self.stage, LOOPBACK)).collect())
    }
}

/// A peer, its relay, and the target.
fn scene(near: Stage, far: Stage, options: &str) -> (Rehearsal, Session) {
    let (forward, mut targets) = Behind::over(far).build(options, "prepared");
    (Rehearsal::of(forward, near), targets.remove(0))
}

async fn hears(session: &mut Session) -> String {
    let message = timeout(Duration::from_secs(600), session.recv()).await.expect("something comes");
    message.unwrap().map_or_else(|| "the end".to_owned(), |message| String::from_utf8_lossy(&message).into_owned())
}

#[tokio::test(start_paused = true)]
async fn what_either_side_says_reaches_the_other_and_half_closes_are_kept() {
    let (mut peer, mut target) = scene(Stage::Raw, Stage::Messages, "");
    peer.says("question").await;
    assert_eq!(hears(&mut target).await, "question");
    peer.falls_silent().await;
    assert_eq!(hears(&mut target).await, "the end");
    target.send(b"answer").await.unwrap();
    target.flush().await.unwrap();
    assert_eq!(peer.hears().await, "answer");
    target.finish().await.unwrap();
    assert_eq!(peer.hears_the_rest().await, "");
    peer.ends().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_ends_first_is_still_told_what_comes() {
    let (mut peer, mut target) = scene(Stage::Messages, Stage::Raw, "");
    target.finish().await.unwrap();
    assert_eq!(peer.hears_the_rest().await, "");
    peer.says("are you there?").await;
    assert_eq!(hears(&mut target).await, "are you there?");
    peer.falls_silent().await;
    assert_eq!(hears(&mut target).await, "the end");
    peer.ends().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_fills_every_buffer_before_it_reads_gets_all_of_it_back() {
    for (near, far) in [(Stage::Raw, Stage::Raw), (Stage::Messages, Stage::Raw), (Stage::Raw, Stage::Messages)] {
        let (mut peer, target) = scene(near, far, "");
        tokio::spawn(serve(Arc::new(Echo), target));
        let block: Vec<u8> = (0..=250).collect();
        let mut said = 0;
        loop {
            peer.client().send(&block).await.unwrap();
            said += block.len();
            // The clock moves only once nothing else can: then all that lies between is full.
            if timeout(Duration::from_secs(1), peer.client().flush()).await.is_err() {
                break;
            }
            assert!(said < 10_000_000, "the relay takes without bound");
        }
        assert!(said > 3 * Rehearsal::PIPE, "it takes what buffers hold, not {said} bytes");
        let (mut receiving, mut sending) = peer.client().split();
        let saying = async {
            for _ in 0..1000 {
                sending.send(&block).await.unwrap();
                said += block.len();
            }
            sending.finish().await.unwrap();
        };
        let hearing = async {
            let mut heard = Vec::new();
            while let Some(message) = receiving.recv().await.unwrap() {
                heard.extend_from_slice(&message);
            }
            heard
        };
        let ((), heard) = tokio::join!(saying, hearing);
        assert_eq!(heard.len(), said);
        assert!(heard.chunks(block.len()).all(|chunk| chunk == block), "all of it, in its order");
        peer.ends().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_direction_that_waits_does_not_stop_the_other() {
    let (mut peer, mut target) = scene(Stage::Raw, Stage::Raw, "");
    // The target talks, and nobody reads it.
    loop {
        target.send(&[b'x'; 1000]).await.unwrap();
        if timeout(Duration::from_secs(1), target.flush()).await.is_err() {
            break;
        }
    }
    peer.says("stop").await;
    assert_eq!(hears(&mut target).await, "stop");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_takes_nothing_is_given_up() {
    let (mut peer, _target) = scene(Stage::Raw, Stage::Raw, "write-timeout=7s");
    let begin = Instant::now();
    loop {
        if peer.client().send(&[b'x'; 1000]).await.is_err() || peer.client().flush().await.is_err() {
            break;
        }
    }
    assert_eq!(begin.elapsed().as_secs(), 7);
    let error = peer.ends().await.unwrap_err().to_string();
    assert_eq!(error, "the target took nothing of what it was sent for 7s");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_talks_and_takes_nothing_is_given_up_too() {
    let (mut peer, mut target) = scene(Stage::Messages, Stage::Raw, "write-timeout=7s");
    let begin = Instant::now();
    let (mut hearing, mut saying) = peer.client().split();
    let says = async { while saying.send(&[b'x'; 1000]).await.is_ok() && saying.flush().await.is_ok() {} };
    let hears = async { while matches!(hearing.recv().await, Ok(Some(_))) {} };
    let talks = async {
        loop {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let said = target.send(b"more!").await;
            if said.is_err() || target.flush().await.is_err() {
                break;
            }
        }
    };
    tokio::join!(says, hears, talks);
    assert!((7..=8).contains(&begin.elapsed().as_secs()), "it took {:?}", begin.elapsed());
    assert!(peer.ends().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn once_one_side_has_ended_the_other_may_be_silent_for_its_idle_time() {
    for (far, silence) in [(Stage::Raw, 20), (Stage::Datagrams, 1)] {
        let (mut peer, mut target) = scene(Stage::Raw, far, "idle-timeout=20s");
        peer.says("last question").await;
        peer.falls_silent().await;
        assert_eq!(hears(&mut target).await, "last question");
        let begin = Instant::now();
        for answer in ["a", "b"] {
            tokio::time::sleep(Duration::from_millis(900)).await;
            target.send(answer.as_bytes()).await.unwrap();
            target.flush().await.unwrap();
            assert_eq!(peer.hears().await, answer);
        }
        assert_eq!(peer.hears_the_rest().await, "");
        assert_eq!(begin.elapsed().as_millis(), 1800 + silence * 1000);
        peer.ends().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_of_datagrams_that_expired_takes_its_target_with_it() {
    let (mut peer, mut target) = scene(Stage::Datagrams, Stage::Raw, "");
    peer.says("one").await;
    assert_eq!(hears(&mut target).await, "one");
    peer.falls_silent().await;
    peer.ends().await.unwrap();
    assert_eq!(hears(&mut target).await, "the end");
}

#[tokio::test]
async fn a_datagram_that_is_too_long_for_the_target_is_lost_alone() {
    // A peer on a stream that keeps messages apart may say more than a datagram holds.
    let (mut peer, mut target) = scene(Stage::Messages, Stage::Datagrams, "");
    peer.says("before").await;
    peer.says(vec![b'x'; 65_508]).await;
    peer.says("after").await;
    assert_eq!(hears(&mut target).await, "before");
    assert_eq!(hears(&mut target).await, "after");
}

#[tokio::test]
async fn a_session_that_is_cut_takes_its_target_with_it() {
    let (mut peer, mut target) = scene(Stage::Raw, Stage::Messages, "");
    peer.says("one").await;
    assert_eq!(hears(&mut target).await, "one");
    peer.is_cut();
    assert_eq!(hears(&mut target).await, "the end");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_fails_or_hangs_ends_the_session_with_its_reason() {
    let refusing = Behind { links: 0, ..Behind::over(Stage::Raw) }.build("", "prepared").0;
    let hanging = Behind { never: true, ..Behind::over(Stage::Raw) }.build("handshake-timeout=3s", "prepared").0;
    for (forward, reason) in [
        (refusing, "failed to connect to prepared://behind: connect: connection refused"),
        (hanging, "failed to connect to prepared://behind: it took longer than 3s"),
    ] {
        let mut peer = Rehearsal::of(forward, Stage::Raw);
        assert_eq!(peer.ends().await.unwrap_err().to_string(), reason);
    }
}

const ITSELF: &str = "is this very listener: it would relay to itself";

#[tokio::test]
async fn a_relay_that_finds_itself_behind_a_name_refuses_and_does_not_call_again() {
    let address = |text: &str| Address::Ip(text.parse().unwrap());
    for (remote, scheme, is_refused) in [
        ("127.0.0.1:8080", "tcp", true),
        ("[::ffff:127.0.0.1]:8080", "tcp", true),
        ("127.0.0.1:8081", "tcp", false),
        ("127.0.0.2:8080", "tcp", false),
        ("127.0.0.1:8080", "udp", false),
    ] {
        let behind = Behind { links: 2, remote: address(remote), ..Behind::over(Stage::Raw) };
        let (forward, mut targets) = behind.build("", scheme);
        let forward: Arc<dyn Handler> = Arc::new(forward);
        for target in &mut targets {
            let mut peer = Rehearsal::from(forward.clone(), Stage::Raw, LOOPBACK);
            if is_refused {
                let error = peer.ends().await.unwrap_err().to_string();
                assert_eq!(error, format!("tcp://behind {ITSELF}"));
            } else {
                peer.says("through").await;
                assert_eq!(hears(target).await, "through");
            }
        }
        if is_refused {
            assert_eq!(hears(&mut targets[0]).await, "the end");
            drop(forward);
            // The second link was never called for, and went with the transport.
            assert_eq!(hears(&mut targets[1]).await, "the end");
        }
    }
}

#[tokio::test]
async fn a_relay_to_the_address_that_was_called_is_refused_before_it_calls() {
    // Nobody listens there: whoever calls hears of it.
    for (to, is_refused) in
        [("tcp://127.0.0.1:8080", true), ("tcp://[::ffff:127.0.0.1]:8080", true), ("udp://127.0.0.1:8080", false)]
    {
        let settings = Settings { to: Some(to.to_owned()) };
        let forward = Forward::new(&settings, &Registry::builtin()).unwrap();
        let (_client, near) = crate::handlers::rehearsal::sessions(Stage::Raw, LOOPBACK);
        let place = forward.place().clone().unwrap();
        let refused = forward.refuse_itself(near.peer(), &place);
        assert_eq!(refused.err().map(|error| error.to_string()), is_refused.then(|| format!("{to} {ITSELF}")));
    }
}

#[test]
fn what_is_wrong_with_the_target_is_said_when_the_relay_is_made() {
    let registry = Registry::builtin();
    for (spec, expected) in [
        ("forward", "`forward` needs the option `to`, such as forward?to=tcp://127.0.0.1:80"),
        ("forward?to=127.0.0.1:80", "the option `to` of `forward`: `127.0.0.1:80` has no scheme"),
        (
            "forward?to=tpc://127.0.0.1:80",
            "the option `to` of `forward`: there is no transport `tpc` (did you mean `tcp`?)",
        ),
        ("forward?to=tcp://127.0.0.1:80?nodelai=no", "the option `to` of `forward`: `tcp` has no option `nodelai`"),
    ] {
        let error = registry.handler(spec).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(registry.handler("forward?to=tcp://127.0.0.1:80?nodelay=no%26idle-timeout=5m").is_ok());
    assert_eq!(OPTIONS.iter().map(|option: &OptionDoc| option.name).collect::<Vec<_>>(), ["to"]);
}
