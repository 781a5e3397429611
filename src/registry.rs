//! The [`Registry`] pairs any handler with any transport by name.
//!
//! It holds named factories with typed options. A name taken twice is an error, an unknown one lists the known and the
//! nearest, and a pairing that cannot work is refused with the reason before anything is bound.
//! [`Registry::builtin`] is the one list of what ships; whoever embeds greetd adds to it:
//!
//! ```
//! use std::sync::Arc;
//! use greetd::registry::{Item, NoOptions};
//! let mut registry = greetd::Registry::builtin();
//! registry.add_handler(Item::new("shout", "answers in capitals"), |_: NoOptions, _| {
//!     Ok(Arc::new(greetd::reply_fn(|message| message.to_ascii_uppercase())))
//! })?;
//! let service = registry.service(&"tcp://127.0.0.1:0?framing=lines".parse()?, "shout")?;
//! assert_eq!(service.handler_name, "shout");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::endpoint::{Endpoint, EndpointError};
use crate::framing::Framing;
use crate::handler::{Handler, Needs};
use crate::layer::Layer;
use crate::limits::{self, Limits};
use crate::link::{Capabilities, Route};
use crate::options::{OptionDoc, OptionError, Options};
use crate::service::{Dialler, Service};
use crate::transport::Transport;

/// The framing of bytes where none is named.
pub const DEFAULT_FRAMING: &str = "raw";

/// A name, what stands behind it, and the options that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    /// What is typed.
    pub name: &'static str,
    /// What it is, in one line.
    pub about: &'static str,
    /// Its options.
    pub options: &'static [OptionDoc],
    /// Of a transport: the address that the command line binds where none is given.
    pub address: &'static str,
    /// Of a handler: the option that `NAME:TEXT` sets, for `exec:/bin/cat` in the place of `exec?command=/bin/cat`.
    pub argument: Option<&'static str>,
    /// Of a handler: whether it takes options that are not listed, and judges them itself.
    pub any_options: bool,
}

impl Item {
    /// An item without options.
    pub const fn new(name: &'static str, about: &'static str) -> Self {
        Item { name, about, options: &[], address: "127.0.0.1:8080", argument: None, any_options: false }
    }

    /// The same with another address to bind where none is given; for transports without ports.
    #[must_use]
    pub const fn with_address(mut self, address: &'static str) -> Self {
        self.address = address;
        self
    }

    /// The same with options.
    #[must_use]
    pub const fn with_options(mut self, options: &'static [OptionDoc]) -> Self {
        self.options = options;
        self
    }

    /// The same with an option that may follow the name behind a colon, as it stands, to the end.
    #[must_use]
    pub const fn with_argument(mut self, option: &'static str) -> Self {
        self.argument = Some(option);
        self
    }

    /// The same, taking whatever options are given.
    #[must_use]
    pub const fn with_any_options(mut self) -> Self {
        self.any_options = true;
        self
    }

    fn takes(&self, option: &str) -> bool {
        self.any_options || self.options.iter().any(|known| known.name == option)
    }

    /// Names the first option that it does not take.
    fn check(&self, kind: Kind, options: &Options) -> Result<(), ResolveError> {
        options.iter().find(|(option, _)| !self.takes(option)).map_or(Ok(()), |(unknown, _)| {
            Err(ResolveError::UnknownOption {
                scope: format!("the {kind} `{}`", self.name),
                name: unknown.to_owned(),
                nearest: nearest(unknown, self.options.iter().map(|option| option.name)),
                owners: Vec::new(),
            })
        })
    }
}

/// For items that take no options.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoOptions {}

/// What a framing is made with besides its options: the size in bytes of the largest message.
pub type LargestMessage = usize;

type Factory<T, C> = Arc<dyn Fn(&Options, C) -> Result<Arc<T>, OptionError> + Send + Sync>;
type HandlerFactory = Arc<dyn Fn(&Options, &Registry) -> Result<Arc<dyn Handler>, ResolveError> + Send + Sync>;

struct Entry<F> {
    item: Item,
    factory: F,
}

impl<F: Clone> Clone for Entry<F> {
    fn clone(&self) -> Self {
        Entry { item: self.item, factory: self.factory.clone() }
    }
}

/// What is known by name. Cloning is cheap enough to hand one to whoever resolves later.
#[derive(Clone, Default)]
pub struct Registry {
    transports: Names<Factory<dyn Transport, ()>>,
    layers: Names<Factory<dyn Layer, ()>>,
    framings: Names<Factory<dyn Framing, LargestMessage>>,
    handlers: Names<HandlerFactory>,
}

type Names<F> = BTreeMap<&'static str, Entry<F>>;

