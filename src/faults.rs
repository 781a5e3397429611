//! What a bad network does to what is sent over it, decided by a seed: the same seed repeats the same run.
//!
//! This is the pure core that the layer [`faults`](crate::layers::faults) and the transport `memory` share. [`Faults`]
//! says how often what happens, [`Fates`] draws what becomes of each piece, and a line keeps the pieces until they are
//! due. None of it does I/O or reads a clock.
//!
//! # What is a piece?
//! On a stream of bytes: what one write or one read carries. It may be delayed, arrive in two parts or together with
//! the next, and the connection may break there. It never goes missing and is never overtaken, since no stream ever
//! shows that to those who use it. Where messages or datagrams are carried: each of them. It may be delayed, lost,
//! doubled or overtaken, and never be cut.

mod alarm;
mod line;

use std::time::Duration;

use serde::Deserialize;

use crate::options::{OptionDoc, OptionError, Period};
use crate::random::Random;

pub(crate) use alarm::Alarm;
pub(crate) use line::{Line, Next};

/// For how long a piece waits at most for the one that it shall arrive with, or that shall overtake it.
pub const HOLD: Duration = Duration::from_millis(20);

/// The longest delay and jitter that can be asked for.
const LONGEST_DELAY: Duration = Duration::from_secs(3600);

/// How often what happens. Chances are from 0, never, to 1, always; delay and jitter are an hour each at most.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "Text")]
pub struct Faults {
    /// What the whole run follows from.
    pub seed: u64,
    /// How long each piece takes.
    pub delay: Duration,
    /// How much longer it takes at most, evenly spread. Pieces do not overtake one another for it.
    pub jitter: Duration,
    /// The chance that a piece of a stream arrives in two parts.
    pub split: f64,
    /// The chance that a piece of a stream waits, for [`HOLD`] at most, and arrives together with the next.
    pub coalesce: f64,
    /// The chance that a message is lost.
    pub drop: f64,
    /// The chance that a message arrives twice.
    pub duplicate: f64,
    /// The chance that a message is held back for [`HOLD`], so that later ones overtake it.
    pub reorder: f64,
    /// The chance that the connection breaks at a piece.
    pub reset: f64,
}

const fn doc(name: &'static str, value: &'static str, help: &'static str) -> OptionDoc {
    OptionDoc { name, value, default: "0", help }
}

/// [`Faults`] as options of an endpoint.
pub const OPTIONS: &[OptionDoc] = &[
    doc("seed", "N", "what the faults follow from: the same seed repeats the same run"),
    doc("delay", "TIME", "how long whatever is sent takes"),
    doc("jitter", "TIME", "how much longer it takes at most"),
    doc("split", "CHANCE", "bytes: how often a write arrives in two parts, from 0 to 1"),
    doc("coalesce", "CHANCE", "bytes: how often a write waits, for 20ms at most, to arrive with the next"),
    doc("drop", "CHANCE", "messages, datagrams: how often one is lost"),
    doc("duplicate", "CHANCE", "messages, datagrams: how often one arrives twice"),
    doc("reorder", "CHANCE", "messages, datagrams: how often one is held back for 20ms, and overtaken"),
    doc("reset", "CHANCE", "connections: how often whatever is sent breaks the connection"),
];

/// [`OPTIONS`] as they are written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Text {
    seed: u64,
    delay: Option<Period>,
    jitter: Option<Period>,
    split: f64,
    coalesce: f64,
    drop: f64,
    duplicate: f64,
    reorder: f64,
    reset: f64,
}

impl TryFrom<Text> for Faults {
    type Error = OptionError;

