//! Everything that ships passes the public conformance kit, in the few lines that a plugin needs as well.
//!
//! The lists come from the registry: whatever is added and cannot be tried here fails the suite. Framings have a suite
//! of their own, `tests/framings.rs`.

use greetd::registry::Kind;
use greetd::testing::{Outcome, transport_conforms};
use greetd::{Endpoint, Registry};

/// The endpoints at which a transport is tried: one for each kind of link and of address that it has.
fn endpoints(transport: &str, folder: &std::path::Path) -> Vec<String> {
    let path = folder.join(transport).display().to_string();
    match transport {
        "tcp" | "udp" => ["127.0.0.1:0", "[::1]:0", "0"].map(|address| format!("{transport}://{address}")).into(),
        "unix" | "unixpacket" | "unixgram" => {
            vec![format!("{transport}://{path}"), format!("{transport}://@greetd-conforms-{}", std::process::id())]
        }
        "memory" => ["stream", "messages", "datagrams"].map(|kind| format!("memory://?kind={kind}")).into(),
        // One conversation on the standard input and output of a process: tests/stdio.rs starts one.
        "stdio" => Vec::new(),
        other => panic!("say here where to bind `{other}`"),
    }
}

async fn try_transport(endpoint: &str) -> Outcome {
    let endpoint: Endpoint = endpoint.parse().unwrap();
    let service = Registry::builtin().service(&endpoint, "echo").unwrap();
    transport_conforms(&*service.transport, &endpoint).await
}

#[tokio::test]
async fn every_transport_conforms() {
    let folder = tempfile::tempdir().unwrap();
    for transport in Registry::builtin().items(Kind::Transport) {
        for endpoint in endpoints(transport.name, folder.path()) {
            try_transport(&endpoint).await.unwrap_or_else(|failure| panic!("{endpoint}: {failure}"));
        }
    }
}
