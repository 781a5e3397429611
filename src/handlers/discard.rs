//! `discard`: the Discard Protocol, RFC 863.

use async_trait::async_trait;

use crate::error::Result;
use crate::handler::{Handler, Sessions};
use crate::session::Session;

/// Throws away whatever comes, and never answers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Discard;

#[async_trait]
impl Handler for Discard {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        session.answer(|_| Ok(())).await
    }

    fn sessions(&self) -> Sessions {
        Sessions::Shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handlers::rehearsal::{Rehearsal, Stage};

    #[tokio::test]
    async fn everything_is_taken_and_nothing_answered() {
        for stage in [Stage::Raw, Stage::Messages, Stage::Datagrams] {
            let mut talk = Rehearsal::of(Discard, stage);
            for _ in 0..1000 {
                talk.says("into the void").await;
            }
            talk.falls_silent().await;
            assert_eq!(talk.hears_the_rest().await, "");
            talk.ends().await.unwrap();
        }
    }
}
