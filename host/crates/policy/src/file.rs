//! Reads a file of which no one but its owner can have changed a byte, nor the way to it.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use crate::{MAX_BYTES, PolicyError};

/// Who must own a policy, and everything above it.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// No matter who: a file that is looked at and does not count.
    Anyone,
    /// This user, of the file and of every folder from `below` on down to it.
    Only { uid: u32, below: &'a Path },
}

impl Owner<'_> {
    /// Root, from the root folder on.
    #[must_use]
    pub fn root() -> Owner<'static> {
        Owner::Only { uid: 0, below: Path::new("/") }
    }
}

pub(crate) fn read(path: &Path, owner: Owner<'_>) -> Result<Option<String>, PolicyError> {
    let failed = |source: io::Error| PolicyError::Unreadable { path: path.to_owned(), source };
    let file = match owner {
        Owner::Anyone => File::open(path).map_err(failed)?,
        Owner::Only { uid, below } => match (Walk { path, uid, fault: None }).open(below) {
            Ok(file) => file,
            Err(PolicyError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        },
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(io::Error::other(format!("it has more than {MAX_BYTES} bytes"))));
    }
    let text = String::from_utf8(bytes).map_err(|_| failed(io::Error::other("it is not UTF-8")))?;
    Ok(Some(text))
}

/// The way to a policy, from folder to folder; no name is looked up twice.
struct Walk<'a> {
    path: &'a Path,
    uid: u32,
    /// What is wrong on the way. It counts only if there is a file at its end: where there is none, nothing
    /// is forbidden to anyone.
    fault: Option<PolicyError>,
}

impl Walk<'_> {
    fn open(mut self, below: &Path) -> Result<File, PolicyError> {
        let rest = self.path.strip_prefix(below).map_err(|_| self.refuse(self.path, "has no full path"))?;
        let names: Vec<_> = rest.components().collect();
        if names.is_empty() || !names.iter().all(|name| matches!(name, Component::Normal(_))) {
            return Err(self.refuse(self.path, "has no full path"));
        }
        let mut at = below.to_owned();
        let mut folder = self.enter(CWD, below, &at)?;
        for (n, name) in names.iter().enumerate() {
            at.push(name);
            if n + 1 == names.len() {
                return self.finish(folder, Path::new(name), &at);
            }
            folder = self.enter(&folder, Path::new(name), &at)?;
        }
        Err(self.refuse(&at, "has no full path"))
    }

    fn enter(
        &mut self,
        folder: impl std::os::fd::AsFd,
        name: &Path,
        at: &Path,
    ) -> Result<OwnedFd, PolicyError> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(folder, name, flags, Mode::empty()).map_err(|e| self.unreadable(e.into()))?;
        self.look(&opened, at, FileType::Directory)?;
        Ok(opened)
    }

    fn finish(mut self, folder: OwnedFd, name: &Path, at: &Path) -> Result<File, PolicyError> {
        // Without waiting: a pipe would keep the program from starting.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(folder, name, flags, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => return Err(self.refuse(at, LINK)),
            opened => opened.map_err(|e| self.unreadable(e.into()))?,
        };
        self.look(&opened, at, FileType::RegularFile)?;
        self.fault.map_or(Ok(File::from(opened)), Err)
    }

    fn look(&mut self, opened: &OwnedFd, at: &Path, wanted: FileType) -> Result<(), PolicyError> {
        let stat = fstat(opened).map_err(|e| self.unreadable(e.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            // Whoever owns the folder of a link decides where it leads.
            FileType::Symlink => return Err(self.refuse(at, LINK)),
            found if found == wanted => {}
            _ if wanted == FileType::Directory => return Err(self.refuse(at, "is not a folder")),
            _ => return Err(self.refuse(at, "is not a regular file")),
        }
        let fault = if stat.st_uid != self.uid {
            let owner = if self.uid == 0 { "root".to_owned() } else { format!("user {}", self.uid) };
            format!("belongs to user {} and not to {owner}", stat.st_uid)
        } else if stat.st_mode & 0o022 != 0 {
            format!("can be written by others (mode {:o})", stat.st_mode & 0o7777)
        } else {
            return Ok(());
        };
        let fault = self.refuse(at, &fault);
        self.fault.get_or_insert(fault);
        Ok(())
    }

    fn refuse(&self, part: &Path, reason: &str) -> PolicyError {
        let (path, part): (PathBuf, PathBuf) = (self.path.to_owned(), part.to_owned());
        PolicyError::NotTrusted { path, part, reason: reason.to_owned() }
    }

    fn unreadable(&self, source: io::Error) -> PolicyError {
        PolicyError::Unreadable { path: self.path.to_owned(), source }
    }
}

const LINK: &str = "is a link; put the file itself there";
