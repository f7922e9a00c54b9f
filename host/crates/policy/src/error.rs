use std::path::PathBuf;

/// Why a policy cannot be used. The program does not start then.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("the policy {} cannot be read: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The file or a folder above it.
    #[error("the policy {} is not trusted: {} {reason}", path.display(), part.display())]
    NotTrusted { path: PathBuf, part: PathBuf, reason: String },
    #[error("{}:{line}:{column}: {reason}", path.display())]
    Text { path: PathBuf, line: usize, column: usize, reason: String },
    #[error("the policy {} is missing, and this build does not work without it", .0.display())]
    Missing(PathBuf),
}

/// Something that a policy forbids.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{what} is forbidden by {place}")]
pub struct Forbidden {
    pub what: String,
    /// `FILE:LINE`.
    pub place: String,
}