/// A name that is taken already.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is a {kind} named `{name}` already")]
pub struct NameTaken {
    kind: Kind,
    name: &'static str,
}

/// What a name can stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A way to carry messages.
    Transport,
    /// A wrapper around links.
    Layer,
    /// A way to cut bytes into messages.
    Framing,
    /// The logic.
    Handler,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Kind::Transport => "transport",
            Kind::Layer => "layer",
            Kind::Framing => "framing",
            Kind::Handler => "handler",
        })
    }
}

/// Why an endpoint and a handler make no service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// The text is no endpoint.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// A name that is not registered.
    #[error("there is no {kind} `{name}`{}; known are {known}", nearest_hint(.nearest.as_deref()))]
    Unknown {
        /// What was looked for.
        kind: Kind,
        /// The name that was given.
        name: String,
        /// All names there are.
        known: String,
        /// The name that was perhaps meant.
        nearest: Option<String>,
    },
    /// An option that nothing in the endpoint takes.
    #[error("{scope} has no option `{name}`{}{}", nearest_hint(.nearest.as_deref()), owners_hint(.owners))]
    UnknownOption {
        /// The scheme or the handler.
        scope: String,
        /// The option that was given.
        name: String,
        /// The option that was perhaps meant.
        nearest: Option<String>,
        /// What else does take it.
        owners: Vec<String>,
    },
    /// A value that does not fit its option.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// Parts that do not go together.
    #[error("{reason}")]
    Mismatch {
        /// Why, and the nearest that works.
        reason: String,
    },
}

fn nearest_hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(" (did you mean `{name}`?)")).unwrap_or_default()
}

fn owners_hint(owners: &[String]) -> String {
    if owners.is_empty() { String::new() } else { format!("; it is an option of {}", owners.join(", ")) }
}

impl Registry {
    /// A registry that knows nothing.
    pub fn empty() -> Self {
        Registry::default()
    }

    /// All that ships with this build.
    pub fn builtin() -> Self {
        crate::builtin::registry()
    }

    /// Adds a transport. The factory gets the options that the item lists.
    pub fn add_transport<O, F>(&mut self, item: Item, factory: F) -> Result<(), NameTaken>
    where
        O: DeserializeOwned,
        F: Fn(O) -> Result<Arc<dyn Transport>, OptionError> + Send + Sync + 'static,
    {
        add(
            &mut self.transports,
            Kind::Transport,
            item,
            Arc::new(move |options: &Options, ()| factory(options.read()?)),
        )
    }

    /// Adds a layer.
    pub fn add_layer<O, F>(&mut self, item: Item, factory: F) -> Result<(), NameTaken>
    where
        O: DeserializeOwned,
        F: Fn(O) -> Result<Arc<dyn Layer>, OptionError> + Send + Sync + 'static,
    {
        add(&mut self.layers, Kind::Layer, item, Arc::new(move |options: &Options, ()| factory(options.read()?)))
    }

    /// Adds a framing. The factory also gets the size of the largest message.
    pub fn add_framing<O, F>(&mut self, item: Item, factory: F) -> Result<(), NameTaken>
    where
        O: DeserializeOwned,
        F: Fn(O, LargestMessage) -> Result<Arc<dyn Framing>, OptionError> + Send + Sync + 'static,
    {
        let factory = move |options: &Options, largest| factory(options.read()?, largest);
        add(&mut self.framings, Kind::Framing, item, Arc::new(factory))
    }

    /// Adds a handler. The factory also gets the registry, for handlers that call other endpoints.
    pub fn add_handler<O, F>(&mut self, item: Item, factory: F) -> Result<(), NameTaken>
    where
        O: DeserializeOwned,
        F: Fn(O, &Registry) -> Result<Arc<dyn Handler>, ResolveError> + Send + Sync + 'static,
    {
        let factory = move |options: &Options, registry: &Registry| factory(options.read()?, registry);
        add(&mut self.handlers, Kind::Handler, item, Arc::new(factory))
    }

    /// What is registered of a kind, by name.
    pub fn items(&self, kind: Kind) -> Vec<Item> {
        match kind {
            Kind::Transport => self.transports.values().map(|entry| entry.item).collect(),
            Kind::Layer => self.layers.values().map(|entry| entry.item).collect(),
            Kind::Framing => self.framings.values().map(|entry| entry.item).collect(),
            Kind::Handler => self.handlers.values().map(|entry| entry.item).collect(),
        }
    }

    /// The capabilities of a transport as its options default.
    pub fn capabilities(&self, transport: &str) -> Result<Capabilities, ResolveError> {
        let entry = find(&self.transports, Kind::Transport, transport)?;
        Ok((entry.factory)(&Options::default(), ())?.capabilities())
    }

