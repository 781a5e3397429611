//! The doctor: why does a server not answer? It looks at one layer after the other, from the name to the reply, and
//! names the first that fails.
//!
//! It calls the server as any client would and asks this machine's kernel what it knows. Where the server is on this
//! machine, a stand-in that is bound alike is called from the second host of the lab, which shows what other hosts
//! would meet.

mod layers;
mod stand_in;

use std::net::SocketAddr;

use serde::Serialize;

use super::model::Proto;
use crate::verdict::Verdict;

pub use stand_in::{from_the_other_host, servers};

/// A layer, in the order in which they are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// Does the name have addresses?
    Name,
    /// Which of them would a client try first?
    Family,
    /// Does this host know a way there?
    Route,
    /// Does anything on the way say no, or nothing?
    Filter,
    /// Does anybody listen there?
    Listen,
    /// Is there room in the queue?
    Backlog,
    /// Does the reply come from the address that was asked?
    Reply,
    /// Would another host reach it?
    OtherHost,
}

impl Layer {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Layer::Name => "name",
            Layer::Family => "family",
            Layer::Route => "route",
            Layer::Filter => "filter",
            Layer::Listen => "listen",
            Layer::Backlog => "backlog",
            Layer::Reply => "reply",
            Layer::OtherHost => "other host",
        }
    }
}

/// How a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It works.
    Fine,
    /// It does not.
    Fails,
    /// It works, and something about it will surprise somebody.
    Warns,
    /// It could not be seen.
    Unknown,
}

impl Health {
    /// One character for it.
    pub fn glyph(self) -> char {
        match self {
            Health::Fine => '#',
            Health::Fails => 'x',
            Health::Warns => '!',
            Health::Unknown => '?',
        }
    }
}

/// What was found at a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The layer.
    pub layer: Layer,
    /// The address that it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// How it is.
    pub health: Health,
    /// What was found, in a sentence.
    pub says: String,
    /// The calls and answers that show it.
    pub evidence: Vec<String>,
    /// What the attempt ended with, where it failed.
    #[serde(skip)]
    pub verdict: Verdict,
}

/// What the doctor found.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnosis {
    /// The findings, layer by layer.
    pub findings: Vec<Finding>,
}

impl Finding {
    fn new(layer: Layer, health: Health, says: impl Into<String>) -> Self {
        Finding { layer, address: None, health, says: says.into(), evidence: Vec::new(), verdict: Verdict::Ok }
    }

    fn fails(layer: Layer, verdict: Verdict, says: impl Into<String>) -> Self {
        Finding { verdict, ..Finding::new(layer, Health::Fails, says) }
    }

    fn at(self, address: SocketAddr) -> Self {
        Finding { address: Some(address), ..self }
    }

    fn with(mut self, evidence: impl Into<String>) -> Self {
        self.evidence.push(evidence.into());
        self
    }
}

impl Diagnosis {
    /// The first layer that fails.
    pub fn first_failure(&self) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.health == Health::Fails)
    }

    /// The verdict of the first layer that fails; `ok` where none does.
    pub fn verdict(&self) -> Verdict {
        self.first_failure().map_or(Verdict::Ok, |finding| finding.verdict)
    }
}

/// Looks at a server from this host. Takes some seconds where nothing answers.
pub fn examine(proto: Proto, host: &str, port: u16) -> Diagnosis {
    let mut findings = Vec::new();
    let addresses = layers::name(host, port, &mut findings);
    layers::family(&addresses, &mut findings);
    for address in addresses {
        layers::address(proto, address, &mut findings);
    }
    Diagnosis { findings }
}
