//! A greetd with a transport, a framing and a handler that it does not know: all that `greetd` itself does, and these.

mod counting;
mod hall;
mod tabs;

use std::process::ExitCode;
use std::sync::Arc;

use greetd::Registry;
use greetd::registry::{Item, NameTaken, NoOptions};

fn main() -> ExitCode {
    greetd::main_with(register)
}

/// Adds them; a crate that others are to use would export this.
fn register(registry: &mut Registry) -> Result<(), NameTaken> {
    let hall = hall::Hall::default();
    registry.add_transport(
        Item::new("hall", "a name within this process").with_address("greeting"),
        move |_: NoOptions| Ok(Arc::new(hall.clone())),
    )?;
    registry.add_framing(Item::new("tabs", "a tab ends a message"), |_: NoOptions, largest| {
        Ok(Arc::new(tabs::Tabs { largest }))
    })?;
    registry.add_handler(Item::new("counting", "greets, and counts whom it greeted"), |_: NoOptions, _| {
        Ok(Arc::new(counting::Counting::default()))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_comes_from_outside_works_together_and_with_what_ships() {
        let mut registry = Registry::builtin();
        register(&mut registry).unwrap();
        for (number, endpoint) in ["hall://a?framing=tabs", "hall://b?framing=lines", "tcp://127.0.0.1:0?framing=tabs"]
            .into_iter()
            .enumerate()
        {
            let at: greetd::Endpoint = endpoint.parse().unwrap();
            let service = registry.service(&at, "counting").unwrap();
            let bound = greetd::Server::new().serve(service).bind().await.unwrap();
            let mut there: greetd::Endpoint = bound.listeners()[0].to_string().parse().unwrap();
            there.options = at.options.clone();
            let running = bound.start();
            let mut session = registry.dialler(&there).unwrap().dial().await.unwrap();
            for (count, name) in ["Genji", "Hanzo"].into_iter().enumerate() {
                session.send(name.as_bytes()).await.unwrap();
                let heard = session.recv().await.unwrap().unwrap();
                assert_eq!(heard, format!("Hello {name}, you are number {}", count + 1), "{number}: {endpoint}");
            }
            drop(session);
            assert_eq!(running.drain(Duration::from_secs(5)).await.cut, 0);
        }
    }

    #[tokio::test]
    async fn the_transport_conforms() -> greetd::testing::Outcome {
        let at = "hall://conforming".parse().unwrap();
        greetd::testing::transport_conforms(&hall::Hall::default(), &at).await
    }

    #[tokio::test]
    async fn the_handler_conforms() -> greetd::testing::Outcome {
        let mut registry = Registry::builtin();
        register(&mut registry).unwrap();
        let counting = || registry.handler("counting").unwrap().handler;
        greetd::testing::handler_conforms(counting()).await?;
        for at in ["hall://conforming-too?framing=tabs", "tcp://127.0.0.1:0", "udp://127.0.0.1:0", "unix://@counting"] {
            greetd::testing::handler_conforms_at(&registry, counting(), &at.parse().unwrap()).await?;
        }
        Ok(())
    }

    #[test]
    fn the_framing_conforms() -> greetd::testing::Outcome {
        greetd::testing::framing_conforms(&tabs::Tabs { largest: 1000 }, 1000)
    }
}
