//! How a guest's run ended when it did not end well.

use std::fmt;
use std::time::Duration;

use wasmtime::Trap;
use wasmtime::component::ResourceTableError;

use crate::limits::{HOSTCALL_BYTES, MAX_STACK_BYTES, max_handles};
use crate::state::CallState;

/// Why a guest gave no answer. Each is one failed tool result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// It answered with an error of its own.
    Guest(String),
    Trapped(String),
    Cpu {
        milliseconds: u64,
    },
    Wall {
        seconds: u32,
    },
    Memory {
        bytes: usize,
    },
    Table,
    Handles {
        limit: usize,
    },
    StackOverflow,
    HostAllocation,
    Cancelled,
}

impl Stop {
    /// The call took longer than it may.
    pub(crate) fn wall(limit: Duration) -> Self {
        Self::Wall { seconds: u32::try_from(limit.as_secs()).unwrap_or(u32::MAX) }
    }

    /// What an error of wasmtime means, with what the store knows of its limits.
    pub(crate) fn of(error: &wasmtime::Error, state: &CallState) -> Self {
        if state.cpu.exceeded {
            return Self::Cpu { milliseconds: state.cpu.limit_ms };
        }
        let trap = error.downcast_ref::<Trap>();
        match (trap, state.meter.refused) {
            (Some(Trap::StackOverflow), _) => Self::StackOverflow,
            (_, Some("memory")) => Self::Memory { bytes: state.limits.memory_bytes },
            (_, Some(_)) => Self::Table,
            (Some(Trap::UnreachableCodeReached), _) => Self::Trapped("it panicked or aborted".to_owned()),
            (Some(trap), _) => Self::Trapped(trap.to_string()),
            _ if matches!(error.downcast_ref(), Some(ResourceTableError::Full)) => {
                Self::Handles { limit: max_handles() }
            }
            (None, _) => Self::without_trap(&format!("{error:#}")),
        }
    }

    fn without_trap(message: &str) -> Self {
        if message.contains("fuel") || message.contains("too large") {
            return Self::HostAllocation;
        }
        if message.contains("handle limit exceeded") {
            return Self::Handles { limit: max_handles() };
        }
        if message.contains("exit") {
            return Self::Trapped("it called exit".to_owned());
        }
        Self::Trapped(message.lines().next().unwrap_or("it stopped").to_owned())
    }

    /// Whether the plugin is to blame.
    pub(crate) fn is_fault(&self) -> bool {
        !matches!(self, Self::Guest(_) | Self::Cancelled)
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(message) => f.write_str(message),
            Self::Trapped(reason) => write!(f, "the plugin crashed: {reason}"),
            Self::Cpu { milliseconds } => {
                write!(
                    f,
                    "the plugin was stopped: it computed for more than {} s",
                    *milliseconds as f64 / 1_000.0
                )
            }
            Self::Wall { seconds } => {
                write!(f, "the plugin was stopped: the call took more than {seconds} s")
            }
            Self::Memory { bytes } => {
                write!(f, "the plugin was stopped: it wanted more than {} MiB of memory", bytes >> 20)
            }
            Self::Table => f.write_str("the plugin was stopped: it wanted more table entries than allowed"),
            Self::Handles { limit } => {
                write!(f, "the plugin was stopped: it kept more than {limit} files, folders and streams open")
            }
            Self::StackOverflow => {
                write!(
                    f,
                    "the plugin crashed: it recursed deeper than {} KiB of stack",
                    MAX_STACK_BYTES >> 10
                )
            }
            Self::HostAllocation => {
                write!(
                    f,
                    "the plugin was stopped: it handed more than {} MiB to the host at once",
                    HOSTCALL_BYTES >> 20
                )
            }
            Self::Cancelled => f.write_str("cancelled by the user"),
        }
    }
}
