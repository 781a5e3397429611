//! The composition root: the one list of what ships.

use std::sync::Arc;

use crate::framings::raw::Raw;
use crate::handlers::hello::{self, Hello};
use crate::registry::{Item, NameTaken, NoOptions, Registry};

/// All that this build knows by name.
pub(crate) fn registry() -> Registry {
    let mut registry = Registry::empty();
    fill(&mut registry).expect("the names of what ships differ, as a test holds");
    registry
}

fn fill(registry: &mut Registry) -> Result<(), NameTaken> {
    registry.add_framing(
        Item::new("raw", "bytes as they arrive: what one read brings is a message"),
        |_: NoOptions, largest| Ok(Arc::new(Raw { largest })),
    )?;
    registry.add_handler(
        Item::new("hello", "greets: welcome, Hello X for each X, until exit").with_options(hello::OPTIONS),
        |hello: Hello, _| Ok(Arc::new(hello)),
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
