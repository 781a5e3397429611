//! Golden conversations: each handler that ships, word for word, as its peers see it over real transports.
//!
//! A conversation is a script. `ada> text` says a message, `ada< text` hears exactly that one, `ada>|` says that she
//! will say no more, `ada<|` hears that the server will not. Who speaks first connects first. Messages are written
//! with escapes; what differs from run to run is written `TIME` and `PORT`.

use std::collections::BTreeMap;
use std::time::Duration;

use greetd::session::Session;
use greetd::{Endpoint, Registry, Server};

/// Far longer than anything here takes; what is awaited in vain then fails with words.
const PATIENCE: Duration = Duration::from_secs(20);

const TCP: &str = "tcp://127.0.0.1:0?framing=lines";
const RAW: &str = "tcp://127.0.0.1:0";
const UDP: &str = "udp://127.0.0.1:0";
const UNIX: &str = "unix://@greetd-golden-PID?framing=length16";

/// Plays a script with one peer.
async fn golden(handler: &str, endpoint: &str, script: &str) {
    play(&[("ada", endpoint)], handler, script).await;
}

/// Plays a script with a peer at each endpoint, all served by the same handler.
async fn play(parties: &[(&str, &str)], handler: &str, script: &str) {
    let registry = Registry::builtin();
    let mut server = Server::new();
    for (_, endpoint) in parties {
        server = server.serve(registry.service(&parse(endpoint), handler).unwrap());
    }
    let bound = server.bind().await.unwrap();
    let at: BTreeMap<&str, Endpoint> = std::iter::zip(parties, bound.listeners())
        .map(|((name, endpoint), listener)| {
            let mut at = parse(&listener.to_string());
            at.options = parse(endpoint).options;
            (*name, at)
        })
        .collect();
    let running = bound.start();

    let mut sessions: BTreeMap<&str, Session> = BTreeMap::new();
    let mut happened = Vec::new();
    for line in script.trim().lines().map(str::trim) {
        let (name, _) = line.split_once(['>', '<']).expect("a line names who speaks or hears");
        if !sessions.contains_key(name) {
            sessions.insert(name, registry.dialler(&at[name]).unwrap().dial().await.unwrap());
        }
        let session = sessions.get_mut(name).unwrap();
        match line[name.len()..].split_at(1) {
            (">", "|") => {
                session.finish().await.unwrap();
                happened.push(line.to_owned());
            }
            (">", text) => {
                session.send(&unescape(text.strip_prefix(' ').unwrap_or(text))).await.unwrap();
                session.flush().await.unwrap();
                happened.push(line.to_owned());
            }
            (_, _) => {
                let waiting = tokio::time::timeout(PATIENCE, session.recv()).await;
                let heard = waiting.unwrap_or_else(|_| panic!("in vain: {line}\nso far:\n{}", happened.join("\n")));
                happened.push(match heard.unwrap() {
                    None => format!("{name}<|"),
                    Some(message) => format!("{name}< {}", normal(session, &message)).trim_end().to_owned(),
                });
            }
        }
    }
    let expected: Vec<&str> = script.trim().lines().map(str::trim).collect();
    assert_eq!(happened, expected, "\nwhat happened:\n{}\n", happened.join("\n"));
    drop(sessions);
    assert_eq!(running.drain(PATIENCE).await.cut, 0);
}

fn parse(endpoint: &str) -> Endpoint {
    endpoint.replace("PID", &std::process::id().to_string()).parse().unwrap()
}

/// The escapes that scripts use, as bytes.
fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\n", "\n").replace("\\u{0}", "\0").replace("\\u{1b}", "\u{1b}").into_bytes()
}

/// A message as scripts show it.
fn normal(session: &Session, message: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(message).escape_debug().to_string().replace("\\\"", "\"");
    for address in [session.peer().local(), &session.peer().remote] {
        if let Some(address) = address.ip() {
            text = text.replace(&format!(":{}", address.port()), ":PORT");
        }
    }
    // RFC 3339: 20 characters with their marks at fixed places.
    let is_time = |window: &str| {
        let shape: String = window.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        shape == "0000-00-00T00:00:00Z"
    };
    while let Some(start) = (0..text.len()).find(|start| text.get(*start..start + 20).is_some_and(is_time)) {
        text.replace_range(start..start + 20, "TIME");
    }
    text
}

#[tokio::test]
async fn hello() {
    let script = "
        ada< welcome
        ada> Genji
        ada< Hello Genji
        ada> two words
        ada< Hello two words
        ada> exit
        ada<|";
    golden("hello", TCP, script).await;
    golden("hello", UNIX, script).await;
    golden("hello", "memory://golden-hello?kind=messages", script).await;
    golden(
        "hello",
        UDP,
        "
        ada> Genji
        ada< Hello,Genji
        ada> exit
        ada< Hello,exit",
    )
    .await;
    golden(
        "hello?welcome=&word=Salut&separator=%20-%20&exit=bye",
        TCP,
        "
        ada> Genji
        ada< Salut - Genji
        ada> bye
        ada<|",
    )
    .await;
}

