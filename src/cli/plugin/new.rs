//! `greetd plugin new`: a plugin to begin with, from the samples that ship.

mod wasm;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::cli::failure::{Failure, Outcome};
use crate::cli::output;
use crate::error::named;
use crate::verdict::Verdict;

/// Write a plugin to begin with, in a folder of its name
#[derive(clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The language
    #[arg(long, value_enum)]
    lang: Language,
    /// A WebAssembly component, for a greetd that is built with the feature `wasm`; without this, a program that speaks
    /// the process protocol, or in Rust a greetd with the handler compiled in
    #[arg(long)]
    wasm: bool,
    /// The handler's name, and the folder's: a-z, 0-9 and -
    #[arg(value_name = "NAME", value_parser = name)]
    name: String,
    /// With --lang rust: the folder of greetd's source, which the new crate is built with [default: where this greetd
    /// was built]
    #[arg(long, value_name = "PATH")]
    source: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Language {
    Python,
    Shell,
    #[value(alias = "node")]
    Js,
    C,
    Rust,
}

fn name(text: &str) -> Result<String, &'static str> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.starts_with(|c: char| c.is_ascii_lowercase()) && text.len() <= 64 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("write a-z, 0-9 and -, a letter first")
    }
}

/// A file of the new plugin. What the samples call themselves is replaced by its name.
#[derive(Clone, Copy)]
struct Template {
    path: &'static str,
    text: &'static str,
    executable: bool,
}

const fn file(path: &'static str, text: &'static str) -> Template {
    Template { path, text, executable: false }
}

const fn program(path: &'static str, text: &'static str) -> Template {
    Template { path, text, executable: true }
}

macro_rules! sample {
    ($path:literal) => {
        include_str!(concat!("../../../plugins/", $path))
    };
}

const RUST_MANIFEST: &str = "\
[package]
name = \"NAME\"
version = \"0.1.0\"
edition = \"2024\"

