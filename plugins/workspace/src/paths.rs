//! What a path given by the model names, and what is said when nothing can be opened there.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use sdk::{Call, ErrorKind, ToolError};

/// Links followed before a path is taken as it is; the kernel's own figure.
const MAX_LINKS: usize = 40;

/// The path that an argument names.
///
/// # Errors
/// When it is empty.
pub(crate) fn named(call: &Call, given: &str) -> Result<PathBuf, ToolError> {
    if given.trim().is_empty() {
        return Err(ToolError::invalid("no path was given; name a file"));
    }
    Ok(call.path(given))
}

/// The path without links, as far as they can be read: one file has one such path.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    let mut left = reversed(path);
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            out.pop();
            continue;
        }
        let next = out.join(&part);
        match std::fs::read_link(&next) {
            Ok(target) if links < MAX_LINKS => {
                links += 1;
                if target.is_absolute() {
                    out.clear();
                }
                left.extend(reversed(&target));
            }
            _ => out = next,
        }
    }
    out
}

fn reversed(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|part| *part != Component::CurDir);
    parts.rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// Why a file cannot be opened. Where nothing can be read the model is told what can.
pub(crate) fn not_opened(call: &Call, path: &Path, given: &str, error: &std::io::Error) -> ToolError {
    let target = resolved(path);
    let folders = call.folders();
    if !folders.iter().any(|folder| target.starts_with(folder)) {
        let folders: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let missing = target.parent().unwrap_or(&target).display();
        let message = format!(
            "{given} is outside the folders that can be read ({}); the user can add one with --add-dir {missing}",
            folders.join(", ")
        );
        return ToolError::new(ErrorKind::Denied, message);
    }
    match error.kind() {
        std::io::ErrorKind::NotFound => ToolError::not_found(format!("File not found: {given}")),
        _ => ToolError::new(ErrorKind::Unavailable, format!("read error: {given}: {error}")),
    }
}
