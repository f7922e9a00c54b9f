//! What people and programs see of a run.

pub(crate) mod card;
pub(crate) mod diff;
pub(crate) mod json;
mod links;
pub(crate) mod markdown;
pub(crate) mod style;
pub(crate) mod terminal;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};

pub(crate) use protocol::text::{line, path as shown, plain};

/// Whether something that was asked for could not be written.
static LOST: AtomicBool = AtomicBool::new(false);

/// What was asked for, on standard output. A reader that has seen enough is no failure; a full disk is, and
/// the exit code tells it.
pub(crate) fn say(text: &str) {
    let written = writeln!(std::io::stdout().lock(), "{}", plain(text));
    if written.is_err_and(|error| error.kind() != std::io::ErrorKind::BrokenPipe) {
        LOST.store(true, Ordering::Relaxed);
    }
}

/// Whether all that was said was written.
pub(crate) fn all_said() -> bool {
    !LOST.load(Ordering::Relaxed)
}

/// A line beside what was asked for, on standard error. Nobody reading it is no failure.
pub(crate) fn warn(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// One line of at most `width` characters, its breaks as spaces.
pub(crate) fn clip(text: &str, width: usize) -> String {
    cut(plain(text).replace(['\n', '\t'], " "), width)
}

/// One line of at most `width` characters that a person decides by: whatever is odd in it is shown.
pub(crate) fn exact(text: &str, width: usize) -> String {
    cut(line(text).into_owned(), width)
}

fn cut(mut text: String, width: usize) -> String {
    if let Some((at, _)) = text.char_indices().nth(width) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_clipped_by_characters() {
        assert_eq!(clip("äöü\nx", 3), "äöü…");
        assert_eq!(clip("äöü", 3), "äöü");
        assert_eq!(clip("a\u{1b}[31mb\u{202e}\nc", 9), "ab c");
        assert_eq!(exact("a\u{202e}b\nc", 99), "a\\u{202e}b\\nc");
    }
}
