//! `forward`: relays each conversation to another endpoint, over any transport.
//!
//! `greetd -l 'tcp://:8080=forward?to=unix:///run/app.sock'`. The target is resolved when the handler is made, so what
//! is wrong with it is said at start. Its own options hold for the way there, and so do its limits:
//! `handshake-timeout` bounds the call, `write-timeout` how long the target may take nothing of what it is sent,
//! `idle-timeout` how long one side may stay silent after the other has ended. An `&` between options of the target is
//! written `%26`, since it would end the option `to`.
//!
//! # How it relays
//! - The directions are independent: each reads only as fast as its other end takes what is read, and a direction that
//!   waits does not stop the other. The most that is held is what two sessions buffer.
//! - A half-close is passed on where the other side can be told of one. A side that cannot half-close, and ends, is
//!   gone, and so is the conversation.
//! - What the peer sends while the target is called waits. A call that fails ends the session with its reason; of
//!   datagrams, the next one calls again.
//! - Messages are relayed as they are. Give both sides the same framing, or none.
//!
//! # What it refuses
//! To relay to itself: a target at the very address that the peer called. It looks before it calls, since each call
//! would be the peer of the next. Of a target that is given by name it knows the address once it has called. Through
//! another relay it cannot know, and the limits end the circle.

mod direction;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::address::Address;
use crate::endpoint::{Authority, Endpoint};
use crate::error::{Error, Result};
use crate::handler::{Handler, Needs};
use crate::link::Peer;
use crate::options::{OptionDoc, OptionError};
use crate::registry::{Registry, ResolveError};
use crate::service::Dialler;
use crate::session::Session;
use direction::Direction;

/// How long a target that cannot be told of an end may go on answering what came before it.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// What [`Forward`] is made from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The endpoint to call.
    pub to: Option<String>,
}

/// The options of [`Forward`].
pub const OPTIONS: &[OptionDoc] = &[OptionDoc {
    name: "to",
    value: "ENDPOINT",
    default: "none; it must be given",
    help: "the endpoint to relay to, with its own options; write & in it as %26",
}];

/// Relays each conversation to an endpoint.
pub struct Forward {
    target: Dialler,
    /// Where the target is: as it is written, or as it was last found.
    place: Mutex<Option<Address>>,
}

impl Forward {
    /// A relay to the endpoint in the settings, which the registry resolves.
    pub fn new(settings: &Settings, registry: &Registry) -> Result<Self, ResolveError> {
        let wrong = |reason: &str| OptionError::Invalid(format!("the option `to` of `forward`: {reason}"));
        let to = settings.to.as_deref().ok_or_else(|| {
            OptionError::Invalid("`forward` needs the option `to`, such as forward?to=tcp://127.0.0.1:80".to_owned())
        })?;
        let endpoint: Endpoint = to.parse().map_err(|error: crate::EndpointError| wrong(&error.to_string()))?;
        let target = registry.dialler(&endpoint).map_err(|error| wrong(&error.to_string()))?;
        let place = match endpoint.authority {
            Authority::Ip { ip, port, .. } => Some(Address::Ip((ip, port).into())),
            Authority::Path(path) => Some(Address::UnixPath(path.into())),
            Authority::Abstract(name) => Some(Address::UnixAbstract(name.into_bytes().into())),
            Authority::Name(name) => Some(Address::named(name)),
            _ => None,
        };
        Ok(Forward { target, place: Mutex::new(place) })
    }

    async fn call(&self) -> Result<Session> {
        let limit = self.target.limits().handshake_timeout;
        match timeout(limit, self.target.dial()).await {
            Ok(Ok(session)) => Ok(session),
            Ok(Err(error)) => Err(Error::handler(error.to_string())),
            Err(_) => {
                let endpoint = self.target.endpoint().brief();
                Err(Error::handler(format!("failed to connect to {endpoint}: it took longer than {limit:?}")))
            }
        }
    }
}

#[async_trait]
impl Handler for Forward {
    async fn serve(&self, session: &mut Session) -> Result<()> {
        let place = self.place().clone();
        if let Some(place) = place {
            self.refuse_itself(session.peer(), &place)?;
        }
        let mut target = self.call().await?;
        self.place().replace(target.peer().remote.clone());
        self.refuse_itself(session.peer(), &target.peer().remote)?;
        self.relay(session, &mut target).await
    }

    /// What it relays to answers whoever asks, so it must not be turned against others by forged sources.
    fn needs(&self) -> Needs {
        Needs { responder: true, ..Needs::default() }
    }
}

impl Forward {
    fn place(&self) -> MutexGuard<'_, Option<Address>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An error where the target is at the address that the peer called, over the same transport.
    fn refuse_itself(&self, near: &Peer, target: &Address) -> Result<()> {
        let same_transport = near.route.scheme.rsplit('+').next() == Some(self.target.endpoint().transport());
        let same_address = match (near.local().ip(), target.ip()) {
            // An IPv4 address is the same on an IPv6 socket.
            (Some(called), Some(ip)) => {
                called.port() == ip.port() && near.local().canonical_ip() == target.canonical_ip()
            }
            _ => near.local() == target && *near.local() != Address::Unnamed,
        };
        if same_transport && same_address {
            let endpoint = self.target.endpoint().brief();
            return Err(Error::handler(format!("{endpoint} is this very listener: it would relay to itself")));
        }
        Ok(())
    }

    async fn relay(&self, near: &mut Session, far: &mut Session) -> Result<()> {
        let (near_way, far_way) = (near.peer().route.capabilities, far.peer().route.capabilities);
        let limits = self.target.limits();
        let silence = if far_way.half_close { limits.idle_timeout } else { limits.idle_timeout.min(LAST_ANSWERS) };
        let (from_near, to_near) = near.split();
        let (from_far, to_far) = far.split();
        let mut there = Direction::new(from_near, to_far, Some(limits.write_timeout), far_way.reliable);
        // The server has a clock of its own for the side that called.
        let mut back = Direction::new(from_far, to_near, None, near_way.reliable);
        loop {
            let near_is_gone = there.ended() && !near_way.half_close;
            let far_is_gone = back.ended() && !far_way.half_close;
            if near_is_gone || far_is_gone || (there.ended() && back.ended()) {
                return Ok(());
            }
            let one_ended = there.ended() || back.ended();
            tokio::select! {
                step = there.step(), if !there.ended() => step?,
                step = back.step(), if !back.ended() => step?,
                () = sleep(silence), if one_ended => return Ok(()),
            }
        }
    }
}
