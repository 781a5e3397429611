//! The engine that compiles and runs guests, set so that sessions are cheap and guests bounded.

use std::path::Path;
use std::sync::Arc;

use wasmtime::Config;

use super::cache;
use super::ticker::Ticker;

/// What may be reserved for the memory of an instance in one piece; addresses, not memory.
const RESERVED: u64 = 16 << 20;
/// A guest's stack, of which it only has what it touches.
const STACK: usize = 1 << 20;

/// An engine with its clock.
pub(super) struct Engine {
    pub(super) wasmtime: wasmtime::Engine,
    pub(super) ticker: Arc<Ticker>,
}

impl Engine {
    /// With a cache in that folder, where one is given.
    pub(super) fn new(cached: Option<&Path>) -> Result<Self, String> {
        let mut config = Config::new();
        config
            .epoch_interruption(true)
            .concurrency_support(false)
            .memory_reservation(RESERVED)
            .memory_reservation_for_growth(0)
            .memory_guard_size(64 << 10)
            .guard_before_linear_memory(false)
            .max_wasm_stack(STACK)
            .async_stack_size(STACK + (256 << 10));
        match cached.map(cache::open) {
            Some(Ok(cache)) => {
                config.cache(Some(cache));
            }
            // It works without, and takes longer to start.
            Some(Err(reason)) => tracing::warn!(target: "greetd", reason = %reason, "plugin.not-cached"),
            None => {}
        }
        let wasmtime = wasmtime::Engine::new(&config).map_err(|error| format!("no engine: {error:#}"))?;
        let ticker = Ticker::start(&wasmtime).map_err(|error| format!("no thread for its clock: {error}"))?;
        Ok(Engine { wasmtime, ticker: Arc::new(ticker) })
    }
}
