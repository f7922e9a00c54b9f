//! What people and programs see of a run.

pub(crate) mod card;
pub(crate) mod diff;
pub(crate) mod json;
pub(crate) mod markdown;
pub(crate) mod style;
pub(crate) mod terminal;

/// A text without what could act on a terminal: control characters, and marks that reorder text.
pub(crate) fn plain(text: &str) -> String {
    let acts = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(|c| !acts(*c)).collect()
}

/// A line of what was asked for, on standard output. A reader that has seen enough is no failure.
pub(crate) fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout().lock(), "{}", plain(line));
}

/// A line beside what was asked for, on standard error. Nobody reading it is no failure.
pub(crate) fn warn(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(line));
}

/// One line of at most `width` characters.
pub(crate) fn clip(text: &str, width: usize) -> String {
    let text = plain(text).replace(['\n', '\t'], " ");
    match text.char_indices().nth(width) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_on_a_terminal_is_taken_out() {
        assert_eq!(plain("a\u{1b}[31mb\u{7}c\u{9b}2J\u{202e}d\te\n"), "a[31mbc2Jd\te\n");
        assert_eq!(plain("\u{1b}]52;c;aGk=\u{7}"), "]52;c;aGk=");
    }

    #[test]
    fn lines_are_clipped_by_characters() {
        assert_eq!(clip("äöü\nx", 3), "äöü…");
        assert_eq!(clip("äöü", 3), "äöü");
    }
}