    /// A handler from its name and options: `hello` or `hello?welcome=hi`; for some, `exec:/bin/cat` (see
    /// [`Item::with_argument`]).
    pub fn handler(&self, spec: &str) -> Result<NamedHandler, ResolveError> {
        let (name, options) = match self.argument(spec) {
            Some((name, option, text)) => {
                let mut options = Options::default();
                options.set(option, text);
                (name, options)
            }
            None => split_spec(spec)?,
        };
        let entry = find(&self.handlers, Kind::Handler, name)?;
        entry.item.check(Kind::Handler, &options)?;
        let handler = (entry.factory)(&options, self)?;
        Ok(NamedHandler { name: entry.item.name, handler })
    }

    /// Takes `NAME:TEXT` apart, where that handler takes an argument.
    fn argument<'a>(&self, spec: &'a str) -> Option<(&'a str, &'static str, &'a str)> {
        let (name, text) = spec.split_once(':')?;
        Some((name, self.handlers.get(name)?.item.argument?, text))
    }

    /// A framing from its name and options: `lines` or `lines?max-line=1KiB`. `largest` is the size in bytes of the
    /// largest message that it takes from a peer.
    pub fn framing(&self, spec: &str, largest: LargestMessage) -> Result<Arc<dyn Framing>, ResolveError> {
        let (name, options) = split_spec(spec)?;
        let entry = find(&self.framings, Kind::Framing, name)?;
        entry.item.check(Kind::Framing, &options)?;
        Ok((entry.factory)(&options, largest)?)
    }

    /// A service: an endpoint to bind, and the handler that answers there. No I/O is done.
    pub fn service(&self, endpoint: &Endpoint, handler: &str) -> Result<Service, ResolveError> {
        let handler = self.handler(handler)?;
        self.service_of(endpoint, handler.name, handler.handler)
    }

    /// The same with a handler that is not registered.
    pub fn service_of(
        &self,
        endpoint: &Endpoint,
        name: impl Into<String>,
        handler: Arc<dyn Handler>,
    ) -> Result<Service, ResolveError> {
        let name = name.into();
        let parts = self.resolve(endpoint)?;
        let needs = handler.needs();
        let framed = parts.route.keeps_messages;
        if let Some(missing) = needs.missing(parts.route.capabilities, framed) {
            return Err(ResolveError::Mismatch { reason: self.explain_need(&name, endpoint, needs, missing, framed) });
        }
        Ok(Service {
            endpoint: endpoint.clone(),
            transport: parts.transport,
            layers: parts.layers,
            framing: parts.framing,
            handler,
            handler_name: name,
            limits: parts.limits,
            route: parts.route,
        })
    }

    /// What is needed to call an endpoint. No I/O is done.
    pub fn dialler(&self, endpoint: &Endpoint) -> Result<Dialler, ResolveError> {
        let parts = self.resolve(endpoint)?;
        Ok(Dialler {
            endpoint: endpoint.clone(),
            transport: parts.transport,
            layers: parts.layers,
            framing: parts.framing,
            limits: parts.limits,
            route: parts.route,
        })
    }

    fn resolve(&self, endpoint: &Endpoint) -> Result<Parts, ResolveError> {
        let mut options = endpoint.options.clone();
        let transport = find(&self.transports, Kind::Transport, endpoint.transport())?;
        let layers: Vec<_> =
            endpoint.layers().map(|name| find(&self.layers, Kind::Layer, name)).collect::<Result<_, _>>()?;

        let framing_name = options.take(|name| name == "framing").get("framing").map(str::to_owned);
        let limits = Limits::read(&options.take(limits::is_limit))?;
        let transport_made = (transport.factory)(&options.take(|name| transport.item.takes(name)), ())?;

        let mut capabilities = transport_made.capabilities();
        let mut layers_made = Vec::new();
        for layer in layers.iter().rev() {
            let made = (layer.factory)(&options.take(|name| layer.item.takes(name)), ())?;
            capabilities = made.over(capabilities).map_err(|reason| ResolveError::Mismatch { reason })?;
            layers_made.push(made);
        }

        let framing =
            self.framing_of(endpoint, capabilities, framing_name.as_deref(), &mut options, limits.max_message)?;
        if let Some((unknown, _)) = options.iter().next() {
            return Err(self.unknown_option(endpoint, unknown));
        }
        let route = Route {
            scheme: endpoint.scheme(),
            framing: framing.as_ref().map(|(name, _)| (*name).to_owned()),
            capabilities,
            keeps_messages: framing.as_ref().map_or(capabilities.boundaries, |(_, framing)| framing.boundaries()),
        };
        Ok(Parts {
            transport: transport_made,
            layers: layers_made,
            framing: framing.map(|(_, framing)| framing),
            limits,
            route: Arc::new(route),
        })
    }

    fn framing_of(
        &self,
        endpoint: &Endpoint,
        capabilities: Capabilities,
        name: Option<&str>,
        options: &mut Options,
        largest: usize,
    ) -> Result<Option<NamedFraming>, ResolveError> {
        if capabilities.boundaries {
            return match name {
                None => Ok(None),
                Some(name) => Err(ResolveError::Mismatch {
                    reason: format!(
                        "`{name}` cannot frame `{}`: {} is already a message. Leave framing out.",
                        endpoint.scheme(),
                        if capabilities.connected { "what it carries" } else { "a datagram" }
                    ),
                }),
            };
        }
        let entry = find(&self.framings, Kind::Framing, name.unwrap_or(DEFAULT_FRAMING))?;
        let made = (entry.factory)(&options.take(|name| entry.item.takes(name)), largest)?;
        Ok(Some((entry.item.name, made)))
    }

    fn unknown_option(&self, endpoint: &Endpoint, unknown: &str) -> ResolveError {
        let in_reach = [endpoint.transport()].into_iter().chain(endpoint.layers());
        let known_here = in_reach
            .filter_map(|name| {
                let transport = self.transports.get(name).map(|entry| entry.item);
                transport.or_else(|| self.layers.get(name).map(|entry| entry.item))
            })
            .flat_map(|item| item.options.iter().map(|option| option.name))
            .chain(limits::OPTIONS.iter().map(|option| option.name))
            .chain(["framing"]);
        let mut owners: Vec<String> = Vec::new();
        for kind in [Kind::Transport, Kind::Layer, Kind::Framing] {
            owners.extend(
                self.items(kind).iter().filter(|item| item.takes(unknown)).map(|item| format!("`{}`", item.name)),
            );
        }
        ResolveError::UnknownOption {
            scope: format!("`{}`", endpoint.scheme()),
            name: unknown.to_owned(),
            nearest: if owners.is_empty() { nearest(unknown, known_here) } else { None },
            owners,
        }
    }

    fn explain_need(&self, handler: &str, endpoint: &Endpoint, needs: Needs, missing: &str, framed: bool) -> String {
        let suited: Vec<String> = self
            .items(Kind::Transport)
            .iter()
            .filter(|item| self.capabilities(item.name).is_ok_and(|offered| needs.missing(offered, framed).is_none()))
            .map(|item| format!("`{}`", item.name))
            .collect();
        let remedy = if suited.is_empty() && needs.boundaries {
            "Name a framing, such as framing=lines.".to_owned()
        } else {
            format!("It works over {}.", suited.join(", "))
        };
        format!("the handler `{handler}` needs {missing}, which `{}` is not. {remedy}", endpoint.scheme())
    }
}

