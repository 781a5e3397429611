//! Options as text, and the typed settings that are read from them.
//!
//! An endpoint's query (`?backlog=5&nodelay=no`) and a handler's (`hello?welcome=hi`) are lists of names and values.
//! Whoever owns an option declares a serde structure and reads it with [`Options::read`]: a value of the wrong shape
//! and a name that nobody knows are errors that name both.
//!
//! ```
//! use greetd::options::{Options, Period, Size};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields, rename_all = "kebab-case")]
//! struct Settings { idle_timeout: Period, max_message: Size, #[serde(default)] backlog: Option<u32> }
//!
//! let options = Options::parse("idle-timeout=500ms&max-message=64KiB&backlog=5")?;
//! let settings: Settings = options.read()?;
//! assert_eq!(settings.max_message.bytes(), 65536);
//! assert_eq!(settings.backlog, Some(5));
//! # Ok::<(), greetd::options::OptionError>(())
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};

/// Names and values in the order in which they were given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(Vec<(String, String)>);

/// An option as `greetd list` and `--help` show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionDoc {
    /// The name, as in a query.
    pub name: &'static str,
    /// What may be given, for example `SIZE` or `yes|no`.
    pub value: &'static str,
    /// What holds when it is left out.
    pub default: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
}

/// Why options could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// A query that is not `name=value&name=value`.
    #[error("`{text}` is not an option; write name=value")]
    Malformed {
        /// The part at fault.
        text: String,
    },
    /// One name given twice.
    #[error("the option `{name}` is given twice")]
    Twice {
        /// The option.
        name: String,
    },
    /// A value that does not fit, or a name that is unknown.
    #[error("{0}")]
    Invalid(String),
}

impl de::Error for OptionError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        OptionError::Invalid(message.to_string())
    }
}

impl Options {
    /// Reads a query: `name=value` pairs between `&`, percent-encoded (RFC 3986). A name alone means `yes`.
    pub fn parse(query: &str) -> Result<Self, OptionError> {
        let mut options = Options::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, "yes"));
            let malformed = || OptionError::Malformed { text: part.to_owned() };
            let decode = |text| decode_percent(text).ok_or_else(malformed);
            let name = decode(name)?;
            if name.is_empty() {
                return Err(malformed());
            }
            if options.get(&name).is_some() {
                return Err(OptionError::Twice { name });
            }
            options.0.push((name, decode(value)?));
        }
        Ok(options)
    }

    /// The value of an option.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Sets an option, in place of an earlier value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All names and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Takes out the options for which `belongs` holds.
    #[must_use]
    pub fn take(&mut self, belongs: impl Fn(&str) -> bool) -> Options {
        let (taken, left) = std::mem::take(&mut self.0).into_iter().partition(|(name, _)| belongs(name));
        self.0 = left;
        Options(taken)
    }

    /// Reads all of them into typed settings; unknown names are an error where the type denies unknown fields.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, OptionError> {
        let entries = self.0.iter().map(|(name, value)| (name.as_str(), Text { name, value }));
        T::deserialize(de::value::MapDeserializer::new(entries))
    }
}

/// As a query, percent-encoded where it must be.
impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, value)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "&" };
            write!(f, "{separator}{}={}", EncodePercent(name), EncodePercent(value))?;
        }
        Ok(())
    }
}

/// For whoever wants the options as they are, to divide them among several.
impl<'de> de::Deserialize<'de> for Options {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OptionsVisitor;
        impl<'de> Visitor<'de> for OptionsVisitor {
            type Value = Options;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names and values")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut entries: A) -> Result<Options, A::Error> {
                let mut options = Options::default();
                while let Some((name, value)) = entries.next_entry::<String, String>()? {
                    options.set(name, value);
                }
                Ok(options)
            }
        }
        deserializer.deserialize_map(OptionsVisitor)
    }
}

/// A size in bytes, written `65536`, `64KiB`, `64k`, `1MiB` or `1MB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub usize);

