//! What went out, and what was not let out, line by line.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::EgressError;

/// Days that are kept.
const DAYS: usize = 90;

/// Bytes of each text of a line: whoever is named there may have written it.
const FIELD_BYTES: usize = 512;

/// Bytes of a line that are read back: six texts, each byte of them escaped, and the rest.
const LINE_BYTES: u64 = 6 * 6 * FIELD_BYTES as u64 + 1024;

/// A line. A request has one before it leaves, and one when its answer was read or given up.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct LedgerLine {
    /// Local time with offset.
    pub at: String,
    /// The run that made it: the session it began with, or a verb.
    pub run: String,
    /// Counts the requests of a run; both lines of a request have the same.
    pub n: u64,
    #[serde(flatten)]
    pub what: LedgerAct,
}

/// What a line tells.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum LedgerAct {
    /// A request leaves. Neither path nor query are kept: they may carry secrets.
    Request {
        who: String,
        method: String,
        /// The origin that was asked for.
        origin: String,
        /// Where it really went, if a mirror stands for that origin.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        real: Option<String>,
        /// What allowed it: `model`, or the grant.
        why: String,
        /// Bytes of the body.
        sent: u64,
        /// The name of the credential that goes with it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        credential: Option<String>,
    },
    /// It was not let out.
    Refused { who: String, method: String, origin: String, why: String },
    /// The answer was read to its end or given up.
    Answer { status: u16, received: u64 },
    /// A tunnel was closed.
    Closed { sent: u64, received: u64 },
    /// There was no answer.
    Failed { why: String },
}

impl LedgerAct {
    fn cut(&mut self) {
        let texts: Vec<&mut String> = match self {
            Self::Request { who, method, origin, real, why, credential, .. } => {
                [who, method, origin, why].into_iter().chain(real).chain(credential).collect()
            }
            Self::Refused { who, method, origin, why } => vec![who, method, origin, why],
            Self::Failed { why } => vec![why],
            Self::Answer { .. } | Self::Closed { .. } => Vec::new(),
        };
        for text in texts.into_iter().filter(|text| text.len() > FIELD_BYTES) {
            text.truncate(text.floor_char_boundary(FIELD_BYTES - '…'.len_utf8()));
            text.push('…');
        }
    }
}

/// Where the lines go: one file a day, shared by all processes of the user.
#[derive(Clone, Debug)]
pub struct Ledger {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    run: String,
    next: AtomicU64,
    /// The day and its file.
    open: Mutex<Option<(String, File)>>,
}

