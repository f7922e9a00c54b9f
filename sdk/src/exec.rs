//! Native commands behind the session's wall.

use crate::ToolError;
use crate::bindings::ml_intern::plugin::exec as wit;

pub use wit::{Captured, Exit};

/// Bytes of stdout and of stderr that are kept in memory at most.
pub const MAX_OUTPUT: u32 = 1 << 20;

/// A command to run.
#[derive(Clone, Debug)]
pub struct Command {
    command: wit::Command,
}

impl Command {
    /// A program, found in the session's `PATH`, with arguments.
    pub fn new<A: Into<String>>(program: impl Into<String>, args: impl IntoIterator<Item = A>) -> Self {
        Self {
            command: wit::Command {
                program: program.into(),
                args: args.into_iter().map(Into::into).collect(),
                cwd: None,
                env: Vec::new(),
                stdin: None,
                timeout_ms: 120_000,
                max_output: MAX_OUTPUT,
                extra: None,
            },
        }
    }

    /// Working folder; relative ones are taken from the workspace.
    #[must_use]
    pub fn current_dir(mut self, dir: impl Into<String>) -> Self {
        self.command.cwd = Some(dir.into());
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.command.env.push((name.into(), value.into()));
        self
    }

    /// Bytes for standard input.
    #[must_use]
    pub fn stdin(mut self, bytes: Vec<u8>) -> Self {
        self.command.stdin = Some(bytes);
        self
    }

    /// Milliseconds until the command's process group is ended.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.command.timeout_ms = milliseconds;
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// `NotFound` for the program or the folder, `Denied` without the grant, `Unavailable` without a wall.
    pub fn run(&self) -> Result<Exit, ToolError> {
        Ok(wit::run(&self.command)?)
    }
}
