//! Every handler over every transport, each with the framings that make a difference: one handler, one behaviour.
//!
//! The lists come from the registry, so that whatever is added takes part; one that this suite does not know how to
//! bind or what to expect of fails it.

#[path = "support/endpoints.rs"]
mod endpoints;

use std::time::Duration;

use endpoints::endpoints;
use greetd::registry::Kind;
use greetd::session::Session;
use greetd::{Endpoint, Registry, Server};

const DRAIN: Duration = Duration::from_secs(5);
/// Far longer than anything here takes; what is awaited in vain then fails with words.
const PATIENCE: Duration = Duration::from_secs(20);

/// With the framings that make a difference, where bytes are framed at all.
fn framed(registry: &Registry, endpoint: &str) -> Vec<String> {
    let parsed: Endpoint = endpoint.parse().unwrap();
    let route = registry.dialler(&parsed).unwrap().route().clone();
    if route.framing.is_none() {
        return vec![endpoint.to_owned()];
    }
    let separator = if parsed.options.is_empty() { '?' } else { '&' };
    ["raw", "lines", "netstring", "length16"].map(|framing| format!("{endpoint}{separator}framing={framing}")).into()
}

#[tokio::test]
async fn every_handler_behaves_alike_over_every_transport() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let mut pairs = 0;
    for transport in registry.items(Kind::Transport) {
        for endpoint in endpoints(transport.name, folder.path()) {
            for endpoint in framed(&registry, &endpoint) {
                for handler in registry.items(Kind::Handler) {
                    let pair = format!("{} over {endpoint}", handler.name);
                    let outcome = tokio::time::timeout(PATIENCE, converse(&registry, &endpoint, handler.name)).await;
                    assert!(outcome.is_ok(), "{pair}: it waited in vain");
                    pairs += 1;
                }
            }
        }
    }
    assert!(pairs > 60, "{pairs} pairs were tried");
}

async fn converse(registry: &Registry, endpoint: &str, handler: &str) {
    let endpoint: Endpoint = endpoint.parse().unwrap();
    let (spec, behind) = match handler {
        "forward" => {
            // What is behind it answers over another transport than the one in front.
            let service = registry.service(&"tcp://127.0.0.1:0?framing=raw".parse().unwrap(), "echo").unwrap();
            let behind = Server::new().serve(service).bind().await.unwrap();
            let to = behind.listeners()[0].to_string();
            (format!("forward?to={to}"), Some(behind.start()))
        }
        "exec" => ("exec:cat".to_owned(), None),
        name => (name.to_owned(), None),
    };
    let service = registry.service(&endpoint, &spec).unwrap();
    let bound = Server::new().serve(service).bind().await.unwrap();
    let mut at: Endpoint = bound.listeners()[0].to_string().parse().unwrap();
    at.options = endpoint.options.clone();
    let running = bound.start();
    let session = registry.dialler(&at).unwrap().dial().await.unwrap();
    expect(handler, session).await;
    let drained = running.drain(DRAIN).await;
    assert_eq!(drained.cut, 0, "nothing is left to be cut");
    if let Some(behind) = behind {
        behind.drain(DRAIN).await;
    }
}

/// What each handler does, whatever carries it.
async fn expect(handler: &str, mut session: Session) {
    let connected = session.peer().connected();
    match handler {
        "hello" if connected => {
            hears(&mut session, "welcome").await;
            for name in ["Genji", "Hanzo", "Mcree"] {
                session.send(name.as_bytes()).await.unwrap();
                hears(&mut session, &format!("Hello {name}")).await;
            }
            session.send(b"exit").await.unwrap();
            ends(&mut session).await;
        }
        "hello" => {
            for name in ["Genji", "Hanzo", "Mcree"] {
                session.send(name.as_bytes()).await.unwrap();
                hears(&mut session, &format!("Hello,{name}")).await;
            }
        }
        "echo" | "exec" | "forward" => {
            for text in ["one", "zwei", "très"] {
                session.send(text.as_bytes()).await.unwrap();
                hears(&mut session, text).await;
            }
            if connected {
                session.finish().await.unwrap();
                ends(&mut session).await;
            }
        }
        "upper" => {
            session.send(b"quiet").await.unwrap();
            hears(&mut session, "QUIET").await;
        }
        "discard" => {
            session.send(b"nobody listens").await.unwrap();
            if connected {
                session.finish().await.unwrap();
                ends(&mut session).await;
            }
        }
        "chargen" => {
            session.send(b"go").await.unwrap();
            let characters = hears_something(&mut session).await;
            assert!(characters.starts_with(' '), "{characters}");
        }
        "qotd" | "daytime" => {
            if !connected {
                session.send(b"").await.unwrap();
            }
            let text = hears_something(&mut session).await;
            assert!(text.len() > 10, "{text}");
            if connected {
                ends(&mut session).await;
            }
        }
        "time" => {
            if !connected {
                session.send(b"").await.unwrap();
            }
            let bytes = session.recv().await.unwrap().unwrap();
            assert_eq!(bytes.len(), 4, "32 bits");
        }
        "whoami" => {
            session.send(b"?").await.unwrap();
            // As text it names the peer's address first; under `lines` each line is a message.
            let text = hears_something(&mut session).await;
            let ours = session.peer().local().ip().map(|address| address.to_string()).unwrap_or_default();
            assert!(text.starts_with("remote:") && text.contains(&ours), "{ours} is named in {text}");
        }
        "chat" => {
            if connected {
                let question = hears_something(&mut session).await;
                assert!(question.contains("nickname"), "{question}");
            }
            session.send(b"Genji").await.unwrap();
            let text = hears_something(&mut session).await;
            assert!(text.contains("Genji"), "{text}");
        }
        other => panic!("say here what `{other}` does"),
    }
}

