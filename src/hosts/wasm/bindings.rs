//! The two sides of `plugins/wit/greetd.wit`, in Rust.

wasmtime::component::bindgen!({
    world: "plugin",
    path: "plugins/wit",
    exports: { default: async },
});

pub(super) use self::exports::greetd::plugin::handler::{About, Description, Instances};
pub(super) use self::greetd::plugin::types::{Action, Peer};
pub(super) use self::greetd::plugin::{host, types};
