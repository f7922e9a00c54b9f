//! Turns a component into machine code and a description.

use std::process::ExitCode;
use std::time::Duration;

use wall::{Job, JobEnd, SupervisorCommand};
use wasmtime::component::Component;

use crate::PluginError;
use crate::checks::check;
use crate::describe::{Described, describe};
use crate::engine::{Shared, Target, engine};
use crate::inspect::inspect;
use crate::limits::{Limits, MAX_CODE_BYTES};

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
    async fn compile(&self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        let time = Duration::from_secs(self.limits.compile_s.into());
        let job = Job {
            command: self.command.clone(),
            memory_bytes: self.limits.compile_memory_bytes,
            cpu_time: time,
            wall_time: time,
            answer_bytes: MAX_CODE_BYTES,
        };
        let waiting = Waiting(JobEnd::default());
        let (end, bytes) = (waiting.0.of_job(), bytes.to_vec());
        let compiled = tokio::task::spawn_blocking(move || job.run_until(&bytes, &end)).await;
        compiled.map_err(|e| e.to_string())?.map_err(|e| e.to_string())
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

/// Compiles and describes a component for a target that this machine can run.
///
/// # Errors
/// When [`inspect`] refuses it, it does not compile, or its description is not valid.
pub async fn compile_for(target: Target<'_>, what: &str, bytes: &[u8]) -> Result<Compiled, PluginError> {
    compile(&Shared::new(target)?, None, what, bytes).await.map(|(compiled, _)| compiled)
}

/// Without a compiler it is done in this process: for plugins of one's own, while the host is built.
pub(crate) async fn compile(
    shared: &Shared,
    compiler: Option<&Compiler>,
    what: &str,
    bytes: &[u8],
) -> Result<(Compiled, Component), PluginError> {
    let inspection = inspect(what, bytes)?;
    check(what, bytes)?;
    let failed = |reason: String| PluginError::Compile { what: what.to_owned(), reason };
    let code = match compiler {
        Some(compiler) => compiler.compile(bytes).await,
        None => shared.engine.precompile_component(bytes).map_err(|e| format!("{e:#}")),
    };
    let code = code.map_err(failed)?;
    let component = load(shared, &code).map_err(|e| failed(format!("{e:#}")))?;
    let described = describe(what, shared, &component, inspection).await?;
    Ok((Compiled { described, code }, component))
}

/// Loads machine code that this process or its own compiler made, or that it found authentic.
#[expect(unsafe_code, reason = "machine code cannot be checked; every caller vouches for where it came from")]
pub(crate) fn load(shared: &Shared, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are from `precompile_component`: just now, by this
    // program in a process that has nothing but the component, or embedded by our build.
    unsafe { Component::deserialize(&shared.engine, code) }
}
