//! A session on disk: one JSON line for everything that happened, written before it is shown.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use protocol::{Event, Item, PlanItem, SessionId, ToolCallId};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

mod fold;
mod sealed;

use fold::Fold;
use sealed::Seal;
pub(crate) use sealed::Sealed;

/// The format this program writes and reads.
const VERSION: u32 = 1;

/// Bytes of one line that are read back; a line is at most a tool's answer.
const MAX_LINE_BYTES: u64 = 64 << 20;

const FILE: &str = "session.jsonl";

/// Why a session cannot be saved or continued.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("there is no session `{0}`; `ml-intern sessions` lists them")]
    Unknown(String),
    #[error("`{text}` is the beginning of several sessions: {}", ids.join(", "))]
    Ambiguous { text: String, ids: Vec<String> },
    #[error("there is no session for {} yet; start one without --continue", .0.display())]
    NoneYet(PathBuf),
    #[error("session {0} is in use by another ml-intern; end that one first, or use --fork")]
    InUse(SessionId),
    #[error("{}: {reason}", path.display())]
    Broken { path: PathBuf, reason: String },
    #[error(transparent)]
    Audit(#[from] audit::AuditError),
}

/// The first line of a session.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct SavedHeader {
    pub version: u32,
    pub session_id: SessionId,
    /// Local time with offset.
    pub created: String,
    pub workspace: PathBuf,
    pub model: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub(crate) enum Line<'a> {
    Session(SavedHeader),
    /// Something that was shown.
    Event {
        at: String,
        event: std::borrow::Cow<'a, Event>,
    },
    /// The system prompt of the conversation from here on.
    System {
        text: std::borrow::Cow<'a, str>,
    },
    /// An entry of the transcript.
    Item {
        at: String,
        item: std::borrow::Cow<'a, Item>,
    },
    /// The whole transcript from here on: after an undo, a compaction or a fork.
    Transcript {
        items: std::borrow::Cow<'a, [Item]>,
    },
    Standing(Standing),
}

/// What counts for a session besides its own lines: what a fork takes over from the session that it goes on
/// from, and what a call read that has no result.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Standing {
    /// Where text came from that nobody vouches for.
    pub(crate) taint: Option<String>,
    /// USD of completions.
    #[serde(default)]
    pub(crate) completions_usd: f64,
    /// USD of orders.
    #[serde(default)]
    pub(crate) orders_usd: f64,
}

/// A session as it was left.
#[derive(Debug)]
pub struct Saved {
    pub header: SavedHeader,
    /// The model that was used last.
    pub model: String,
    /// The system prompt of the conversation.
    pub system: Option<String>,
    pub items: Vec<Item>,
    pub plan: Vec<PlanItem>,
    pub events: usize,
    /// Calls that were running when the program ended.
    pub unknown_outcomes: Vec<ToolCallId>,
    /// Lines that could not be read.
    pub dropped: usize,
    /// USD that its completions cost, and those of the session that it goes on from.
    pub completions_usd: f64,
    /// USD that the orders cost of the session that it goes on from. Its own stand in its records.
    pub orders_usd: f64,
    /// What it has read that nobody vouches for.
    pub taint: Option<String>,
}

/// Where sessions are kept.
#[derive(Clone, Debug)]
pub struct SessionStore {
    root: PathBuf,
}

/// A session's file, held by this process alone.
#[derive(Debug)]
pub(crate) struct SessionFile {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    /// Its length in bytes.
    length: u64,
    /// What it holds.
    pub(crate) seal: Seal,
}

