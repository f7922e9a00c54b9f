use std::ops::Range;

/// What is forgiven when two texts are compared. Line ends are always compared.
#[derive(Clone, Copy)]
pub(super) struct Fold {
    /// White space at the start of a line.
    pub(super) leading: bool,
    /// Dashes, quotes and blanks that look alike, and invisible characters.
    characters: bool,
}

/// A folded text that knows where each of its bytes came from.
pub(super) struct Folded {
    pub(super) text: String,
    /// The byte offset in the original of the character that each byte belongs to.
    origin: Vec<u32>,
}

impl Fold {
    /// White space at the end of a line is always forgiven.
    pub(super) const TRAILING: Self = Self { leading: false, characters: false };
    pub(super) const BOTH_ENDS: Self = Self { leading: true, characters: false };
    pub(super) const CHARACTERS: Self = Self { leading: true, characters: true };

    pub(super) fn apply(self, text: &str) -> Folded {
        let mut folded =
            Folded { text: String::with_capacity(text.len()), origin: Vec::with_capacity(text.len()) };
        let mut line_start = 0;
        for line in text.split('\n') {
            if line_start > 0 {
                folded.push('\n', line_start - 1);
            }
            let trimmed = line.trim_end();
            let kept = if self.leading { trimmed.trim_start() } else { trimmed };
            let indent = trimmed.len() - kept.len();
            let offset = line_start + if self.leading { indent } else { 0 };
            for (at, c) in kept.char_indices() {
                if let Some(c) = self.character(c) {
                    folded.push(c, offset + at);
                }
            }
            line_start += line.len() + 1;
        }
        folded
    }

    fn character(self, c: char) -> Option<char> {
        if !self.characters {
            return Some(c);
        }
        match c {
            '\u{2013}' | '\u{2014}' | '\u{2212}' => Some('-'),
            '\u{2018}' | '\u{2019}' => Some('\''),
            '\u{201c}' | '\u{201d}' => Some('"'),
            '\u{a0}' | '\u{2002}' | '\u{2003}' => Some(' '),
            '\u{200b}' | '\u{feff}' => None,
            other => Some(other),
        }
    }
}

impl Folded {
    fn push(&mut self, c: char, origin: usize) {
        self.text.push(c);
        let origin = u32::try_from(origin).unwrap_or(u32::MAX);
        self.origin.resize(self.text.len(), origin);
    }

    /// The piece of the original that a non-empty piece of the folded text stands for.
    pub(super) fn original(&self, content: &str, found: Range<usize>) -> Range<usize> {
        let start = self.origin[found.start] as usize;
        let last = self.origin[found.end - 1] as usize;
        let width = content[last..].chars().next().map_or(0, char::len_utf8);
        start..last + width
    }
}
