//! `hello`: the greeting that everything began with, in both dialects of the wire.

use async_trait::async_trait;
use serde::Deserialize;

use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::options::OptionDoc;
use crate::session::{Exchange, Session};

/// Greets: `welcome` when a peer connects, `Hello X` for each X, until `exit`; on datagrams `Hello,X`.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Settings")]
pub struct Hello {
    welcome: String,
    /// What stands before the message in a reply, on a connection and on datagrams: joined once, not for each message.
    on_connections: String,
    on_datagrams: String,
    exit: String,
}

/// What can be said of a [`Hello`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What a connecting peer is sent first; nothing where it is empty.
    pub welcome: String,
    /// What stands before the message in a reply.
    pub word: String,
    /// What stands between the word and the message on a connection.
    pub separator: String,
    /// The message that ends a connection.
    pub exit: String,
}

/// The options of [`Hello`].
pub const OPTIONS: &[OptionDoc] = &[
    OptionDoc { name: "welcome", value: "TEXT", default: "welcome", help: "what a connecting peer is sent first" },
    OptionDoc { name: "word", value: "TEXT", default: "Hello", help: "what stands before the message in a reply" },
    OptionDoc {
        name: "separator",
        value: "TEXT",
        default: "a space",
        help: "what stands between word and message on a connection; a comma on datagrams",
    },
    OptionDoc { name: "exit", value: "TEXT", default: "exit", help: "the message that ends a connection" },
];

impl Default for Settings {
    fn default() -> Self {
        Settings { welcome: "welcome".into(), word: "Hello".into(), separator: " ".into(), exit: "exit".into() }
    }
}

impl From<Settings> for Hello {
    fn from(Settings { welcome, word, separator, exit }: Settings) -> Self {
        Hello { welcome, on_connections: format!("{word}{separator}"), on_datagrams: format!("{word},"), exit }
    }
}

impl Default for Hello {
    fn default() -> Self {
        Settings::default().into()
    }
}

#[async_trait]
impl Handler for Hello {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        if session.peer().connected() && !self.welcome.is_empty() {
            session.send(self.welcome.as_bytes()).await?;
        }
        let answer = |exchange: &mut Exchange<'_>| {
            let connected = exchange.peer().connected();
            if connected && exchange.message() == self.exit.as_bytes() {
                exchange.end();
                return Ok(());
            }
            let before = if connected { &self.on_connections } else { &self.on_datagrams };
            exchange.reply(&[before.as_bytes(), exchange.message()])
        };
        session.answer(answer).await
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}
