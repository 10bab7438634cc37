//! The only place that writes for people: to stdout what they asked for, to
//! stderr why they did not get it. Everything else is logs. A reader that went
//! away is no fault of ours, so failures to write are not looked at.

use std::io::Write as _;

/// Writes a text and a line break to stdout.
pub fn say(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Writes a text and a line break to stderr.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
