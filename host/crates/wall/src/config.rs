use std::ffi::OsString;
use std::fmt;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::command_list::CommandList;

/// The variable that is set for every command of a session.
pub const INSIDE: &str = "ML_INTERN_INSIDE";

/// What a wall is built from.
#[derive(Clone)]
pub struct WallConfig {
    pub supervisor: SupervisorCommand,
    pub mode: Mode,
    pub network: Network,
    /// The folder the session works in; writable unless the mode is [`Mode::ReadOnly`].
    pub workspace: PathBuf,
    /// Folders that commands may also read.
    pub read_dirs: Vec<PathBuf>,
    /// Folders that commands may also write to, unless the mode is [`Mode::ReadOnly`].
    pub write_dirs: Vec<PathBuf>,
    /// The commands' `HOME`, made here with mode 0700.
    pub home: PathBuf,
    /// The session's `/tmp`, made here with mode 0700. Files of long outputs go here too.
    pub tmp: PathBuf,
    /// Caches of the workspace (pip, Hub downloads, compiled kernels), made here with mode 0700.
    pub caches: PathBuf,
    /// Folders of our settings and state. No rule ever covers one of them, whatever `PATH` or a link
    /// says, and a workspace or added folder that contains one is an error.
    pub private_dirs: Vec<PathBuf>,
    /// The user's environment, from which the commands' is taken.
    pub user_env: Vec<(OsString, OsString)>,
    /// Further names to take from `user_env`. Names that look like credentials, sockets or loader tricks
    /// are refused even then.
    pub extra_env_names: Vec<String>,
    /// Names that no command gets in any mode, whatever they look like: those that the settings say hold
    /// keys of providers.
    pub refused_env_names: Vec<String>,
    /// How little of the machine commands see, where the machine allows it. With less than that the wall is still
    /// closed, with more residuals.
    pub space: Space,
    /// What commands may use together, where they have namespaces of their own.
    pub limits: CommandLimits,
    /// Which paths of the workspace and of folders added for writing, relative to them, commands must not change.
    pub sealed: fn(&Path) -> bool,
    /// What commands find on the loopback of [`Network::Gateway`].
    pub loopback: Option<Loopback>,
    /// The least that commands run behind. Where the machine does not give it none is started.
    pub required: Option<Grade>,
    /// What runs.
    pub commands: Arc<CommandList>,
    /// How strong the wall came out, once it stands.
    pub found: Arc<OnceLock<Grade>>,
}

#[cfg(all(test, target_os = "linux"))]
impl WallConfig {
    /// One that nothing is started with.
    pub(crate) fn for_tests() -> Self {
        Self {
            supervisor: SupervisorCommand { program: PathBuf::new(), args: Vec::new() },
            mode: Mode::Workspace,
            network: Network::Off,
            workspace: "/w".into(),
            read_dirs: Vec::new(),
            write_dirs: Vec::new(),
            home: "/state/home".into(),
            tmp: "/state/tmp".into(),
            caches: "/state/caches".into(),
            private_dirs: Vec::new(),
            user_env: Vec::new(),
            extra_env_names: Vec::new(),
            refused_env_names: Vec::new(),
            space: Space::Machine,
            limits: CommandLimits::default(),
            sealed: |_| false,
            loopback: None,
            required: None,
            commands: Arc::default(),
            found: Arc::default(),
        }
    }
}

/// Without the values of the user's environment, which holds credentials.
impl fmt::Debug for WallConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WallConfig")
            .field("mode", &self.mode)
            .field("network", &self.network)
            .field("workspace", &self.workspace)
            .field("read_dirs", &self.read_dirs)
            .field("write_dirs", &self.write_dirs)
            .field("home", &self.home)
            .field("tmp", &self.tmp)
            .field("caches", &self.caches)
            .field("space", &self.space)
            .finish_non_exhaustive()
    }
}

