//! What a guest may use. Each figure is a default and a ceiling: settings can lower it, never raise it.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wasmtime::ResourceLimiter;

/// Bytes of a component file. Larger ones take minutes to compile.
pub(crate) const MAX_COMPONENT_BYTES: u64 = 32 << 20;

/// Bytes of a manifest or of one tool's description and schema.
pub(crate) const MAX_DESCRIPTION_BYTES: usize = 64 << 10;

/// Tools of one plugin.
pub(crate) const MAX_TOOLS: usize = 64;

/// Bytes of the machine code of one component.
pub(crate) const MAX_CODE_BYTES: u64 = 512 << 20;

/// Bytes of all compiled code that is kept; the oldest goes first.
pub(crate) const MAX_CACHE_BYTES: u64 = 1 << 30;

/// A plugin that crashes or meets a limit this often within this time is not called any more in the session.
pub(crate) const MAX_FAULTS: usize = 5;
pub(crate) const FAULT_WINDOW: Duration = Duration::from_secs(600);

/// Milliseconds between two epochs: the grain of CPU time and of cancelling a guest that computes.
pub(crate) const EPOCH_MS: u64 = 10;

/// Bytes a guest can make the host allocate in one host call.
pub(crate) const HOSTCALL_BYTES: usize = 16 << 20;

/// Handles (open files, streams, errors) a call may hold at most, and at least.
const MAX_HANDLES: usize = 10_000;
const MIN_HANDLES: usize = 24;

/// Open files of the process that guests leave to the host.
const HOST_FILES: u64 = 256;

/// Elements of all tables of a call.
pub(crate) const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Core instances, tables and memories of a call; a plugin of the SDK has a handful.
const MAX_INSTANCES: usize = 100;

/// Bytes of stack a guest may use.
pub(crate) const MAX_STACK_BYTES: usize = 512 << 10;

/// Bytes of a guest's stdout and of its stderr that are kept for the diagnostics file.
pub(crate) const MAX_STDIO_BYTES: usize = 64 << 10;

/// Bytes of one log message and messages of one call.
pub(crate) const MAX_LOG_BYTES: usize = 4 << 10;
pub(crate) const MAX_LOG_MESSAGES: usize = 1_000;

/// Bytes of a file that `files.write` takes or keeps for undo: below what a host call may hand over, so
/// that the refusal of a larger one is an error and not the end of the call.
pub(crate) const MAX_FILE_BYTES: u64 = 15 << 20;
const _: () = assert!(MAX_FILE_BYTES < HOSTCALL_BYTES as u64);

/// Changes of files in one call, and bytes of their diffs that its result shows.
pub(crate) const MAX_CHANGES: usize = 2_000;
pub(crate) const MAX_DIFF_BYTES: usize = 1 << 20;

/// Changes of sealed paths that are refused in one call before no more is asked about.
pub(crate) const MAX_REFUSALS: usize = 3;

/// Bytes of earlier contents that a session keeps for undo, and of the list of its changes. Beyond them
/// changes are still made, and told not to be undoable.
pub(crate) const MAX_UNDO_BYTES: u64 = 1 << 30;
pub(crate) const MAX_UNDO_LIST_BYTES: u64 = 64 << 20;

/// Requests of one call, and bytes of an answer.
pub(crate) const MAX_HTTP_REQUESTS: usize = 64;
pub(crate) const MAX_HTTP_BYTES: u64 = 8 << 20;

/// Calls at a time: of one plugin, and in all. Others wait for their turn.
pub(crate) const MAX_CALLS_OF_PLUGIN: usize = 8;
pub(crate) const MAX_CALLS: usize = 32;

/// Threads that calls hang on in the kernel before their places are no longer given to others.
pub(crate) const MAX_LOST_CALLS: usize = 64;

/// Handles a call may hold: so few that all calls together, of plugins that close nothing, leave the host its
/// files.
pub(crate) fn max_handles() -> usize {
    static HANDLES: OnceLock<usize> = OnceLock::new();
    *HANDLES.get_or_init(|| {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let each = files.saturating_sub(HOST_FILES) / MAX_CALLS as u64;
        usize::try_from(each).unwrap_or(usize::MAX).clamp(MIN_HANDLES, MAX_HANDLES)
    })
}

