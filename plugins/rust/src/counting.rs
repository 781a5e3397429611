//! A handler: greets, and counts whom it greeted.

use std::sync::atomic::{AtomicU64, Ordering};

use greetd::{Handler, Result, Session, async_trait};

/// One counter for all sessions.
#[derive(Debug, Default)]
pub(crate) struct Counting(AtomicU64);

#[async_trait]
impl Handler for Counting {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        while let Some(name) = session.recv().await? {
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            session.send_parts(&[b"Hello ", &name, b", you are number ", number.to_string().as_bytes()]).await?;
        }
        Ok(())
    }
}
