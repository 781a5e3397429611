//! One datagram socket: the loop that the engine owns, for both kinds of sessions.
//!
//! - [`Sessions::Shared`]: one session answers all peers; when its handler returns, fails or panics it is begun anew.
//! - [`Sessions::PerPeer`]: a bounded table of peers (see [`peers`](super::peers)), all within this task.
//!
//! What comes in passes the rules for responders first, whatever kind the sessions are.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::Instrument;

use super::Report;
use super::connection::Record;
use super::guard::OwnListeners;
use super::listening::{Listening, Permit};
use super::peers;
use super::port::Port;
use crate::address::Address;
use crate::event::CloseReason;
use crate::handler::Sessions;
use crate::link::Peer;
use crate::session::{Session, SharedSocket, WireLink};
use crate::transport::DatagramSocket;

/// A shared session that ends before it has received anything is begun anew after a pause that doubles to the last.
const FIRST_RESTART_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Serves the socket until the server drains.
pub(super) async fn run(
    listening: Arc<Listening>,
    socket: Box<dyn DatagramSocket>,
    own_listeners: Arc<OwnListeners>,
) -> Report {
    let port = Port::new(listening.clone(), socket, own_listeners);
    match listening.service.handler.sessions() {
        Sessions::Shared => serve_shared(&listening, port).await,
        Sessions::PerPeer => peers::serve(&listening, port).await,
    }
}

async fn serve_shared(listening: &Arc<Listening>, port: Port) -> Report {
    let hub = &listening.hub;
    let clockless = listening.service.limits.without_clocks();
    let route = listening.service.route.clone();
    let mut port: Box<dyn SharedSocket> = Box::new(port);
    let mut pause = FIRST_RESTART_PAUSE;
    loop {
        let nobody = Peer::new(listening.local.clone(), Address::Unnamed, route.clone());
        let session = Session::over(WireLink::Shared(port), nobody);
        let permit = Permit::take(listening).expect("no limit holds for it");
        let mut record = Record::begin(permit, session, hub.now());
        let (span, mut watch) = (record.span(), hub.shutdown.watch());
        let ending = record.converse_under(&clockless, &mut watch).instrument(span).await;
        let totals = record.session().totals();
        let unreceived = record.session().take_unreceived();
        let link = record.session().wire().lock().take_link();
        let reason = ending.reason;
        record.end(&ending);
        if reason == CloseReason::Cut {
            return listening.report(false);
        }
        let Some(WireLink::Shared(same)) = link else {
            return listening.report(true);
        };
        port = same;
        if let Some(datagrams) = unreceived {
            port.put_back(datagrams);
        }
        if hub.shutdown.is_draining() {
            tokio::select! {
                () = std::future::poll_fn(|cx| port.poll_flush(cx)) => {}
                () = hub.shutdown.cutting() => {}
            }
            return listening.report(false);
        }
        if totals.messages_in > 0 {
            pause = FIRST_RESTART_PAUSE;
        } else {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_RESTART_PAUSE);
        }
    }
}
