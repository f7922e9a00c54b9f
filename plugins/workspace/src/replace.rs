//! The edit algorithm: exact first, then three passes that forgive white space and look-alike characters.
//!
//! A forgiving pass compares folded texts, but what it replaces is the matched piece of the original:
//! the rest of a line, its indentation and the lines after it stay.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::replace::fold::{Fold, Folded};

mod fold;

/// Files above this are matched exactly only: a folded copy with positions would not fit the guest.
const FOLD_BYTES: usize = 8 << 20;

/// Where the new text goes.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    #[default]
    Replace,
    ReplaceAll,
    AppendAfter,
    PrependBefore,
}

/// The text after an edit.
#[derive(Debug, PartialEq)]
pub(crate) struct Edited {
    pub(crate) text: String,
    pub(crate) count: usize,
    /// Says which forgiving pass matched.
    pub(crate) note: Option<&'static str>,
}

/// Why nothing was changed.
#[derive(Debug, PartialEq)]
pub(crate) enum EditError {
    NotFound,
    Ambiguous(usize),
    EmptyOld,
}

impl fmt::Display for EditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str(
                "old_str was not found; read the file again and copy the text exactly, without line numbers",
            ),
            Self::Ambiguous(count) => {
                write!(
                    f,
                    "old_str occurs {count} times; set replace_all or add lines around it to make it unique"
                )
            }
            Self::EmptyOld => f.write_str("old_str is empty; give the text to replace"),
        }
    }
}

/// One place to change and what to put there.
struct Hit<'a> {
    range: Range<usize>,
    new: Cow<'a, str>,
}

/// Applies an edit to a text.
pub(crate) fn replace(
    content: &str,
    old: &str,
    new: &str,
    mode: Mode,
    all: bool,
) -> Result<Edited, EditError> {
    if old.is_empty() {
        return match mode {
            Mode::Replace | Mode::ReplaceAll => Err(EditError::EmptyOld),
            Mode::AppendAfter | Mode::PrependBefore => Ok(Edited {
                text: format!("{}{content}", line_ends(has_crlf(content), new)),
                count: 1,
                note: None,
            }),
        };
    }
    let (mut hits, note) = find(content, old, new).ok_or(EditError::NotFound)?;
    if !all && mode != Mode::ReplaceAll {
        if mode == Mode::Replace && hits.len() > 1 {
            return Err(EditError::Ambiguous(hits.len()));
        }
        hits.truncate(1);
    }
    let crlf = has_crlf(content);
    let mut text = String::with_capacity(content.len() + new.len());
    let mut done = 0;
    for Hit { range, new } in &hits {
        let new = line_ends(crlf, new);
        text.push_str(&content[done..range.start]);
        match mode {
            Mode::Replace | Mode::ReplaceAll => text.push_str(&new),
            Mode::AppendAfter => text.extend([&content[range.clone()], &new]),
            Mode::PrependBefore => text.extend([&new, &content[range.clone()]]),
        }
        done = range.end;
    }
    text.push_str(&content[done..]);
    Ok(Edited { text, count: hits.len(), note })
}

fn find<'a>(content: &str, old: &str, new: &'a str) -> Option<(Vec<Hit<'a>>, Option<&'static str>)> {
    let exact: Vec<Hit<'_>> = content
        .match_indices(old)
        .map(|(at, _)| Hit { range: at..at + old.len(), new: new.into() })
        .collect();
    if !exact.is_empty() {
        return Some((exact, None));
    }
    // What has nothing but white space would match everywhere once white space is forgiven.
    if content.len() > FOLD_BYTES || old.trim().is_empty() {
        return None;
    }
    [
        (Fold::TRAILING, "(matched after trimming trailing whitespace)"),
        (Fold::BOTH_ENDS, "(matched after trimming whitespace)"),
        (Fold::CHARACTERS, "(matched after unicode normalization)"),
    ]
    .into_iter()
    .find_map(|(fold, note)| {
        let hits = find_folded(content, old, new, fold);
        (!hits.is_empty()).then_some((hits, Some(note)))
    })
}

fn find_folded<'a>(content: &str, old: &str, new: &'a str, fold: Fold) -> Vec<Hit<'a>> {
    let needle = fold.apply(old).text;
    if needle.trim().is_empty() {
        return Vec::new();
    }
    let folded = fold.apply(content);
    let (before, after) = (fold.leading && starts_blank(old), ends_blank(old));
    folded
        .text
        .match_indices(&needle)
        .filter(|(at, _)| {
            // A blank of `old` that was forgiven parts words all the same.
            (!before || parts(&folded.text, *at)) && (!after || parts(&folded.text, at + needle.len()))
        })
        .map(|(at, _)| hit(content, &folded, at..at + needle.len(), old, new, fold))
        .collect()
}