/// What all commands of a session may use together.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CommandLimits {
    /// Processes and threads. More are not started.
    pub processes: u32,
    /// Bytes of memory that is not shared, and of files in `/dev/shm`. None: nine tenths of the machine's. The largest
    /// process is ended where they have more.
    pub memory_bytes: Option<u64>,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self { processes: 16_384, memory_bytes: None }
    }
}

impl CommandLimits {
    /// Fewest processes: the kernel keeps the first 300 numbers.
    pub const MIN_PROCESSES: u32 = 512;

    /// The lower of two, one by one.
    #[must_use]
    pub fn lowered_by(self, other: Self) -> Self {
        let memory = [self.memory_bytes, other.memory_bytes].into_iter().flatten().min();
        Self { processes: self.processes.min(other.processes).max(Self::MIN_PROCESSES), memory_bytes: memory }
    }
}

/// What the host serves on the loopback of commands.
#[derive(Clone)]
pub struct Loopback {
    pub ports: Vec<u16>,
    /// Variables by which programs find them.
    pub env: Vec<(OsString, OsString)>,
    /// Gets the listeners, in the order of the ports, each time that a supervisor is ready.
    pub listening: Arc<dyn Fn(Vec<TcpListener>) + Send + Sync>,
}

/// How much of the machine commands see.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Space {
    /// Processes, network, System V memory and a file system of their own, in which nothing is but what they were
    /// given: grade *full*.
    Own,
    /// `/tmp`, `/run`, `/dev/shm` and terminals of their own.
    Mounts,
    /// All of it.
    Machine,
}

/// How the supervisor is started: this program again, with the argument that makes it call
/// [`supervisor_main`](crate::supervisor_main) first.
#[derive(Clone, Debug)]
pub struct SupervisorCommand {
    /// Normally `/proc/self/exe`.
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// What the wall encloses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Mode {
    /// Commands write to the workspace and to folders added for writing.
    Workspace,
    /// Commands write nowhere but to their private home, `/tmp` and caches.
    ReadOnly,
    /// The operator says that the container or machine is the wall: nothing is confined here, the
    /// environment still comes from the list.
    External,
    /// No wall: the user's environment without names that look like credentials, nothing else.
    Off,
}

impl Mode {
    #[cfg(target_os = "linux")]
    pub(crate) fn is_confined(self) -> bool {
        matches!(self, Self::Workspace | Self::ReadOnly)
    }
}

/// What commands may connect to.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Network {
    /// Nothing, not even this machine's loopback.
    Off,
    /// What the host serves on a loopback of their own. Where the machine gives them none: nothing.
    Gateway,
    /// Everything.
    Open,
}

/// How strong the wall is, the strongest first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Grade {
    /// *Partial*, within user, mount, process, IPC and network namespaces.
    Full,
    /// Landlock with every right required, seccomp, no capabilities.
    Partial,
    /// The operator vouches for the container or machine.
    External,
    /// There is none.
    None,
}

impl Grade {
    /// Its name, one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::External => "external",
            Self::None => "none",
        }
    }

    /// Whether commands are confined by this program.
    #[must_use]
    pub const fn is_walled(self) -> bool {
        matches!(self, Self::Full | Self::Partial)
    }
}

/// One thing that must not be possible behind the wall, and what happened when it was tried.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Act {
    /// What was tried, such as `attach to the host with ptrace`.
    pub name: String,
    pub outcome: Outcome,
}

/// What came of a forbidden act.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Outcome {
    /// The system refused it, with this error.
    Refused(String),
    /// It was possible: the wall has a hole.
    Possible,
    /// It could not be tried here, and why.
    Untried(String),
}

/// What a running wall is worth.
#[derive(Clone, Debug)]
pub struct Report {
    pub grade: Grade,
    /// The forbidden acts. Empty where nothing is confined.
    pub acts: Vec<Act>,
    /// What this grade leaves open, a sentence each.
    pub residuals: Vec<String>,
    /// How long the supervisor took from its start until it was ready.
    pub start: Duration,
}
