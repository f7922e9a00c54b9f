//! Systems for which no wall has been built yet.

use std::io;
use std::process::ExitCode;

use tokio_util::sync::CancellationToken;

use crate::{Command, Exit, Grade, JobError, Mode, Report, SupervisorCommand, WallConfig, WallError};

/// A wall that cannot be built here: it runs nothing.
pub struct Wall {
    config: WallConfig,
}

impl Wall {
    pub fn new(config: WallConfig) -> Self {
        Self { config }
    }

    pub fn grade(&self) -> Grade {
        if self.config.mode == Mode::External { Grade::External } else { Grade::None }
    }

    pub async fn run(&self, _command: Command, _cancel: CancellationToken) -> Result<Exit, WallError> {
        Err(unavailable())
    }

    pub async fn probe(&self) -> Result<Report, WallError> {
        Err(unavailable())
    }

    pub async fn shutdown(&self) {}
}

/// Does nothing here.
pub fn harden_host() -> io::Result<()> {
    Ok(())
}

/// Does nothing here.
pub fn scrub_environment() -> io::Result<()> {
    Ok(())
}

/// The usual mask; nothing here changes it.
pub fn user_umask() -> u32 {
    0o022
}

/// Never started here.
pub fn supervisor_main() -> ExitCode {
    ExitCode::FAILURE
}

/// Work in a process of its own, which cannot be confined here yet.
#[derive(Clone, Debug)]
pub struct Job {
    pub command: SupervisorCommand,
    pub memory_bytes: u64,
    pub cpu_time: std::time::Duration,
    pub wall_time: std::time::Duration,
    pub answer_bytes: u64,
}

impl Job {
    /// # Errors
    /// Always.
    pub fn run(&self, _input: &[u8]) -> Result<Vec<u8>, JobError> {
        Err(JobError::Start(io::ErrorKind::Unsupported.into()))
    }

    /// # Errors
    /// Always.
    pub fn run_until(&self, input: &[u8], _end: &JobEnd) -> Result<Vec<u8>, JobError> {
        self.run(input)
    }
}

/// Nothing runs here that could be ended.
#[derive(Debug, Default)]
pub struct JobEnd;

impl JobEnd {
    /// The same one.
    #[must_use]
    pub fn of_job(&self) -> Self {
        Self
    }

    /// Does nothing here.
    pub fn end(&self) {}
}

/// Never started here.
pub fn job_main<T>(
    _prepare: impl FnOnce() -> Result<T, String>,
    _work: impl FnOnce(T, &[u8]) -> Result<Vec<u8>, String>,
) -> ExitCode {
    ExitCode::FAILURE
}

fn unavailable() -> WallError {
    WallError::Unavailable {
        reason: "native commands are confined on Linux only so far".into(),
        remedies: vec!["use a Hugging Face sandbox with `--sandbox-tools`".into()],
    }
}

/// Opens an absolute path whose last part is no link.
///
/// # Errors
/// What the kernel says.
pub fn open_without_links(
    path: &std::path::Path,
    flags: rustix::fs::OFlags,
) -> Result<std::os::fd::OwnedFd, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags, open};
    open(path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}
