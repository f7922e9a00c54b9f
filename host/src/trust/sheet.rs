//! What a person is shown before a folder is trusted: each file with what it says or how it changed, every
//! character that shows nothing by itself made visible.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use protocol::text::is_unseen;
use similar::TextDiff;

use super::dotenv;
use super::files::{Content, Kind, Listed, Seen, read};
use super::store::{Entry, Store};
use crate::exit::Failure;
use crate::settings;

/// Lines of a file or a difference that are shown before it is asked for, and characters of a line.
const PREVIEW_LINES: usize = 24;
const PREVIEW_WIDTH: usize = 160;

/// A folder's files as they are, beside what was trusted of them.
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) folder: PathBuf,
    pub(super) seen: Vec<Seen>,
    pub(crate) entry: Option<Entry>,
    /// What the changed ones were.
    before: BTreeMap<String, String>,
}

/// How a file stands to what was trusted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum News {
    New,
    Changed,
    None,
}

impl Sheet {
    /// Reads the files of a folder.
    pub(super) fn of(folder: &Path, listed: Vec<Listed>, entry: Option<Entry>, store: &Store) -> Self {
        let seen: Vec<Seen> = listed.into_iter().map(read).collect();
        let trusted = entry.iter().flat_map(|entry| &entry.files);
        let before = trusted.filter_map(|(name, digest)| Some((name.clone(), store.text(digest)?))).collect();
        Self { folder: folder.to_owned(), seen, entry, before }
    }

    /// Whether something can be used that a person has not seen.
    pub(crate) fn has_news(&self) -> bool {
        self.good().any(|(listed, content)| self.news(listed, content) != News::None)
    }

    /// What is written down when the folder is trusted as it is shown.
    pub(super) fn as_shown(&self) -> Result<Entry, Failure> {
        let files = self.good().map(|(listed, content)| (listed.name.clone(), content.digest.clone()));
        Entry::new(&self.folder, files.collect())
            .map_err(|e| Failure::usage(format!("{}: {e}", self.folder.display())))
    }

    /// What the audit log is told: no digest of a file with secrets, which could be guessed from it.
    pub(super) fn digests(&self) -> BTreeMap<String, Option<String>> {
        let told = |(listed, content): (&Listed, &Content)| {
            (listed.name.clone(), (listed.kind != Kind::Env).then(|| content.digest.clone()))
        };
        self.good().map(told).collect()
    }

    /// Texts that a later change is shown against, by digest.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        let texts = self.good().filter(|(listed, _)| is_text(listed.kind));
        texts.map(|(_, content)| (content.digest.as_str(), content.text.as_str()))
    }

    fn good(&self) -> impl Iterator<Item = (&Listed, &Content)> {
        self.seen.iter().filter_map(|seen| Some((&seen.listed, seen.content.as_ref().ok()?)))
    }

    fn news(&self, listed: &Listed, content: &Content) -> News {
        match self.entry.as_ref().and_then(|entry| entry.files.get(&listed.name)) {
            Some(digest) if *digest == content.digest => News::None,
            Some(_) => News::Changed,
            None => News::New,
        }
    }

    /// The sheet, line by line. `whole` shows every text to its end.
    pub(crate) fn lines(&self, whole: bool) -> Vec<String> {
        let mut out = Vec::new();
        for seen in &self.seen {
            let name = visible(&seen.listed.name);
            match &seen.content {
                Err(reason) => out.push(format!("  {name}: refused, {}", visible(reason))),
                Ok(content) => self.file(&name, &seen.listed, content, whole, &mut out),
            }
        }
        out
    }

    fn file(&self, name: &str, listed: &Listed, content: &Content, whole: bool, out: &mut Vec<String>) {
        let news = self.news(listed, content);
        let mark = match news {
            News::New if self.entry.is_some() => ", new",
            News::New => "",
            News::Changed => ", CHANGED since it was trusted",
            News::None => ", as it was trusted",
        };
        let what = match listed.kind {
            Kind::Instructions => "instructions for the model",
            Kind::Settings => "settings",
            Kind::Plugin => "a plugin",
            Kind::Env => "credentials",
        };
        out.push(format!("  {name}: {what}, {} bytes{mark}", content.bytes));
        match listed.kind {
            Kind::Plugin => {
                out.push(format!("    sha256:{}", content.digest));
                out.push(format!(
                    "    ml-intern plugin info {}",
                    visible(&listed.path.display().to_string())
                ));
            }
            Kind::Env => out.extend(names(&content.text)),
            Kind::Instructions | Kind::Settings if news == News::None && !whole => {}
            Kind::Instructions | Kind::Settings => {
                let changed = self.before.get(&listed.name).filter(|_| news == News::Changed && !whole);
                let text = changed.map_or_else(|| content.text.clone(), |old| diff(old, &content.text));
                out.extend(shown(&text, whole));
            }
        }
        if listed.kind == Kind::Settings {
            let refused = settings::refused_of_project(&listed.path, &content.text, &self.folder);
            out.extend(refused.iter().map(|line| format!("    refused: {}", visible(line))));
        }
    }
}

fn is_text(kind: Kind) -> bool {
    matches!(kind, Kind::Instructions | Kind::Settings)
}

/// The names that a `.env` gives and those that are left out. Values are never shown.
fn names(text: &str) -> Vec<String> {
    let dotenv::Taken { variables, left_out } = dotenv::take(text, &BTreeSet::new());
    let taken: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    let line = |what: &str, names: &[&str]| match names {
        [] => None,
        names => Some(format!("    {what} {}", crate::render::clip(&names.join(", "), PREVIEW_WIDTH))),
    };
    let left_out: Vec<&str> = left_out.iter().map(String::as_str).collect();
    [line("taken:", &taken), line("left out unless your settings use it:", &left_out)]
        .into_iter()
        .flatten()
        .collect()
}

fn diff(old: &str, new: &str) -> String {
    TextDiff::from_lines(old, new).unified_diff().context_radius(2).to_string()
}

/// A text as lines that cannot pretend to be anything else.
fn shown(text: &str, whole: bool) -> Vec<String> {
    let (most, width) = if whole { (usize::MAX, usize::MAX) } else { (PREVIEW_LINES, PREVIEW_WIDTH) };
    let count = text.lines().count();
    let line = |line: &str| {
        let line = visible(line);
        let length = line.chars().count();
        let cut: String = line.chars().take(width).collect();
        let more =
            if length > width { format!("… {} more characters", length - width) } else { String::new() };
        format!("    | {cut}{more}")
    };
    let mut out: Vec<String> = text.lines().take(most).map(line).collect();
    if count > most {
        out.push(format!("    … {} MORE LINES, not shown here", count - most));
    }
    out
}

/// A text in which what shows nothing by itself is written out.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push('\t'),
            '\n' => out.push_str("\\n"),
            c if is_unseen(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_written_out_and_what_is_cut_is_counted() {
        assert_eq!(
            visible("a\u{1b}[2Kb\u{202e}c\u{200b}\r\u{e0041}\u{fe0f}ä"),
            "a\\u{1b}[2Kb\\u{202e}c\\u{200b}\\u{d}\\u{e0041}\\u{fe0f}ä"
        );
        let long = "x\n".repeat(30) + &"y".repeat(200);
        let lines = shown(&long, false);
        assert_eq!(lines.len(), PREVIEW_LINES + 1);
        assert!(lines.last().unwrap().contains("7 MORE LINES"), "{lines:?}");
        assert_eq!(shown(&long, true).len(), 31);
        assert!(shown(&"y".repeat(200), false)[0].ends_with("… 40 more characters"));
    }
}
