use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a [`Job`](crate::Job) has no result.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("the process for it cannot be started: {0}")]
    Start(io::Error),
    /// The work itself said no.
    #[error("{0}")]
    Refused(String),
    #[error("it computed for more than {} s", .0.as_secs())]
    Cpu(Duration),
    #[error("it took more than {} s", .0.as_secs())]
    Time(Duration),
    #[error("it took more than {} MiB of memory, or the process for it crashed ({status})", bytes >> 20)]
    Memory { bytes: u64, status: ExitStatus },
    #[error("its result is larger than {} MiB", bytes >> 20)]
    TooLarge { bytes: u64 },
}
