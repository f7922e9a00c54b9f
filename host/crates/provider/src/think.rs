const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Tells reasoning between `<think>` and `</think>` from the text around it, piece by piece.
///
/// A mark counts at the start of a line only: elsewhere the text talks about it.
#[derive(Debug)]
pub(crate) struct Think {
    inside: bool,
    /// Not decided yet: the beginning of a mark, or white space that may precede one.
    pending: String,
    /// Only white space so far on this line.
    line_is_blank: bool,
    /// Nothing but white space so far.
    is_start: bool,
    /// White space is dropped that separates reasoning from the text behind it.
    trim: bool,
}

/// A part of an answer's text.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Segment<'a> {
    Text(&'a str),
    Reasoning(&'a str),
    /// All text so far was reasoning: its opening mark was part of the prompt.
    Retract,
}

impl Default for Think {
    fn default() -> Self {
        Self { inside: false, pending: String::new(), line_is_blank: true, is_start: true, trim: false }
    }
}

impl Think {
    pub(crate) fn push(&mut self, piece: &str, mut give: impl FnMut(Segment<'_>)) {
        let text = std::mem::take(&mut self.pending) + piece;
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let used = if self.inside { self.inside(rest, &mut give) } else { self.outside(rest, &mut give) };
            rest = &rest[used..];
            if used == 0 {
                break;
            }
        }
        self.pending.push_str(rest);
    }

    /// Ends the text; the beginning of a mark is text after all.
    pub(crate) fn finish(self, mut give: impl FnMut(Segment<'_>)) {
        if self.pending.is_empty() {
            return;
        }
        give(if self.inside { Segment::Reasoning(&self.pending) } else { Segment::Text(&self.pending) });
    }

    /// Handles as much as can be decided of text inside the marks, and says how many bytes that was.
    fn inside(&mut self, rest: &str, give: &mut impl FnMut(Segment<'_>)) -> usize {
        let Some(end) = rest.find(CLOSE) else {
            let decided = rest.len() - beginning_at_end(rest, CLOSE);
            if decided > 0 {
                give(Segment::Reasoning(&rest[..decided]));
            }
            return decided;
        };
        if end > 0 {
            give(Segment::Reasoning(&rest[..end]));
        }
        self.leave();
        end + CLOSE.len()
    }

    /// The same outside of them.
    fn outside(&mut self, rest: &str, give: &mut impl FnMut(Segment<'_>)) -> usize {
        if self.trim {
            let spaces = rest.len() - rest.trim_start().len();
            self.trim = spaces == rest.len();
            if spaces > 0 {
                return spaces;
            }
        }
        if self.line_is_blank {
            let mark = rest.trim_start_matches([' ', '\t', '\r', '\n']);
            let spaces = rest.len() - mark.len();
            if mark.starts_with(OPEN) {
                self.inside = true;
                self.show(&rest[..spaces], give);
                return spaces + OPEN.len();
            }
            if mark.starts_with(CLOSE) {
                give(Segment::Retract);
                self.leave();
                return spaces + CLOSE.len();
            }
            if OPEN.starts_with(mark) || CLOSE.starts_with(mark) {
                return 0;
            }
        }
        // One line at a time: a mark counts where a line starts.
        let line = rest.find('\n').map_or(rest, |end| &rest[..=end]);
        self.line_is_blank = false;
        self.is_start = false;
        give(Segment::Text(line));
        if line.ends_with('\n') {
            self.line_is_blank = true;
        }
        line.len()
    }

    /// White space before the first mark is not worth showing.
    fn show(&mut self, spaces: &str, give: &mut impl FnMut(Segment<'_>)) {
        if !self.is_start && !spaces.is_empty() {
            give(Segment::Text(spaces));
        }
    }

    fn leave(&mut self) {
        self.inside = false;
        self.line_is_blank = true;
        self.is_start = true;
        self.trim = true;
    }
}

/// Bytes at the end of `text` that may be the beginning of `mark`.
fn beginning_at_end(text: &str, mark: &str) -> usize {
    (1..mark.len()).rev().find(|length| text.ends_with(&mark[..*length])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Text, reasoning, and what was retracted.
    fn split(pieces: &[&str]) -> (String, String, String) {
        let (mut text, mut reasoning, mut retracted) = (String::new(), String::new(), String::new());
        let mut give = |segment: Segment<'_>| match segment {
            Segment::Text(part) => text.push_str(part),
            Segment::Reasoning(part) => reasoning.push_str(part),
            Segment::Retract => retracted = std::mem::take(&mut text),
        };
        let mut think = Think::default();
        for piece in pieces {
            think.push(piece, &mut give);
        }
        think.finish(&mut give);
        (text, reasoning, retracted)
    }

    #[test]
    fn reasoning_is_told_from_text() {
        for (answer, text, reasoning) in [
            ("<think>why</think>\n\nbecause", "because", "why"),
            ("\n<think>\nwhy\n</think>\nbecause", "because", "\nwhy\n"),
            ("<think>cut off", "", "cut off"),
            ("<think></think>four", "four", ""),
            ("so\n<think>why</think>because", "so\nbecause", "why"),
            ("the `<think>` mark and <think> too", "the `<think>` mark and <think> too", ""),
            ("  plain", "  plain", ""),
            ("a < b\n<", "a < b\n<", ""),
            ("\n\n", "\n\n", ""),
        ] {
            let (seen, thought, _) = split(&[answer]);
            assert_eq!((seen.as_str(), thought.as_str()), (text, reasoning), "{answer:?}");
        }
    }

    #[test]
    fn a_lone_closing_mark_makes_the_text_before_it_reasoning() {
        let (text, _, retracted) = split(&["let me see\n</thi", "nk>\n\nfour"]);
        assert_eq!((text.as_str(), retracted.as_str()), ("four", "let me see\n"));
    }

    proptest! {
        #[test]
        fn borders_of_pieces_do_not_matter(cuts in prop::collection::vec(0usize..40, 0..8)) {
            let answer = "<think>wh</y<\n</think>\n\nbecäuse <think>\n <think>2</think> x";
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| answer.is_char_boundary(*cut)).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut start = 0;
            for cut in cuts {
                pieces.push(&answer[start..cut]);
                start = cut;
            }
            pieces.push(&answer[start..]);
            prop_assert_eq!(split(&pieces), split(&[answer]));
        }
    }
}