impl SessionStore {
    /// Sessions below the program's state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self { root: state.join("sessions") }
    }

    /// The folder of one session: its file, its `/tmp`, what is kept for undo.
    #[must_use]
    pub fn dir(&self, id: &SessionId) -> PathBuf {
        self.root.join(id.as_str())
    }

    /// The session of a workspace that was used last.
    ///
    /// # Errors
    /// When there is none.
    pub fn latest(&self, workspace: &Path) -> Result<SessionId, StoreError> {
        let none = || StoreError::NoneYet(workspace.to_owned());
        let id = std::fs::read_to_string(self.pointer(workspace)).map_err(|_| none())?;
        let id = SessionId::from(id.trim());
        if self.dir(&id).join(FILE).is_file() { Ok(id) } else { Err(none()) }
    }

    /// The session with an id, or with an id that begins so.
    ///
    /// # Errors
    /// When there is none or several.
    pub fn find(&self, text: &str) -> Result<SessionId, StoreError> {
        let mut ids: Vec<String> = self.ids().filter(|id| id.starts_with(text)).collect();
        ids.sort();
        match ids.as_slice() {
            [id] => Ok(SessionId::from(id.as_str())),
            [] => Err(StoreError::Unknown(text.to_owned())),
            _ => Err(StoreError::Ambiguous { text: text.to_owned(), ids }),
        }
    }

    /// Headers of all sessions, the last used first.
    #[must_use]
    pub fn list(&self) -> Vec<SavedHeader> {
        let mut found: Vec<_> = self
            .ids()
            .filter_map(|id| {
                let path = self.root.join(id).join(FILE);
                let modified = path.metadata().ok()?.modified().ok()?;
                Some((modified, header(&path).ok()?))
            })
            .collect();
        found.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
        found.into_iter().map(|(_, header)| header).collect()
    }

    fn ids(&self) -> impl Iterator<Item = String> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok);
        entries.filter(|e| e.path().join(FILE).is_file()).filter_map(|e| e.file_name().into_string().ok())
    }

    /// Starts a session's file.
    pub(crate) fn create(
        &self,
        id: &SessionId,
        workspace: &Path,
        model: &str,
    ) -> Result<SessionFile, StoreError> {
        let dir = self.dir(id);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(|e| at(&dir, e))?;
        let path = dir.join(FILE);
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| at(&path, e))?;
        let mut file = lock(SessionFile { file, path, length: 0, seal: Seal::default() }, id)?;
        let header = SavedHeader {
            version: VERSION,
            session_id: id.clone(),
            created: crate::journal::now(),
            workspace: workspace.to_owned(),
            model: model.to_owned(),
        };
        file.append(&[Line::Session(header)])?;
        Ok(file)
    }

    /// Holds a saved session to go on with it. It is still to be read.
    pub(crate) fn hold(&self, id: &SessionId) -> Result<SessionFile, StoreError> {
        let path = self.dir(id).join(FILE);
        let file = OpenOptions::new().read(true).append(true).open(&path).map_err(|e| at(&path, e))?;
        lock(SessionFile { file, path, length: 0, seal: Seal::default() }, id)
    }

    /// Reads a saved session without holding it, if it begins with what is on record.
    pub(crate) fn read(&self, id: &SessionId, sealed: Option<&Sealed>) -> Result<Saved, StoreError> {
        let path = self.dir(id).join(FILE);
        let file = File::open(&path).map_err(|e| at(&path, e))?;
        replay(&path, &file, sealed).map(|(saved, ..)| saved)
    }

    /// Makes a session the latest of a workspace.
    pub(crate) fn point(&self, workspace: &Path, id: &SessionId) -> Result<(), StoreError> {
        let pointer = self.pointer(workspace);
        let folder = pointer.parent().unwrap_or(&self.root);
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| at(folder, e))?;
        let temporary = pointer.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, id.as_str()).map_err(|e| at(&temporary, e))?;
        std::fs::rename(&temporary, &pointer).map_err(|e| at(&pointer, e))
    }

    fn pointer(&self, workspace: &Path) -> PathBuf {
        let name = audit::digest(workspace.as_os_str().as_encoded_bytes());
        self.root.with_file_name("latest").join(name)
    }
}