/// Receives until that text has come: without boundaries it may come in pieces, but never more than it.
async fn hears(session: &mut Session, text: &str) {
    let mut heard = Vec::new();
    while heard.len() < text.len() {
        match session.recv().await.unwrap() {
            Some(message) => heard.extend_from_slice(&message),
            None => panic!("it ended after {:?}, before {text:?}", String::from_utf8_lossy(&heard)),
        }
    }
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

async fn hears_something(session: &mut Session) -> String {
    let message = session.recv().await.unwrap().expect("it ended before it said anything");
    String::from_utf8_lossy(&message).into_owned()
}

async fn ends(session: &mut Session) {
    if let Some(message) = session.recv().await.unwrap() {
        panic!("it goes on: {:?}", String::from_utf8_lossy(&message));
    }
}

#[test]
fn a_framing_over_what_carries_messages_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let mut refused = 0;
    for transport in registry.items(Kind::Transport) {
        for endpoint in endpoints(transport.name, folder.path()) {
            let endpoint: Endpoint = endpoint.parse().unwrap();
            if registry.dialler(&endpoint).unwrap().route().framing.is_some() {
                continue;
            }
            for framing in registry.items(Kind::Framing) {
                let mut framed = endpoint.clone();
                framed.options.set("framing", framing.name);
                let error = registry.service(&framed, "echo").err().expect("it is refused").to_string();
                assert!(error.contains(framing.name), "{error}");
                assert!(error.ends_with("is already a message. Leave framing out."), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 10, "{refused} were refused");
}

/// Needs that some transport cannot meet, one at a time.
#[test]
fn a_handler_over_a_transport_that_lacks_what_it_needs_is_refused_with_what_works() {
    use greetd::{Handler, Needs, Result, async_trait};

    struct Needy(Needs);

    #[async_trait]
    impl Handler for Needy {
        async fn serve(&self, _: &mut Session) -> Result<()> {
            Ok(())
        }

        fn needs(&self) -> Needs {
            self.0
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::builtin();
    let none = Needs::default();
    let needs = [
        ("a connection", Needs { connected: true, ..none }),
        ("a transport that loses nothing", Needs { reliable: true, ..none }),
        ("a transport that keeps the order", Needs { ordered: true, ..none }),
        ("message boundaries", Needs { boundaries: true, ..none }),
    ];
    for transport in registry.items(Kind::Transport) {
        for endpoint in endpoints(transport.name, folder.path()) {
            let endpoint: Endpoint = endpoint.parse().unwrap();
            let offered = registry.dialler(&endpoint).unwrap().route().capabilities;
            for (what, needs) in needs {
                let meets = (!needs.connected || offered.connected)
                    && (!needs.reliable || offered.reliable)
                    && (!needs.ordered || offered.ordered)
                    && (!needs.boundaries || offered.boundaries);
                let service = registry.service_of(&endpoint, "needy", std::sync::Arc::new(Needy(needs)));
                match service {
                    Ok(_) => assert!(meets, "{endpoint} cannot give {what}"),
                    Err(error) => {
                        let error = error.to_string();
                        assert!(!meets, "{endpoint} gives {what}, but: {error}");
                        assert!(error.contains(what), "{error}");
                        assert!(error.contains("It works over") || error.contains("Name a framing"), "{error}");
                    }
                }
            }
        }
    }
}
