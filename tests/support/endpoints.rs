//! Where each transport is tried, without disturbing anybody.

use std::path::Path;

/// The endpoints that stand for a transport: one for each kind of link and of address that it has.
///
/// # Panics
/// For a transport that is not in the list, so that none is left out of the suites.
pub(crate) fn endpoints(transport: &str, folder: &Path) -> Vec<String> {
    let path = folder.join(transport).display().to_string();
    match transport {
        "tcp" | "udp" => ["127.0.0.1:0", "[::1]:0", "0"].map(|address| format!("{transport}://{address}")).into(),
        "unix" | "unixpacket" | "unixgram" => {
            vec![format!("{transport}://{path}"), format!("{transport}://@greetd-tests-{}", std::process::id())]
        }
        "memory" => ["stream", "messages", "datagrams"].map(|kind| format!("memory://?kind={kind}")).into(),
        // One conversation on the standard input and output of a process: tests/stdio.rs starts one.
        "stdio" => Vec::new(),
        other => panic!("say here where to bind `{other}`"),
    }
}
