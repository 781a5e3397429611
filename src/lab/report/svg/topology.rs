//! The two hosts and the cables between them.

use super::drawing::Drawing;

/// The two hosts and the cables between them.
pub(in crate::lab::report) fn topology() -> String {
    let mut drawing = Drawing::default();
    for (x, name, lines) in [
        (
            10,
            "client",
            ["lo  127.0.0.1  ::1", "eth0  198.51.100.100", "2001:db8:1::100  fe80::100", "eth1  no address", ""],
        ),
        (
            420,
            "server",
            ["lo  127.0.0.1  ::1", "eth0  198.51.100.1  .2", "2001:db8:1::1  ::2  fe80::1", "eth1  203.0.113.1", ""],
        ),
    ] {
        drawing.host(name, (x, 10), (230, 130));
        for (line, y) in lines.iter().zip((58..).step_by(22)) {
            drawing.text("address", (x + 14, y), line);
        }
    }
    for (y, name) in [(75, "a cable: eth0 to eth0"), (119, "a cable: eth1 to eth1")] {
        drawing.line("cable", (240, y), (420, y));
        drawing.text("note middle", (330, y - 7), name);
    }
    drawing.finish("topology", "Two hosts, client and server, joined by two cables", (660, 150))
}