impl Size {
    /// The number of bytes.
    pub fn bytes(self) -> usize {
        self.0
    }
}

impl FromStr for Size {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let wrong = || OptionError::Invalid(format!("`{text}` is not a size; write bytes or a unit, such as 64KiB"));
        let (number, unit) = split_unit(text);
        let scale: usize = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "ki" | "kib" => 1 << 10,
            "m" | "mi" | "mib" => 1 << 20,
            "g" | "gi" | "gib" => 1 << 30,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            _ => return Err(wrong()),
        };
        number.parse::<usize>().ok().and_then(|n| n.checked_mul(scale)).map(Size).ok_or_else(wrong)
    }
}

/// In the largest binary unit that divides it.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (scale, unit) in [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
            if self.0 >= scale && self.0.is_multiple_of(scale) {
                return write!(f, "{}{unit}", self.0 / scale);
            }
        }
        self.0.fmt(f)
    }
}

/// A length of time, written `500ms`, `5s`, `2m`, `1h`, `1.5s`, or a bare number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);

impl Period {
    /// The length of time.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = OptionError;

    fn from_str(text: &str) -> Result<Self, OptionError> {
        let wrong =
            || OptionError::Invalid(format!("`{text}` is not a duration; write a number and a unit, such as 500ms"));
        let (number, unit) = split_unit(text);
        let scale = match unit {
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(wrong()),
        };
        let number: f64 = number.parse().map_err(|_| wrong())?;
        Duration::try_from_secs_f64(number * scale).map(Period).map_err(|_| wrong())
    }
}

/// In the largest unit that divides it.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        for (scale, unit) in [(3_600_000_000, "h"), (60_000_000, "m"), (1_000_000, "s"), (1_000, "ms")] {
            if micros >= scale && micros.is_multiple_of(scale) {
                return write!(f, "{}{unit}", micros / scale);
            }
        }
        if micros == 0 { f.write_str("0s") } else { write!(f, "{micros}us") }
    }
}

macro_rules! deserialize_from_text {
    ($($name:ident: $expected:literal),*) => {$(
        impl<'de> de::Deserialize<'de> for $name {
            fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct TextVisitor;
                impl Visitor<'_> for TextVisitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($expected)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                    fn visit_u64<E: de::Error>(self, number: u64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                    fn visit_i64<E: de::Error>(self, number: i64) -> Result<$name, E> {
                        number.to_string().parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_any(TextVisitor)
            }
        }
    )*};
}

deserialize_from_text!(Size: "a size such as 64KiB", Period: "a duration such as 500ms");

/// Splits `64KiB` into `64` and `KiB`.
fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

fn decode_percent(text: &str) -> Option<String> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok().map(Into::into)
}

/// What a query's names and values keep as they are: enough that addresses stay readable.
struct EncodePercent<'a>(&'a str);

impl fmt::Display for EncodePercent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
        const KEPT: &AsciiSet = &NON_ALPHANUMERIC
            .remove(b'-')
            .remove(b'_')
            .remove(b'.')
            .remove(b'~')
            .remove(b':')
            .remove(b'/')
            .remove(b'[')
            .remove(b']')
            .remove(b'@')
            .remove(b',')
            .remove(b'!');
        utf8_percent_encode(self.0, KEPT).fmt(f)
    }
}

/// One value, which becomes whatever type the settings ask for.
struct Text<'a> {
    name: &'a str,
    value: &'a str,
}

impl Text<'_> {
    fn parse<T: FromStr>(&self, expected: &str) -> Result<T, OptionError> {
        self.value.parse().map_err(|_| {
            OptionError::Invalid(format!("the option `{}` takes {expected}, not `{}`", self.name, self.value))
        })
    }

    /// Puts the option's name before a message that lacks it.
    fn named<T>(&self, result: Result<T, OptionError>) -> Result<T, OptionError> {
        result.map_err(|error| match error {
            OptionError::Invalid(reason) if !reason.contains(&format!("`{}`", self.name)) => {
                OptionError::Invalid(format!("the option `{}`: {reason}", self.name))
            }
            other => other,
        })
    }
}