    fn try_from(text: Text) -> Result<Self, OptionError> {
        let chance = |name: &str, chance: f64| match chance {
            0.0..=1.0 => Ok(chance),
            other => Err(OptionError::Invalid(format!("the option `{name}` takes a chance from 0 to 1, not {other}"))),
        };
        let time = |name: &str, period: Option<Period>| match period.map_or(Duration::ZERO, Period::duration) {
            time if time <= LONGEST_DELAY => Ok(time),
            _ => Err(OptionError::Invalid(format!("the option `{name}` takes {} at most", Period(LONGEST_DELAY)))),
        };
        Ok(Faults {
            seed: text.seed,
            delay: time("delay", text.delay)?,
            jitter: time("jitter", text.jitter)?,
            split: chance("split", text.split)?,
            coalesce: chance("coalesce", text.coalesce)?,
            drop: chance("drop", text.drop)?,
            duplicate: chance("duplicate", text.duplicate)?,
            reorder: chance("reorder", text.reorder)?,
            reset: chance("reset", text.reset)?,
        })
    }
}

/// What faults can befall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// A connected stream of bytes.
    Bytes,
    /// A connected stream of messages.
    Messages,
    /// Single datagrams.
    Datagrams,
}

impl Faults {
    /// Names the first fault that cannot befall what is carried, and why.
    pub fn check(&self, carried: Carried) -> Result<(), String> {
        let misplaced = match carried {
            Carried::Bytes => vec![("drop", self.drop), ("duplicate", self.duplicate), ("reorder", self.reorder)],
            Carried::Messages => vec![("split", self.split), ("coalesce", self.coalesce)],
            Carried::Datagrams => vec![("split", self.split), ("coalesce", self.coalesce), ("reset", self.reset)],
        };
        let Some((name, _)) = misplaced.into_iter().find(|(_, chance)| *chance > 0.0) else { return Ok(()) };
        Err(match (carried, name) {
            (Carried::Bytes, name) => format!(
                "`{name}` cannot befall a stream of bytes: it would be a stream that no network shows. \
                 Bytes can be delayed, split, coalesced and reset; messages and datagrams can be lost"
            ),
            (_, "reset") => "`reset` cannot befall datagrams: there is no connection that could break. \
                             They can be dropped"
                .to_owned(),
            (_, name) => format!("`{name}` cannot befall messages: they arrive as they were sent. They can be dropped"),
        })
    }

    /// Whether all arrives, and arrives once.
    pub fn is_reliable(&self) -> bool {
        self.drop <= 0.0 && self.duplicate <= 0.0
    }

    /// Whether nothing is overtaken.
    pub fn is_ordered(&self) -> bool {
        self.reorder <= 0.0
    }
}

/// What becomes of one piece. The default is what a perfect network does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent faults, each of which is or is not")]
pub struct Fate {
    /// How long it takes.
    pub delay: Duration,
    /// Where it is cut in two, as a fraction of its length in units of 2⁻⁶⁴.
    pub split: Option<u64>,
    /// Whether it waits for the next.
    pub coalesce: bool,
    /// Whether it is lost.
    pub drop: bool,
    /// Whether it arrives twice.
    pub duplicate: bool,
    /// Whether it is overtaken.
    pub reorder: bool,
    /// Whether the connection breaks.
    pub reset: bool,
}

/// The fates of the pieces that one link carries in one direction, one after another, without end.
#[derive(Debug, Clone)]
pub struct Fates {
    faults: Faults,
    random: Random,
}

impl Fates {
    /// Those of one direction of one link: `lane` tells the directions and links of a run apart.
    pub fn new(faults: &Faults, lane: u64) -> Self {
        let mixed = faults.seed ^ Random::new(lane).next();
        Fates { faults: faults.clone(), random: Random::new(mixed) }
    }