fn starts_blank(text: &str) -> bool {
    text.starts_with(char::is_whitespace)
}

fn ends_blank(text: &str) -> bool {
    text.ends_with(|c: char| c != '\n' && c.is_whitespace())
}

/// Whether a place in a text is an end of it, the edge of a line, or beside a blank.
fn parts(text: &str, at: usize) -> bool {
    let (before, after) = text.split_at(at);
    before.chars().next_back().is_none_or(char::is_whitespace)
        || after.chars().next().is_none_or(char::is_whitespace)
}

/// Takes a match in the folded text back to the original.
fn hit<'a>(
    content: &str,
    folded: &Folded,
    found: Range<usize>,
    old: &str,
    new: &'a str,
    fold: Fold,
) -> Hit<'a> {
    let mut range = folded.original(content, found.clone());
    if folded.text[found.end..].is_empty() || folded.text[found.end..].starts_with('\n') {
        // White space that was forgiven at the end of the last line goes with it; the line's end stays.
        let blanks = content[range.end..].bytes().take_while(|b| matches!(b, b' ' | b'\t')).count();
        range.end += blanks;
    }
    if !fold.leading {
        return Hit { range, new: new.into() };
    }
    let starts_line = found.start == 0 || folded.text[..found.start].ends_with('\n');
    if !starts_line {
        // The match starts within a line, so the blanks before `old` are not part of the file's text.
        let blanks = indentation(old);
        return Hit { range, new: new.strip_prefix(blanks).unwrap_or(new).into() };
    }
    let line_start = content[..range.start].rfind('\n').map_or(0, |at| at + 1);
    range.start = line_start;
    let new = shift(&content[range.clone()], old, new).into();
    Hit { range, new }
}

/// Indents `new` as the matched lines are indented relative to `old`, if they all differ by the same.
fn shift(matched: &str, old: &str, new: &str) -> String {
    let lines = || matched.split('\n').zip(old.split('\n')).filter(|(_, old)| !old.trim().is_empty());
    let Some((first, first_old)) = lines().next() else {
        return new.to_owned();
    };
    let (have, want) = (indentation(first), indentation(first_old));
    if let Some(deeper) = have.strip_suffix(want)
        && lines().all(|(line, old)| indentation(line).strip_prefix(deeper) == Some(indentation(old)))
    {
        return map_lines(new, |line| format!("{deeper}{line}"));
    }
    if let Some(shallower) = want.strip_suffix(have)
        && lines().all(|(line, old)| indentation(old).strip_prefix(shallower) == Some(indentation(line)))
    {
        return map_lines(new, |line| line.strip_prefix(shallower).unwrap_or(line).to_owned());
    }
    new.to_owned()
}

fn map_lines(text: &str, change: impl Fn(&str) -> String) -> String {
    let line = |line: &str| {
        if line.trim().is_empty() { line.to_owned() } else { change(line) }
    };
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// `new` with the line ends of a file that has `\r\n` throughout.
fn line_ends(crlf: bool, new: &str) -> Cow<'_, str> {
    if crlf { new.replace("\r\n", "\n").replace('\n', "\r\n").into() } else { new.into() }
}

