//! Changes of files: atomic, with the earlier content kept so that a person can have it back.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use protocol::FileChange;
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, RenameFlags, fchmod, fchown, fstat, openat, renameat, renameat_with,
    unlinkat,
};
use rustix::io::Errno;
use similar::TextDiff;

use crate::changes::undo::UndoLine;
use crate::folders::Place;
use crate::inspect::{digest, hex};
use crate::limits::MAX_FILE_BYTES;

mod preview;
mod undo;

pub(crate) use preview::{Becomes, Preview, moved, preview, vacant};
pub(crate) use undo::Undo;

/// Texts above this are counted, not shown, as a difference.
const MAX_DIFF_BYTES: usize = 256 << 10;

/// Mode bits that a rewritten file keeps: permissions and the sticky bit, not setuid and setgid.
const KEPT_MODE: u32 = 0o1777;

/// Time a difference may take before it gets coarser.
const DIFF_TIME: std::time::Duration = std::time::Duration::from_millis(200);

/// What must be true of a file before it is changed.
pub(crate) enum Expectation {
    Any,
    Absent,
    Sha256(String),
}

impl Expectation {
    fn met(&self, before: Option<&Before>) -> Result<(), ChangeError> {
        match (self, before) {
            (Self::Absent, Some(_)) => Err(ChangeError::Conflict("it exists")),
            (Self::Sha256(_), None) => Err(ChangeError::Conflict("it does not exist any more")),
            (Self::Sha256(expected), Some(before)) if *expected != before.sha256 => {
                Err(ChangeError::Conflict("its content changed"))
            }
            _ => Ok(()),
        }
    }
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum ChangeError {
    /// The file is not what was expected.
    Conflict(&'static str),
    NotAFile,
    NotFound,
    TooLarge,
    Io(std::io::Error),
}

impl From<Errno> for ChangeError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT => Self::NotFound,
            other => Self::Io(other.into()),
        }
    }
}

impl From<std::io::Error> for ChangeError {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

/// A change that was made.
pub(crate) struct Written {
    pub(crate) sha256: String,
    pub(crate) created: bool,
    /// What was there before is kept.
    pub(crate) undoable: bool,
    pub(crate) change: FileChange,
}

/// A file as it was before a change.
struct Before {
    content: Vec<u8>,
    sha256: String,
    /// Its permissions. That it runs as its owner or group is not kept: the content is another.
    mode: Mode,
    owner: (rustix::fs::Uid, rustix::fs::Gid),
}

/// What a name stands for, links not followed.
enum Named {
    File(Before),
    /// A link, with where it leads.
    Link(PathBuf),
}

/// Writes a file's whole content.
pub(crate) fn write(
    place: &mut Place,
    content: &[u8],
    expects: &Expectation,
    umask: u32,
    undo: &Undo,
    call: &str,
) -> Result<Written, ChangeError> {
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(ChangeError::TooLarge);
    }
    let before = read(place)?;
    expects.met(before.as_ref())?;
    place.make_folders(umask)?;
    let after = digest(content);
    let line = UndoLine {
        call,
        change: "write",
        path: &place.path,
        before: before.as_ref().map(|b| b.sha256.as_str()),
        mode: before.as_ref().map(|b| b.mode.as_raw_mode()),
        after: Some(&after),
        ..UndoLine::default()
    };
    let undoable = undo.keep(line, before.as_ref().map(Before::blob))?;
    replace(place, content, before.as_ref(), umask)?;
    let change = difference(&place.path, before.as_ref().map(|b| b.content.as_slice()), Some(content));
    Ok(Written { sha256: after, created: before.is_none(), undoable, change })
}

