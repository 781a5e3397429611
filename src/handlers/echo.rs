//! `echo`: the Echo Protocol, RFC 862.

use async_trait::async_trait;

use crate::error::Result;
use crate::handler::{Handler, Needs, Sessions};
use crate::session::Session;

/// Sends each message back as it came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

#[async_trait]
impl Handler for Echo {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        session.answer(|exchange| exchange.reply(&[exchange.message()])).await
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }

    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};

    #[tokio::test]
    async fn each_message_comes_back_as_it_was_sent_even_an_empty_one() {
        for stage in [Stage::Messages, Stage::Datagrams] {
            let mut talk = Rehearsal::of(Echo, stage);
            for message in ["one", "", "\0\u{7f}\r\n"] {
                talk.says(message).await;
                assert_eq!(talk.hears().await, message);
            }
        }
    }

    #[tokio::test]
    async fn what_was_sent_before_the_half_close_still_comes_back() {
        let mut talk = Rehearsal::of(Echo, Stage::Raw);
        talk.says("last words").await;
        talk.falls_silent().await;
        assert_eq!(talk.hears_the_rest().await, "last words");
        talk.ends().await.unwrap();
    }
}
