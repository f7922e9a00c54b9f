use std::path::{Path, PathBuf};

use protocol::SessionId;

use crate::chain::{AuditError, Chain};
use crate::record::Act;

/// Name of the chain of the user.
pub(crate) const USER: &str = "user";

/// All chains of a user.
#[derive(Clone, Debug)]
pub struct AuditLog {
    folder: PathBuf,
    sync: bool,
}

impl AuditLog {
    /// The chains below the program's state folder.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self::of(state.join("audit"))
    }

    /// The chains in a folder of this user alone.
    #[must_use]
    pub fn of(folder: PathBuf) -> Self {
        Self { folder, sync: false }
    }

    /// The same chains, with every record on the disk before anyone goes on.
    #[must_use]
    pub fn with_sync(self, sync: bool) -> Self {
        Self { sync, ..self }
    }

    /// The chain of a session, which one process holds.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn session(&self, id: &SessionId) -> Result<Chain, AuditError> {
        Ok(Chain::open(&self.folder, &session_name(id.as_str()), false)?.with_sync(self.sync))
    }

    /// Makes sure that the chain of the user can be written to.
    ///
    /// # Errors
    /// When it cannot.
    pub fn check_writable(&self) -> Result<(), AuditError> {
        Chain::open(&self.folder, USER, true).map(drop)
    }

    /// Records something in the chain of the user. Returns its head.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn user(&self, act: Act) -> Result<String, AuditError> {
        let mut chain = Chain::open(&self.folder, USER, true)?;
        chain.append(act, self.sync)?;
        Ok(chain.head().to_owned())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

pub(crate) fn session_name(id: &str) -> String {
    format!("session-{id}")
}
