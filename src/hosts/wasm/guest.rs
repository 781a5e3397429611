//! One instance of a component, with what it may use.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;
use wasmtime::component::ResourceAny;

use super::bindings::{Action, Description, Peer, Plugin, host, types};
use super::fault::Fault;
use super::loaded::Kit;
use super::memory::Memory;
use super::meter::Meter;
use super::said::Said;
use crate::event::PluginSessionFault;

/// The most bytes that an answer may have.
const LARGEST_ANSWER: usize = 1 << 20;
/// What a guest may hand over in one call of `log`, and around an answer.
const HANDED_OVER: usize = LARGEST_ANSWER + (64 << 10);

/// What an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Processor time for one message.
    pub(super) deadline: Duration,
    /// Memory in bytes.
    pub(super) memory: usize,
}

/// What the engine keeps with an instance.
pub(super) struct State {
    meter: Meter,
    memory: Memory,
    said: Arc<Said>,
}

impl host::Host for State {
    fn log(&mut self, level: host::Level, message: String) {
        self.said.line(level, &message);
    }
}

impl types::Host for State {}

/// An instance at work.
pub(super) struct Guest {
    store: Store<State>,
    plugin: Plugin,
    kit: Arc<Kit>,
    deadline: Duration,
}

/// A call of a guest: metered, and its failure told in words.
macro_rules! call {
    ($guest:ident, $limit:expr, $call:expr) => {{
        let limit = $limit;
        $guest.kit.turns.not_crowded().await;
        let _at_work = $guest.kit.ticker.at_work();
        $guest.store.data_mut().meter.begin(limit);
        $guest.store.set_epoch_deadline(1);
        let result = $call.await;
        $guest.store.data_mut().meter.end();
        result.map_err(|error| Fault::of_call(&error))
    }};
}

impl Guest {
    /// Makes an instance, which may take `patience` for it.
    pub(super) async fn start(kit: Arc<Kit>, allowance: Allowance, patience: Duration) -> Result<Self, Fault> {
        let state = State {
            meter: Meter::new(kit.turns.clone()),
            memory: Memory::new(allowance.memory, kit.together.clone()),
            said: kit.said.clone(),
        };
        let mut store = Store::new(kit.component.engine(), state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(HANDED_OVER);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().meter.slice()?));
        store.data_mut().meter.begin(patience);
        store.set_epoch_deadline(1);
        let plugin = {
            let _at_work = kit.ticker.at_work();
            kit.component.instantiate_async(&mut store).await.map_err(|error| Fault::of_start(&error))?
        };
        store.data_mut().meter.end();
        Ok(Guest { store, plugin, kit, deadline: allowance.deadline })
    }

    pub(super) async fn describe(&mut self, patience: Duration) -> Result<Description, Fault> {
        let handler = self.plugin.greetd_plugin_handler();
        call!(self, patience, handler.call_describe(&mut self.store))
    }

    /// Begins a session.
    pub(super) async fn session(&mut self, peer: &Peer) -> Result<ResourceAny, Fault> {
        let handler = self.plugin.greetd_plugin_handler();
        call!(self, self.deadline, handler.session().call_constructor(&mut self.store, peer))
    }

    pub(super) async fn on_open(&mut self, session: ResourceAny) -> Result<Action, Fault> {
        let handler = self.plugin.greetd_plugin_handler();
        call!(self, self.deadline, handler.session().call_on_open(&mut self.store, session)).and_then(bounded)
    }

    pub(super) async fn on_message(&mut self, session: ResourceAny, message: &[u8]) -> Result<Action, Fault> {
        let handler = self.plugin.greetd_plugin_handler();
        call!(self, self.deadline, handler.session().call_on_message(&mut self.store, session, message))
            .and_then(bounded)
    }

    pub(super) async fn on_close(&mut self, session: ResourceAny) -> Result<(), Fault> {
        let handler = self.plugin.greetd_plugin_handler();
        call!(self, self.deadline, handler.session().call_on_close(&mut self.store, session))
    }

    /// Ends a session: the guest may free what it kept of it.
    pub(super) async fn forget(&mut self, session: ResourceAny) -> Result<(), Fault> {
        call!(self, self.deadline, session.resource_drop_async(&mut self.store))
    }
}

fn bounded(action: Action) -> Result<Action, Fault> {
    match &action {
        Action::Reply(answer) | Action::Close(answer) if answer.len() > LARGEST_ANSWER => {
            let words = format!("answered with {} bytes, and may with {LARGEST_ANSWER}", answer.len());
            Err(Fault::new(PluginSessionFault::Flood, words))
        }
        _ => Ok(action),
    }
}