impl SessionFile {
    /// Hands lines to the kernel, all or none of them whole.
    pub(crate) fn append(&mut self, lines: &[Line<'_>]) -> Result<(), StoreError> {
        let mut text = Vec::with_capacity(256);
        for line in lines {
            serde_json::to_writer(&mut text, line).map_err(|e| at(&self.path, e.into()))?;
            text.push(b'\n');
        }
        self.write(&text)
    }

    fn write(&mut self, text: &[u8]) -> Result<(), StoreError> {
        if let Err(source) = self.file.write_all(text) {
            // The next line must not be glued to a part of this one.
            let _ = self.file.set_len(self.length);
            return Err(at(&self.path, source));
        }
        self.length += text.len() as u64;
        self.seal.add(text);
        Ok(())
    }

    /// A handle for flushing to the disk on another thread.
    pub(crate) fn handle(&self) -> Result<File, StoreError> {
        self.file.try_clone().map_err(|e| at(&self.path, e))
    }

    /// Reads what is saved, if it begins with what is on record. To be called once, before anything is added.
    pub(crate) fn replay(&mut self, sealed: Option<&Sealed>) -> Result<Saved, StoreError> {
        let (saved, torn, seal) = replay(&self.path, &self.file, sealed)?;
        self.seal = seal;
        self.length = self.file.seek(SeekFrom::End(0)).map_err(|e| at(&self.path, e))?;
        if torn {
            // The next line must not be glued to what is left of the last one.
            self.write(b"\n")?;
        }
        Ok(saved)
    }
}

fn lock(file: SessionFile, id: &SessionId) -> Result<SessionFile, StoreError> {
    match flock(&file.file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::InUse(id.clone())),
        // Some network file systems have no locks; a session there is still of use.
        Err(_) => Ok(file),
    }
}

fn header(path: &Path) -> Result<SavedHeader, StoreError> {
    let file = File::open(path).map_err(|e| at(path, e))?;
    let mut line = String::new();
    BufReader::new(file).take(1 << 16).read_line(&mut line).map_err(|e| at(path, e))?;
    match serde_json::from_str(&line) {
        Ok(Line::Session(header)) if header.version == VERSION => Ok(header),
        _ => Err(StoreError::Broken {
            path: path.to_owned(),
            reason: "it is not a session of this version".to_owned(),
        }),
    }
}

/// Folds the lines. Returns also whether the last line is incomplete, and the bytes as they were read.
fn replay(path: &Path, file: &File, sealed: Option<&Sealed>) -> Result<(Saved, bool, Seal), StoreError> {
    let changed = |at: u64| StoreError::Broken {
        path: path.to_owned(),
        reason: format!("it was changed since it was written (byte {at}); nothing of it is used"),
    };
    let mut seal = Seal::default();
    let header = header(path)?;
    let mut fold = Fold::new(&header);
    let mut reader = BufReader::new(file);
    reader.rewind().map_err(|e| at(path, e))?;
    let mut line = Vec::new();
    let mut torn = false;
    loop {
        line.clear();
        let read =
            reader.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line).map_err(|e| at(path, e))?;
        if read == 0 {
            break;
        }
        torn = line.last() != Some(&b'\n');
        let before = seal.bytes();
        seal.add(&line);
        let parsed = serde_json::from_slice(&line);
        if sealed.is_some_and(|s| s.is_skipped(before, &seal) || !s.holds(&seal, parsed.as_ref().ok())) {
            return Err(changed(before));
        }
        match parsed {
            Ok(line) => fold.line(line),
            Err(_) if line.iter().all(u8::is_ascii_whitespace) => {}
            Err(_) => fold.dropped += 1,
        }
    }
    if sealed.is_some_and(|sealed| !sealed.is_reached(&seal)) {
        return Err(changed(seal.bytes()));
    }
    Ok((fold.end(header), torn, seal))
}

fn at(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
