//! `greetd man`: the manual page.

use super::failure::Outcome;
use super::output;

pub(super) fn run(definitions: clap::Command) -> Outcome {
    let mut page = Vec::new();
    clap_mangen::Man::new(definitions).render(&mut page)?;
    output::write(&page)
}
