//! The composition root: the one list of what ships.

use std::sync::Arc;

use socket2::Type;

use crate::faults::{self, Faults};
use crate::framings::crlf::Crlf;
use crate::framings::length::{Length, Prefix};
use crate::framings::lines::{self, Lines};
use crate::framings::netstring::Netstring;
use crate::framings::raw::Raw;
use crate::framings::varint::Varint;
use crate::framings::{delimiter, fixed};
use crate::handlers::chargen::{self, Chargen};
use crate::handlers::chat::{self, Chat, Rooms};
use crate::handlers::daytime::Daytime;
use crate::handlers::discard::Discard;
use crate::handlers::echo::Echo;
use crate::handlers::forward::{self, Forward};
use crate::handlers::hello::{self, Hello};
use crate::handlers::qotd::{self, QuoteOfTheDay};
use crate::handlers::time::Time;
use crate::handlers::upper::{self, Upper};
use crate::handlers::whoami::{self, Whoami};
use crate::hosts::Environment;
use crate::hosts::exec::{self, Exec};
use crate::layers::faults::FaultLayer;
use crate::options::Options;
use crate::registry::{Item, NameTaken, NoOptions, Registry};
use crate::transports::memory::{self, Memory, Network};
use crate::transports::socket::unix::UnixOptions;
use crate::transports::socket::{SocketOptions, Wanted};
use crate::transports::stdio::Stdio;
use crate::transports::tcp::{self, Tcp};
use crate::transports::udp::{self, Udp};
use crate::transports::unix::{self, Unix};
use crate::transports::unixgram::{self, Unixgram};
use crate::transports::unixpacket::{self, UnixPacket};

/// All that this build knows by name.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::empty();
    fill(&mut registry).expect("the names of what ships differ, as a test holds");
    registry
}

fn fill(registry: &mut Registry) -> Result<(), NameTaken> {
    fill_transports(registry)?;
    fill_layers(registry)?;
    fill_framings(registry)?;
    fill_handlers(registry)
}

fn fill_transports(registry: &mut Registry) -> Result<(), NameTaken> {
    let network = Network::new();
    registry.add_transport(
        Item::new("memory", "bytes, messages or datagrams inside the process, with faults by a seed")
            .with_address("greetd")
            .with_options(memory::OPTIONS),
        move |options: Options| Ok(Arc::new(Memory::new(network.clone(), options)?)),
    )?;
    registry.add_transport(
        Item::new("stdio", "one conversation on standard input and output, or the socket that inetd left there")
            .with_address(""),
        |_: NoOptions| Ok(Arc::new(standard_input_and_output())),
    )?;
    registry.add_transport(
        Item::new("tcp", "a stream of bytes between two IP addresses").with_options(tcp::OPTIONS),
        |options: SocketOptions| Ok(Arc::new(Tcp::new(options))),
    )?;
    registry.add_transport(
        Item::new("udp", "single datagrams; a reply leaves from the address that was asked").with_options(udp::OPTIONS),
        |options: SocketOptions| Ok(Arc::new(Udp::new(options))),
    )?;
    registry.add_transport(
        Item::new("unix", "a stream of bytes between processes: a path or @name")
            .with_address("")
            .with_options(unix::OPTIONS),
        |options: UnixOptions| Ok(Arc::new(Unix::new(options))),
    )?;
    registry.add_transport(
        Item::new("unixgram", "datagrams between processes: a path or @name")
            .with_address("")
            .with_options(unixgram::OPTIONS),
        |options: UnixOptions| Ok(Arc::new(Unixgram::new(options))),
    )?;
    registry.add_transport(
        Item::new("unixpacket", "messages in order between processes: a path or @name")
            .with_address("")
            .with_options(unixpacket::OPTIONS),
        |options: UnixOptions| Ok(Arc::new(UnixPacket::new(options))),
    )?;
    Ok(())
}

fn fill_layers(registry: &mut Registry) -> Result<(), NameTaken> {
    registry.add_layer(
        Item::new("faults", "delays, splits, loses, reorders and breaks, by a seed").with_options(faults::OPTIONS),
        |faults: Faults| Ok(Arc::new(FaultLayer::new(faults))),
    )?;
    Ok(())
}

/// With the transports that serve what inetd(8) passes as standard input in its `wait` mode.
fn standard_input_and_output() -> Stdio {
    Stdio::new()
        .with(Wanted::ip(Type::STREAM), "tcp", Arc::new(Tcp::default()))
        .with(Wanted::ip(Type::DGRAM), "udp", Arc::new(Udp::default()))
        .with(Wanted::unix(Type::STREAM), "unix", Arc::new(Unix::default()))
        .with(Wanted::unix(Type::DGRAM), "unixgram", Arc::new(Unixgram::default()))
        .with(Wanted::unix(Type::SEQPACKET), "unixpacket", Arc::new(UnixPacket::default()))
}

