//! An instance that sessions share. One call follows the other, and one that fails ends them all.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use wasmtime::component::ResourceAny;

use super::fault::Fault;
use super::guest::{Allowance, Guest};
use super::loaded::Loaded;

/// What is to be done with the instance.
type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// The instance.
pub(super) struct Shared {
    guest: tokio::sync::Mutex<Guest>,
    allowance: Allowance,
    /// Sessions that are over, and of which the guest does not know it yet.
    over: Mutex<Vec<ResourceAny>>,
    /// Why it serves nobody any more.
    broken: OnceLock<Fault>,
}

impl Shared {
    /// The instance for such an allowance that there is, or a new one.
    pub(super) async fn of(loaded: &Arc<Loaded>, allowance: Allowance, patience: Duration) -> Result<Arc<Self>, Fault> {
        let mut shared = loaded.shared.lock().await;
        shared.retain(|shared| shared.broken.get().is_none());
        if let Some(shared) = shared.iter().find(|shared| shared.allowance == allowance) {
            return Ok(shared.clone());
        }
        let guest =
            Guest::start(loaded.kit.clone(), allowance, patience).await.inspect_err(|fault| loaded.failed(fault))?;
        let new = Arc::new(Shared {
            guest: tokio::sync::Mutex::new(guest),
            allowance,
            over: Mutex::default(),
            broken: OnceLock::new(),
        });
        shared.push(new.clone());
        Ok(new)
    }

    /// Calls the guest, when all that were before are done. A session that is cut meanwhile does not stop the call
    /// half-way, which would leave an instance that nobody can use.
    pub(super) async fn work<T: Send + 'static>(
        self: &Arc<Self>,
        loaded: &Arc<Loaded>,
        work: impl for<'a> FnOnce(&'a mut Guest) -> Work<'a, T> + Send + 'static,
    ) -> Result<T, Fault> {
        let (shared, loaded) = (self.clone(), loaded.clone());
        let done = tokio::spawn(async move {
            let mut guest = shared.guest.lock().await;
            loaded.must_be_enabled()?;
            if let Some(fault) = shared.broken.get() {
                return Err(Fault::other(format!("shared an instance with a session in which it {fault}")));
            }
            let result = async {
                for session in shared.those_over() {
                    guest.forget(session).await?;
                }
                work(&mut guest).await
            }
            .await;
            if let Err(fault) = &result {
                loaded.failed(fault);
                let _ = shared.broken.set(fault.clone());
            }
            result
        });
        done.await.map_err(|error| Fault::other(format!("could not be called: {error}")))?
    }

    fn those_over(&self) -> Vec<ResourceAny> {
        std::mem::take(&mut self.over.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A session is over: the guest hears of it before the next call.
    pub(super) fn is_over(&self, session: ResourceAny) {
        self.over.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}
