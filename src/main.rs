//! The `greetd` binary. A daemon with handlers of its own is a copy of this file that registers them.

use std::process::ExitCode;

fn main() -> ExitCode {
    greetd::main_with(|_| Ok(()))
}