#[tokio::test]
async fn echo() {
    let script = "
        ada> one
        ada< one
        ada>
        ada<
        ada> a\\u{0}b
        ada< a\\0b";
    golden("echo", TCP, &format!("{script}\nada>|\nada<|")).await;
    golden("echo", UDP, script).await;
    golden(
        "echo",
        RAW,
        "
        ada> not\\na line
        ada< not\\na line
        ada>|
        ada<|",
    )
    .await;
}

#[tokio::test]
async fn discard() {
    golden(
        "discard",
        TCP,
        "
        ada> nobody
        ada> listens
        ada>|
        ada<|",
    )
    .await;
}

#[tokio::test]
async fn upper() {
    golden(
        "upper",
        TCP,
        "
        ada> quiet
        ada< QUIET
        ada> straße
        ada< STRAßE",
    )
    .await;
    golden(
        "upper?unicode=yes",
        UDP,
        "
        ada> straße
        ada< STRASSE",
    )
    .await;
}

#[tokio::test]
async fn qotd() {
    golden(
        "qotd?text=so%20it%20goes",
        RAW,
        "
        ada< so it goes\\r\\n
        ada<|",
    )
    .await;
    golden(
        "qotd?text=so%20it%20goes",
        TCP,
        "
        ada< so it goes
        ada<|",
    )
    .await;
    golden(
        "qotd?text=so%20it%20goes",
        UDP,
        "
        ada>
        ada< so it goes\\r\\n
        ada> again
        ada< so it goes\\r\\n",
    )
    .await;
}

#[tokio::test]
async fn daytime() {
    golden(
        "daytime",
        RAW,
        "
        ada< TIME\\r\\n
        ada<|",
    )
    .await;
    golden(
        "daytime",
        UDP,
        "
        ada>
        ada< TIME\\r\\n",
    )
    .await;
}

#[tokio::test]
async fn time() {
    let registry = Registry::builtin();
    for endpoint in [RAW, UDP, "tcp://127.0.0.1:0?framing=length8"] {
        let service = registry.service(&parse(endpoint), "time").unwrap();
        let bound = Server::new().serve(service).bind().await.unwrap();
        let mut at = parse(&bound.listeners()[0].to_string());
        at.options = parse(endpoint).options;
        let running = bound.start();
        let mut session = registry.dialler(&at).unwrap().dial().await.unwrap();
        if !session.peer().connected() {
            session.send(b"").await.unwrap();
        }
        let told = session.recv().await.unwrap().unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() + 2_208_988_800;
        let behind = (now as u32).wrapping_sub(u32::from_be_bytes(told[..].try_into().unwrap()));
        assert!(behind <= 60, "{behind} seconds behind");
        drop(session);
        running.drain(PATIENCE).await;
    }
}

#[tokio::test]
async fn chargen() {
    let line = r##"!"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh"##;
    let line = line.replace('\'', "\\'");
    golden(
        "chargen",
        "tcp://127.0.0.1:0?framing=length16",
        &format!(
            "
        ada<  {}
        ada< {line}",
            line.strip_suffix('h').unwrap()
        ),
    )
    .await;
    golden(
        "chargen?size=5",
        UDP,
        "
        ada> go
        ada<  !\"#$
        ada> go
        ada<  !\"#$",
    )
    .await;
}