[dependencies]
greetd = { path = \"SOURCE\" }

# A workspace of its own, wherever it is put.
[workspace]
";

const RUST_MAIN: &str = "\
//! greetd with one handler more.

use std::process::ExitCode;
use std::sync::Arc;

use greetd::registry::{Item, NoOptions};

fn main() -> ExitCode {
    greetd::main_with(|registry| {
        registry.add_handler(Item::new(\"NAME\", \"greets\"), |_: NoOptions, _| {
            Ok(Arc::new(greetd::reply_fn(|message| [b\"Hello \", message].concat())))
        })
    })
}
";

impl Language {
    /// What the sample calls its handler.
    fn sample_name(self) -> &'static str {
        match self {
            Language::Python => "py_hello",
            Language::Shell => "sh-hello",
            Language::Js => "node-hello",
            Language::C => "c-hello",
            Language::Rust => "NAME",
        }
    }

    fn templates(self) -> Vec<Template> {
        match self {
            Language::Python => {
                vec![program("NAME.py", sample!("python/hello.py")), file("greetd.py", sample!("python/greetd.py"))]
            }
            Language::Shell => {
                vec![program("NAME.sh", sample!("shell/hello.sh")), file("greetd.sh", sample!("shell/greetd.sh"))]
            }
            Language::Js => vec![program("NAME.mjs", sample!("node/hello.mjs"))],
            Language::C => vec![file("NAME.c", sample!("c/hello.c"))],
            Language::Rust => vec![file("Cargo.toml", RUST_MANIFEST), file("src/main.rs", RUST_MAIN)],
        }
    }

    /// How it is built, where it is, and how it is run.
    fn commands(self) -> &'static str {
        match self {
            Language::Python => "greetd plugin check ./NAME.py\ngreetd --plugin ./NAME.py --handler NAME",
            Language::Shell => "greetd plugin check ./NAME.sh\ngreetd --plugin ./NAME.sh --handler NAME",
            Language::Js => "greetd plugin check ./NAME.mjs\ngreetd --plugin ./NAME.mjs --handler NAME",
            Language::C => "cc -O2 -o NAME NAME.c && greetd plugin check ./NAME\ngreetd --plugin ./NAME --handler NAME",
            Language::Rust => "cargo run --release -- --handler NAME",
        }
    }

    fn needs(self) -> &'static str {
        match self {
            Language::Python => "It needs Python 3.8 or later.",
            Language::Shell => "It needs bash 4.3 or later, od and head.",
            Language::Js => "It needs Node.js.",
            Language::C => "It needs a C compiler.",
            Language::Rust => "It needs Rust 1.88 or later; it is a whole greetd with the handler compiled in.",
        }
    }
}

/// What is written, and what its README says.
struct Plan {
    files: Vec<(Template, String)>,
    needs: &'static str,
    commands: &'static str,
}

impl Plan {
    fn new(args: &Args) -> Result<Self, Failure> {
        let Args { lang, name, .. } = args;
        if !args.wasm {
            let source = match lang {
                Language::Rust => source(args.source.as_deref())?,
                _ => String::new(),
            };
            let text =
                |template: Template| (template, renamed(*lang, template.text, name).replace("\"SOURCE\"", &source));
            let files = lang.templates().into_iter().map(text).collect();
            return Ok(Plan { files, needs: lang.needs(), commands: lang.commands() });
        }
        let project = wasm::project(*lang).ok_or_else(|| {
            Failure::new(Verdict::Usage, "the shell makes no WebAssembly; leave out --wasm, or take another language")
        })?;
        let text = |template: Template| {
            let text = template.text.replace(project.sample_name, name);
            // Beside the samples lies one interface for all of them.
            (template, text.replace("../wit", "wit"))
        };
        let files = project.templates.into_iter().map(text).collect();
        Ok(Plan { files, needs: project.needs, commands: project.commands })
    }
}

pub(super) fn run(args: &Args) -> Outcome {
    let folder = PathBuf::from(&args.name);
    let failed = |what: &str, error: &io::Error| {
        Failure::new(Verdict::Failed, format!("failed to write {what}: {}", named(error)))
    };
    let plan = Plan::new(args)?;
    fs::create_dir(&folder).map_err(|error| failed(&args.name, &error))?;
    let filled = |text: &str| text.replace("NAME", &args.name);
    for (template, text) in plan.files {
        let path = folder.join(filled(template.path));
        write(&path, &text, template.executable).map_err(|error| failed(&path.display().to_string(), &error))?;
    }
    let readme = format!("# {}\n\n{}\n\n```sh\n{}\n```\n", args.name, plan.needs, filled(plan.commands));
    let path = folder.join("README.md");
    write(&path, &readme, false).map_err(|error| failed(&path.display().to_string(), &error))?;
    output::print(format_args!("{0} is written; {0}/README.md says how it is run\n", args.name))
}

/// Where greetd's source is, as a manifest writes it.
fn source(given: Option<&Path>) -> Result<String, Failure> {
    let folder = given.unwrap_or(Path::new(env!("CARGO_MANIFEST_DIR")));
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let whole = fs::canonicalize(folder).ok().filter(|_| manifest.contains("name = \"greetd\""));
    let whole = whole.as_deref().and_then(Path::to_str).ok_or_else(|| {
        let folder = folder.display();
        Failure::new(
            Verdict::Failed,
            format!("failed to find greetd's source in {folder}: name its folder with --source"),
        )
    })?;
    // A text in quotes is the same in JSON and in TOML.
    Ok(serde_json::Value::from(whole).to_string())
}

fn renamed(language: Language, text: &str, name: &str) -> String {
    match language {
        // The helper writes an underline as a hyphen, which no function's name may hold.
        Language::Python => text.replace(language.sample_name(), &name.replace('-', "_")),
        // Its length stands beside it.
        Language::C => text.replace(
            "\"greetd-plugin 1 c-hello\\n\", 24",
            &format!("\"greetd-plugin 1 {name}\\n\", {}", 17 + name.len()),
        ),
        _ => text.replace(language.sample_name(), name),
    }
}

fn write(path: &Path, text: &str, executable: bool) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, text)?;
    if executable {
        fs::set_permissions(path, Permissions::from_mode(0o755))?;
    }
    Ok(())
}
