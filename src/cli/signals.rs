//! The signals that a daemon is told by.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for signals from when it is made on; before, they do what the kernel does by default.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    upgrade: Signal,
}

/// What a daemon is told.
pub(super) enum Told {
    /// To stop, by this signal.
    Stop(&'static str),
    /// To load again what may have changed.
    Reload,
}

impl Signals {
    pub(super) fn listen() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits until the daemon is to stop; gives the signal's name.
    pub(super) async fn stop(&mut self) -> &'static str {
        loop {
            if let Told::Stop(signal) = self.next().await {
                return signal;
            }
        }
    }

    /// Waits for what the daemon is told next.
    pub(super) async fn next(&mut self) -> Told {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Told::Stop("SIGTERM"),
                _ = self.interrupt.recv() => return Told::Stop("SIGINT"),
                _ = self.hangup.recv() => return Told::Reload,
                _ = self.upgrade.recv() => {
                    tracing::warn!("SIGUSR2 is ignored: an upgrade needs a configuration, and there is none");
                }
            }
        }
    }
}
