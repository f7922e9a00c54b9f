//! How the program ends: the exit code and the message that goes with it.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, as the manual lists them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Exit {
    Done,
    /// The agent failed.
    Failed,
    Usage,
    /// Settings, policy or a plugin were refused.
    Settings,
    /// No or bad credentials.
    Credentials,
    /// The provider failed after retries.
    Provider,
    /// A needed permission was denied.
    Denied,
    /// The limit of steps or money was met.
    Limit,
    Interrupted,
    Terminated,
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Settings => 3,
            Self::Credentials => 4,
            Self::Provider => 5,
            Self::Denied => 6,
            Self::Limit => 7,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that ends the program, with the exit code it means.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) error: anyhow::Error,
}

impl Failure {
    pub(crate) fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self { exit, error: error.into() }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, anyhow::anyhow!("{message}"))
    }

    pub(crate) fn settings(error: impl Into<anyhow::Error>) -> Self {
        Self::new(Exit::Settings, error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { exit: Exit::Failed, error }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

impl From<agent::StartError> for Failure {
    fn from(error: agent::StartError) -> Self {
        let exit = match &error {
            agent::StartError::Store(
                agent::StoreError::Io { .. } | agent::StoreError::Broken { .. } | agent::StoreError::Audit(_),
            ) => Exit::Failed,
            agent::StartError::Store(_) => Exit::Usage,
            agent::StartError::Model(provider::ResolveError::MissingKey { .. }) => Exit::Credentials,
            agent::StartError::Model(
                provider::ResolveError::BadBaseUrl { .. }
                | provider::ResolveError::BadHeader { .. }
                | provider::ResolveError::BadCertificates { .. }
                | provider::ResolveError::Forbidden(_),
            ) => Exit::Settings,
            agent::StartError::NoPriceUnderPolicy { .. } => Exit::Settings,
            agent::StartError::Model(_) | agent::StartError::NoPrice(_) => Exit::Usage,
            agent::StartError::Folders(_) | agent::StartError::Records(_) => Exit::Failed,
        };
        Self::new(exit, error)
    }
}
