use std::path::PathBuf;
use std::time::Duration;

/// Most bytes of one output that are kept in memory.
///
/// What a guest may ask for is cut to this: a call has two outputs and several calls run at once.
#[cfg(target_os = "linux")]
pub(crate) const MAX_OUTPUT_KEPT: usize = 1 << 20;

/// A command to be run behind the wall.
#[derive(Clone, Debug)]
pub struct Command {
    /// A name that is looked up in the session's `PATH`, or a path; a relative one is taken from `cwd`.
    pub program: String,
    pub args: Vec<String>,
    /// Working folder; the workspace if none. Relative paths are taken from the workspace.
    pub cwd: Option<PathBuf>,
    /// Additions to the environment. Names that the wall sets, and names that look like credentials,
    /// sockets or loader tricks, are an error.
    pub env: Vec<(String, String)>,
    /// Bytes for standard input, which is closed after them; `/dev/null` if none.
    pub stdin: Option<Vec<u8>>,
    /// After this the command's process group is ended.
    pub timeout: Duration,
    /// Bytes kept in memory of each of stdout and stderr, at most 1 MiB.
    pub max_output: usize,
}

/// How a command ended.
#[derive(Clone, Debug, Default)]
pub struct Exit {
    /// The exit code, unless a signal ended the command or it was cancelled before it started.
    pub code: Option<i32>,
    /// The signal's name, such as `SIGKILL`.
    pub signal: Option<String>,
    pub timed_out: bool,
    pub cancelled: bool,
    /// Milliseconds from the start to the reported end.
    pub duration_ms: u64,
    pub stdout: Captured,
    pub stderr: Captured,
    /// What the wall has to say of it, a sentence each: what it refused and what would change that, or
    /// that the supervisor had to be started again.
    pub notes: Vec<String>,
    /// Lines of the command's output that a rule of the wall explains.
    pub wall_refusals: u32,
}

/// What a command wrote to one of its outputs until it ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Captured {
    /// All of it, or the first quarter of `max_output`.
    pub head: Vec<u8>,
    /// The last three quarters of `max_output` where there was more; empty otherwise.
    pub tail: Vec<u8>,
    /// Bytes written in all.
    pub total: u64,
    /// Where there was more than `max_output`: the file that has it, at most 256 MiB, as guests name it.
    pub file: Option<String>,
}
