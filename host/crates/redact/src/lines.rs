//! Texts that were broken into lines, as encoders do it at 60, 64 or 76 characters, and put into others: indented,
//! into JSON, into JSON in JSON, into a URL.

use std::ops::Range;

/// Characters that the shortest full line has.
const LINE_BYTES: usize = 40;

/// Backslashes before the `n` or `r` of a break: JSON that stands in JSON has 3, one level further 7, then 15.
const MAX_BACKSLASHES: usize = 15;

/// Blanks at the beginning of a line.
const MAX_BLANKS: usize = 32;

/// Bytes of the longest break: `\r` and `\n`, deep within JSON, and an indented line.
const BREAK_BYTES: usize = 2 * (MAX_BACKSLASHES + 1) + MAX_BLANKS;

/// Bytes that a form may take up when it is broken into lines.
pub(crate) fn broken(bytes: usize) -> usize {
    bytes + (bytes / LINE_BYTES + 1) * BREAK_BYTES
}

/// A text without its line breaks, also those that JSON and URLs have in their place, nor what indents its lines.
pub(crate) struct Joined {
    pub(crate) bytes: Vec<u8>,
    /// For each run of breaks: where the text goes on here, and how many bytes were left out up to there.
    gaps: Vec<(usize, usize)>,
}

impl Joined {
    /// None where there are no breaks.
    pub(crate) fn of(text: &[u8]) -> Option<Self> {
        let mut joined = Self { bytes: Vec::new(), gaps: Vec::new() };
        let (mut at, mut kept) = (0, 0);
        while at < text.len() {
            let width = width(&text[at..]);
            if width == 0 {
                at += 1;
                continue;
            }
            joined.bytes.extend_from_slice(&text[kept..at]);
            at += width;
            kept = at;
            joined.gaps.push((joined.bytes.len(), at - joined.bytes.len()));
        }
        if joined.gaps.is_empty() {
            return None;
        }
        joined.bytes.extend_from_slice(&text[kept..]);
        Some(joined)
    }

    /// Where a part of it stands in the text, breaks within it included.
    pub(crate) fn place(&self, part: Range<usize>) -> Range<usize> {
        let original = |at: usize| {
            let before = self.gaps.partition_point(|(goes_on, _)| *goes_on <= at);
            at + before.checked_sub(1).map_or(0, |last| self.gaps[last].1)
        };
        original(part.start)..original(part.end - 1) + 1
    }
}

/// Where at the end of a text a break may have begun that is not whole yet.
pub(crate) fn begun(text: &[u8]) -> Option<usize> {
    let from = text.len().saturating_sub(MAX_BACKSLASHES + 2);
    let begins = |rest: &[u8]| {
        let escaped = rest.iter().all(|byte| *byte == b'\\');
        escaped || rest == b"%" || rest == b"%0"
    };
    (from..text.len()).find(|at| begins(&text[*at..]))
}

/// Bytes of the break that a text begins with, and of the blanks after it.
fn width(text: &[u8]) -> usize {
    let end = match text {
        [b'\n' | b'\r', ..] => 1,
        [b'%', b'0', b'A' | b'a' | b'D' | b'd', ..] => 3,
        [b'\\', ..] => {
            let backslashes = text.iter().take(MAX_BACKSLASHES).take_while(|byte| **byte == b'\\').count();
            if matches!(text.get(backslashes), Some(b'n' | b'r')) { backslashes + 1 } else { 0 }
        }
        _ => 0,
    };
    if end == 0 {
        return 0;
    }
    end + text[end..].iter().take(MAX_BLANKS).take_while(|byte| matches!(byte, b' ' | b'\t')).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_again_where_they_stood() {
        let text = b"\nab\r\ncd\\nef\\x\n";
        let joined = Joined::of(text).unwrap();
        assert_eq!(joined.bytes, b"abcdef\\x");
        for (part, original) in
            [(0..2, &b"ab"[..]), (2..4, b"cd"), (1..3, b"b\r\nc"), (3..6, b"d\\nef"), (6..8, b"\\x")]
        {
            assert_eq!(&text[joined.place(part)], original);
        }
        assert!(Joined::of(b"one \\line %0B %0").is_none());
    }

    #[test]
    fn breaks_are_found_in_every_dress_and_take_their_indentation_along() {
        let deep = "\\".repeat(MAX_BACKSLASHES);
        for end in [
            "\n    ",
            "\r\n\t",
            "\\n  ",
            "\\\\n",
            "\\\\r\\\\n  ",
            "%0A",
            "%0d%0a",
            &format!("{deep}r{deep}n{}", " ".repeat(MAX_BLANKS)),
        ] {
            assert!(end.len() <= BREAK_BYTES, "{end:?}");
            assert_eq!(Joined::of(format!("ab{end}cd").as_bytes()).unwrap().bytes, b"abcd", "{end:?}");
        }
        // What takes more room than is held back is none.
        let far = format!("ab\n{}cd", " ".repeat(MAX_BLANKS + 1));
        assert_eq!(Joined::of(far.as_bytes()).unwrap().bytes, b"ab cd");
    }
}
