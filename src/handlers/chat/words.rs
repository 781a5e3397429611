//! What peers say in a chat: lines, commands, names, and what of it others may see.

use std::borrow::Cow;

use crate::escape;

/// The most bytes in the name of a person or of a room.
const LONGEST_NAME: usize = 24;
/// What [`is_name`] asks for, after "has" or "takes".
pub(super) const NAME_RULE: &str = "1 to 24 ASCII letters, digits, - or _";
/// The commands.
pub(super) const HELP: &str = "/join ROOM, /who, /quit, /help; //text sends /text";

/// One line, understood.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said<'a> {
    Text(&'a str),
    Join(&'a str),
    Here(&'a str),
    Who,
    Quit,
    Help,
    Unknown(&'a str),
}

impl<'a> Said<'a> {
    pub(super) fn parse(line: &'a str) -> Self {
        let Some(command) = line.strip_prefix('/') else { return Said::Text(line) };
        if command.starts_with('/') {
            return Said::Text(command);
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (word, rest.trim()) {
            ("/join", room) => Said::Join(room),
            ("/here", code) => Said::Here(code),
            ("/who", "") => Said::Who,
            ("/quit", _) => Said::Quit,
            ("/help", _) => Said::Help,
            _ => Said::Unknown(word),
        }
    }
}

/// The lines of a message, without their ends and without empty ones: a datagram or a read may bring several.
pub(super) fn lines(message: &[u8]) -> impl Iterator<Item = &[u8]> {
    message.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty())
}

/// The line as others may see it. What is no text, what controls a terminal, and what hides or reorders text becomes
/// the replacement character, so that nothing in a line can look like another line.
pub(super) fn clean(line: &[u8]) -> Cow<'_, str> {
    let text = String::from_utf8_lossy(line);
    let harmful = |c: char| c.is_control() || escape::is_invisible(c);
    if !text.contains(harmful) {
        return text;
    }
    let replaced = |c: char| match c {
        '\t' => ' ',
        c if harmful(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    };
    Cow::Owned(text.chars().map(replaced).collect())
}

/// Whether a person or a room may be called so.
pub(super) fn is_name(text: &str) -> bool {
    (1..=LONGEST_NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn commands_are_told_from_text() {
        for (line, said) in [
            ("hello", Said::Text("hello")),
            ("/join  tea-room ", Said::Join("tea-room")),
            ("/join", Said::Join("")),
            ("/who", Said::Who),
            ("/whom", Said::Unknown("/whom")),
            ("/quit now", Said::Quit),
            ("/help", Said::Help),
            ("//etc/motd", Said::Text("/etc/motd")),
            ("/", Said::Unknown("/")),
            ("* bob left", Said::Text("* bob left")),
        ] {
            assert_eq!(Said::parse(line), said, "{line}");
        }
    }

    #[test]
    fn a_message_is_as_many_lines_as_it_brings() {
        assert_eq!(lines(b"one\r\n\r\n two\nthree").collect::<Vec<_>>(), [&b"one"[..], b"two", b"three"]);
        assert_eq!(lines(b"").count(), 0);
    }

    #[test]
    fn names_are_short_and_have_no_look_alikes() {
        for name in ["a", "Ada_Lovelace-1815", "0123456789abcdef01234567"] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "two words", "ad\u{430}", "<bob>", "*", "/who", "0123456789abcdef012345678"] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn readable_text_of_all_scripts_stays_as_it_is() {
        for text in ["caf\u{e9} \u{65e5}\u{672c} \u{1f600}", "C:\\dir"] {
            assert_eq!(clean(text.as_bytes()), text);
        }
        assert_eq!(clean(b"a\tb\x1b[2J\xff\xe2\x80\xaec"), "a b\u{fffd}[2J\u{fffd}\u{fffd}c");
    }

    proptest! {
        #[test]
        fn whatever_is_said_is_one_line_without_controls(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for line in lines(&bytes) {
                let shown = clean(line);
                let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
                prop_assert!(!shown.contains(breaks));
                prop_assert!(shown.len() <= 3 * line.len());
            }
        }
    }
}
