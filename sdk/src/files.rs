//! Changes of files: atomic, undoable, within the writable folders. Reading is `std::fs`.

use std::path::Path;

use crate::bindings::ml_intern::plugin::files as wit;
use crate::{ErrorKind, ToolError};

pub use wit::{Expectation, Written};

/// Bytes of a file that can be changed at most.
pub const MAX_BYTES: usize = 15 << 20;

/// Replaces a file's content, or makes the file and the folders above it, if the expectation holds.
///
/// # Errors
/// `Conflict` when it does not; `Denied` outside the writable folders or for a sealed path; `TooLarge`
/// above [`MAX_BYTES`].
pub fn write(path: &Path, content: &[u8], expects: &Expectation) -> Result<Written, ToolError> {
    if content.len() > MAX_BYTES {
        // The host would end the call: so much is more than a host call may hand over.
        let message = format!(
            "{} bytes are more than the {} MiB that a file changed by a tool may have; use bash",
            content.len(),
            MAX_BYTES >> 20
        );
        return Err(ToolError::new(ErrorKind::TooLarge, message));
    }
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
