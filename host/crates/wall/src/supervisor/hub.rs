//! Makes the models that the user downloaded before visible in the Hub cache of commands.
//!
//! That cache is the workspace's own, so that downloads of commands go there. Each snapshot of the user's
//! cache becomes a folder of links to its files: the Hub's libraries find them, add to them, and never write
//! to the user's. This runs behind the wall, so nothing that a command left in its cache can misuse it.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::wire::HubLinks;

/// Most links that are made at once; a large cache has some thousand files.
const MAX_LINKS: usize = 20_000;

/// Deepest folder of a snapshot.
const MAX_DEPTH: usize = 8;

/// Links what is not linked yet. What cannot be linked is downloaded again.
pub(super) fn link(links: &HubLinks) {
    let mut left = MAX_LINKS;
    for repository in entries(&links.from).filter(is_repository) {
        let to = links.to.join(repository.file_name());
        for snapshot in entries(&repository.path().join("snapshots")) {
            let to = to.join("snapshots").join(snapshot.file_name());
            if !to.exists() && link_files(&snapshot.path(), &to, 0, &mut left).is_err() {
                return;
            }
        }
        for reference in entries(&repository.path().join("refs")) {
            let to = to.join("refs").join(reference.file_name());
            let is_new = reference.path().is_file() && !to.exists();
            if is_new && copy_new(&reference.path(), &to).is_err() {
                return;
            }
        }
    }
}

fn is_repository(entry: &fs::DirEntry) -> bool {
    ["models--", "datasets--", "spaces--"]
        .iter()
        .any(|kind| entry.file_name().as_encoded_bytes().starts_with(kind.as_bytes()))
}

fn link_files(from: &Path, to: &Path, depth: usize, left: &mut usize) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in entries(from) {
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if depth < MAX_DEPTH {
                link_files(&entry.path(), &to, depth + 1, left)?;
            }
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other("too many files"))?;
        symlink(entry.path(), to)?;
    }
    Ok(())
}

fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder)?;
    fs::copy(from, to).map(drop)
}

fn entries(folder: &Path) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten()
}
