use std::io;
use std::path::PathBuf;

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
pub enum WallError {
    /// No wall can be built here. Nothing is ever run without one instead.
    #[error("no wall can be built here: {reason}")]
    Unavailable { reason: String, remedies: Vec<String> },

    /// A folder of the configuration cannot be used.
    #[error("cannot use the folder `{}`: {reason}", path.display())]
    Folder { path: PathBuf, reason: String },

    /// The program is not on the session's `PATH`, or not there.
    #[error("program `{program}` not found{}", searched.as_ref().map(|path| format!(" in `{path}`")).unwrap_or_default())]
    ProgramMissing { program: String, searched: Option<String> },

    /// The working folder is not there, no folder, or outside what commands may read.
    #[error("cannot use the working folder `{}`: {reason}", path.display())]
    WorkingFolder { path: PathBuf, reason: String },

    /// The command asked for an environment name that it cannot set.
    #[error("cannot set `{name}` in the environment: {reason}")]
    Environment { name: String, reason: &'static str },

    /// The system would not start the program.
    #[error("cannot start `{program}`: {reason}")]
    Start { program: String, reason: String },

    /// The supervisor could not be started or spoken to.
    #[error("the supervisor of commands failed: {what}")]
    Supervisor {
        what: String,
        #[source]
        source: Option<io::Error>,
    },
}

impl WallError {
    /// What the user could do about it, a sentence each.
    pub fn remedies(&self) -> &[String] {
        match self {
            Self::Unavailable { remedies, .. } => remedies,
            _ => &[],
        }
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn supervisor(what: impl Into<String>, source: impl Into<Option<io::Error>>) -> Self {
        Self::Supervisor { what: what.into(), source: source.into() }
    }
}