impl<'de> IntoDeserializer<'de, OptionError> for Text<'de> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! deserialize_numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
            visitor.$visit(self.parse::<$type>("a number")?)
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Text<'de> {
    type Error = OptionError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        self.named(visitor.visit_str(self.value))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        match self.value {
            "yes" | "true" | "on" | "1" => visitor.visit_bool(true),
            "no" | "false" | "off" | "0" => visitor.visit_bool(false),
            _ => self.parse::<bool>("yes or no").and_then(|value| visitor.visit_bool(value)),
        }
    }

    deserialize_numbers!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64, deserialize_f32 visit_f32 f32,
        deserialize_f64 visit_f64 f64
    );

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, OptionError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, OptionError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, OptionError> {
        if !variants.contains(&self.value) {
            return Err(OptionError::Invalid(format!(
                "the option `{}` takes {}, not `{}`",
                self.name,
                variants.join(" or "),
                self.value
            )));
        }
        visitor.visit_enum(self.value.into_deserializer())
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
    struct Settings {
        backlog: u32,
        reuse_addr: bool,
        idle_timeout: Option<Period>,
        words: String,
        mode: Mode,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Mode {
        Drop,
        Kick,
    }

    impl Default for Settings {
        fn default() -> Self {
            Settings { backlog: 1, reuse_addr: true, idle_timeout: None, words: "hi".into(), mode: Mode::Drop }
        }
    }

    fn read(query: &str) -> Result<Settings, String> {
        Options::parse(query).and_then(|options| options.read()).map_err(|error| error.to_string())
    }

    #[test]
    fn values_become_the_types_that_the_settings_ask_for() {
        let settings = read("backlog=5&reuse-addr=no&idle-timeout=1.5s&words=a%20b&mode=kick").unwrap();
        assert_eq!(settings.backlog, 5);
        assert!(!settings.reuse_addr);
        assert_eq!(settings.idle_timeout, Some(Period(Duration::from_millis(1500))));
        assert_eq!(settings.words, "a b");
        assert_eq!(settings.mode, Mode::Kick);
        assert_eq!(read("").unwrap(), Settings::default());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (query, expected) in [
            ("backlog=five", "the option `backlog` takes a number, not `five`"),
            ("reuse-addr=maybe", "the option `reuse-addr` takes yes or no, not `maybe`"),
            ("mode=shout", "the option `mode` takes drop or kick, not `shout`"),
            (
                "idle-timeout=5x",
                "the option `idle-timeout`: `5x` is not a duration; write a number and a unit, such as 500ms",
            ),
            ("backlog=1&backlog=2", "the option `backlog` is given twice"),
            ("=5", "`=5` is not an option; write name=value"),
        ] {
            assert_eq!(read(query).unwrap_err(), expected);
        }
        assert!(read("backlock=1").unwrap_err().contains("unknown field `backlock`"));
    }

    #[test]
    fn a_number_too_large_for_its_unit_is_refused() {
        assert!("99999999999GiB".parse::<Size>().is_err());
        assert!("-1s".parse::<Period>().is_err());
        assert!("1e400s".parse::<Period>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back_the_same(names in proptest::collection::btree_map("[a-z-]{1,8}", any::<String>(), 0..4)) {
            let mut options = Options::default();
            for (name, value) in &names {
                options.set(name, value);
            }
            prop_assert_eq!(Options::parse(&options.to_string()).unwrap(), options);
        }

        #[test]
        fn sizes_and_durations_read_back_what_they_print(number in 0u64..1 << 50, unit in "|k|kb|MiB|us|ms|s|m|h|d") {
            prop_assert_eq!(crate::testing::text::options_read_back(&format!("{number}{unit}")), Ok(()));
        }

        #[test]
        fn no_text_makes_it_panic_and_what_parses_reads_back(text in any::<String>()) {
            prop_assert_eq!(crate::testing::text::options_read_back(&text), Ok(()));
        }
    }
}