    /// The fate of the next piece. Each takes the same number of draws, so that one fault more or less leaves all
    /// others where they were.
    pub fn draw(&mut self) -> Fate {
        let mut happens = |chance: f64| self.random.fraction() < chance;
        let faults = &self.faults;
        let [split, coalesce, drop, duplicate, reorder, reset] =
            [faults.split, faults.coalesce, faults.drop, faults.duplicate, faults.reorder, faults.reset]
                .map(&mut happens);
        let place = self.random.next();
        let longest = |time: Duration| time.min(LONGEST_DELAY);
        let delay = longest(faults.delay) + longest(faults.jitter).mul_f64(self.random.fraction());
        Fate { delay, split: split.then_some(place), coalesce, drop, duplicate, reorder, reset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;

    fn read(query: &str) -> Result<Faults, String> {
        Options::parse(query).and_then(|options| options.read()).map_err(|error| error.to_string())
    }

    fn fates(query: &str, lane: u64) -> Vec<Fate> {
        let mut fates = Fates::new(&read(query).unwrap(), lane);
        (0..500).map(|_| fates.draw()).collect()
    }

    const ALL: &str = "delay=1ms&jitter=9ms&split=0.5&coalesce=0.5&drop=0.5&duplicate=0.5&reorder=0.5&reset=0.5";

    #[test]
    fn the_same_seed_repeats_the_same_fates_and_another_does_not() {
        assert_eq!(fates(&format!("{ALL}&seed=7"), 3), fates(&format!("{ALL}&seed=7"), 3));
        assert_ne!(fates(&format!("{ALL}&seed=7"), 3), fates(&format!("{ALL}&seed=8"), 3));
        assert_ne!(fates(&format!("{ALL}&seed=7"), 3), fates(&format!("{ALL}&seed=7"), 4));
    }

    #[test]
    fn one_fault_more_leaves_the_others_where_they_were() {
        let dropped = |query| fates(query, 0).iter().map(|fate| fate.drop).collect::<Vec<_>>();
        assert_eq!(dropped("drop=0.3"), dropped("drop=0.3&duplicate=0.9&jitter=1s&split=0.5"));
    }

    #[test]
    fn chances_are_met_and_no_fault_happens_that_was_not_asked_for() {
        let count = fates("drop=0.3", 0).iter().filter(|fate| fate.drop).count();
        assert!((100..200).contains(&count), "{count} of 500");
        assert!(fates("drop=1", 0).iter().all(|fate| fate.drop));
        assert!(fates("seed=5", 0).iter().all(|fate| *fate == Fate::default()));
        let delays = fates("delay=1ms&jitter=9ms", 0);
        assert!(delays.iter().all(|fate| (1..=10).contains(&fate.delay.as_millis())));
        let endless = Faults { delay: Duration::MAX, jitter: Duration::MAX, ..Faults::default() };
        assert!(Fates::new(&endless, 0).draw().delay <= 2 * LONGEST_DELAY);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        assert_eq!(read("drop=2").unwrap_err(), "the option `drop` takes a chance from 0 to 1, not 2");
        assert_eq!(read("drop=nan").unwrap_err(), "the option `drop` takes a chance from 0 to 1, not NaN");
        assert_eq!(read("delay=2h").unwrap_err(), "the option `delay` takes 1h at most");
        assert_eq!(read("delay=soon").unwrap_err().split(':').next().unwrap(), "the option `delay`");
    }

    #[test]
    fn every_option_that_is_documented_can_be_read() {
        for option in OPTIONS {
            let value = if option.value == "TIME" { "1ms" } else { "1" };
            assert_ne!(read(&format!("{}={value}", option.name)).unwrap(), Faults::default(), "{}", option.name);
        }
    }

    #[test]
    fn a_fault_that_cannot_be_is_refused_with_the_reason() {
        let check = |query, carried| read(query).unwrap().check(carried);
        let refused = check("drop=0.1", Carried::Bytes).unwrap_err();
        assert!(refused.starts_with("`drop` cannot befall a stream of bytes"), "{refused}");
        assert!(check("split=0.1", Carried::Messages).unwrap_err().starts_with("`split` cannot befall messages"));
        assert!(check("reset=0.1", Carried::Datagrams).unwrap_err().starts_with("`reset` cannot befall datagrams"));
        assert_eq!(check("delay=1s&split=1&coalesce=1&reset=1", Carried::Bytes), Ok(()));
        assert_eq!(check("delay=1s&drop=1&duplicate=1&reorder=1&reset=1", Carried::Messages), Ok(()));
        assert_eq!(check("delay=1s&drop=1&duplicate=1&reorder=1", Carried::Datagrams), Ok(()));
    }
}
