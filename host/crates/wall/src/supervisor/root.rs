//! A root in which nothing is but what commands were given.

use std::ffi::CStr;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_change, move_mount, unmount,
};

use super::mounts::{copy, copy_kept, failed, is_folder, mount_new, mount_point, seal, take_sealed};
use crate::config::CommandLimits;
use crate::sys;
use crate::wire::{Kept, Link, Root};

/// What of `/proc` is the machine's and not the session's processes'. As root, commands own it.
const MACHINES: [&str; 9] = ["acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "sys", "sysrq-trigger"];

/// Links that every `/dev` has.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("dev/fd", "/proc/self/fd"),
    ("dev/stdin", "/proc/self/fd/0"),
    ("dev/stdout", "/proc/self/fd/1"),
    ("dev/stderr", "/proc/self/fd/2"),
    ("dev/ptmx", "pts/ptmx"),
];

/// Makes the root and goes there. After an error the process is in no state to go on.
pub(super) fn make(root: &Root, limits: CommandLimits) -> io::Result<()> {
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    mount_change("/", private).map_err(|errno| failed("make mounts private", "/", errno))?;
    let trees: Vec<(OwnedFd, &Kept)> =
        root.trees.iter().filter_map(|kept| taken(kept).transpose()).collect::<io::Result<_>>()?;
    let tmp = [copy(&root.tmp)?, copy(&root.tmp)?];
    let sealed = take_sealed(&root.sealed)?;

    // Over the session's tmp, which is there and nobody's way: what was in it is held by now.
    let at = root.tmp.as_path();
    mount_new("tmpfs", at, MountFlags::NODEV, c"mode=0755")?;
    let inside = |path: &Path| at.join(path.strip_prefix("/").unwrap_or(path));
    for folder in ["proc", "run", "dev/pts", "dev/shm", "tmp", "var/tmp"] {
        make_folder(&at.join(folder))?;
    }
    for (path, target) in DEVICE_LINKS {
        symlink(target, at.join(path))?;
    }
    for (tree, target) in tmp.iter().zip(["tmp", "var/tmp"]) {
        attach(tree, &at.join(target))?;
    }
    mount_new("tmpfs", &at.join("run"), MountFlags::NODEV, c"mode=0755")?;
    mount_new("tmpfs", &at.join("dev/shm"), MountFlags::NODEV, c"mode=1777")?;
    let terminals = c"newinstance,ptmxmode=0666,mode=0600";
    mount_new("devpts", &at.join("dev/pts"), MountFlags::NOEXEC, terminals)?;
    mount_proc(&at.join("proc"), limits)?;
    for Link { path, target } in &root.links {
        let path = inside(path);
        if path.symlink_metadata().is_err() {
            make_folder(path.parent().unwrap_or(at))?;
            symlink(target, &path)?;
        }
    }
    for (tree, Kept { path, .. }) in &trees {
        let point = inside(path);
        if ["/tmp", "/var/tmp"].iter().any(|tmp| path.starts_with(tmp)) {
            // A command may have left anything there.
            let base = at.join(if path.starts_with("/tmp") { "tmp" } else { "var/tmp" });
            let point = mount_point(&base, &point, is_folder(tree)?)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            move_mount(tree, "", point, "", flags).map_err(|errno| failed("take along", path, errno))?;
            continue;
        }
        if point.symlink_metadata().is_err() {
            make_point(&point, is_folder(tree)?)?;
        }
        attach(tree, &point)?;
    }
    seal(&sealed, at)?;
    enter(at)
}

/// A tree of the machine's; none if it is gone by now.
fn taken(kept: &Kept) -> io::Result<Option<(OwnedFd, &Kept)>> {
    if kept.path.symlink_metadata().is_err() {
        return Ok(None);
    }
    Ok(Some((copy_kept(kept)?, kept)))
}

/// A `/proc` of the session's own processes.
fn mount_proc(at: &Path, limits: CommandLimits) -> io::Result<()> {
    let none: Option<&CStr> = None;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", at, "proc", flags, none).map_err(|errno| failed("mount a new proc over", at, errno))?;
    super::limits::process_numbers(at, limits)?;
    for name in MACHINES {
        let path = at.join(name);
        if path.exists() {
            let tree = copy(&path)?;
            sys::make_read_only(tree.as_fd())?;
            attach(&tree, &path)?;
        }
    }
    Ok(())
}

fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(tree, "", CWD, at, flags).map_err(|errno| failed("mount over", at, errno))
}

fn make_point(point: &Path, is_folder: bool) -> io::Result<()> {
    if is_folder {
        return make_folder(point);
    }
    make_folder(point.parent().unwrap_or(Path::new("/")))?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(point).map(drop)
}

fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// Makes the folder the root, with nothing of the machine's behind it, and nothing to be made in itself.
fn enter(folder: &Path) -> io::Result<()> {
    let root = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".").map_err(|errno| failed("make the root of", folder, errno))?;
    // The machine's lies over it now.
    unmount(".", UnmountFlags::DETACH).map_err(|errno| failed("let go of", "/", errno))?;
    rustix::process::chdir("/")?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount_remount("/", flags, "").map_err(|errno| failed("make read-only", "/", errno))?;
    Ok(())
}
