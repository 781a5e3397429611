//! The `greetd` binary. A daemon with handlers of its own is a copy of this file that registers them.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// Sessions are many small pieces of memory, some of them aligned to cache lines, which this allocator packs tighter
/// than the system's.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    greetd::main_with(|_| Ok(()))
}
