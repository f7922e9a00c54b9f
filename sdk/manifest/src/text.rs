//! Text that acts: on a terminal, on the order in which it is read, or unseen. What a plugin, a server or
//! a model writes passes through here before it is shown or put into a prompt.
//!
//! [`plain`] takes out what acts and leaves what people write: every script with its marks and joiners,
//! emoji with theirs. [`line`] keeps a text on one line and shows what [`plain`] would take out.

mod marks;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::path::Path;

use marks::is_mark;

/// Marks on one character. Biblical Hebrew and Tibetan have six; hundreds draw over the lines around them.
const MAX_MARKS: usize = 10;

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';
const BLACK_FLAG: char = '\u{1f3f4}';
const BRAILLE_BLANK: char = '\u{2800}';

/// The flags that are spelled with unseen letters: England, Scotland, Wales. Every other use of such
/// letters is a message that nobody sees.
const SPELLED_FLAGS: [&str; 3] = ["gbeng", "gbsct", "gbwls"];

/// A text without what acts; it may have several lines.
#[must_use]
pub fn plain(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n' | b'\t')) {
        return Cow::Borrowed(text);
    }
    let mut stream = Plain::default();
    Cow::Owned(stream.push(text))
}

/// A text that stays on one line: what would act, break the line or be unseen is shown, as `\n` or
/// `\u{202e}`.
#[must_use]
pub fn line(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return Cow::Borrowed(text);
    }
    let mut filter = Filter { shows: true, ..Filter::default() };
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| filter.take(c, &mut out));
    filter.settle(None, &mut out);
    Cow::Owned(out)
}

/// A path as people and records are shown it: its name writes no line of its own.
#[must_use]
pub fn path(path: &Path) -> String {
    line(&path.to_string_lossy()).into_owned()
}

/// Whether a text is one line in which nothing acts.
#[must_use]
pub fn is_line(text: &str) -> bool {
    line(text) == text
}

/// [`plain`] for a text that comes in pieces: a sequence that is split over pieces is taken out whole.
#[derive(Debug, Default)]
pub struct Plain {
    sequence: Sequence,
    filter: Filter,
}

/// A control sequence that is being taken out.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Sequence {
    #[default]
    None,
    /// After `ESC`.
    Escape,
    /// `ESC` and intermediate bytes.
    Intermediate,
    /// `CSI`: parameters up to a letter.
    Control,
    /// `OSC`, `DCS`, `APC`, `PM`, `SOS`: a text up to its terminator, at most to the end of the line.
    Command,
    /// `ESC` in such a text.
    CommandEscape,
}

impl Plain {
    /// Takes the next piece and gives back what of it can be shown.
    pub fn push(&mut self, piece: &str) -> String {
        let mut out = String::with_capacity(piece.len());
        piece.chars().for_each(|c| self.take(c, &mut out));
        out
    }

    fn take(&mut self, c: char, out: &mut String) {
        use Sequence::{Command, CommandEscape, Control, Escape, Intermediate};
        self.sequence = match (self.sequence, c) {
            (Sequence::None, '\u{1b}') | (Escape | Intermediate | Control, '\u{1b}') => Escape,
            (_, '\u{9b}') => Control,
            (_, '\u{90}' | '\u{98}' | '\u{9d}' | '\u{9e}' | '\u{9f}') => Command,
            (Escape | CommandEscape, '[') => Control,
            (Escape | CommandEscape, ']' | 'P' | 'X' | '^' | '_') => Command,
            (Escape | Intermediate | CommandEscape, ' '..='/') => Intermediate,
            (Escape | Intermediate | CommandEscape, '0'..='~') | (Control, '@'..='~') => Sequence::None,
            (Control, ' '..='?') => Control,
            (Command, '\u{1b}') => CommandEscape,
            (CommandEscape, '\u{1b}') => CommandEscape,
            (Command, '\u{7}' | '\u{9c}' | '\u{18}' | '\u{1a}') => Sequence::None,
            // It swallows nothing of the lines that follow.
            (Command, '\n' | '\u{2028}' | '\u{2029}') => {
                self.filter.take('\n', out);
                Sequence::None
            }
            (Command, _) => Command,
            // What interrupts a sequence is not a part of it.
            _ => {
                self.filter.take(c, out);
                Sequence::None
            }
        };
    }
}

/// Decides character by character. What it depends on is what was let through before.
#[derive(Debug, Default)]
struct Filter {
    /// Whether what is not let through is shown, and line breaks with it.
    shows: bool,
    /// The last character that was let through.
    before: Option<char>,
    /// Marks and joiners since the last character with a place of its own.
    marks: usize,
    /// A joiner that is let through if the next character can be joined.
    joiner: Option<char>,
    /// Unseen letters after a black flag.
    spelled: Option<String>,
}

