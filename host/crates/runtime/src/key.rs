//! The key that vouches for what this user's host wrote and reads again. It lies apart from both.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// The key, if there is one.
pub(crate) fn existing(path: &Path) -> Result<Option<[u8; 32]>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(bytes.try_into().ok()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The key; a new one if there is none.
pub(crate) fn existing_or_new(path: &Path) -> Result<[u8; 32], String> {
    if let Some(key) = existing(path)? {
        return Ok(key);
    }
    let mut fresh = [0; 32];
    getrandom::fill(&mut fresh).map_err(|e| e.to_string())?;
    if let Some(folder) = path.parent() {
        let folders = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
        folders.map_err(|e| e.to_string())?;
    }
    // Linked into its place when it is whole: one that is cut off would be there for ever.
    let whole = path.with_extension(format!("{}.tmp", std::process::id()));
    let failed = |e: std::io::Error| format!("{}: {e}", path.display());
    let written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&whole);
    written.and_then(|mut file| file.write_all(&fresh)).map_err(failed)?;
    let linked = std::fs::hard_link(&whole, path);
    let _ = std::fs::remove_file(&whole);
    match linked {
        // Another process was faster; its key counts.
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    let broken = || format!("{} is no key: remove it, and what it vouched for is made anew", path.display());
    existing(path)?.ok_or_else(broken)
}
