use std::fmt;

use crate::bindings::ml_intern::plugin::types as wit;

pub use wit::ErrorKind;

/// Why a call failed, told to the model.
#[derive(Clone, Debug)]
pub struct ToolError {
    /// For programs.
    pub kind: ErrorKind,
    /// A stable word for programs, such as `path-outside`.
    pub code: Option<String>,
    /// One sentence: what, where, what to do.
    pub message: String,
}

impl ToolError {
    /// An error of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, code: None, message: message.into() }
    }

    /// The arguments cannot be used.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidArgs, message)
    }

    /// The thing named does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// The same error with another sentence.
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ToolError {}

impl From<wit::Error> for ToolError {
    fn from(error: wit::Error) -> Self {
        Self { kind: error.kind, code: error.code, message: error.message }
    }
}

impl From<ToolError> for wit::Error {
    fn from(error: ToolError) -> Self {
        Self { kind: error.kind, code: error.code, message: error.message, retry_after_ms: None, extra: None }
    }
}
