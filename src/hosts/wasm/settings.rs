//! The options of a handler in a component that are greetd's own; all others are the guest's.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use super::bindings::Instances;
use super::guest::Allowance;
use crate::options::{OptionDoc, OptionError, Period, Size};

/// What one message may take, unless the option says otherwise.
const DEADLINE: Duration = Duration::from_millis(50);
const LONGEST_DEADLINE: Duration = Duration::from_secs(10);
/// What an instance may have, unless the option says otherwise: one for each session…
const MEMORY: usize = 16 << 20;
/// …and one that sessions share, which has a runtime inside.
const SHARED_MEMORY: usize = 64 << 20;
const MOST_MEMORY: usize = 1 << 30;

/// The options that greetd takes for itself.
pub(in crate::hosts) const OPTIONS: &[OptionDoc] = &[
    OptionDoc {
        name: "deadline",
        value: "TIME",
        default: "50ms",
        help: "the processor time that a message may take; more ends the session",
    },
    OptionDoc {
        name: "memory",
        value: "SIZE",
        default: "16MiB, or 64MiB for an instance that sessions share",
        help: "the memory that an instance may have; more ends its sessions",
    },
];

/// The options of one handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    deadline: Duration,
    memory: Option<usize>,
    /// Those of the guest.
    pub(super) options: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { deadline: DEADLINE, memory: None, options: BTreeMap::new() }
    }
}

impl Settings {
    pub(super) fn take(mut options: BTreeMap<String, String>) -> Result<Self, OptionError> {
        let deadline = take(&mut options, "deadline")?.map_or(DEADLINE, Period::duration);
        let memory = take(&mut options, "memory")?.map(|Size(size)| size);
        let invalid = |words: &str| Err(OptionError::Invalid(words.to_owned()));
        if deadline < Duration::from_millis(1) || deadline > LONGEST_DEADLINE {
            return invalid("the option `deadline` takes 1ms to 10s");
        }
        if memory.is_some_and(|memory| !(64 << 10..=MOST_MEMORY).contains(&memory)) {
            return invalid("the option `memory` takes 64KiB to 1GiB");
        }
        Ok(Settings { deadline, memory, options })
    }

    pub(super) fn allowance(&self, instances: Instances) -> Allowance {
        let usual = match instances {
            Instances::PerSession => MEMORY,
            Instances::Shared => SHARED_MEMORY,
        };
        Allowance { deadline: self.deadline, memory: self.memory.unwrap_or(usual) }
    }
}

fn take<T: FromStr<Err = OptionError>>(
    options: &mut BTreeMap<String, String>,
    name: &str,
) -> Result<Option<T>, OptionError> {
    options.remove(name).map(|text| text.parse()).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &[(&str, &str)]) -> Result<Settings, String> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Settings::take(options).map_err(|error| error.to_string())
    }

    #[test]
    fn what_greetd_does_not_take_for_itself_is_the_guests() {
        let settings = settings(&[("deadline", "5ms"), ("memory", "1MiB"), ("word", "Hi")]).unwrap();
        let allowance = settings.allowance(Instances::PerSession);
        assert_eq!((allowance.deadline, allowance.memory), (Duration::from_millis(5), 1 << 20));
        assert_eq!(settings.options, BTreeMap::from([("word".to_owned(), "Hi".to_owned())]));
    }

    #[test]
    fn an_instance_that_sessions_share_may_have_more() {
        let settings = settings(&[]).unwrap();
        assert_eq!(settings.allowance(Instances::PerSession).memory, 16 << 20);
        assert_eq!(settings.allowance(Instances::Shared).memory, 64 << 20);
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        for (name, value) in [("deadline", "0s"), ("deadline", "1m"), ("memory", "1KiB"), ("memory", "2GiB")] {
            let error = settings(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(&format!("the option `{name}` takes ")), "{error}");
        }
    }
}
