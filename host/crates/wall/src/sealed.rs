//! What of a workspace commands must not change, and what of that kind they made.
//!
//! What is there when the session begins is mounted read-only. What is not there cannot be: a mount needs something
//! to lie on, and a file that is made for it would be left in the workspace. So what a command made is found when it
//! ends, and a single file is taken out of the workspace then.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, openat, renameat, unlinkat};
use rustix::io::Errno;

use crate::no_links::open_without_links;
use crate::wire::Kept;

/// How deep, and how many entries, a folder is looked through.
const MAX_DEPTH: usize = 4;
const MAX_ENTRIES: usize = 20_000;

/// Most things that are mounted.
const MAX_SEALED: usize = 512;

/// Folders that are made by tools, large, and nobody's to obey.
const PASSED_BY: [&str; 8] =
    ["node_modules", ".venv", "venv", "__pycache__", ".tox", "target", ".mypy_cache", ".pytest_cache"];

/// What git obeys in a repository. The rest of it has to change with every commit.
const OBEYED: [&str; 5] = ["config", "config.worktree", "hooks", "modules", "commondir"];

/// What a work tree's own folder in a repository leads elsewhere with.
const POINTERS: [&str; 3] = ["gitdir", "commondir", "config.worktree"];

/// Bytes of a repository's index that are looked through for a name.
const MAX_INDEX: u64 = 64 << 20;

/// Bytes of a file that is taken out to another file system.
const MAX_COPY: u64 = 64 << 20;

/// Whether a path, relative to the folder that was given, is sealed.
pub(crate) type IsSealed = fn(&Path) -> bool;

/// The folders that commands may write to, and what is sealed in them.
#[derive(Debug)]
pub(crate) struct Sealed {
    is_sealed: IsSealed,
    folders: Vec<PathBuf>,
    known: BTreeSet<PathBuf>,
    /// Folders that were looked at, and when they were changed last.
    seen: BTreeMap<PathBuf, (i64, i64)>,
    left: usize,
}

/// What is sealed and was not there before a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Appeared {
    pub(crate) path: PathBuf,
    /// Relative to the folder that was given.
    pub(crate) name: PathBuf,
    /// A file beside what was there, and not in the index of the repository around it.
    pub(crate) is_loose_file: bool,
}

impl Sealed {
    pub(crate) fn find(folders: Vec<PathBuf>, is_sealed: IsSealed) -> Self {
        let mut sealed =
            Self { is_sealed, folders, known: BTreeSet::new(), seen: BTreeMap::new(), left: MAX_ENTRIES };
        for folder in sealed.folders.clone() {
            sealed.look_through(&folder, &folder);
        }
        sealed
    }