/// Whether every line of a text ends as on Windows.
fn has_crlf(content: &str) -> bool {
    let lines = content.matches('\n').count();
    lines > 0 && lines == content.matches("\r\n").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edit(content: &str, old: &str, new: &str) -> Result<(String, usize), EditError> {
        replace(content, old, new, Mode::Replace, false).map(|edited| (edited.text, edited.count))
    }

    fn edited(content: &str, old: &str, new: &str) -> String {
        edit(content, old, new).unwrap().0
    }

    #[test]
    fn exact_text_must_be_unique_or_all() {
        assert_eq!(edit("a\nb\na\n", "a", "X"), Err(EditError::Ambiguous(2)));
        let all = replace("a\nb\na\n", "a", "X", Mode::Replace, true).unwrap();
        assert_eq!(all, Edited { text: "X\nb\nX\n".to_owned(), count: 2, note: None });
        assert_eq!(replace("a\nb\na\n", "a", "X", Mode::ReplaceAll, false).unwrap(), all);
        assert_eq!(edit("abc", "x", "y"), Err(EditError::NotFound));
    }

    #[test]
    fn insertion_needs_no_uniqueness() {
        let at = |mode, all| replace("a\nb\na\n", "a", "X", mode, all).unwrap();
        assert_eq!(
            (at(Mode::AppendAfter, false).text.as_str(), at(Mode::AppendAfter, false).count),
            ("aX\nb\na\n", 1)
        );
        assert_eq!(at(Mode::PrependBefore, true).text, "Xa\nb\nXa\n");
    }

    #[test]
    fn an_empty_old_inserts_at_the_start_but_replaces_nothing() {
        assert_eq!(edit("abc", "", "x"), Err(EditError::EmptyOld));
        assert_eq!(replace("abc", "", "x", Mode::AppendAfter, false).unwrap().text, "xabc");
    }

    #[test]
    fn trailing_blanks_are_forgiven() {
        let edited = replace(
            "def f():   \n    x = 1  \nend\n",
            "def f():\n    x = 1",
            "def g():\n    x = 2",
            Mode::Replace,
            false,
        );
        let edited = edited.unwrap();
        assert_eq!(edited.text, "def g():\n    x = 2\nend\n");
        assert_eq!(edited.note, Some("(matched after trimming trailing whitespace)"));
    }

    #[test]
    fn a_forgiving_match_keeps_the_rest_of_its_line_and_its_indentation() {
        assert_eq!(edited("    x – y = 3 # keep\n", "x - y", "W"), "    W = 3 # keep\n");
        assert_eq!(edited("  if a:\n    b\nq", "if a:\n  b", "if c:\n  d"), "  if c:\n    d\nq");
        assert_eq!(edited("if a:\n  b\nq", "    if a:\n      b", "    if c:\n      d"), "if c:\n  d\nq");
        assert_eq!(edited("f (“a”, 1) # x\n", "  (\"a\", 1)", "  (\"b\", 2)"), "f (\"b\", 2) # x\n");
    }

    #[test]
    fn a_forgiven_blank_still_parts_words() {
        for (content, old) in [
            ("barfoo = 1\n", "    foo = 1"),
            ("return xyz\n", "return x "),
            ("return xyz\n", " return x\t"),
            ("call(“a”, 1)\n", "  (\"a\", 1)"),
        ] {
            assert_eq!(edit(content, old, "new"), Err(EditError::NotFound), "{content:?} {old:?}");
        }
        assert_eq!(edited("bar foo = 1\n", "    foo = 1", "    foo = 2"), "bar foo = 2\n");
        assert_eq!(edited("return x\n", "return x ", "return y"), "return y\n");
        assert_eq!(edited("a\t\nb\n", "a\n  ", "A\n"), "A\nb\n");
    }

    #[test]
    fn a_newline_at_the_end_takes_no_further_line() {
        assert_eq!(edited("x  \ny\nz\n", "x\ny\n", "W\n"), "W\nz\n");
    }

    #[test]
    fn indentation_that_differs_by_line_is_taken_from_the_new_text() {
        assert_eq!(edited("\tif a:\n        b\nq", "if a:\n  b", "if c:\n  d"), "if c:\n  d\nq");
    }

    #[test]
    fn files_with_carriage_returns_keep_them() {
        assert_eq!(edited("a\r\nb\r\nc\r\n", "a\nb", "W\nV"), "W\r\nV\r\nc\r\n");
        assert_eq!(edited("a\r\nb\r\n", "b", "x\ny"), "a\r\nx\r\ny\r\n");
    }

    #[test]
    fn look_alike_characters_are_forgiven() {
        let edited =
            replace("print(“hi”)\n", "print(\"hi\")", "print(\"yo\")", Mode::Replace, false).unwrap();
        assert_eq!(edited.text, "print(\"yo\")\n");
        assert_eq!(edited.note, Some("(matched after unicode normalization)"));
    }

    #[test]
    fn invisible_characters_before_the_match_do_not_move_it() {
        let content = "\u{feff}one\u{200b}\u{200b}\u{200b}\ntwo – x\nthree\n";
        assert_eq!(edited(content, "two - x", "2"), "\u{feff}one\u{200b}\u{200b}\u{200b}\n2\nthree\n");
    }

    #[test]
    fn a_forgiving_match_must_be_unique_too() {
        assert_eq!(edit("a \nb\n\na\t\nb\n", "a\nb", "x"), Err(EditError::Ambiguous(2)));
        assert_eq!(edit("a\n\n\nb", "  \n \n", "x"), Err(EditError::NotFound));
    }
}
