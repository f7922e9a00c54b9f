//! What of a workspace commands must not change, and what of that kind appeared.
//!
//! What is there when the session begins is mounted read-only. What is not there cannot be: a mount needs something
//! to lie on, and a file that is made for it would be left in the workspace. So what appears is named.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::wire::Kept;

/// How deep, and how many entries of each folder that was given, is looked through.
const MAX_DEPTH: usize = 4;
const MAX_ENTRIES: usize = 20_000;

/// Most things that are mounted.
const MAX_SEALED: usize = 512;

/// Folders that are made by tools, large, and nobody's to obey.
const PASSED_BY: [&str; 8] =
    ["node_modules", ".venv", "venv", "__pycache__", ".tox", "target", ".mypy_cache", ".pytest_cache"];

/// What git obeys in a repository. The rest of it has to change with every commit.
const OBEYED: [&str; 5] = ["config", "config.worktree", "hooks", "commondir", "gitdir"];

/// Folders of a repository in which others have their own.
const INNER: [&str; 2] = ["modules", "worktrees"];

/// Whether a path, relative to the folder that was given, is sealed.
pub(crate) type IsSealed = fn(&Path) -> bool;

/// The folders that commands may write to, and what is sealed in them.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    is_sealed: IsSealed,
    folders: Vec<PathBuf>,
    /// What was found, and which file or folder it was then.
    known: BTreeMap<PathBuf, Option<Identity>>,
    /// Folders that were looked at, and when they were changed last.
    seen: BTreeMap<PathBuf, (i64, i64)>,
    left: usize,
    /// What was mounted.
    mounted: BTreeSet<PathBuf>,
    /// What is to be said at the next look.
    notes: Vec<String>,
}

/// Device and inode.
type Identity = (u64, u64);

impl Sealed {
    /// Looks through the folders. `before` is what an earlier supervisor knew of them.
    pub(crate) fn find(folders: Vec<PathBuf>, is_sealed: IsSealed, before: Option<&Self>) -> Self {
        let (known, seen) = (BTreeMap::new(), BTreeMap::new());
        let (mounted, notes) = (BTreeSet::new(), Vec::new());
        let mut sealed = Self { is_sealed, folders, known, seen, left: 0, mounted, notes };
        for folder in sealed.folders.clone() {
            sealed.left = MAX_ENTRIES;
            if is_repository(&folder) {
                sealed.add_repository(&folder);
            }
            sealed.look_through(&folder, &folder);
            if sealed.left == 0 {
                sealed.notes.push(format!(
                    "`{}` has more than {MAX_ENTRIES} entries: what lies deep in it is not looked for",
                    folder.display()
                ));
            }
        }
        if let Some(before) = before {
            sealed.notes.extend(before.notes.iter().cloned());
            let old: BTreeSet<PathBuf> = before.known.keys().cloned().collect();
            sealed.say_what_is_new(&old);
        }
        sealed
    }

    /// What is mounted, each after what it lies in: what a repository changes with every commit stays writable, on
    /// a mount of its own, so that it cannot be moved away with what lies in it.
    pub(crate) fn kept(&mut self) -> Vec<Kept> {
        let is_root = |path: &Path| self.folders.iter().any(|folder| folder == path);
        let mut kept: Vec<Kept> = Vec::new();
        let mut unnamed = 0;
        for path in self.known.keys().filter(|path| !is_root(path)) {
            // A link leads elsewhere, and names that are not UTF-8 do not get to the supervisor.
            let is_link = path.symlink_metadata().is_ok_and(|found| found.is_symlink());
            if path.to_str().is_none() || is_link {
                unnamed += 1;
            } else {
                kept.push(Kept { path: path.clone(), is_writable: self.changes_with_commits(path) });
            }
        }
        // Repositories first, then folders, where there are too many.
        if kept.len() > MAX_SEALED {
            kept.sort_by_cached_key(|kept| {
                (!kept.path.components().any(|part| part.as_os_str() == ".git"), !kept.path.is_dir())
            });
            unnamed += kept.len() - MAX_SEALED;
            kept.truncate(MAX_SEALED);
            kept.sort_by(|a, b| a.path.cmp(&b.path));
        }
        self.mounted = kept.iter().map(|kept| kept.path.clone()).collect();
        if unnamed > 0 {
            self.notes
                .push(format!("{unnamed} paths that other programs obey are not read-only for commands"));
        }
        kept
    }