/// A handler with its name.
#[derive(Clone)]
pub struct NamedHandler {
    /// The name that it is registered under.
    pub name: &'static str,
    /// The handler.
    pub handler: Arc<dyn Handler>,
}

type NamedFraming = (&'static str, Arc<dyn Framing>);

/// What an endpoint resolves to.
struct Parts {
    transport: Arc<dyn Transport>,
    layers: Vec<Arc<dyn Layer>>,
    framing: Option<Arc<dyn Framing>>,
    limits: Limits,
    route: Arc<Route>,
}

fn add<F>(names: &mut Names<F>, kind: Kind, item: Item, factory: F) -> Result<(), NameTaken> {
    if names.contains_key(item.name) {
        return Err(NameTaken { kind, name: item.name });
    }
    names.insert(item.name, Entry { item, factory });
    Ok(())
}

/// Splits `hello?welcome=hi` into the name and the options.
fn split_spec(spec: &str) -> Result<(&str, Options), OptionError> {
    let (name, query) = spec.split_once('?').unwrap_or((spec, ""));
    Ok((name, Options::parse(query)?))
}

fn find<'a, F>(names: &'a Names<F>, kind: Kind, name: &str) -> Result<&'a Entry<F>, ResolveError> {
    names.get(name).ok_or_else(|| ResolveError::Unknown {
        kind,
        name: name.to_owned(),
        known: names.keys().copied().collect::<Vec<_>>().join(", "),
        nearest: nearest(name, names.keys().copied()),
    })
}

/// The known name that a mistyped one was perhaps meant to be.
pub fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|name| (strsim::damerau_levenshtein(typed, name), name))
        .filter(|(distance, name)| *distance <= 2.max(name.len() / 3))
        .min()
        .map(|(_, name)| name.to_owned())
}
