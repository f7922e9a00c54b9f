//! Turns a component into machine code and a description.

use wasmtime::component::Component;

use crate::PluginError;
use crate::describe::{Described, describe};
use crate::engine::{Shared, Target};
use crate::inspect::inspect;

/// A component, compiled and described.
#[derive(Debug)]
pub struct Compiled {
    pub described: Described,
    /// Machine code as wasmtime serialises it.
    pub code: Vec<u8>,
}

/// Compiles and describes a component for a target that this machine can run.
///
/// # Errors
/// When [`inspect`] refuses it, it does not compile, or its description is not valid.
pub async fn compile_for(target: Target<'_>, what: &str, bytes: &[u8]) -> Result<Compiled, PluginError> {
    compile(&Shared::new(target)?, what, bytes).await.map(|(compiled, _)| compiled)
}

pub(crate) async fn compile(
    shared: &Shared,
    what: &str,
    bytes: &[u8],
) -> Result<(Compiled, Component), PluginError> {
    let inspection = inspect(what, bytes)?;
    let failed =
        |error: wasmtime::Error| PluginError::Compile { what: what.to_owned(), reason: format!("{error:#}") };
    let code = shared.engine.precompile_component(bytes).map_err(failed)?;
    let component = load(shared, &code).map_err(failed)?;
    let described = describe(what, shared, &component, inspection).await?;
    Ok((Compiled { described, code }, component))
}

/// Loads machine code that this process made itself, or that it found authentic.
#[expect(unsafe_code, reason = "machine code cannot be checked; every caller vouches for where it came from")]
pub(crate) fn load(shared: &Shared, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: the bytes are from `precompile_component`: just now, or embedded by our build.
    unsafe { Component::deserialize(&shared.engine, code) }
}
