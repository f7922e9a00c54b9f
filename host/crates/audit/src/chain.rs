use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::record::{Act, Entry, digest};

/// Bytes of a file of a chain; then the chain goes on in the next one.
const PART_BYTES: u64 = 16 << 20;

/// Bytes of a record; nothing in one is longer than a target and a list of plugins.
pub(crate) const RECORD_BYTES: usize = 256 << 10;

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log {} cannot be written: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("the audit log {} ends with a line that is no record; `ml-intern audit verify` says more", path.display())]
    Broken { path: PathBuf },
    #[error("an audit record of {0} bytes is too large")]
    TooLarge(usize),
}

/// A chain that is written to.
#[derive(Debug)]
pub struct Chain {
    name: String,
    path: PathBuf,
    file: File,
    head: String,
    seq: u64,
    bytes: u64,
}

impl Chain {
    /// Opens a chain, or begins it. `exclusive` waits until no other process writes to it.
    pub(crate) fn open(folder: &Path, name: &str, exclusive: bool) -> Result<Self, AuditError> {
        let path = current(folder, name);
        let failed = |source| AuditError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut file = open(&path).map_err(failed)?;
        if exclusive {
            // Another process may have gone on in a new file while this one waited.
            loop {
                flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
                let again = open(&path).map_err(failed)?;
                if same_file(&file, &again).map_err(failed)? {
                    break;
                }
                file = again;
            }
        }
        let bytes = file.metadata().map_err(failed)?.len();
        let last = last_line(&mut file, bytes).map_err(failed)?;
        let (head, seq) = match last {
            None => match parts(folder, name).last() {
                None => (genesis(name), 0),
                // The file before this one was full, and the program ended before it wrote here.
                Some(before) => {
                    let mut before_file = File::open(before).map_err(failed)?;
                    let length = before_file.metadata().map_err(failed)?.len();
                    let line = last_line(&mut before_file, length).map_err(failed)?;
                    line.and_then(|line| read(&line))
                        .map(|(hash, entry)| (hash, entry.seq + 1))
                        .ok_or_else(|| AuditError::Broken { path: before.clone() })?
                }
            },
            Some(line) => read(&line)
                .map(|(hash, entry)| (hash, entry.seq + 1))
                .ok_or_else(|| AuditError::Broken { path: path.clone() })?,
        };
        Ok(Self { name: name.to_owned(), path, file, head, seq, bytes })
    }

    /// Adds a record. It is with the kernel when this returns, and on the disk if `sync` is set.
    ///
    /// # Errors
    /// When it cannot be written; then the chain is as it was.
    pub fn append(&mut self, act: Act, sync: bool) -> Result<(), AuditError> {
        let at = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        let entry = Entry { seq: self.seq, prev: self.head.clone(), at, act };
        let failed = |path: &Path, source| AuditError::Io { path: path.to_owned(), source };
        let record = serde_json::to_string(&entry).map_err(|e| failed(&self.path, e.into()))?;
        if record.len() > RECORD_BYTES {
            return Err(AuditError::TooLarge(record.len()));
        }
        let hash = digest(record.as_bytes());
        let line = format!("{hash} {record}\n");
        if let Err(source) = self.file.write_all(line.as_bytes()) {
            // A part of a line would break the chain for good.
            let _ = self.file.set_len(self.bytes);
            return Err(failed(&self.path, source));
        }
        if sync {
            self.file.sync_data().map_err(|e| failed(&self.path, e))?;
        }
        self.head = hash;
        self.seq += 1;
        self.bytes += line.len() as u64;
        if self.bytes >= PART_BYTES {
            self.go_on_in_next_part().map_err(|e| failed(&self.path, e))?;
        }
        Ok(())
    }

    /// Hash of the last record.
    #[must_use]
    pub fn head(&self) -> &str {
        &self.head
    }

    fn go_on_in_next_part(&mut self) -> io::Result<()> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let number = parts(folder, &self.name).len() + 1;
        self.file.sync_data()?;
        std::fs::rename(&self.path, folder.join(format!("{}.{number:06}.jsonl", self.name)))?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

/// What the first record of a chain names as the hash before it.
pub(crate) fn genesis(name: &str) -> String {
    digest(format!("ml-intern audit chain {name}").as_bytes())
}

/// The file of a chain that is written to.
pub(crate) fn current(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.jsonl"))
}

/// The full files of a chain, first to last.
pub(crate) fn parts(folder: &Path, name: &str) -> Vec<PathBuf> {
    let prefix = format!("{name}.");
    let is_part = |file: &str| {
        let number = file.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".jsonl"));
        number.is_some_and(|n| n.len() == 6 && n.bytes().all(|b| b.is_ascii_digit()))
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> =
        entries.filter(|e| e.file_name().to_str().is_some_and(is_part)).map(|e| e.path()).collect();
    parts.sort();
    parts
}

/// A line taken apart, if its hash fits its record.
pub(crate) fn read(line: &str) -> Option<(String, Entry)> {
    let (hash, record) = line.split_once(' ')?;
    (digest(record.as_bytes()) == hash).then_some(())?;
    Some((hash.to_owned(), serde_json::from_str(record).ok()?))
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

fn same_file(a: &File, b: &File) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let (a, b) = (a.metadata()?, b.metadata()?);
    Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
}

/// The last line, complete or not.
fn last_line(file: &mut File, bytes: u64) -> io::Result<Option<String>> {
    let longest = RECORD_BYTES as u64 + 128;
    file.seek(SeekFrom::Start(bytes.saturating_sub(longest)))?;
    let mut tail = Vec::new();
    file.take(longest).read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    Ok(tail.trim_end_matches('\n').rsplit('\n').next().filter(|line| !line.is_empty()).map(str::to_owned))
}
