use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::changes::random_name;
use crate::limits::{MAX_UNDO_BYTES, MAX_UNDO_LIST_BYTES};

/// The list of all changes, beside the contents that were kept.
const LIST: &str = "changes.jsonl";

/// Keeps earlier contents, one file each, named by their digest, and a line per change.
#[derive(Clone, Debug)]
pub(crate) struct Undo {
    folder: PathBuf,
    limit: u64,
    /// Bytes of contents that are kept, once they were counted.
    kept: Arc<Mutex<Option<u64>>>,
}

/// A change, as it stands in the list.
#[derive(Serialize)]
pub(super) struct UndoLine<'a> {
    pub(super) call: &'a str,
    pub(super) change: &'a str,
    pub(super) path: &'a Path,
    /// Digest of the content that was there; none if there was no file.
    pub(super) before: Option<&'a str>,
    pub(super) mode: Option<u32>,
    /// Digest of the content that is there now; none if the file is gone.
    pub(super) after: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) moved_to: Option<&'a Path>,
    /// Where a link led that was moved or removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) link: Option<&'a Path>,
    /// The content that was there is not kept: there was no room left for it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) lost: bool,
}

impl Default for UndoLine<'_> {
    fn default() -> Self {
        Self {
            call: "",
            change: "",
            path: Path::new(""),
            before: None,
            mode: None,
            after: None,
            moved_to: None,
            link: None,
            lost: false,
        }
    }
}

impl Undo {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, limit: MAX_UNDO_BYTES, kept: Arc::default() }
    }

    /// Notes a change, and keeps the content that it replaces. False if there is no room left for that: a
    /// long session goes on, and is told that the change cannot be undone.
    pub(super) fn keep(&self, line: UndoLine<'_>, before: Option<(&str, &[u8])>) -> std::io::Result<bool> {
        std::fs::create_dir_all(&self.folder)?;
        let is_kept = match before {
            Some((sha256, content)) => self.keep_content(sha256, content)?,
            None => true,
        };
        let is_listed = self.list(&UndoLine { lost: !is_kept, ..line })?;
        Ok(is_kept && is_listed)
    }

    /// Writes a content under another name first, so that what has its name is whole.
    fn keep_content(&self, sha256: &str, content: &[u8]) -> std::io::Result<bool> {
        let blob = self.folder.join(sha256);
        let size = content.len() as u64;
        if std::fs::metadata(&blob).is_ok_and(|found| found.len() == size) {
            return Ok(true);
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let total = match *kept {
            Some(total) => total,
            None => self.count()?,
        };
        let fits = total.saturating_add(size) <= self.limit;
        *kept = Some(if fits { total + size } else { total });
        if !fits {
            return Ok(false);
        }
        let temporary = self.folder.join(format!("{}.tmp", random_name()?));
        let mut file = private().write(true).create_new(true).open(&temporary)?;
        file.write_all(content)?;
        file.sync_data()?;
        std::fs::rename(&temporary, blob)?;
        Ok(true)
    }

    /// Bytes that earlier runs of the session kept. What a crash left unfinished goes.
    fn count(&self) -> std::io::Result<u64> {
        let mut total = 0;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            if entry.path().extension().is_some_and(|e| e == "tmp") {
                std::fs::remove_file(entry.path())?;
            } else if entry.file_name() != LIST {
                total += entry.metadata()?.len();
            }
        }
        Ok(total)
    }

    fn list(&self, line: &UndoLine<'_>) -> std::io::Result<bool> {
        let mut text = serde_json::to_vec(line).map_err(std::io::Error::other)?;
        text.push(b'\n');
        let mut file = private().create(true).append(true).open(self.folder.join(LIST))?;
        if file.metadata()?.len() + text.len() as u64 > MAX_UNDO_LIST_BYTES {
            return Ok(false);
        }
        file.write_all(&text)?;
        Ok(true)
    }
}

/// How files are opened that only the user may read.
fn private() -> std::fs::OpenOptions {
    let mut options = std::fs::OpenOptions::new();
    options.mode(0o600);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(undo: &Undo, name: &str, content: &[u8]) -> bool {
        undo.keep(UndoLine { before: Some(name), ..UndoLine::default() }, Some((name, content))).unwrap()
    }

    #[test]
    fn a_session_keeps_so_much_and_says_what_it_does_not_keep() {
        let dir = tempfile::tempdir().unwrap();
        let undo = Undo { limit: 10, ..Undo::new(dir.path().to_owned()) };
        assert!(keep(&undo, "a", b"12345678"));
        assert!(keep(&undo, "a", b"12345678"), "it is there already");
        assert!(!keep(&undo, "b", b"123") && !dir.path().join("b").exists());
        assert!(keep(&undo, "c", b"12"));
        let list = std::fs::read_to_string(dir.path().join(LIST)).unwrap();
        let lost: Vec<bool> = list.lines().map(|line| line.contains("\"lost\":true")).collect();
        assert_eq!(lost, [false, false, true, false]);
        let continued = Undo { limit: 10, ..Undo::new(dir.path().to_owned()) };
        assert!(!keep(&continued, "d", b"1"), "what earlier runs kept counts");
    }

    #[test]
    fn a_content_that_was_cut_off_is_kept_again() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "12").unwrap();
        std::fs::write(dir.path().join("x.tmp"), "unfinished").unwrap();
        let undo = Undo::new(dir.path().to_owned());
        assert!(keep(&undo, "a", b"12345678"));
        assert_eq!(std::fs::read(dir.path().join("a")).unwrap(), b"12345678");
        assert!(!dir.path().join("x.tmp").exists());
    }
}
