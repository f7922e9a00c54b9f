//! Private mounts, where the machine allows them: as root in a mount namespace, as an ordinary user in a
//! user namespace as well.

use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, mkdirat, openat, unlinkat};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change, move_mount,
    open_tree,
};
use rustix::process::geteuid;
use rustix::thread::UnshareFlags;

use super::space;
use crate::no_links::open_without_links;
use crate::sys;
use crate::wire::{Kept, Mounts};

/// Makes the mounts. After an error the process is in no state to go on.
pub(super) fn make(mounts: &Mounts) -> io::Result<()> {
    enter_namespace()?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).map_err(|errno| failed("make mounts private", "/", errno))?;

    // Taken before they become read-only or are hidden.
    let tmp: Vec<OwnedFd> = mounts.over_tmp.iter().map(|_| copy(&mounts.tmp)).collect::<io::Result<_>>()?;
    let kept: Vec<OwnedFd> = mounts.keep.iter().map(copy_kept).collect::<io::Result<_>>()?;
    let sealed = take_sealed(&mounts.sealed)?;
    let links: Vec<(PathBuf, PathBuf)> =
        mounts.empty.iter().flat_map(|folder| links_out_of(folder)).collect();

    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    sys::make_read_only(root.as_fd())
        .map_err(|error| io::Error::other(format!("make `/` read-only: {error}")))?;

    for (tree, target) in tmp.iter().zip(&mounts.over_tmp) {
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(tree, "", CWD, target, flags)
            .map_err(|errno| failed("mount the session's tmp over", target, errno))?;
    }
    for folder in &mounts.empty {
        let is_shared_memory = folder.ends_with("shm");
        let options = if is_shared_memory { c"mode=1777" } else { c"mode=0755" };
        mount_new("tmpfs", folder, MountFlags::NODEV, options)?;
    }
    for (link, target) in links {
        symlink(target, link)?;
    }
    if mounts.terminals {
        let options = c"newinstance,ptmxmode=0666,mode=0600";
        mount_new("devpts", Path::new("/dev/pts"), MountFlags::NOEXEC, options)?;
    }
    for (tree, Kept { path, .. }) in kept.iter().zip(&mounts.keep) {
        let mut replaced = mounts.over_tmp.iter().chain(&mounts.empty);
        let point = match replaced.find(|root| path.starts_with(root)) {
            Some(root) => mount_point(root, path, is_folder(tree)?)?,
            None => rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?,
        };
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree, "", point, "", flags).map_err(|errno| failed("keep", path, errno))?;
    }
    seal(&sealed, Path::new("/"))
}

/// Takes what is sealed, each as it is now.
pub(super) fn take_sealed(sealed: &[Kept]) -> io::Result<Vec<(OwnedFd, &Kept)>> {
    let mut taken = Vec::new();
    for kept in sealed {
        // What became a link or went away since it was found is not there to be changed.
        let Ok(path) = open_without_links(&kept.path, OFlags::PATH) else { continue };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(&path, "", flags).map_err(|errno| failed("take along", &kept.path, errno))?;
        if !kept.is_writable {
            sys::make_read_only(tree.as_fd())?;
        }
        taken.push((tree, kept));
    }
    Ok(taken)
}

/// Mounts what was taken where it lies, below `root`.
pub(super) fn seal(sealed: &[(OwnedFd, &Kept)], root: &Path) -> io::Result<()> {
    for (tree, Kept { path, .. }) in sealed {
        let place = root.join(path.strip_prefix("/").unwrap_or(path));
        let point = open_without_links(&place, OFlags::PATH).map_err(|errno| failed("seal", path, errno))?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(tree, "", &point, "", flags).map_err(|errno| failed("seal", path, errno))?;
    }
    Ok(())
}

pub(super) fn mount_new(kind: &str, folder: &Path, flags: MountFlags, options: &CStr) -> io::Result<()> {
    mount(kind, folder, kind, flags | MountFlags::NOSUID, Some(options))
        .map_err(|errno| failed(&format!("mount a new {kind} over"), folder, errno))
}

/// Enters a mount namespace, within a user namespace where that takes one.
fn enter_namespace() -> io::Result<()> {
    if geteuid().is_root() && sys::unshare(UnshareFlags::NEWNS).is_ok() {
        return Ok(());
    }
    space::new_user(UnshareFlags::NEWNS)
}

pub(super) fn copy(path: &Path) -> io::Result<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, path, flags).map_err(|errno| failed("take along", path, errno))
}

pub(super) fn copy_kept(kept: &Kept) -> io::Result<OwnedFd> {
    let tree = copy(&kept.path)?;
    if !kept.is_writable {
        sys::make_read_only(tree.as_fd()).map_err(|error| {
            io::Error::other(format!("make `{}` read-only: {error}", kept.path.display()))
        })?;
    }
    Ok(tree)
}

pub(super) fn is_folder(tree: &OwnedFd) -> io::Result<bool> {
    let stat = rustix::fs::fstat(tree)?;
    Ok(rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir())
}

/// Links directly in `folder` that lead out of it. Distributions keep links to their tools in `/run`.
fn links_out_of(folder: &Path) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let target = fs::read_link(entry.path()).ok()?;
            (target.is_absolute() && !target.starts_with(folder)).then(|| (entry.path(), target))
        })
        .collect()
}

/// Makes an empty folder or file at `path`, below `root`, to mount something on.
///
/// The session's tmp may hold anything that an earlier command left there, so no link is followed: one that
/// lies in the way is removed.
pub(super) fn mount_point(root: &Path, path: &Path, is_folder: bool) -> io::Result<OwnedFd> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut at = openat(CWD, root, folder, Mode::empty())?;
    let names: Vec<Component<'_>> = path.strip_prefix(root).map_err(io::Error::other)?.components().collect();
    for (index, name) in names.iter().enumerate() {
        let name = name.as_os_str();
        let is_last = index + 1 == names.len();
        let open = |at: &OwnedFd| match is_last && !is_folder {
            false => openat(at, name, folder, Mode::empty()),
            true => openat(at, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()),
        };
        let make = |at: &OwnedFd| match is_last && !is_folder {
            false => mkdirat(at, name, Mode::RWXU),
            true => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                openat(at, name, flags, Mode::RUSR | Mode::WUSR).map(drop)
            }
        };
        if !is_mountable(open(&at), is_last && !is_folder) {
            match unlinkat(&at, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(failed("make room at", path, errno)),
            }
            make(&at).map_err(|errno| failed("make room at", path, errno))?;
        }
        at = open(&at)?;
    }
    Ok(at)
}

/// Whether what was opened is of the kind to mount on: a folder, or with `file` a plain file.
fn is_mountable(opened: rustix::io::Result<OwnedFd>, file: bool) -> bool {
    let Ok(opened) = opened else { return false };
    let kind =
        rustix::fs::fstat(opened.as_fd()).map(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode));
    kind.is_ok_and(|kind| if file { kind.is_file() } else { kind.is_dir() })
}

pub(super) fn failed(what: &str, path: impl AsRef<Path>, errno: Errno) -> io::Error {
    io::Error::other(format!("{what} `{}`: {}", path.as_ref().display(), io::Error::from(errno)))
}
