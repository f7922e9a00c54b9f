//! The lock index: all that start-up has to know of plugins that are not bundled, in one file.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::PluginError;
use crate::describe::Described;

/// The format this host reads and writes.
const VERSION: u32 = 1;

#[derive(Debug, Default)]
pub(crate) struct Index {
    path: PathBuf,
    entries: Vec<Entry>,
    changed: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct Lock {
    version: u32,
    plugins: Vec<Entry>,
}

/// A component file as it was when it was described.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    stamp: Stamp,
    /// Digest of the manifest and descriptions that a person let in.
    pub(crate) approval: String,
    /// Of a project: let in by its digest alone, and not under its id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) project: bool,
    pub(crate) described: Described,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Stamp {
    size: u64,
    inode: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            size: metadata.size(),
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Index {
    /// Reads the index; one that is not there is empty.
    pub(crate) fn read(path: &Path) -> Result<Self, PluginError> {
        let failed = |reason: String| PluginError::Index { path: path.to_owned(), action: "read", reason };
        let entries = match std::fs::read(path) {
            Ok(bytes) => {
                let lock: Lock = serde_json::from_slice(&bytes)
                    .map_err(|e| failed(format!("{e}; remove it and the plugins will be described anew")))?;
                if lock.version == VERSION { lock.plugins } else { Vec::new() }
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(failed(error.to_string())),
        };
        Ok(Self { path: path.to_owned(), entries, changed: false })
    }

    /// The description of a file that is as it was.
    pub(crate) fn unchanged(&self, path: &Path, stamp: &Stamp) -> Option<&Described> {
        self.entry(path).filter(|e| !e.project && e.stamp == *stamp).map(|e| &e.described)
    }

    pub(crate) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.entries.iter().find(|e| e.path == path)
    }

    /// What a person let in under an id, wherever it lay.
    pub(crate) fn approval_of(&self, id: &str) -> Option<&str> {
        let entry = self.entries.iter().find(|e| !e.project && e.described.manifest.id == id);
        entry.map(|entry| entry.approval.as_str())
    }

    pub(crate) fn put(&mut self, path: &Path, stamp: Stamp, described: Described) {
        let id = &described.manifest.id;
        self.entries.retain(|e| e.project || e.described.manifest.id != *id);
        self.add(path, stamp, described, false);
    }

    pub(crate) fn put_project(&mut self, path: &Path, stamp: Stamp, described: Described) {
        self.add(path, stamp, described, true);
    }

    fn add(&mut self, path: &Path, stamp: Stamp, described: Described, project: bool) {
        self.entries.retain(|e| e.path != path);
        let approval = described.approval();
        self.entries.push(Entry { path: path.to_owned(), stamp, approval, project, described });
        self.changed = true;
    }

    /// Forgets what was let in under an id.
    pub(crate) fn forget(&mut self, id: &str) {
        let before = self.entries.len();
        self.entries.retain(|e| e.project || e.described.manifest.id != id);
        self.changed |= self.entries.len() != before;
    }

    /// Writes what changed.
    pub(crate) fn save(&mut self) -> Result<(), PluginError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let failed =
            |reason: String| PluginError::Index { path: self.path.clone(), action: "written", reason };
        let lock = Lock { version: VERSION, plugins: self.entries.clone() };
        let json = serde_json::to_vec(&lock).map_err(|e| failed(e.to_string()))?;
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let written = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| {
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            std::io::Write::write_all(&mut file, &json)?;
            std::fs::rename(&temporary, &self.path)
        });
        written.map_err(|e| failed(e.to_string()))
    }
}
