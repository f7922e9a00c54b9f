use std::io::BufRead;

/// Splits an input into lines as Python's `splitlines` does: also at carriage returns, form feeds and the
/// separators of Unicode. A progress bar that rewrites its line is many lines then, not one long one.
pub(super) struct Lines<R> {
    input: R,
    /// Bytes of a line that are kept; the rest is read and dropped.
    keep: usize,
    /// The last line ended with a carriage return: a line feed right after it belongs to that end.
    after_return: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, keep: usize) -> Self {
        Self { input, keep, after_return: false }
    }

    /// Reads a line, without its end, into `line`. False at the end of the input.
    pub(super) fn next(&mut self, line: &mut Vec<u8>) -> std::io::Result<bool> {
        line.clear();
        let mut length = 0_usize;
        // The two bytes before the one that is looked at: some separators have three.
        let mut before = [0_u8; 2];
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(length > 0);
            }
            let mut used = 0;
            let (mut end, mut last) = (None, 0);
            for byte in buffer {
                used += 1;
                if std::mem::take(&mut self.after_return) && *byte == b'\n' {
                    continue;
                }
                length += 1;
                if line.len() < self.keep {
                    line.push(*byte);
                }
                (end, last) = (separator(before, *byte), *byte);
                if end.is_some() {
                    break;
                }
                before = [before[1], *byte];
            }
            self.input.consume(used);
            if let Some(width) = end {
                self.after_return = last == b'\r';
                // What was kept may have a part of the separator only, or nothing of it.
                line.truncate(length - width);
                return Ok(true);
            }
        }
    }
}

/// Whether a line ends with this byte, and how many bytes the separator has.
fn separator(before: [u8; 2], byte: u8) -> Option<usize> {
    match (before, byte) {
        (_, b'\n' | b'\r' | 0x0b | 0x0c | 0x1c..=0x1e) => Some(1),
        ([_, 0xc2], 0x85) => Some(2),
        ([0xe2, 0x80], 0xa8 | 0xa9) => Some(3),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(text: &str) -> Vec<String> {
        // Every buffer size, so that separators lie across buffers.
        let all: Vec<Vec<String>> = (1..8)
            .map(|size| {
                let mut lines = Lines::new(BufReader::with_capacity(size, text.as_bytes()), 10);
                let (mut found, mut line) = (Vec::new(), Vec::new());
                while lines.next(&mut line).unwrap() {
                    found.push(String::from_utf8(line.clone()).unwrap());
                }
                found
            })
            .collect();
        assert!(all.iter().all(|found| *found == all[0]), "{all:?}");
        all[0].clone()
    }

    #[test]
    fn lines_end_as_in_python() {
        assert_eq!(lines("a\nb\r\nc\rd"), ["a", "b", "c", "d"]);
        assert_eq!(lines("a\r\r\n\nb\r"), ["a", "", "", "b"]);
        assert_eq!(
            lines("a\u{b}b\u{c}c\u{1c}d\u{85}e\u{2028}f\u{2029}g\n"),
            ["a", "b", "c", "d", "e", "f", "g"]
        );
        assert_eq!(lines("é\u{a0}…\n\n"), ["é\u{a0}…", ""]);
        assert_eq!(lines(""), [""; 0]);
    }

    #[test]
    fn of_a_long_line_the_beginning_is_kept() {
        assert_eq!(lines("0123456789abcdef\r\nx\r\n"), ["0123456789", "x"]);
        assert_eq!(lines("0123456789\n1\n"), ["0123456789", "1"]);
    }
}
