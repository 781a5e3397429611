//! `greetd list`: what is registered, with each one's options and capabilities.

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::failure::{Failure, Outcome};
use super::{output, plugins, workers};
use crate::error::named;
use crate::limits;
use crate::link::Capabilities;
use crate::options::OptionDoc;
use crate::registry::{Item, Kind, Registry};
use crate::verdict::Verdict;

/// What a terminal has had since the punched card.
const WIDTH: u16 = 80;

/// List what is registered, with each one's options and capabilities
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// What to list: transports, layers, framings or handlers; all of them where it is left out
    #[arg(value_name = "WHAT", hide_possible_values = true)]
    what: Option<What>,
    /// Print one JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    plugins: plugins::Args,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum What {
    Transports,
    Layers,
    Framings,
    Handlers,
}

impl What {
    const ALL: [What; 4] = [What::Transports, What::Layers, What::Framings, What::Handlers];

    fn kind(self) -> Kind {
        match self {
            What::Transports => Kind::Transport,
            What::Layers => Kind::Layer,
            What::Framings => Kind::Framing,
            What::Handlers => Kind::Handler,
        }
    }

    fn word(self) -> &'static str {
        match self {
            What::Transports => "transports",
            What::Layers => "layers",
            What::Framings => "framings",
            What::Handlers => "handlers",
        }
    }
}

#[derive(Serialize)]
struct Entry {
    name: &'static str,
    about: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<Capabilities>,
    options: Vec<OptionEntry>,
}

#[derive(Serialize)]
struct OptionEntry {
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
}

impl From<&OptionDoc> for OptionEntry {
    fn from(&OptionDoc { name, value, default, help }: &OptionDoc) -> Self {
        OptionEntry { name, value, default, help }
    }
}

pub(super) fn run(args: &Args, registry: &Registry) -> Outcome {
    let wanted = args.what.map_or(What::ALL.to_vec(), |what| vec![what]);
    let runtime = workers::runtime()
        .map_err(|error| Failure::new(Verdict::Failed, format!("failed to start: {}", named(&error))))?;
    let plugins = args.plugins.load(&runtime, registry)?;
    let registry = &plugins.registry;
    if args.json { output::print_json(&as_json(&wanted, registry)) } else { output::print(as_text(&wanted, registry)) }
}

fn entries(kind: Kind, registry: &Registry) -> Vec<Entry> {
    let entry = |item: &Item| Entry {
        name: item.name,
        about: item.about,
        capabilities: if kind == Kind::Transport { registry.capabilities(item.name).ok() } else { None },
        options: item.options.iter().map(OptionEntry::from).collect(),
    };
    registry.items(kind).iter().map(entry).collect()
}

fn as_json(wanted: &[What], registry: &Registry) -> serde_json::Value {
    let mut object = serde_json::Map::new();
    object.insert("verdict".into(), "ok".into());
    for what in wanted {
        object.insert(what.word().into(), serde_json::json!(entries(what.kind(), registry)));
    }
    if wanted.contains(&What::Transports) {
        let limits: Vec<_> = limits::OPTIONS.iter().map(OptionEntry::from).collect();
        object.insert("limits".into(), serde_json::json!(limits));
    }
    object.into()
}

fn as_text(wanted: &[What], registry: &Registry) -> String {
    let mut sections = Vec::new();
    for what in wanted {
        let entries = entries(what.kind(), registry);
        if entries.is_empty() {
            sections.push(format!("{}: none\n", what.word()));
            continue;
        }
        let mut table = table();
        for entry in &entries {
            table.add_row([entry.name.to_owned(), entry.about.to_owned()]);
            if let Some(can) = entry.capabilities {
                table.add_row([String::new(), capabilities(can)]);
            }
            for option in &entry.options {
                table.add_row([format!("  {}={}", option.name, option.value), help(option)]);
            }
        }
        sections.push(format!("{}:\n{}\n", what.word(), table.trim_fmt()));
    }
    if wanted.contains(&What::Transports) {
        let mut table = table();
        for option in limits::OPTIONS {
            table.add_row([format!("{}={}", option.name, option.value), help(&option.into())]);
        }
        sections.push(format!("limits, which every listener takes:\n{}\n", table.trim_fmt()));
    }
    sections.join("\n")
}

fn table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    table
}

fn help(option: &OptionEntry) -> String {
    format!("{} [{}]", option.help, option.default)
}

fn capabilities(can: Capabilities) -> String {
    let words = [
        if can.connected { "connected" } else { "datagrams" },
        if can.reliable { "reliable" } else { "may lose" },
        if can.ordered { "ordered" } else { "may reorder" },
        if can.boundaries { "keeps message boundaries" } else { "a stream of bytes" },
    ];
    let largest = can.largest.map(|bytes| format!(", at most {bytes} bytes a message")).unwrap_or_default();
    let half_close = if can.half_close { ", half-close" } else { "" };
    format!("({}{half_close}{largest})", words.join(", "))
}
