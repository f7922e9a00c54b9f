use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::record::{Act, Entry, digest};

mod torn;

/// Bytes of a file of a chain; then the chain goes on in the next one.
const PART_BYTES: u64 = 16 << 20;

/// Files of a chain: what their names have digits for.
const MAX_PARTS: u32 = 999_999;

/// Bytes of a record; nothing in one is longer than a target and a list of plugins.
pub(crate) const RECORD_BYTES: usize = 256 << 10;

/// Why a record could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error("the audit log {} cannot be written: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("an audit record of {0} bytes is too large")]
    TooLarge(usize),
    /// What an earlier failure left in the file could not be taken back.
    #[error("the audit log {} could not be written before, and nothing can follow what that left; begin a new session", .0.display())]
    Broken(PathBuf),
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
    /// Other processes write to it too, while this one does not hold it.
    exclusive: bool,
    /// Every record is on the disk when it is written.
    sync: bool,
    /// The file ends with what is no record of the chain.
    broken: bool,
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
                    if !exclusive || chain.bytes < PART_BYTES {
                        return Ok(chain);
                    }
                    // While the lock is held. Where the chain stands then is found anew, by whoever comes first.
                    let full = next_part(folder, name).and_then(|part| put_away(&path, &part));
                    full.map_err(failed)?;
                    drop(chain);
                    return Self::open(folder, name, exclusive);
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
        for part in parts(folder, name)?.iter().rev() {
            if last.is_some() {
                break;
            }
            last = last_record(&mut File::open(part)?)?;
        }
        let bytes = file.metadata()?.len();
        let (head, seq) = last.map_or_else(|| (genesis(name), 0), |last| (last.hash, last.seq + 1));
        Ok((
            Self {
                name: name.to_owned(),
                path,
                file,
                head,
                seq,
                bytes,
                exclusive,
                sync: false,
                broken: false,
            },
            end,
        ))
    }

    pub(crate) fn with_sync(self, sync: bool) -> Self {
        Self { sync, ..self }
    }

    /// Adds a record. It is with the kernel when this returns, and on the disk if `sync` is set.
    ///
    /// # Errors
    /// When it cannot be written, or not be brought to the disk. Then the chain is as it was, or, if what was
    /// written of the record stays in the file, takes no other.
    pub fn append(&mut self, act: Act, sync: bool) -> Result<(), AuditError> {
        if self.broken {
            return Err(AuditError::Broken(self.path.clone()));
        }
        if self.bytes >= PART_BYTES && !self.exclusive {
            let next = self.go_on_in_next_part();
            next.map_err(|source| AuditError::Io { path: self.path.clone(), source })?;
        }
        let at = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string();
        let entry = Entry { seq: self.seq, prev: self.head.clone(), at, act };
        let failed = |path: &Path, source| AuditError::Io { path: path.to_owned(), source };
        let record = serde_json::to_string(&entry).map_err(|e| failed(&self.path, e.into()))?;
        if record.len() > RECORD_BYTES {
            return Err(AuditError::TooLarge(record.len()));
        }
        let hash = digest(record.as_bytes());
        let line = format!("{hash} {record}\n");
        let synced = |file: &File| if sync || self.sync { file.sync_data() } else { Ok(()) };
        let written = self.file.write_all(line.as_bytes());
        if let Err(source) = written.and_then(|()| synced(&self.file)) {
            // A part of a line, or a record that nobody was told of, would break the chain for good.
            self.broken = self.file.set_len(self.bytes).is_err();
            return Err(failed(&self.path, source));
        }
        self.head = hash;
        self.seq += 1;
        self.bytes += line.len() as u64;
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
        put_away(&self.path, &next_part(folder, &self.name)?)?;
        self.file = open(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

/// What the file of a chain that is written to is called once it is full: one more than the last there is,
/// whichever of those before it were put elsewhere.
fn next_part(folder: &Path, name: &str) -> io::Result<PathBuf> {
    let last = numbers(folder, name)?.into_iter().map(|(number, _)| number).max().unwrap_or(0);
    if last >= MAX_PARTS {
        return Err(io::Error::other("the chain has as many files as it can have"));
    }
    Ok(folder.join(format!("{name}.{:06}.jsonl", last + 1)))
}

/// Gives a full file its name, never that of another.
fn put_away(file: &Path, part: &Path) -> io::Result<()> {
    match renameat_with(CWD, file, CWD, part, RenameFlags::NOREPLACE) {
        // Some network file systems cannot say so; the chain is held by this process alone.
        Err(Errno::INVAL | Errno::NOSYS) if part.symlink_metadata().is_err() => std::fs::rename(file, part),
        renamed => Ok(renamed?),
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
///
/// # Errors
/// When the folder cannot be read: a chain of which nobody knows where it stands is not gone on with.
pub(crate) fn parts(folder: &Path, name: &str) -> io::Result<Vec<PathBuf>> {
    let mut parts: Vec<_> = numbers(folder, name)?.into_iter().filter(|(_, path)| is_full(path)).collect();
    parts.sort();
    Ok(parts.into_iter().map(|(_, path)| path).collect())
}

/// A full file, not the copy of one that was torn.
fn is_full(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "jsonl")
}

/// The numbered files of a chain, full ones and copies of torn ones.
fn numbers(folder: &Path, name: &str) -> io::Result<Vec<(u32, PathBuf)>> {
    let number = |file: &str| {
        let (number, kind) = file.strip_prefix(name)?.strip_prefix('.')?.split_once('.')?;
        let is_number = number.len() == 6 && number.bytes().all(|b| b.is_ascii_digit());
        (is_number && matches!(kind, "jsonl" | "torn")).then(|| number.parse().ok())?
    };
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        found.extend(entry.file_name().to_str().and_then(number).map(|number| (number, entry.path())));
    }
    Ok(found)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_taken_back_is_followed_by_nothing() {
        // It takes every byte, brings none to a disk and cannot be cut.
        let path = Path::new("/dev/null");
        let file = OpenOptions::new().append(true).open(path).unwrap();
        let mut chain = Chain {
            name: "user".to_owned(),
            path: path.to_owned(),
            file,
            head: genesis("user"),
            seq: 0,
            bytes: 0,
            exclusive: false,
            sync: false,
            broken: false,
        };
        let act = || Act::Remove { plugin: "p".to_owned(), path: String::new() };
        chain.append(act(), false).unwrap();
        let head = chain.head().to_owned();
        assert!(matches!(chain.append(act(), true), Err(AuditError::Io { .. })));
        assert_eq!((chain.head(), chain.seq), (head.as_str(), 1));
        assert!(matches!(chain.append(act(), false), Err(AuditError::Broken(_))));
    }
}
