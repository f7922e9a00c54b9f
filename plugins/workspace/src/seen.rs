//! Which files the model has seen in this session, and with which content.

use std::fmt::Write as _;
use std::path::Path;

use sdk::{ToolError, kv};
use sha2::{Digest, Sha256};

use crate::paths;

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

fn key(path: &Path) -> String {
    // One file is one entry under every name; paths can be longer than a key may be.
    format!("seen:{}", digest(paths::resolved(path).to_string_lossy().as_bytes()))
}
