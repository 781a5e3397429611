//! From the words of the command line to services: no I/O, and every fault is found.

use super::Args;
use crate::cli::failure::Failure;
use crate::endpoint::{Authority, Endpoint, EndpointError};
use crate::options::Options;
use crate::registry::{Kind, Registry, ResolveError};
use crate::service::Service;
use crate::verdict::Verdict;

const DEFAULT_TRANSPORT: &str = "tcp";

/// What is asked for in one listener.
struct Wanted {
    /// As it was written.
    text: String,
    endpoint: Result<Endpoint, EndpointError>,
    handler: String,
}

/// The services that the words ask for, or all that is wrong with them.
pub(super) fn resolve(args: &Args, options: Options, registry: &Registry) -> Result<Vec<Service>, Failure> {
    let mut everywhere = options;
    if let Some(framing) = &args.framing {
        everywhere.set("framing", framing);
    }
    let wanted = wanted(args, registry);
    let several = wanted.len() > 1;
    let mut services = Vec::new();
    let mut faults: Vec<String> = Vec::new();
    for wanted in wanted {
        let place = if several { format!(" (in {})", wanted.text) } else { String::new() };
        match service(&wanted, &everywhere, registry) {
            Ok(service) => services.push(service),
            Err(found) => faults.extend(found.into_iter().map(|fault| fault + &place)),
        }
    }
    let mut each = faults.iter();
    match each.next() {
        None => Ok(services),
        Some(first) => Err(Failure::new(Verdict::Usage, first.clone())
            .with_causes(each.map(|fault| format!("also: {fault}")))
            .with_fact("faults", &faults)),
    }
}

/// The listener of `--transport` and `--bind`, unless only others are asked for, and those of `--listen`.
fn wanted(args: &Args, registry: &Registry) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    if args.listen.is_empty() || args.transport.is_some() || args.bind.is_some() {
        let scheme = args.transport.as_deref().unwrap_or(DEFAULT_TRANSPORT);
        let endpoint = plain_endpoint(scheme, args.bind.as_deref(), registry);
        let text = format!("{scheme}://{}", args.bind.as_deref().unwrap_or_default());
        wanted.push(Wanted { text, endpoint, handler: args.handler.clone() });
    }
    for text in &args.listen {
        let (endpoint, handler) = split_handler(text);
        wanted.push(Wanted {
            text: text.clone(),
            endpoint: endpoint.parse(),
            handler: handler.unwrap_or(&args.handler).to_owned(),
        });
    }
    wanted
}

fn plain_endpoint(scheme: &str, address: Option<&str>, registry: &Registry) -> Result<Endpoint, EndpointError> {
    let mut endpoint = Endpoint::new(scheme, Authority::Empty)?;
    let standard = || {
        let transports = registry.items(Kind::Transport);
        transports.iter().find(|item| item.name == endpoint.transport()).map_or("", |item| item.address)
    };
    endpoint.authority = address.unwrap_or_else(standard).parse()?;
    Ok(endpoint)
}

/// Splits `ENDPOINT[=HANDLER]`. The handler follows the first `=` that is not between an option and its value:
/// `tcp://:80=echo`, `tcp://:80?backlog=5=echo`, `udp://:80=hello?word=Hi`.
fn split_handler(text: &str) -> (&str, Option<&str>) {
    let query = text.find('?').unwrap_or(text.len());
    let at = match text[..query].rfind('=') {
        Some(at) => Some(at),
        None => second_equals(text, query),
    };
    match at {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Where, from `start` on, a second `=` stands in one part of a query; a value's own is written `%3D`.
fn second_equals(text: &str, start: usize) -> Option<usize> {
    let mut in_value = false;
    for (at, character) in text.char_indices().skip_while(|(at, _)| *at < start) {
        match character {
            '&' => in_value = false,
            '=' if in_value => return Some(at),
            '=' => in_value = true,
            _ => {}
        }
    }
    None
}

fn service(wanted: &Wanted, everywhere: &Options, registry: &Registry) -> Result<Service, Vec<String>> {
    let handler = registry.handler(&wanted.handler).map_err(|error| error.to_string());
    let mut endpoint = match &wanted.endpoint {
        Ok(endpoint) => endpoint.clone(),
        Err(error) => return Err(std::iter::once(error.to_string()).chain(handler.err()).collect()),
    };
    for (name, value) in everywhere.iter() {
        if endpoint.options.get(name).is_none() {
            endpoint.options.set(name, value);
        }
    }
    let mut faults = endpoint_faults(&endpoint, registry);
    match handler {
        Err(fault) => faults.push(fault),
        Ok(handler) if faults.is_empty() => {
            return registry
                .service_of(&endpoint, handler.name, handler.handler)
                .map_err(|error| vec![error.to_string()]);
        }
        Ok(_) => {}
    }
    Err(faults)
}

/// All that is wrong with an endpoint: the registry names the first fault, so each option is tried by itself.
fn endpoint_faults(endpoint: &Endpoint, registry: &Registry) -> Vec<String> {
    let fault = |endpoint: &Endpoint| registry.dialler(endpoint).err();
    let Some(first) = fault(endpoint) else { return Vec::new() };
    let with = |options: Options| {
        let mut endpoint = endpoint.clone();
        endpoint.options = options;
        endpoint
    };
    // What the other options belong to.
    let base = endpoint.options.clone().take(|name| name == "framing");
    if let Some(error) = fault(&with(base.clone())) {
        return vec![error.to_string()];
    }
    let mut faults: Vec<ResolveError> = Vec::new();
    for (name, value) in endpoint.options.iter() {
        let mut options = base.clone();
        options.set(name, value);
        faults.extend(fault(&with(options)));
    }
    if faults.is_empty() {
        faults.push(first);
    }
    faults.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_handler_follows_the_equals_sign_that_belongs_to_no_option() {
        for (text, endpoint, handler) in [
            ("tcp://:80", "tcp://:80", None),
            ("tcp://:80=echo", "tcp://:80", Some("echo")),
            ("tcp://:80?backlog=5", "tcp://:80?backlog=5", None),
            ("tcp://:80?backlog=5=echo", "tcp://:80?backlog=5", Some("echo")),
            ("tcp://:80?reuse-port&backlog=5=echo", "tcp://:80?reuse-port&backlog=5", Some("echo")),
            ("udp://:80=hello?word=Hi", "udp://:80", Some("hello?word=Hi")),
            (
                "tcp://:80?framing=lines&backlog=5=hello?word=Hi&exit=bye",
                "tcp://:80?framing=lines&backlog=5",
                Some("hello?word=Hi&exit=bye"),
            ),
            ("unix:///run/x.sock=echo", "unix:///run/x.sock", Some("echo")),
            ("tcp://:80=", "tcp://:80", Some("")),
        ] {
            assert_eq!(split_handler(text), (endpoint, handler), "{text}");
        }
    }
}
