//! The `greetd` binary.

fn main() {}
