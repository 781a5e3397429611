//! `upper`: answers in capitals, as the tutorials' servers do.
//!
//! ASCII letters alone are changed, unless `unicode=yes`. A stream may cut a message anywhere, also inside of a
//! character, and the answer must not depend on where; it must not be longer than its request either, and `ΐ` has a
//! capital form of three times its length. Whoever sends whole messages can have all letters.

use async_trait::async_trait;
use serde::Deserialize;

use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::options::OptionDoc;
use crate::session::{Exchange, Session};

/// Sends each message back in capitals; what is no text passes byte for byte.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upper {
    /// Whether the letters of all scripts are changed, rather than ASCII's alone.
    pub unicode: bool,
}

/// The options of [`Upper`].
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "unicode",
    value: "yes|no",
    default: "no",
    help: "capitals in all scripts, for whole messages; otherwise of a to z alone",
}];

#[async_trait]
impl Handler for Upper {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let mut reply = Vec::new();
        let answer = |exchange: &mut Exchange<'_>| {
            reply.clear();
            if self.unicode {
                capitals(exchange.message(), &mut reply);
            } else {
                reply.extend_from_slice(exchange.message());
                reply.make_ascii_uppercase();
            }
            exchange.reply(&[&reply])
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

/// Appends the text in capitals, by Unicode's rules; bytes that are no UTF-8 as they are.
fn capitals(text: &[u8], reply: &mut Vec<u8>) {
    for chunk in text.utf8_chunks() {
        reply.extend_from_slice(chunk.valid().to_uppercase().as_bytes());
        reply.extend_from_slice(chunk.invalid());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};

    async fn answer(unicode: bool, message: &[u8]) -> Vec<u8> {
        let mut talk = Rehearsal::of(Upper { unicode }, Stage::Messages);
        talk.says(message).await;
        talk.hears_bytes().await
    }

    #[tokio::test]
    async fn ascii_letters_become_capitals_and_all_other_bytes_stay() {
        assert_eq!(answer(false, "stra\u{df}e 7 \u{e9}\n".as_bytes()).await, "STRA\u{df}E 7 \u{e9}\n".as_bytes());
        assert_eq!(answer(false, b"a\xffb\xc3").await, b"A\xffB\xc3");
    }

    #[tokio::test]
    async fn all_letters_become_capitals_where_that_is_asked_for() {
        assert_eq!(answer(true, "stra\u{df}e \u{e9}".as_bytes()).await, "STRASSE \u{c9}".as_bytes());
        assert_eq!(answer(true, b"a\xff\xc3\xa9\xc3").await, b"A\xff\xc3\x89\xc3");
    }

    proptest! {
        #[test]
        fn bytes_that_are_no_text_are_never_lost(bytes in proptest::collection::vec(128u8..=255, 0..20)) {
            let mut reply = Vec::new();
            capitals(&bytes, &mut reply);
            let invalid = |text: &[u8]| text.utf8_chunks().flat_map(|chunk| chunk.invalid().to_vec()).collect::<Vec<_>>();
            prop_assert_eq!(invalid(&reply), invalid(&bytes));
        }
    }
}