/// Moves a file, or a link itself, where nothing is yet. With `expects` its content must be that.
pub(crate) fn rename(
    from: &Place,
    to: &mut Place,
    expects: Option<&[u8]>,
    umask: u32,
    undo: &Undo,
    call: &str,
) -> Result<Vec<FileChange>, ChangeError> {
    let named = named(from)?;
    if expects.is_some_and(|expected| named.link().is_some() || named.content() != expected) {
        return Err(ChangeError::Conflict("its content changed"));
    }
    to.make_folders(umask)?;
    let line = UndoLine {
        call,
        change: "rename",
        path: &from.path,
        before: named.sha256(),
        link: named.link(),
        moved_to: Some(&to.path),
        ..UndoLine::default()
    };
    undo.keep(line, None)?;
    match renameat_with(&from.folder, &from.name, &to.folder, &to.name, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => return Err(ChangeError::Conflict("the target exists")),
        other => other?,
    }
    Ok(vec![
        difference(&from.path, Some(named.content()), None),
        difference(&to.path, None, Some(named.content())),
    ])
}

/// Removes a file, or a link itself.
pub(crate) fn remove(place: &Place, undo: &Undo, call: &str) -> Result<FileChange, ChangeError> {
    let named = named(place)?;
    let before = match &named {
        Named::File(before) => Some(before),
        Named::Link(_) => None,
    };
    let line = UndoLine {
        call,
        change: "remove",
        path: &place.path,
        before: named.sha256(),
        mode: before.map(|b| b.mode.as_raw_mode()),
        link: named.link(),
        ..UndoLine::default()
    };
    undo.keep(line, before.map(Before::blob))?;
    unlinkat(&place.folder, &place.name, AtFlags::empty())?;
    Ok(difference(&place.path, Some(named.content()), None))
}

impl Before {
    fn blob(&self) -> (&str, &[u8]) {
        (&self.sha256, &self.content)
    }
}

impl Named {
    fn sha256(&self) -> Option<&str> {
        match self {
            Self::File(before) => Some(&before.sha256),
            Self::Link(_) => None,
        }
    }

    fn link(&self) -> Option<&Path> {
        match self {
            Self::File(_) => None,
            Self::Link(target) => Some(target),
        }
    }

    /// What a difference shows: of a link nothing.
    fn content(&self) -> &[u8] {
        match self {
            Self::File(before) => &before.content,
            Self::Link(_) => &[],
        }
    }
}

fn named(place: &Place) -> Result<Named, ChangeError> {
    match place.link() {
        Some(target) => Ok(Named::Link(target)),
        None => read(place)?.map(Named::File).ok_or(ChangeError::NotFound),
    }
}

/// The file at a place, if there is one. Opening never blocks and never follows a link.
fn read(place: &Place) -> Result<Option<Before>, ChangeError> {
    if !place.has_folder() {
        return Ok(None);
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(&place.folder, &place.name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Err(ChangeError::NotAFile),
        Err(error) => return Err(error.into()),
    };
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(ChangeError::NotAFile);
    }
    let mut content = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(ChangeError::TooLarge);
    }
    let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    let sha256 = digest(&content);
    Ok(Some(Before { content, sha256, mode: Mode::from_raw_mode(stat.st_mode & KEPT_MODE), owner }))
}

