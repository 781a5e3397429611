//! Where a handler ends its lines itself.

use crate::link::Peer;

/// What ends a line that is sent to this peer: nothing on a connection whose framing or transport ends it already.
///
/// Programs that know no framing expect it on a stream of plain bytes, and people who type datagrams at `nc -u` do.
pub(super) fn after_line(peer: &Peer, end: &'static str) -> &'static str {
    if peer.connected() && peer.route.keeps_messages { "" } else { end }
}
