//! A daemon of one's own: the whole command line of greetd, with a handler more.
//!
//! [`daemon`] is all there is to it; as the `main` of a crate of yours it is the daemon. Everything works with the new
//! handler as with those that ship: `--handler shout?marks=3`, `--listen`, `list`, completions, the manual page.
//!
//! Without arguments this example starts itself as that daemon, calls it, and stops it:
//!
//! ```sh
//! cargo run --example custom_daemon
//! cargo run --example custom_daemon -- --transport udp --handler 'shout?marks=3'
//! ```

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use greetd::options::OptionDoc;
use greetd::registry::Item;

/// What may be given after the handler's name, with a default for what is left out.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Shout {
    marks: usize,
}

impl Default for Shout {
    fn default() -> Self {
        Shout { marks: 1 }
    }
}

const OPTIONS: &[OptionDoc] =
    &[OptionDoc { name: "marks", value: "N", default: "1", help: "how many exclamation marks" }];

fn daemon() -> ExitCode {
    greetd::main_with(|registry| {
        let item = Item::new("shout", "answers in capitals, with emphasis").with_options(OPTIONS);
        registry.add_handler(item, |shout: Shout, _| {
            Ok(Arc::new(greetd::reply_fn(move |message: &[u8]| {
                let mut reply = message.to_ascii_uppercase();
                reply.extend(std::iter::repeat_n(b'!', shout.marks));
                reply
            })))
        })
    })
}

fn main() -> ExitCode {
    if std::env::args_os().len() > 1 {
        return daemon();
    }
    demonstrate().expect("the daemon does what it should");
    ExitCode::SUCCESS
}

/// Plays the user of the daemon.
fn demonstrate() -> Result<(), Box<dyn Error>> {
    let this = std::env::current_exe()?;
    let mut daemon = Command::new(&this)
        .args(["--bind", "127.0.0.1:0", "--handler", "shout?marks=3"])
        .stdout(Stdio::piped())
        .spawn()?;

    // One line for each listener goes to stdout once all are bound; with port 0 it tells the port.
    let mut lines = BufReader::new(daemon.stdout.take().expect("it is piped")).lines();
    let listening = lines.next().expect("it is ready")?;
    println!("{listening}");
    let endpoint = listening.split(' ').nth(1).expect("`listening ENDPOINT handler=NAME`");
    assert!(listening.ends_with(" handler=shout"), "{listening}");

    let call = Command::new(&this).args(["call", endpoint, "hello"]).output()?;
    println!("{}", String::from_utf8_lossy(&call.stdout).trim_end());
    assert!(call.status.success());
    assert_eq!(String::from_utf8_lossy(&call.stdout).trim_end(), "HELLO!!!");

    // SIGTERM drains: nothing is open any more, so it ends at once, and well.
    rustix::process::kill_process(rustix::process::Pid::from_child(&daemon), rustix::process::Signal::TERM)?;
    assert!(daemon.wait()?.success());
    Ok(())
}