impl Filter {
    fn take(&mut self, c: char, out: &mut String) {
        self.settle(Some(c), out);
        if self.spelled.is_some() && matches!(c, '\u{e0020}'..='\u{e007f}') {
            return self.spell(c, out);
        }
        match c {
            '\n' | '\t' if !self.shows => self.pass(c, out),
            '\u{2028}' | '\u{2029}' if !self.shows => self.pass('\n', out),
            ZWNJ | ZWJ if self.can_be_joined(c) => self.joiner = Some(c),
            // One more than the eye can tell apart is taken out silently: there may be thousands.
            _ if is_mark(c) && self.marks >= MAX_MARKS => {}
            _ if self.selects(c) => self.pass(c, out),
            // It takes a place, as a space does, and people who write in Braille need it.
            BRAILLE_BLANK if !self.shows => self.pass(c, out),
            _ if is_unseen(c) => self.refuse(c, out),
            _ => self.pass(c, out),
        }
    }

    /// Decides what waited for the next character, or for the end.
    fn settle(&mut self, next: Option<char>, out: &mut String) {
        if let Some(joiner) = self.joiner.take() {
            let joins = next.is_some_and(|next| match self.before {
                Some(before) if is_joined_script(before) => is_joined_script(next),
                _ => joiner == ZWJ && is_pictograph(next),
            });
            if joins { self.pass(joiner, out) } else { self.refuse(joiner, out) }
        }
        let spells = next.is_some_and(|next| matches!(next, '\u{e0020}'..='\u{e007f}'));
        if !spells && let Some(spelled) = self.spelled.take() {
            spelled.chars().for_each(|c| self.refuse(c, out));
        }
    }

    fn spell(&mut self, c: char, out: &mut String) {
        let Some(spelled) = &mut self.spelled else { return };
        spelled.push(c);
        let letters: String =
            spelled.chars().filter_map(|c| char::from_u32(u32::from(c) - 0xe_0000)).collect();
        let is_whole = letters.strip_suffix('\u{7f}').is_some_and(|name| SPELLED_FLAGS.contains(&name));
        if !is_whole && SPELLED_FLAGS.iter().any(|flag| flag.starts_with(&letters)) {
            return;
        }
        for c in self.spelled.take().unwrap_or_default().chars() {
            if is_whole { self.pass(c, out) } else { self.refuse(c, out) }
        }
    }

    fn pass(&mut self, c: char, out: &mut String) {
        let has_no_place = is_mark(c) || matches!(c, ZWJ | ZWNJ);
        self.marks = if has_no_place { self.marks + 1 } else { 0 };
        self.before = Some(c);
        self.spelled = (c == BLACK_FLAG).then(String::new);
        out.push(c);
    }

    fn refuse(&mut self, c: char, out: &mut String) {
        if self.shows {
            // Writing into a string does not fail.
            let _ = write!(out, "{}", c.escape_default());
            self.before = None;
            self.marks = 0;
        }
    }

    /// Whether a joiner can follow, with room for a mark after it.
    fn can_be_joined(&self, joiner: char) -> bool {
        let Some(before) = self.before else { return false };
        self.marks + 2 <= MAX_MARKS
            && (is_joined_script(before) || joiner == ZWJ && (is_pictograph(before) || before == '\u{fe0f}'))
    }

    /// Whether a character chooses the form of the one before it, as in emoji, Han and Mongolian.
    fn selects(&self, c: char) -> bool {
        let Some(before) = self.before else { return false };
        match c {
            '\u{fe0e}' | '\u{fe0f}' => is_pictograph(before) || matches!(before, '0'..='9' | '#' | '*'),
            // As many as fonts have registered for one letter: all 240 would be a hidden byte behind each.
            '\u{e0100}'..='\u{e011f}' => is_han(before),
            '\u{180b}'..='\u{180f}' => matches!(before, '\u{1820}'..='\u{18aa}'),
            _ => false,
        }
    }
}

/// Whether a character acts, or shows nothing by itself: line ends and tabs too.
#[must_use]
pub fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | BRAILLE_BLANK
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Letters and marks of scripts that are written with joiners: Arabic and its neighbours, the scripts of
/// India and South-East Asia, Mongolian.
fn is_joined_script(c: char) -> bool {
    let in_script = matches!(c,
        '\u{600}'..='\u{109f}' | '\u{1700}'..='\u{1cff}' | '\u{a800}'..='\u{a8ff}' | '\u{a980}'..='\u{aadf}'
        | '\u{abc0}'..='\u{abff}' | '\u{fb50}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}'
        | '\u{10a00}'..='\u{10fff}' | '\u{11000}'..='\u{11fff}');
    in_script && !is_unseen(c) && (c.is_alphabetic() || is_mark(c))
}

fn is_pictograph(c: char) -> bool {
    matches!(c,
        '\u{a9}' | '\u{ae}' | '\u{203c}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2190}'..='\u{21ff}'
        | '\u{2300}'..='\u{23ff}' | '\u{2460}'..='\u{24ff}' | '\u{25a0}'..='\u{27bf}'
        | '\u{2900}'..='\u{297f}' | '\u{2b00}'..='\u{2bff}' | '\u{3030}' | '\u{303d}' | '\u{3297}'
        | '\u{3299}' | '\u{1f000}'..='\u{1faff}')
}

fn is_han(c: char) -> bool {
    matches!(c,
        '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{323af}')
}