    /// Says that the machine lets nothing be mounted: then nothing can stop being so.
    pub(crate) fn nothing_is_mounted(&mut self) {
        self.mounted.clear();
    }

    /// What is sealed and appeared, or is another file than it was, since this was asked last; a sentence each.
    pub(crate) fn look(&mut self) -> Vec<String> {
        let before: BTreeSet<PathBuf> = self.known.keys().cloned().collect();
        for folder in self.folders.clone() {
            self.left = MAX_ENTRIES;
            if !before.contains(&folder) && is_repository(&folder) {
                self.add_repository(&folder);
            }
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
        for repository in before.iter().filter(|path| is_repository(path)) {
            self.add_repository(repository);
        }
        self.say_what_is_new(&before);
        for (path, then) in &mut self.known {
            let now = identity(path);
            if self.mounted.contains(path) && now.is_some() && then.is_some() && now != *then {
                let name = named(&self.folders, path);
                self.notes.push(format!(
                    "`{name}` is another file than when the session began: it is not read-only for commands any more"
                ));
            }
            *then = now.or(*then);
        }
        std::mem::take(&mut self.notes)
    }

    fn say_what_is_new(&mut self, before: &BTreeSet<PathBuf>) {
        for path in self.known.keys().filter(|path| !before.contains(*path)) {
            // A repository is told as a whole.
            let inside = self
                .known
                .keys()
                .any(|other| other != path && path.starts_with(other) && !before.contains(other));
            if !inside {
                let name = named(&self.folders, path);
                self.notes.push(format!("`{name}` is new: other programs may run or obey what lies in it"));
            }
        }
    }

    /// Whether it is a repository of git's, and no folder that another program obeys and that looks like one.
    fn changes_with_commits(&self, path: &Path) -> bool {
        let is_gits = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".git"));
        let relative = self.folders.iter().find_map(|folder| path.strip_prefix(folder).ok());
        is_repository(path) && (is_gits || !relative.is_some_and(self.is_sealed))
    }

    fn add_repository(&mut self, path: &Path) {
        self.add(path);
        let inner = INNER.iter().flat_map(|name| entries(&path.join(name))).map(|entry| entry.path());
        for repository in std::iter::once(path.to_owned()).chain(inner.take(MAX_SEALED)) {
            for name in OBEYED {
                let obeyed = repository.join(name);
                if obeyed.symlink_metadata().is_ok() {
                    self.add(&obeyed);
                }
            }
        }
    }

    fn add(&mut self, path: &Path) {
        self.known.entry(path.to_owned()).or_insert_with(|| identity(path));
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
                if is_folder && is_repository(&path) {
                    self.add_repository(&path);
                } else if (self.is_sealed)(relative) {
                    self.add(&path);
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

fn named(folders: &[PathBuf], path: &Path) -> String {
    let relative = folders.iter().filter_map(|folder| path.strip_prefix(folder).ok());
    let name = relative.min_by_key(|relative| relative.as_os_str().len()).unwrap_or(path);
    if name.as_os_str().is_empty() { ".".to_owned() } else { name.display().to_string() }
}

/// Whether a folder holds what git takes for a repository, whatever its name.
fn is_repository(path: &Path) -> bool {
    path.join("HEAD").is_file() && path.join("objects").is_dir() && path.join("refs").is_dir()
}

fn identity(path: &Path) -> Option<Identity> {
    path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// When a folder's entries changed last, by a clock that its owner does not set.
fn changed_at(folder: &Path) -> Option<(i64, i64)> {
    let found = folder.symlink_metadata().ok().filter(fs::Metadata::is_dir)?;
    Some((found.ctime(), found.ctime_nsec()))
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> + use<> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}
