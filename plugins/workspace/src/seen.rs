//! Which files the model has seen in this session, and with which content.

use std::fmt::Write as _;
use std::path::Path;

use sdk::files::Expectation;
use sdk::{ToolError, kv};
use sha2::{Digest, Sha256};

/// The SHA-256 of a content, in lower-case hex.
pub(crate) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Notes that the model knows this content of this file.
///
/// # Errors
/// Those of the store.
pub(crate) fn remember(path: &Path, digest: &str) -> Result<(), ToolError> {
    kv::set(&key(path), digest.as_bytes())
}

/// The content of the file that the model knows, by digest.
///
/// # Errors
/// Those of the store.
pub(crate) fn known(path: &Path) -> Result<Option<String>, ToolError> {
    Ok(kv::get(&key(path))?.map(|digest| String::from_utf8_lossy(&digest).into_owned()))
}

/// What must be true of a file that the model is about to replace: what it knows of it.
pub(crate) fn expectation(known: Option<&str>) -> Expectation {
    known.map_or(Expectation::Absent, |digest| Expectation::Sha256(digest.to_owned()))
}

fn key(path: &Path) -> String {
    // Paths can be longer than a key may be.
    format!("seen:{}", digest(path.to_string_lossy().as_bytes()))
}