fn fill_framings(registry: &mut Registry) -> Result<(), NameTaken> {
    registry.add_framing(
        Item::new("crlf", "a carriage return and a line feed end a message; neither may stand alone")
            .with_options(lines::OPTIONS),
        |settings: lines::Settings, largest| Ok(Arc::new(Crlf { longest: settings.longest(largest)? })),
    )?;
    registry.add_framing(
        Item::new("delimiter", "bytes of your choice end a message").with_options(delimiter::OPTIONS),
        |settings: delimiter::Settings, largest| Ok(Arc::new(settings.framing(largest)?)),
    )?;
    registry.add_framing(
        Item::new("fixed", "every message has the same size").with_options(fixed::OPTIONS),
        |settings: fixed::Settings, largest| Ok(Arc::new(settings.framing(largest)?)),
    )?;
    for (name, about, prefix) in [
        ("length8", "one byte says the message's length", Prefix::U8),
        ("length16", "two bytes, big-endian, say the message's length", Prefix::U16),
        ("length16le", "two bytes, little-endian, say the message's length", Prefix::U16Le),
        ("length32", "four bytes, big-endian, say the message's length", Prefix::U32),
        ("length32le", "four bytes, little-endian, say the message's length", Prefix::U32Le),
    ] {
        registry.add_framing(Item::new(name, about), move |_: NoOptions, largest| {
            Ok(Arc::new(Length { prefix, largest }))
        })?;
    }
    registry.add_framing(
        Item::new("lines", "a line feed ends a message; a carriage return before it is dropped")
            .with_options(lines::OPTIONS),
        |settings: lines::Settings, largest| Ok(Arc::new(Lines { longest: settings.longest(largest)? })),
    )?;
    registry.add_framing(
        Item::new("netstring", "the length in decimal, a colon, the message, a comma: 5:hello,"),
        |_: NoOptions, largest| Ok(Arc::new(Netstring { largest })),
    )?;
    registry.add_framing(
        Item::new("raw", "bytes as they arrive: what one read brings is a message"),
        |_: NoOptions, largest| Ok(Arc::new(Raw { largest })),
    )?;
    registry.add_framing(
        Item::new("varint", "the message's length before it, as unsigned LEB128"),
        |_: NoOptions, largest| Ok(Arc::new(Varint { largest })),
    )?;
    Ok(())
}

fn fill_handlers(registry: &mut Registry) -> Result<(), NameTaken> {
    registry.add_handler(
        Item::new("chargen", "RFC 864: lines of characters, without end on connections").with_options(chargen::OPTIONS),
        |settings, _| Ok(Arc::new(Chargen::new(settings)?)),
    )?;
    let rooms = Arc::<Rooms>::default();
    registry.add_handler(
        Item::new("chat", "rooms that peers over every transport share").with_options(chat::OPTIONS),
        move |settings, _| Ok(Arc::new(Chat::new(settings, rooms.clone())?)),
    )?;
    registry.add_handler(Item::new("daytime", "RFC 867: date and time as a line of text"), |_: NoOptions, _| {
        Ok(Arc::new(Daytime::default()))
    })?;
    registry.add_handler(Item::new("discard", "RFC 863: throws away whatever comes"), |_: NoOptions, _| {
        Ok(Arc::new(Discard))
    })?;
    registry
        .add_handler(Item::new("echo", "RFC 862: sends back whatever comes"), |_: NoOptions, _| Ok(Arc::new(Echo)))?;
    registry.add_handler(
        Item::new("exec", "a program for each session, with the conversation on its stdin and stdout")
            .with_options(exec::OPTIONS)
            .with_argument("command"),
        |settings: exec::Settings, _| Ok(Arc::new(Exec::new(&settings, &Environment::default())?)),
    )?;
    registry.add_handler(
        Item::new("forward", "relays to another endpoint").with_options(forward::OPTIONS),
        |settings: forward::Settings, registry| Ok(Arc::new(Forward::new(&settings, registry)?)),
    )?;
    registry.add_handler(
        Item::new("hello", "greets: welcome, Hello X for each X, until exit").with_options(hello::OPTIONS),
        |hello: Hello, _| Ok(Arc::new(hello)),
    )?;
    registry
        .add_handler(Item::new("qotd", "RFC 865: a quote of the day").with_options(qotd::OPTIONS), |settings, _| {
            Ok(Arc::new(QuoteOfTheDay::new(settings)?))
        })?;
    registry.add_handler(Item::new("time", "RFC 868: seconds since 1900 as 32 bits"), |_: NoOptions, _| {
        Ok(Arc::new(Time::default()))
    })?;
    registry
        .add_handler(Item::new("upper", "answers in capitals").with_options(upper::OPTIONS), |upper: Upper, _| {
            Ok(Arc::new(upper))
        })?;
    registry.add_handler(
        Item::new("whoami", "answers with what the server sees of the conversation").with_options(whoami::OPTIONS),
        |settings, _| Ok(Arc::new(Whoami::new(settings))),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_names_of_what_ships_differ() {
        super::registry();
    }
}
