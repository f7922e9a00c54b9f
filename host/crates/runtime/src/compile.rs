//! Turns a component into machine code and a description.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitCode;
use std::time::Duration;

use wall::{Job, JobEnd, JobError, SupervisorCommand};
use wasmtime::component::Component;

use crate::PluginError;
use crate::cache::CodeCache;
use crate::checks::check;
use crate::describe::{Described, describe};
use crate::engine::{Shared, Target, engine};
use crate::error::Lasts;
use crate::inspect::{digest, inspect};
use crate::limits::{Limits, MAX_CODE_BYTES};

/// How much longer a compilation may take than it may compute.
const SLOWER: u32 = 3;

const SIGKILL: i32 = 9;

/// A component, compiled and described.
#[derive(Debug)]
pub struct Compiled {
    pub described: Described,
    /// Machine code as wasmtime serialises it.
    pub code: Vec<u8>,
}

/// How strangers' components are compiled: in a process of its own, for nobody promises how long a compiler
/// takes over a file that was made to keep it busy.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// This program again, with the argument that makes it call [`compiler_main`] first.
    pub command: SupervisorCommand,
    pub limits: Limits,
}

impl Compiler {
    /// Whoever does not wait any more, as after Ctrl-C, leaves no process behind.
    async fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, (String, Lasts)> {
        let time = Duration::from_secs(self.limits.compile_s.into());
        let job = Job {
            command: self.command.clone(),
            memory_bytes: self.limits.compile_memory_bytes,
            cpu_time: time,
            // What keeps the compiler busy ends by what it computed, also where others compute beside it.
            wall_time: time * SLOWER,
            answer_bytes: MAX_CODE_BYTES,
        };
        let waiting = Waiting(JobEnd::default());
        let (end, bytes) = (waiting.0.of_job(), bytes.to_vec());
        let compiled = tokio::task::spawn_blocking(move || job.run_until(&bytes, &end)).await;
        let compiled = compiled.map_err(|e| (e.to_string(), Lasts::Unknown))?;
        compiled.map_err(|e| (e.to_string(), lasts(&e)))
    }
}

/// For how long a component would end the same way.
fn lasts(error: &JobError) -> Lasts {
    match error {
        JobError::Refused(_) | JobError::TooLarge { .. } => Lasts::Always,
        // Killed from outside, as by a machine that has no memory left.
        JobError::Memory { status, .. } if status.signal() == Some(SIGKILL) => Lasts::Unknown,
        JobError::Cpu(_) | JobError::Memory { .. } => Lasts::UnderLimits,
        JobError::Start(_) | JobError::Time(_) => Lasts::Unknown,
    }
}

/// Somebody waits for a component's code.
struct Waiting(JobEnd);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The `main` of the process that compiles: a component in, its machine code out.
#[must_use]
pub fn compiler_main() -> ExitCode {
    wall::job_main(
        || engine(Target::Host).map_err(|e| e.to_string()),
        |engine, bytes| engine.precompile_component(bytes).map_err(|e| format!("{e:#}")),
    )
}

/// Compiles and describes a component for a target that this machine can run: in this process, for plugins of
/// one's own, while the host is built.
///
/// # Errors
/// When [`inspect`] refuses it, it does not compile, or its description is not valid.
pub async fn compile_for(target: Target<'_>, what: &str, bytes: &[u8]) -> Result<Compiled, PluginError> {
    let shared = Shared::new(target)?;
    let inspection = inspect(what, bytes)?;
    check(what, bytes)?;
    let failed = |e: wasmtime::Error| PluginError::Compile {
        what: what.to_owned(),
        reason: format!("{e:#}"),
        lasts: Lasts::Always,
    };
    let code = shared.engine.precompile_component(bytes).map_err(failed)?;
    let component = load(&shared, &code).map_err(failed)?;
    Ok(Compiled { described: describe(what, &shared, &component, inspection).await?, code })
}

/// The code of a component, from the cache or compiled and kept there, whatever comes of it later.
pub(crate) async fn compile_and_keep(
    shared: &Shared,
    cache: &CodeCache,
    compiler: &Compiler,
    what: &str,
    bytes: &[u8],
) -> Result<Component, PluginError> {
    let digest = digest(bytes);
    if let Some(component) = cache.load(shared, &digest) {
        return Ok(component);
    }
    check(what, bytes)?;
    let failed = |reason, lasts| PluginError::Compile { what: what.to_owned(), reason, lasts };
    let code = compiler.compile(bytes).await.map_err(|(reason, lasts)| failed(reason, lasts))?;
    let component = load(shared, &code).map_err(|e| failed(format!("{e:#}"), Lasts::Always))?;
    if let Err(reason) = cache.store(shared, &digest, &code) {
        tracing::warn!("compiled code is not kept: {reason}");
    }
    Ok(component)
}

/// Loads machine code that this process or its own compiler made, or that it found authentic.
#[expect(unsafe_code, reason = "machine code cannot be checked; every caller vouches for where it came from")]
pub(crate) fn load(shared: &Shared, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are from `precompile_component`: just now, by this
    // program in a process that has nothing but the component, or embedded by our build.
    unsafe { Component::deserialize(&shared.engine, code) }
}