/// Puts a complete new file in the old one's place, with its mode and owner.
fn replace(place: &Place, content: &[u8], before: Option<&Before>, umask: u32) -> Result<(), ChangeError> {
    let temporary = format!(".ml-intern-{}.tmp", random_name()?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(openat(&place.folder, &temporary, flags, Mode::from_raw_mode(0o600))?);
    let filled = (|| {
        file.write_all(content)?;
        if let Some(before) = before {
            // Only root may give a file away; for others the owner is already right or stays ours.
            let _ = fchown(file.as_fd(), Some(before.owner.0), Some(before.owner.1));
        }
        let mode = before.map_or_else(|| Mode::from_raw_mode(0o666 & !umask), |b| b.mode);
        fchmod(file.as_fd(), mode)?;
        file.sync_data()?;
        match before {
            Some(_) => renameat(&place.folder, &temporary, &place.folder, &place.name)?,
            None => {
                renameat_with(&place.folder, &temporary, &place.folder, &place.name, RenameFlags::NOREPLACE)?;
            }
        }
        Ok(())
    })();
    if filled.is_err() {
        // What is left behind is only the unfinished copy.
        let _ = unlinkat(&place.folder, &temporary, AtFlags::empty());
    }
    filled.map_err(|e: ChangeError| match e {
        ChangeError::Io(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            ChangeError::Conflict("it exists")
        }
        other => other,
    })
}

/// A name that nothing else has.
fn random_name() -> std::io::Result<String> {
    let mut random = [0; 8];
    getrandom::fill(&mut random).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(hex(&random))
}

fn difference(path: &Path, before: Option<&[u8]>, after: Option<&[u8]>) -> FileChange {
    let path = path.display().to_string();
    let text = |bytes: Option<&[u8]>| std::str::from_utf8(bytes.unwrap_or_default()).ok().map(str::to_owned);
    let (Some(old), Some(new)) = (text(before), text(after)) else {
        return FileChange { path, added: 0, removed: 0, diff: None };
    };
    let lines = |text: &str| u32::try_from(text.lines().count()).unwrap_or(u32::MAX);
    if old.len().max(new.len()) > MAX_DIFF_BYTES {
        return FileChange { path, added: lines(&new), removed: lines(&old), diff: None };
    }
    let diff = TextDiff::configure().timeout(DIFF_TIME).diff_lines(&old, &new);
    let (mut added, mut removed) = (0, 0);
    for change in diff.iter_all_changes() {
        match change.tag() {
            similar::ChangeTag::Insert => added += 1,
            similar::ChangeTag::Delete => removed += 1,
            similar::ChangeTag::Equal => {}
        }
    }
    let unified = diff.unified_diff().context_radius(3).to_string();
    FileChange { path, added, removed, diff: Some(unified) }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Folders;
    use crate::folders::LastLink;

    pub(super) struct Session {
        _dir: tempfile::TempDir,
        folders: Folders,
        pub(super) undo: Undo,
    }

    pub(super) fn session() -> Session {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let folders = Folders {
            workspace: root.clone(),
            workspace_writable: true,
            read: Vec::new(),
            write: Vec::new(),
            tmp: root.join("tmp"),
            umask: 0o027,
            denied: Vec::new(),
        };
        Session { undo: Undo::new(root.join("undo")), folders, _dir: dir }
    }

    impl Session {
        pub(super) fn path(&self, name: &str) -> PathBuf {
            self.folders.workspace.join(name)
        }

        fn write(&self, name: &str, content: &str, expects: Expectation) -> Result<Written, ChangeError> {
            let mut place = self.place(name);
            write(&mut place, content.as_bytes(), &expects, self.folders.umask, &self.undo, "call_1")
        }

        pub(super) fn place(&self, name: &str) -> Place {
            self.folders.place(&self.path(name), LastLink::Kept).unwrap()
        }

        fn rename(&self, from: &str, to: &str) -> Result<Vec<FileChange>, ChangeError> {
            rename(&self.place(from), &mut self.place(to), None, self.folders.umask, &self.undo, "c")
        }

        fn mode(&self, name: &str) -> u32 {
            std::fs::metadata(self.path(name)).unwrap().permissions().mode() & 0o7777
        }
    }

    #[test]
    fn a_rewritten_file_keeps_its_mode_and_its_earlier_content_is_kept() {
        let s = session();
        std::fs::write(s.path("run.sh"), "old\n").unwrap();
        std::fs::set_permissions(s.path("run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        let written = s.write("run.sh", "new\nmore\n", Expectation::Sha256(digest(b"old\n"))).unwrap();
        assert_eq!((s.mode("run.sh"), written.created), (0o755, false));
        assert_eq!((written.change.added, written.change.removed), (2, 1));
        assert_eq!(std::fs::read(s.path("undo").join(digest(b"old\n"))).unwrap(), b"old\n");
        let log = std::fs::read_to_string(s.path("undo/changes.jsonl")).unwrap();
        assert!(log.contains(&digest(b"old\n")) && log.contains("\"mode\":"), "{log}");
    }

    #[test]
    fn a_new_file_gets_the_mode_of_the_umask_and_leaves_nothing_behind() {
        let s = session();
        assert!(s.write("a/b/c.txt", "x", Expectation::Absent).unwrap().created);
        assert_eq!(s.mode("a/b/c.txt"), 0o640);
        let names: Vec<_> =
            std::fs::read_dir(s.path("a/b")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["c.txt"]);
    }

    #[test]
    fn expectations_hold_or_nothing_changes() {
        let s = session();
        std::fs::write(s.path("f"), "1").unwrap();
        assert!(matches!(s.write("f", "2", Expectation::Absent), Err(ChangeError::Conflict(_))));
        assert!(matches!(
            s.write("f", "2", Expectation::Sha256(digest(b"0"))),
            Err(ChangeError::Conflict(_))
        ));
        assert!(matches!(
            s.write("g", "2", Expectation::Sha256(digest(b"0"))),
            Err(ChangeError::Conflict(_))
        ));
        assert_eq!(std::fs::read(s.path("f")).unwrap(), b"1");
        s.write("f", "2", Expectation::Any).unwrap();
        assert_eq!(std::fs::read(s.path("f")).unwrap(), b"2");
    }

    #[test]
    fn folders_and_special_files_are_refused_without_waiting() {
        let s = session();
        std::fs::create_dir(s.path("d")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, s.path("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        for name in ["d", "pipe"] {
            assert!(matches!(s.write(name, "x", Expectation::Any), Err(ChangeError::NotAFile)), "{name}");
        }
    }

    #[test]
    fn a_file_is_moved_only_where_nothing_is_and_can_be_removed() {
        let s = session();
        std::fs::write(s.path("a"), "1\n").unwrap();
        std::fs::write(s.path("b"), "2\n").unwrap();
        assert!(matches!(s.rename("a", "b"), Err(ChangeError::Conflict(_))));
        assert!(matches!(s.rename("none", "made/d"), Err(ChangeError::NotFound)));
        assert!(!s.path("made").exists());
        s.rename("a", "sub/c").unwrap();
        assert_eq!(std::fs::read(s.path("sub/c")).unwrap(), b"1\n");
        let change = remove(&s.place("b"), &s.undo, "c").unwrap();
        assert_eq!((change.added, change.removed), (0, 1));
        assert_eq!(std::fs::read(s.path("undo").join(digest(b"2\n"))).unwrap(), b"2\n");
        assert!(matches!(remove(&s.place("b"), &s.undo, "c"), Err(ChangeError::NotFound)));
    }

    #[test]
    fn a_link_is_moved_and_removed_itself() {
        let s = session();
        std::fs::write(s.path("target"), "1\n").unwrap();
        std::os::unix::fs::symlink("target", s.path("link")).unwrap();
        s.rename("link", "moved").unwrap();
        assert_eq!(std::fs::read_link(s.path("moved")).unwrap(), Path::new("target"));
        remove(&s.place("moved"), &s.undo, "c").unwrap();
        assert!(!s.path("moved").is_symlink() && s.path("target").exists());
        let log = std::fs::read_to_string(s.path("undo/changes.jsonl")).unwrap();
        assert!(log.lines().last().unwrap().contains("\"link\":\"target\""), "{log}");
    }

    #[test]
    fn a_refused_write_makes_no_folder() {
        let s = session();
        let refused = s.write("a/b/f", "x", Expectation::Sha256(digest(b"0")));
        assert!(matches!(refused, Err(ChangeError::Conflict(_))) && !s.path("a").exists());
    }

    #[test]
    fn a_rewritten_program_does_not_run_as_its_owner_any_more() {
        let s = session();
        std::fs::write(s.path("f"), "1").unwrap();
        std::fs::set_permissions(s.path("f"), std::fs::Permissions::from_mode(0o6755)).unwrap();
        s.write("f", "2", Expectation::Any).unwrap();
        assert_eq!(s.mode("f"), 0o755);
    }
}