impl Ledger {
    /// A ledger below the program's state folder. Nothing is opened before the first line.
    #[must_use]
    pub fn new(state: &Path, run: impl Into<String>) -> Self {
        let shared = Shared {
            folder: state.join("net"),
            run: run.into(),
            next: AtomicU64::new(0),
            open: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Writes the first line of a request.
    pub(crate) fn begin(&self, what: LedgerAct) -> Result<Entry, EgressError> {
        let n = self.shared.next.fetch_add(1, Ordering::Relaxed);
        self.write(n, what).map_err(|e| EgressError::Ledger(e.to_string()))?;
        Ok(Entry { ledger: self.clone(), n, ended: false })
    }

    /// Writes a line of something that ends as it begins.
    pub(crate) fn note(&self, what: LedgerAct) -> Result<(), EgressError> {
        let mut entry = self.begin(what)?;
        entry.ended = true;
        Ok(())
    }

    fn write(&self, n: u64, mut what: LedgerAct) -> io::Result<()> {
        what.cut();
        let now = jiff::Zoned::now();
        let day = now.strftime("%Y-%m-%d").to_string();
        let at = now.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        let line = LedgerLine { at, run: self.shared.run.clone(), n, what };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.as_ref().is_none_or(|(known, _)| *known != day) {
            let file = self.file_of(&day)?;
            *open = Some((day, file));
        }
        let written = match open.as_mut() {
            Some((_, file)) => file.write_all(text.as_bytes()),
            None => Ok(()),
        };
        if written.is_err() {
            // A part of the line may stand there: whoever opens the file next sees to it.
            *open = None;
        }
        written
    }

    fn file_of(&self, day: &str) -> io::Result<File> {
        let folder = &self.shared.folder;
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let days = files(folder)?;
        for old in days.iter().rev().skip(DAYS) {
            forget(old)?;
        }
        let path = folder.join(format!("{day}.jsonl"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        end_line(&mut file)?;
        Ok(file)
    }

    /// Every line that is kept, oldest first. What is no line is left out and counted.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(state: &Path) -> io::Result<(Vec<LedgerLine>, usize)> {
        let (mut lines, mut broken) = (Vec::new(), 0);
        for path in files(&state.join("net"))? {
            let mut reader = BufReader::new(File::open(path)?);
            loop {
                let mut line = Vec::new();
                (&mut reader).take(LINE_BYTES).read_until(b'\n', &mut line)?;
                if line.is_empty() {
                    break;
                }
                match serde_json::from_slice(&line) {
                    _ if line == b"\n" => {}
                    Ok(line) => lines.push(line),
                    Err(_) => broken += 1,
                }
            }
        }
        Ok((lines, broken))
    }
}

/// Ends a line that was cut off, by a full disk or a kill: else it would take the next one with it.
fn end_line(file: &mut File) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

/// Removes a file, if no other process did so already.
fn forget(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The files of the days, oldest first.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    Ok(files)
}

/// A request that stands in the ledger. One that is dropped before its end was given up.
#[derive(Debug)]
pub(crate) struct Entry {
    ledger: Ledger,
    n: u64,
    ended: bool,
}

impl Entry {
    /// Writes the last line of a request.
    pub(crate) fn end(&mut self, what: LedgerAct) {
        self.ended = true;
        // What left is on record; the answer cannot be taken back.
        if let Err(error) = self.ledger.write(self.n, what) {
            tracing::warn!(%error, "the end of a request is not in the ledger");
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.ended {
            self.end(LedgerAct::Failed { why: "given up".to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_read_back_whatever_stands_in_it() {
        let state = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(state.path(), "test");
        let long = || "\u{1}é".repeat(1 << 20);
        let (who, method, origin, why) = (long(), long(), long(), long());
        ledger.note(LedgerAct::Refused { who, method, origin, why }).unwrap();
        let (who, method, origin, why) = (long(), long(), long(), long());
        let (real, credential) = (Some(long()), Some(long()));
        let request = LedgerAct::Request { who, method, origin, real, why, sent: 0, credential };
        ledger.begin(request).unwrap().end(LedgerAct::Failed { why: long() });
        let (lines, broken) = Ledger::read(state.path()).unwrap();
        assert_eq!((lines.len(), broken), (3, 0));
        let file = files(&state.path().join("net")).unwrap().remove(0);
        assert!(std::fs::metadata(file).unwrap().len() < 3 * LINE_BYTES);
    }

    #[test]
    fn a_line_that_was_cut_off_takes_no_other_with_it() {
        let state = tempfile::tempdir().unwrap();
        let refused = || LedgerAct::Refused {
            who: "plugin p".to_owned(),
            method: "GET".to_owned(),
            origin: "http://a.test".to_owned(),
            why: "not granted".to_owned(),
        };
        Ledger::new(state.path(), "one").note(refused()).unwrap();
        let file = files(&state.path().join("net")).unwrap().remove(0);
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("{text}{}", &text[..text.len() / 2])).unwrap();
        let ledger = Ledger::new(state.path(), "two");
        ledger.note(refused()).unwrap();
        ledger.note(refused()).unwrap();
        let (lines, broken) = Ledger::read(state.path()).unwrap();
        assert_eq!((lines.len(), broken), (3, 1));
    }

    #[test]
    fn a_day_that_another_process_removed_is_no_failure() {
        let state = tempfile::tempdir().unwrap();
        let old = state.path().join("2000-01-01.jsonl");
        std::fs::write(&old, "").unwrap();
        for _ in 0..2 {
            forget(&old).unwrap();
        }
        assert!(forget(state.path()).is_err(), "a folder is no file");
    }
}
