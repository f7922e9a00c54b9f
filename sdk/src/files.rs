//! Changes of files: atomic, undoable, within the writable folders. Reading is `std::fs`.

use std::path::Path;

use crate::ToolError;
use crate::bindings::ml_intern::plugin::files as wit;

pub use wit::{Expectation, Written};

/// Replaces a file's content, or makes the file and the folders above it, if the expectation holds.
///
/// # Errors
/// `Conflict` when it does not; `Denied` outside the writable folders or for a sealed path.
pub fn write(path: &Path, content: &[u8], expects: &Expectation) -> Result<Written, ToolError> {
    Ok(wit::write(&path.to_string_lossy(), content, expects)?)
}

/// Moves a file, replacing nothing.
///
/// # Errors
/// `Conflict` when the target exists; `Denied` as for [`write`].
pub fn rename(source: &Path, target: &Path) -> Result<(), ToolError> {
    Ok(wit::rename(&source.to_string_lossy(), &target.to_string_lossy())?)
}

/// Removes a file.
///
/// # Errors
/// `NotFound`; `Denied` as for [`write`].
pub fn remove(path: &Path) -> Result<(), ToolError> {
    Ok(wit::remove(&path.to_string_lossy())?)
}
