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
    match text[..query].find('=').or_else(|| second_equals(text, query)) {
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

/// All that is wrong with an endpoint. The registry names the first fault: the option at fault is taken out, and the
/// rest is looked at again.
fn endpoint_faults(endpoint: &Endpoint, registry: &Registry) -> Vec<String> {
    let mut endpoint = endpoint.clone();
    let mut faults = Vec::new();
    let mut taken_out: Vec<String> = Vec::new();
    while let Err(error) = registry.dialler(&endpoint) {
        let fault = error.to_string();
        let concerns = |name: &str| fault.contains(&format!("`{name}`"));
        // An option that was taken out may be missed now, which is no fault of its own.
        if taken_out.iter().any(|name| concerns(name)) {
            break;
        }
        let blamed = match &error {
            ResolveError::UnknownOption { name, .. } => Some(name.clone()),
            ResolveError::Option(_) => {
                endpoint.options.iter().map(|(name, _)| name).find(|name| concerns(name)).map(str::to_owned)
            }
            _ => None,
        };
        faults.push(fault);
        let Some(name) = blamed else { break };
        let _ = endpoint.options.take(|known| known == name);
        taken_out.push(name);
    }
    faults
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
            ("tcp://:80=run:env A=b", "tcp://:80", Some("run:env A=b")),
            ("tcp://:80=", "tcp://:80", Some("")),
        ] {
            assert_eq!(split_handler(text), (endpoint, handler), "{text}");
        }
    }
}
