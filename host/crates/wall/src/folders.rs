//! Folders of ours, and what of a system folder everyone may read.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::error::WallError;

/// Most entries that are looked at below `/etc`; what lies beyond is not readable. Usual are 1000 to 5000.
const MAX_ENTRIES: usize = 20_000;

/// Makes `path` a folder that is ours alone, and returns it without links.
pub(crate) fn make_private(path: &Path) -> Result<PathBuf, WallError> {
    make_private_folder(path)
        .map_err(|error| WallError::Folder { path: path.to_path_buf(), reason: error.to_string() })
}

fn make_private_folder(path: &Path) -> io::Result<PathBuf> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("it is a link"));
    }
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))?;
    fs::canonicalize(path)
}

/// The largest folders and the single files below `root` that everyone on this machine may read.
///
/// Root without capabilities still owns `/etc/shadow` and the host's keys, so for commands of root the
/// permission bits for others decide. Nothing in or above one of `private_dirs` is listed.
pub(crate) fn readable_by_everyone(root: &Path, private_dirs: &[PathBuf]) -> Vec<PathBuf> {
    let mut walk = Walk { private_dirs, entries_left: MAX_ENTRIES };
    match walk.folder(root) {
        Found::All => vec![root.to_path_buf()],
        Found::Parts(parts) => parts,
    }
}

struct Walk<'a> {
    private_dirs: &'a [PathBuf],
    entries_left: usize,
}

enum Found {
    All,
    Parts(Vec<PathBuf>),
}

impl Walk<'_> {
    fn folder(&mut self, folder: &Path) -> Found {
        let Ok(entries) = fs::read_dir(folder) else {
            return Found::Parts(Vec::new());
        };
        let mut parts = Vec::new();
        let mut all = true;
        for entry in entries {
            let Some(left) = self.entries_left.checked_sub(1) else {
                return Found::Parts(parts);
            };
            self.entries_left = left;
            let Ok(entry) = entry else {
                all = false;
                continue;
            };
            match self.entry(&entry) {
                Some(Found::All) => parts.push(entry.path()),
                Some(Found::Parts(some)) => {
                    all = false;
                    parts.extend(some);
                }
                // A link gives no access by itself, so it hides nothing.
                None => {}
            }
        }
        if all { Found::All } else { Found::Parts(parts) }
    }

    fn entry(&mut self, entry: &fs::DirEntry) -> Option<Found> {
        let path = entry.path();
        let nothing = Some(Found::Parts(Vec::new()));
        if self.private_dirs.iter().any(|private| path.starts_with(private)) {
            return nothing;
        }
        let Ok(metadata) = entry.metadata() else {
            return nothing;
        };
        let mode = metadata.mode();
        if metadata.is_symlink() {
            None
        } else if metadata.is_dir() && mode & 0o005 == 0o005 {
            Some(self.folder(&path))
        } else if metadata.is_file() && mode & 0o004 != 0 {
            Some(Found::All)
        } else {
            nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_split_the_folder_that_holds_them() {
        let root = tempfile::tempdir().unwrap();
        for (name, mode) in
            [("hosts", 0o644), ("shadow", 0o640), ("ssl/certs/a", 0o644), ("ssl/private/key", 0o644)]
        {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        }
        for (folder, mode) in [("ssl", 0o755), ("ssl/certs", 0o755), ("ssl/private", 0o710)] {
            fs::set_permissions(root.path().join(folder), Permissions::from_mode(mode)).unwrap();
        }
        let mut found = readable_by_everyone(root.path(), &[]);
        found.sort();
        assert_eq!(found, [root.path().join("hosts"), root.path().join("ssl/certs")]);

        let private = [root.path().join("ssl/certs")];
        assert_eq!(readable_by_everyone(root.path(), &private), [root.path().join("hosts")]);
    }

    #[test]
    fn private_folders_are_made_for_us_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b");
        make_private(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let link = root.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(make_private(&link).is_err());
    }
}
