//! What the figures were taken on.

use std::fs;

use crate::process::first_line;

/// One line: processor, kernel, compilers, date.
pub(crate) fn describe() -> String {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let said = |program, arguments: &[&str]| first_line(program, arguments).unwrap_or_else(|| "unknown".to_owned());
    format!(
        "{count} × {}, Linux {}, {}, {}, commit {}, {}",
        model.unwrap_or("unknown processor"),
        said("uname", &["-r"]),
        said("rustc", &["--version"]),
        said("cc", &["--version"]),
        said("git", &["rev-parse", "--short", "HEAD"]),
        said("date", &["+%Y-%m-%d %H:%M"]),
    )
}
