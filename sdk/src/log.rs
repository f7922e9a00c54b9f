//! Messages for people.

use crate::bindings::ml_intern::plugin::log as wit;

/// Shows a message beside the running call.
pub fn info(message: &str) {
    wit::write(wit::Level::Info, message, None);
}

/// Shows a warning beside the running call.
pub fn warn(message: &str) {
    wit::write(wit::Level::Warn, message, None);
}

/// Writes a message to the diagnostics file.
pub fn debug(message: &str) {
    wit::write(wit::Level::Debug, message, None);
}
