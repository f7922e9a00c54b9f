use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::record::{Act, Entry, digest};

mod torn;

/// Bytes of a file of a chain; then the chain goes on in the next one.
const PART_BYTES: u64 = 16 << 20;

/// Bytes of a record; nothing in one is longer than a target and a list of plugins.
pub(crate) const RECORD_BYTES: usize = 256 << 10;

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log {} cannot be written: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
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
    /// Every record is on the disk when it is written.
    sync: bool,
}

/// The last record of a file, and where it ends.
struct Last {
    hash: String,
    seq: u64,
    end: u64,
}

impl Chain {
    /// Opens a chain, or begins it. `exclusive` waits until no other process writes to it.
    pub(crate) fn open(folder: &Path, name: &str, exclusive: bool) -> Result<Self, AuditError> {
        let path = current(folder, name);
        let failed = |source| AuditError::Io { path: path.clone(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let torn = {
            let (mut chain, end) = Self::open_file(folder, name, exclusive).map_err(failed)?;
            match torn::put_aside(&mut chain.file, end, folder, name).map_err(failed)? {
                None => {
                    chain.bytes = chain.file.metadata().map_err(failed)?.len();
                    return Ok(chain);
                }
                Some(torn) => torn,
            }
        };
        // The lock went with the file; what another process added meanwhile is followed like any record.
        let (mut chain, _) = Self::open_file(folder, name, exclusive).map_err(failed)?;
        chain.append(torn, true)?;
        Ok(chain)
    }

    /// Opens the file that is written to, and tells where its last record ends.
    fn open_file(folder: &Path, name: &str, exclusive: bool) -> io::Result<(Self, u64)> {
        let path = current(folder, name);
        let mut file = open(&path)?;
        if exclusive {
            // Another process may have gone on in a new file while this one waited.
            loop {
                flock(&file, FlockOperation::LockExclusive)?;
                let again = open(&path)?;
                if same_file(&file, &again)? {
                    break;
                }
                file = again;
            }
        }
        let mut last = last_record(&mut file)?;
        let end = last.as_ref().map_or(0, |last| last.end);
        // Nothing is in this file yet: it follows the one before.
        for part in parts(folder, name).iter().rev() {
            if last.is_some() {
                break;
            }
            last = last_record(&mut File::open(part)?)?;
        }
        let bytes = file.metadata()?.len();
        let (head, seq) = last.map_or_else(|| (genesis(name), 0), |last| (last.hash, last.seq + 1));
        Ok((Self { name: name.to_owned(), path, file, head, seq, bytes, sync: false }, end))
    }

    pub(crate) fn with_sync(self, sync: bool) -> Self {
        Self { sync, ..self }
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
        if sync || self.sync {
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
        self.file.sync_data()?;
        std::fs::rename(&self.path, next_part(folder, &self.name))?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

/// What the file of a chain that is written to is called once it is full.
fn next_part(folder: &Path, name: &str) -> PathBuf {
    let number = parts(folder, name).len() + 1;
    folder.join(format!("{name}.{number:06}.jsonl"))
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

/// The last record of a file. The end of the file is looked at first: what is there nearly always is one.
fn last_record(file: &mut File) -> io::Result<Option<Last>> {
    let bytes = file.metadata()?.len();
    let near = bytes.saturating_sub(RECORD_BYTES as u64 + 128);
    match last_record_from(file, near)? {
        None if near > 0 => last_record_from(file, 0),
        last => Ok(last),
    }
}

fn last_record_from(file: &mut File, start: u64) -> io::Result<Option<Last>> {
    file.seek(SeekFrom::Start(start))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let mut end = start + tail.len() as u64;
    for line in tail.split_inclusive(|byte| *byte == b'\n').rev() {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if let Some((hash, entry)) = std::str::from_utf8(text).ok().and_then(read) {
            return Ok(Some(Last { hash, seq: entry.seq, end }));
        }
        end -= line.len() as u64;
    }
    Ok(None)
}