#[tokio::test]
async fn whoami() {
    golden("whoami", RAW, r"
        ada> who?
        ada< remote:    127.0.0.1:PORT\nlocal:     127.0.0.1:PORT\nfamily:    IPv4\ntransport: tcp\nlayers:    none\nframing:   raw\nconnected: yes\nmessage:   1\nbytes:     4\nopened:    TIME\nnow:       TIME\n").await;
    golden("whoami?format=json", "udp://[::1]:0", r#"
        ada>
        ada< {"remote":"[::1]:PORT","local":"[::1]:PORT","family":"IPv6","transport":"udp","layers":[],"framing":null,"connected":false,"message":1,"bytes":0,"opened":"TIME","now":"TIME","facts":{}}\n
        ada> again
        ada< {"remote":"[::1]:PORT","local":"[::1]:PORT","family":"IPv6","transport":"udp","layers":[],"framing":null,"connected":false,"message":2,"bytes":5,"opened":"TIME","now":"TIME","facts":{}}\n"#).await;
    // A framing that carries no line feed carries the lines one by one.
    golden(
        "whoami",
        TCP,
        "
        ada> who?
        ada< remote:    127.0.0.1:PORT
        ada< local:     127.0.0.1:PORT
        ada< family:    IPv4
        ada< transport: tcp
        ada< layers:    none
        ada< framing:   lines
        ada< connected: yes
        ada< message:   1
        ada< bytes:     4
        ada< opened:    TIME
        ada< now:       TIME",
    )
    .await;
}

#[tokio::test]
async fn chat() {
    play(
        &[("ada", TCP), ("bob", UDP), ("cy", UNIX), ("di", "memory://golden-chat?kind=datagrams")],
        "chat",
        "
        ada< * your nickname, please
        ada> ada
        ada< * welcome to lobby, ada (1 here)
        bob> bob
        bob< * welcome to lobby, bob (2 here)\\n
        ada< * bob joined lobby (2 here)
        cy< * your nickname, please
        cy> ADA
        cy< * somebody is called ADA in lobby already; choose another nickname
        cy> cy
        cy< * welcome to lobby, cy (3 here)
        ada< * cy joined lobby (3 here)
        bob< * cy joined lobby (3 here)\\n
        bob> hello, * bob left\\u{1b}[2J
        ada< <bob> hello, * bob left\u{fffd}[2J
        cy< <bob> hello, * bob left\u{fffd}[2J
        di> di
        di< * welcome to lobby, di (4 here)\\n
        ada< * di joined lobby (4 here)
        bob< * di joined lobby (4 here)\\n
        cy< * di joined lobby (4 here)
        cy> /who
        cy< * 4 in lobby: ada, bob, cy, di
        cy> /join tea
        cy< * welcome to tea, cy (1 here)
        di< * cy left lobby (3 here)\\n
        ada< * cy left lobby (3 here)
        ada> /quit
        ada<|
        bob< * cy left lobby (3 here)\\n
        bob< * ada left lobby (2 here)\\n
        di< * ada left lobby (2 here)\\n
        di> just you and me
        bob< <di> just you and me\\n",
    )
    .await;
}

#[tokio::test]
async fn forward() {
    let registry = Registry::builtin();
    for behind in [RAW, UDP, "unix://@greetd-golden-behind-PID"] {
        let service = registry.service(&parse(behind), "upper").unwrap();
        let bound = Server::new().serve(service).bind().await.unwrap();
        let to = bound.listeners()[0].to_string();
        let running = bound.start();
        for front in [RAW, UDP, "unix://@greetd-golden-front-PID"] {
            golden(
                &format!("forward?to={to}"),
                front,
                "
                ada> there and
                ada< THERE AND
                ada> back
                ada< BACK",
            )
            .await;
        }
        running.drain(PATIENCE).await;
    }
}

#[tokio::test]
async fn a_relay_to_itself_calls_itself_not_even_once() {
    for endpoint in ["unix://@greetd-golden-self-PID", "memory://golden-self?kind=messages"] {
        let registry = Registry::builtin();
        let endpoint = parse(endpoint);
        let to = endpoint.to_string().replace('&', "%26");
        let service = registry.service(&endpoint, &format!("forward?to={to}")).unwrap();
        let running = Server::new().serve(service).bind().await.unwrap().start();
        let mut session = registry.dialler(&endpoint).unwrap().dial().await.unwrap();
        assert!(session.recv().await.unwrap().is_none());
        assert_eq!(running.counters().total("session.opened"), 1);
        drop(session);
        assert_eq!(running.drain(PATIENCE).await.cut, 0);
    }
}

/// Needs the real thing: what is said to a peer that left must not keep it in the room.
#[tokio::test]
async fn a_member_on_datagrams_that_fell_silent_leaves_though_the_room_goes_on() {
    let registry = Registry::builtin();
    let bound = Server::new()
        .serve(registry.service(&parse(TCP), "chat").unwrap())
        .serve(registry.service(&parse("udp://127.0.0.1:0?idle-timeout=300ms"), "chat").unwrap())
        .bind()
        .await
        .unwrap();
    let at: Vec<String> = bound.listeners().iter().map(ToString::to_string).collect();
    let running = bound.start();
    let dial = async |endpoint: String| registry.dialler(&parse(&endpoint)).unwrap().dial().await.unwrap();
    let mut ada = dial(format!("{}?framing=lines", at[0])).await;
    let mut bob = dial(at[1].clone()).await;
    ada.send(b"ada").await.unwrap();
    assert_eq!(ada.recv().await.unwrap().unwrap(), "* your nickname, please");
    assert_eq!(ada.recv().await.unwrap().unwrap(), "* welcome to lobby, ada (1 here)");
    bob.send(b"bob").await.unwrap();
    assert_eq!(bob.recv().await.unwrap().unwrap(), "* welcome to lobby, bob (2 here)\n");
    assert_eq!(ada.recv().await.unwrap().unwrap(), "* bob joined lobby (2 here)");

    let mut talk = tokio::time::interval(Duration::from_millis(20));
    let talks_until_bob_left = async {
        loop {
            tokio::select! {
                heard = ada.recv() => break heard.unwrap().unwrap(),
                _ = talk.tick() => ada.send(b"are you still there?").await.unwrap(),
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, talks_until_bob_left).await.expect("bob leaves");
    assert_eq!(heard, "* bob left lobby (1 here)");
    drop((ada, bob));
    running.drain(PATIENCE).await;
}