    /// What is mounted, each after what it lies in: what a repository changes with every commit stays writable, on
    /// a mount of its own, so that it cannot be moved away with what lies in it.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let mut kept = Vec::new();
        for path in &self.known {
            if !is_repository(path) {
                kept.push(Kept { path: path.clone(), is_writable: false });
                continue;
            }
            kept.push(Kept { path: path.clone(), is_writable: true });
            let worktrees = entries(&path.join("worktrees"));
            let pointers = worktrees.flat_map(|tree| POINTERS.map(|name| tree.path().join(name)));
            let obeyed = OBEYED.iter().map(|name| path.join(name)).chain(pointers);
            let there = obeyed.filter(|path| path.symlink_metadata().is_ok_and(|found| !found.is_symlink()));
            kept.extend(there.map(|path| Kept { path, is_writable: false }));
        }
        kept.truncate(MAX_SEALED);
        kept
    }

    /// What is sealed and appeared since this was asked last.
    pub(crate) fn appeared(&mut self) -> Vec<Appeared> {
        let before = self.known.clone();
        let old: BTreeSet<PathBuf> = self.seen.keys().cloned().collect();
        self.left = MAX_ENTRIES;
        for folder in self.folders.clone() {
            let changed: Vec<PathBuf> = self
                .seen
                .iter()
                .filter(|(path, then)| path.starts_with(&folder) && changed_at(path) != Some(**then))
                .map(|(path, _)| path.clone())
                .collect();
            for path in changed {
                self.seen.remove(&path);
                self.look_through(&folder, &path);
            }
        }
        let new: Vec<PathBuf> = self.known.difference(&before).cloned().collect();
        let name = |path: &Path| {
            let folder = self.folders.iter().filter(|folder| path.starts_with(folder)).max()?;
            Some((folder.clone(), path.strip_prefix(folder).ok()?.to_owned()))
        };
        new.into_iter()
            .filter_map(|path| {
                let (folder, name) = name(&path)?;
                let is_file = path.symlink_metadata().is_ok_and(|found| !found.is_dir());
                let beside = path.parent().is_some_and(|parent| old.contains(parent));
                let is_loose_file = is_file && beside && !is_tracked(&folder, &name);
                Some(Appeared { path, name, is_loose_file })
            })
            .collect()
    }

    /// Forgets what is not there any more.
    pub(crate) fn forget(&mut self, path: &Path) {
        self.known.remove(path);
    }

    fn look_through(&mut self, root: &Path, from: &Path) {
        let mut queue = VecDeque::from([from.to_owned()]);
        while let Some(folder) = queue.pop_front() {
            let Some(changed) = changed_at(&folder) else { continue };
            if self.seen.get(&folder) == Some(&changed) {
                continue;
            }
            self.seen.insert(folder.clone(), changed);
            let depth = folder.strip_prefix(root).map_or(0, |relative| relative.components().count());
            for entry in entries(&folder) {
                let Some(left) = self.left.checked_sub(1) else { return };
                self.left = left;
                let path = entry.path();
                let relative = path.strip_prefix(root).unwrap_or(&path);
                let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if (self.is_sealed)(relative) || (is_folder && is_repository(&path)) {
                    self.known.insert(path);
                } else if is_folder
                    && depth < MAX_DEPTH
                    && !PASSED_BY.iter().any(|name| entry.file_name() == *name)
                {
                    queue.push_back(path);
                }
            }
        }
    }
}

/// Whether a folder holds what git takes for a repository, whatever its name.
fn is_repository(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

/// Moves a file out of the workspace. By no link, also one that a command makes meanwhile.
pub(crate) fn take_out(path: &Path, to: &Path) -> io::Result<()> {
    let place = |path: &Path| -> io::Result<(OwnedFd, OsString)> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok((open_without_links(folder, OFlags::PATH | OFlags::DIRECTORY)?, name.to_owned()))
    };
    let ((folder, name), (to_folder, to_name)) = (place(path)?, place(to)?);
    match renameat(&folder, &name, &to_folder, &to_name) {
        Err(Errno::XDEV) => {}
        renamed => return renamed.map_err(Into::into),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut from = File::from(openat(&folder, &name, flags, Mode::empty())?);
    if !from.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(openat(&to_folder, &to_name, flags, Mode::RUSR | Mode::WUSR)?);
    io::copy(&mut (&mut from).take(MAX_COPY), &mut copy)?;
    Ok(unlinkat(&folder, &name, AtFlags::empty())?)
}

/// Whether the index of the repository in `folder` has the name, as far as that can be seen without git.
fn is_tracked(folder: &Path, name: &Path) -> bool {
    let Ok(index) = open_without_links(&folder.join(".git/index"), OFlags::RDONLY | OFlags::NONBLOCK) else {
        return false;
    };
    let index = File::from(index);
    let is_file = index.metadata().is_ok_and(|found| found.is_file() && found.len() <= MAX_INDEX);
    let mut bytes = Vec::new();
    let name = [name.as_os_str().as_encoded_bytes(), b"\0"].concat();
    is_file
        && index.take(MAX_INDEX).read_to_end(&mut bytes).is_ok()
        && bytes.windows(name.len()).any(|part| part == name)
}

fn changed_at(folder: &Path) -> Option<(i64, i64)> {
    let found = folder.symlink_metadata().ok().filter(fs::Metadata::is_dir)?;
    Some((found.mtime(), found.mtime_nsec()))
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}
