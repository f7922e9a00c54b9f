//! Small values that live as long as the session.

use crate::ToolError;
use crate::bindings::ml_intern::plugin::kv as wit;

const SESSION: &str = "session";

/// The value of a key, if there is one.
///
/// # Errors
/// `Denied` without the grant.
pub fn get(key: &str) -> Result<Option<Vec<u8>>, ToolError> {
    Ok(wit::get(SESSION, key)?.map(|entry| entry.value))
}

/// Sets a key.
///
/// # Errors
/// `Denied` without the grant, `TooLarge` beyond the limits.
pub fn set(key: &str, value: &[u8]) -> Result<(), ToolError> {
    wit::set(SESSION, key, value, None, None)?;
    Ok(())
}

/// Removes a key; tells whether it was there.
///
/// # Errors
/// `Denied` without the grant.
pub fn delete(key: &str) -> Result<bool, ToolError> {
    Ok(wit::delete(SESSION, key)?)
}
