//! Texts that were broken into lines, as encoders do it at 60, 64 or 76 characters.

use std::ops::Range;

/// Characters that the shortest full line has.
const LINE_BYTES: usize = 40;

/// Bytes of the longest break: `\\r\\n`, as it stands inside a JSON string.
const BREAK_BYTES: usize = 4;

/// Bytes that a form may take up when it is broken into lines.
pub(crate) fn broken(bytes: usize) -> usize {
    bytes + (bytes / LINE_BYTES + 1) * BREAK_BYTES
}

/// A text without its line breaks, also those that JSON has in their place.
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

/// Bytes of the break that a text begins with.
fn width(text: &[u8]) -> usize {
    match text {
        [b'\n' | b'\r', ..] => 1,
        [b'\\', b'n' | b'r', ..] => 2,
        _ => 0,
    }
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
        assert!(Joined::of(b"one \\line").is_none());
    }
}
