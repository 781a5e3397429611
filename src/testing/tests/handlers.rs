//! Handlers that do not end, or panic; and a listener whose every step is scripted.

use std::future::pending;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::error::Result;
use crate::event::Event;
use crate::handler::{Conversation, Handler, handler_fn, reply_fn};
use crate::link::{Capabilities, Link};
use crate::registry::{Item, NoOptions, Registry};
use crate::server::Server;
use crate::session::Session;
use crate::testing::{ScriptedAcceptor, ScriptedTransport, handler_conforms};
use crate::transports::memory;

async fn failure_of(handler: impl Handler + 'static) -> String {
    handler_conforms(Arc::new(handler)).await.expect_err("the fault is not seen").to_string()
}

#[tokio::test(start_paused = true)]
async fn a_sound_handler_conforms() {
    assert_eq!(handler_conforms(Arc::new(reply_fn(<[u8]>::to_ascii_uppercase))).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_outlives_its_peer_is_found_out() {
    async fn waits_for_ever(session: &mut Session) -> Result<()> {
        while session.recv().await?.is_some() {}
        pending().await
    }
    let failure = failure_of(handler_fn(|session| -> Conversation<'_> { Box::pin(waits_for_ever(session)) })).await;
    assert_eq!(failure, "memory://handler?framing=raw: a peer that leaves at once: it does not end when its peer does");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_ignores_its_peer_is_found_out() {
    let failure = failure_of(handler_fn(|_| Box::pin(pending()))).await;
    assert!(failure.contains("it does not end when its peer does"), "{failure}");
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_panics_is_found_out_on_the_way_where_it_does() {
    let on_text = failure_of(reply_fn(|message| String::from_utf8(message.to_vec()).unwrap())).await;
    assert!(on_text.starts_with("memory://handler?framing=raw: it panics: "), "{on_text}");
    // Over raw there is no empty message.
    let on_nothing = failure_of(reply_fn(|message| vec![message[0]])).await;
    assert!(on_nothing.starts_with("memory://handler?framing=lines: it panics: index out of bounds"), "{on_nothing}");
}

#[tokio::test(start_paused = true)]
async fn a_scripted_listener_does_what_the_test_says() {
    let (mut near, far) = memory::bytes_pair();
    let script = ScriptedAcceptor::new()
        .accepts_what_fails(Errno::NOTCONN.raw_os_error())
        .fails(Errno::CONNABORTED.raw_os_error())
        .fails(Errno::NOBUFS.raw_os_error())
        .accepts(far)
        .ends();
    let transport = Arc::new(ScriptedTransport::new(Capabilities::BYTES, [script]));
    let mut registry = Registry::builtin();
    let again = transport.clone();
    let make = move |_: NoOptions| -> std::result::Result<Arc<dyn crate::Transport>, _> { Ok(again.clone()) };
    registry.add_transport(Item::new("scripted", "as the test says"), make).unwrap();
    let endpoint = "scripted://here".parse().unwrap();
    let service = registry.service(&endpoint, "echo").unwrap();
    let names = Arc::new(std::sync::Mutex::new(Vec::new()));
    let watch = Arc::new(Names(names.clone()));
    let mut running = Server::new().observer(watch).serve(service).bind().await.unwrap().start();

    let Link::Bytes(near) = &mut near else { panic!("it carries messages") };
    near.write_all(b"hello").await.unwrap();
    near.shutdown().await.unwrap();
    let mut answer = String::new();
    near.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "hello");
    running.ended().await;
    let seen: Vec<&str> = names.lock().unwrap().clone();
    let count = |name| seen.iter().filter(|seen| **seen == name).count();
    assert_eq!(
        ["connection.refused", "accept.failed", "session.opened", "session.closed"].map(count),
        [1, 2, 1, 1],
        "{seen:?}"
    );
    let rebound = crate::Transport::bind(&*transport, &endpoint).await.err().unwrap();
    assert_eq!(rebound.source.kind(), io::ErrorKind::AddrInUse);
}

struct Names(Arc<std::sync::Mutex<Vec<&'static str>>>);

impl crate::event::Observer for Names {
    fn observe(&self, event: &Event<'_>) {
        self.0.lock().unwrap().push(event.name());
    }
}
