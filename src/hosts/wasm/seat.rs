//! A session's place: in an instance of its own, or in one that it shares.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::ResourceAny;

use super::bindings::{Action, Instances, Peer};
use super::fault::Fault;
use super::guest::Guest;
use super::loaded::Loaded;
use super::settings::Settings;
use super::shared::Shared;

/// Where a session is served.
pub(super) struct Seat {
    loaded: Arc<Loaded>,
    session: ResourceAny,
    place: Place,
}

enum Place {
    Own(Box<Guest>),
    Shared(Arc<Shared>),
}

impl Seat {
    /// Makes an instance, or goes to the one that there is, and begins a session in it.
    pub(super) async fn take(
        loaded: Arc<Loaded>,
        settings: &Settings,
        peer: Peer,
        patience: Duration,
    ) -> Result<Self, Fault> {
        loaded.must_be_enabled()?;
        let instances = loaded.instances();
        let allowance = settings.allowance(instances);
        let (place, session) = match instances {
            Instances::PerSession => {
                let begun = async {
                    let mut guest = Guest::start(loaded.kit.clone(), allowance, patience).await?;
                    let session = guest.session(&peer).await?;
                    Ok((Place::Own(Box::new(guest)), session))
                };
                begun.await.inspect_err(|fault: &Fault| loaded.failed(fault))?
            }
            Instances::Shared => {
                let shared = Shared::of(&loaded, allowance, patience).await?;
                let session = shared.work(&loaded, move |guest| Box::pin(async move { guest.session(&peer).await }));
                let session = session.await?;
                (Place::Shared(shared), session)
            }
        };
        Ok(Seat { loaded, session, place })
    }

    pub(super) async fn on_open(&mut self) -> Result<Action, Fault> {
        let session = self.session;
        match &mut self.place {
            Place::Own(guest) => guest.on_open(session).await.inspect_err(|fault| self.loaded.failed(fault)),
            Place::Shared(shared) => shared.work(&self.loaded, move |guest| Box::pin(guest.on_open(session))).await,
        }
    }

    pub(super) async fn on_message(&mut self, message: Bytes) -> Result<Action, Fault> {
        self.loaded.must_be_enabled()?;
        let session = self.session;
        match &mut self.place {
            Place::Own(guest) => {
                guest.on_message(session, &message).await.inspect_err(|fault| self.loaded.failed(fault))
            }
            Place::Shared(shared) => {
                let work = shared.work(&self.loaded, move |guest| {
                    Box::pin(async move { guest.on_message(session, &message).await })
                });
                work.await
            }
        }
    }

    pub(super) async fn on_close(&mut self) -> Result<(), Fault> {
        let session = self.session;
        match &mut self.place {
            Place::Own(guest) => guest.on_close(session).await.inspect_err(|fault| self.loaded.failed(fault)),
            Place::Shared(shared) => shared.work(&self.loaded, move |guest| Box::pin(guest.on_close(session))).await,
        }
    }
}

/// An instance of one's own goes with its session; a shared one must be told.
impl Drop for Seat {
    fn drop(&mut self) {
        if let Place::Shared(shared) = &self.place {
            shared.is_over(self.session);
        }
    }
}
