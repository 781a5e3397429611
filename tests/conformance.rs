//! Everything that ships passes the public conformance kit, in the few lines that a plugin needs as well.
//!
//! The lists come from the registry: whatever is added and cannot be tried here fails the suite. Framings have a suite
//! of their own, `tests/framings.rs`.

#[path = "support/endpoints.rs"]
mod endpoints;

use std::sync::Arc;

use endpoints::endpoints;
use greetd::registry::Kind;
use greetd::testing::{Outcome, handler_conforms, layer_conforms, transport_conforms};
use greetd::{Endpoint, Layer, Registry, Server};

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

/// The options of a layer's two sides, the server's and the client's; several where it is several things.
fn sides(layer: &str) -> Vec<(&'static str, &'static str)> {
    match layer {
        "faults" => vec![("", ""), ("?jitter=5ms&split=0.5&coalesce=0.1", "?delay=1ms")],
        other => panic!("say here how to open `{other}`"),
    }
}

fn layer(name: &str, options: &str) -> (Arc<dyn Layer>, Endpoint) {
    let endpoint: Endpoint = format!("{name}+tcp://127.0.0.1:0{options}").parse().unwrap();
    let service = Registry::builtin().service(&endpoint, "echo").unwrap();
    (service.layers[0].clone(), endpoint)
}

#[tokio::test(start_paused = true)]
async fn every_layer_conforms() {
    for item in Registry::builtin().items(Kind::Layer) {
        for (server, client) in sides(item.name) {
            let ((server, _), (client, to)) = (layer(item.name, server), layer(item.name, client));
            let outcome = layer_conforms(&*server, &*client, &to).await;
            outcome.unwrap_or_else(|failure| panic!("{to}: {failure}"));
        }
    }
}

/// How a handler is tried, and whether it works with what is outside of this process: then its clock cannot be paused.
fn spec(handler: &str) -> (&str, bool) {
    match handler {
        "exec" => ("exec:cat", true),
        "forward" => ("forward?to=memory://behind", false),
        name => (name, false),
    }
}

async fn try_handlers(outside: bool) {
    let registry = Registry::builtin();
    let service = registry.service(&"memory://behind".parse().unwrap(), "echo").unwrap();
    let _behind = Server::new().serve(service).bind().await.unwrap().start();
    for item in registry.items(Kind::Handler) {
        let (spec, is_outside) = spec(item.name);
        if is_outside == outside {
            let handler = registry.handler(spec).unwrap().handler;
            handler_conforms(handler).await.unwrap_or_else(|failure| panic!("{spec}: {failure}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_handler_conforms() {
    try_handlers(false).await;
}

#[tokio::test]
async fn every_handler_that_works_with_other_processes_conforms() {
    try_handlers(true).await;
}
