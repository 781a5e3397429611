//! The tutorial's greeting, in Rust, as a WebAssembly component.

wit_bindgen::generate!({ path: "../wit", world: "plugin" });

use exports::greetd::plugin::handler::{About, Action, Description, Guest, GuestSession, Instances, Peer};

struct Hello;

impl Guest for Hello {
    type Session = Session;

    fn describe() -> Description {
        let about = About {
            name: "wasm-rust-hello".to_owned(),
            summary: "greets: welcome, Hello X for each X, until exit".to_owned(),
        };
        Description { handlers: vec![about], instances: Instances::PerSession }
    }
}

struct Session {
    connected: bool,
}

impl GuestSession for Session {
    fn new(peer: Peer) -> Self {
        Session { connected: peer.connected }
    }

    fn on_open(&self) -> Action {
        if self.connected { Action::Reply(b"welcome".to_vec()) } else { Action::Silent }
    }

    fn on_message(&self, message: Vec<u8>) -> Action {
        if self.connected && message == b"exit" {
            return Action::Close(Vec::new());
        }
        let word = if self.connected { "Hello " } else { "Hello," };
        Action::Reply([word.as_bytes(), &message].concat())
    }

    fn on_close(&self) {}
}

export!(Hello);