/// The limits that settings can lower.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Milliseconds a guest may compute in one call; waiting is not counted.
    pub cpu_ms: u64,
    /// Bytes of all memories of a call.
    pub memory_bytes: usize,
    /// Seconds a call may take, whatever its tool says.
    pub wall_time_s: u32,
    /// Bytes of text a call may answer.
    pub output_bytes: usize,
    /// Bytes and files that guests may write to the session's `/tmp`.
    pub tmp_bytes: u64,
    pub tmp_files: u64,
    /// Bytes and files of a plugin's `/data`.
    pub data_bytes: u64,
    pub data_files: u64,
    /// Bytes of all values that a plugin keeps for a session, with their keys.
    pub kv_bytes: usize,
    /// Seconds that a component may compute to be compiled, and bytes of memory.
    pub compile_s: u32,
    pub compile_memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cpu_ms: 30_000,
            memory_bytes: 256 << 20,
            wall_time_s: manifest::MAX_WALL_TIME_S,
            output_bytes: 1 << 20,
            tmp_bytes: 1 << 30,
            tmp_files: 100_000,
            data_bytes: 256 << 20,
            data_files: 10_000,
            kv_bytes: 4 << 20,
            compile_s: 300,
            compile_memory_bytes: 2 << 30,
        }
    }
}

/// The limits that a grant can lower: `/tmp` is shared by all plugins, and a component is compiled before it is
/// granted anything.
const OF_A_GRANT: [&str; 7] =
    ["cpu_ms", "memory_bytes", "wall_time_s", "output_bytes", "data_bytes", "data_files", "kv_bytes"];

impl Limits {
    /// The limits of a grant; what it does not name is as by default.
    ///
    /// # Errors
    /// Names what is no limit of a grant, and what is 0 or above the limit that holds without it.
    pub fn of_grant(given: &BTreeMap<String, u64>) -> Result<Self, String> {
        let mut limits = serde_json::to_value(Self::default()).map_err(|e| e.to_string())?;
        for (name, given) in given {
            let known = limits.get_mut(name).filter(|_| OF_A_GRANT.contains(&name.as_str()));
            let Some(limit) = known else {
                return Err(format!("`{name}` is none of {}", OF_A_GRANT.join(", ")));
            };
            let most = limit.as_u64().unwrap_or_default();
            if *given == 0 || *given > most {
                return Err(format!("{name} is from 1 to {most}"));
            }
            *limit = Value::from(*given);
        }
        serde_json::from_value(limits).map_err(|e| e.to_string())
    }

    /// The lower of two limits, one by one.
    #[must_use]
    pub fn lowered_by(self, other: Self) -> Self {
        Self {
            cpu_ms: self.cpu_ms.min(other.cpu_ms),
            memory_bytes: self.memory_bytes.min(other.memory_bytes),
            wall_time_s: self.wall_time_s.min(other.wall_time_s),
            output_bytes: self.output_bytes.min(other.output_bytes),
            tmp_bytes: self.tmp_bytes.min(other.tmp_bytes),
            tmp_files: self.tmp_files.min(other.tmp_files),
            data_bytes: self.data_bytes.min(other.data_bytes),
            data_files: self.data_files.min(other.data_files),
            kv_bytes: self.kv_bytes.min(other.kv_bytes),
            compile_s: self.compile_s.min(other.compile_s),
            compile_memory_bytes: self.compile_memory_bytes.min(other.compile_memory_bytes),
        }
    }
}

/// Counts what all memories and tables of a store hold together.
#[derive(Debug)]
pub(crate) struct Meter {
    memory: usize,
    memory_limit: usize,
    table_elements: usize,
    /// Which limit refused growth, for the message if the guest gives up.
    pub(crate) refused: Option<&'static str>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { memory: 0, memory_limit: limits.memory_bytes, table_elements: 0, refused: None }
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.memory_limit {
            self.refused = Some("memory");
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table_elements.saturating_add(desired.saturating_sub(current));
        if total > MAX_TABLE_ELEMENTS {
            self.refused = Some("table");
            return Ok(false);
        }
        self.table_elements = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_INSTANCES
    }
}
