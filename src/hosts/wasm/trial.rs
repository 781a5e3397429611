//! Whether a component is a plugin that this greetd takes: all is asked of it that sessions ask, and more.

use std::time::{Duration, Instant};

use super::bindings::{Action, Instances, Peer};
use super::contents::Names;
use super::engine::Engine;
use super::fault::Fault;
use super::guest::Guest;
use super::loaded::{self, Loaded};
use super::settings::Settings;
use crate::event::PluginSessionFault;
use crate::hosts::check::Checked;
use crate::hosts::observed::Observed;

/// The longest message that greetd hands on, unless it is told otherwise.
const LONG: usize = 1 << 20;

/// Says what the component imports and exports, and judges what it answers. The first thing that is wrong is the error.
pub(in crate::hosts) async fn check(bytes: &[u8], name: String, patience: Duration) -> Result<Checked, String> {
    let in_words = |fault: Fault| fault.to_string();
    let engine = Engine::new(None)?;
    let begun = Instant::now();
    let (component, contents) = loaded::compile(&engine, bytes)?;
    let compiled = begun.elapsed();
    let sides = format!("imports {}; exports {}", listed(&contents.imports), listed(&contents.exports));
    contents.must_be_plugin().map_err(|reason| format!("{reason} It {sides}."))?;
    let loaded =
        Loaded::new(&engine, &component, name, Observed::default())?.tried(patience).await.map_err(in_words)?;
    let names: Vec<_> = loaded.handlers().iter().map(|(name, _)| name.clone()).collect();
    let mut judge = Judge { loaded, patience, passed: Vec::new(), warnings: Vec::new() };
    judge.passed.push(format!("{sides}; nothing else is asked for"));
    judge.passed.push(format!("compiles in {compiled:.1?}; with a cache it does so once"));
    judge.passed.push(format!("names its handlers: {}", names.join(", ")));
    judge.instances().await.map_err(in_words)?;
    for name in &names {
        judge.answers(name, true).await.map_err(in_words)?;
        judge.answers(name, false).await.map_err(in_words)?;
        judge.passed.push(format!("{name} answers openings and messages, on connections and on datagrams"));
        judge.takes_any_bytes(name).await.map_err(in_words)?;
        judge.passed.push(format!("{name} takes empty, binary and long messages"));
        judge.keeps_what_it_needs(name).await.map_err(in_words)?;
        judge.passed.push(format!("{name} frees what it no longer needs"));
    }
    Ok(Checked { names, passed: judge.passed, warnings: judge.warnings })
}

fn listed(names: &Names) -> String {
    if names.is_empty() {
        return "nothing".to_owned();
    }
    names.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

struct Judge {
    loaded: Loaded,
    patience: Duration,
    passed: Vec<String>,
    warnings: Vec<String>,
}

impl Judge {
    async fn guest(&self) -> Result<Guest, Fault> {
        let allowance = Settings::default().allowance(self.loaded.instances());
        Guest::start(self.loaded.kit.clone(), allowance, self.patience).await
    }

    async fn instances(&mut self) -> Result<(), Fault> {
        let begun = Instant::now();
        drop(self.guest().await?);
        let took = begun.elapsed();
        self.passed.push(match self.loaded.instances() {
            Instances::PerSession => format!("each session has an instance of its own, made in {took:.0?}"),
            Instances::Shared => {
                format!("sessions share an instance, made in {took:.1?}: one that fails ends them all")
            }
        });
        Ok(())
    }

    fn peer(name: &str, connected: bool) -> Peer {
        let transport = if connected { "tcp" } else { "udp" };
        Peer { connected, transport: transport.to_owned(), ..loaded::stranger(name) }
    }

    async fn answers(&mut self, name: &str, connected: bool) -> Result<(), Fault> {
        let what = if connected { "connection" } else { "session of datagrams" };
        let on = |fault: Fault| fault.and(&format!(", on a {what}"));
        let mut guest = self.guest().await?;
        let session = guest.session(&Self::peer(name, connected)).await.map_err(on)?;
        let opened = guest.on_open(session).await.map_err(on)?;
        if !connected && !matches!(opened, Action::Silent) {
            self.warnings.push(format!(
                "{name} answers the opening of a session of datagrams: the peer hears it before its first answer"
            ));
        }
        if matches!(opened, Action::Close(_)) {
            return Ok(());
        }
        let answered = guest.on_message(session, b"greetd").await.map_err(on)?;
        if !matches!(answered, Action::Close(_)) {
            guest.on_close(session).await.map_err(on)?;
        }
        guest.forget(session).await.map_err(on)
    }

    async fn takes_any_bytes(&self, name: &str) -> Result<(), Fault> {
        let long = vec![b'x'; LONG];
        for (what, message) in [
            ("an empty message", &b""[..]),
            ("a message with NUL, line feed and bytes that are no text", b"\0\n\r\xff\xfe"),
            ("a message of a megabyte", &long),
        ] {
            let mut guest = self.guest().await?;
            let session = guest.session(&Self::peer(name, true)).await?;
            guest.on_open(session).await?;
            // An answer that is longer than the longest message is a matter of the message, not of the guest.
            match guest.on_message(session, message).await {
                Err(fault) if fault.kind != Some(PluginSessionFault::Flood) => {
                    return Err(fault.and(&format!(", at {what}")));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Neither messages nor sessions leave anything behind.
    async fn keeps_what_it_needs(&self, name: &str) -> Result<(), Fault> {
        let mut guest = self.guest().await?;
        let session = guest.session(&Self::peer(name, false)).await?;
        guest.on_open(session).await?;
        let message = vec![b'x'; 16 << 10];
        for number in 1..=1000 {
            let words = format!(", at message {number} of a session; does it free what it answers?");
            let at = |fault: Fault| fault.and(&words);
            if let Action::Close(_) = guest.on_message(session, &message).await.map_err(at)? {
                break;
            }
        }
        guest.forget(session).await?;
        if self.loaded.instances() == Instances::PerSession {
            return Ok(());
        }
        for number in 1..=100 {
            let words = format!(", at session {number} of an instance; does it free its sessions?");
            let at = |fault: Fault| fault.and(&words);
            let session = guest.session(&Self::peer(name, true)).await.map_err(at)?;
            guest.on_open(session).await.map_err(at)?;
            guest.forget(session).await.map_err(at)?;
        }
        Ok(())
    }
}
