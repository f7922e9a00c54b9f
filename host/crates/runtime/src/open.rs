//! Opening a plugin: done at its first call, not at start.

use std::collections::HashMap;
use std::io::Read as _;
use std::path::Path;

use jsonschema::Validator;
use protocol::text::path as shown;
use serde_json::Value;
use wasmtime::component::Component;

use crate::PluginError;
use crate::bindings::PluginPre;
use crate::cache::CodeCache;
use crate::catalog::{Plugin, Source};
use crate::compile::{Compiler, compile_and_keep, load};
use crate::engine::Shared;
use crate::error::Lasts;
use crate::inspect::digest;
use crate::limits::MAX_COMPONENT_BYTES;
use crate::state::CallState;

/// A plugin that can be called.
pub(crate) struct Opened {
    pub(crate) pre: PluginPre<CallState>,
    pub(crate) tools: HashMap<String, CheckedTool>,
}

/// A tool's input schema, ready to check arguments.
pub(crate) struct CheckedTool {
    pub(crate) schema: Value,
    pub(crate) validator: Validator,
}

pub(crate) async fn open(
    shared: &Shared,
    plugin: &Plugin,
    cache: &CodeCache,
    compiler: &Compiler,
) -> Result<Opened, PluginError> {
    let what = plugin.source.to_string();
    let component = match &plugin.source {
        Source::Bundled(bundled) => load(shared, bundled.code).map_err(PluginError::engine)?,
        Source::File(path) | Source::Project(path) => {
            open_file(shared, path, &plugin.described.digest, cache, compiler).await?
        }
    };
    let link = |e: wasmtime::Error| PluginError::Description {
        what: what.clone(),
        reason: format!("it cannot be linked: {e:#}"),
        lasts: Lasts::Unknown,
    };
    let pre = PluginPre::new(shared.linker.instantiate_pre(&component).map_err(link)?).map_err(link)?;
    let tools = plugin.described.tools.iter().map(|tool| {
        let broken =
            |reason: String| PluginError::Description { what: what.clone(), reason, lasts: Lasts::Unknown };
        let schema: Value = serde_json::from_str(tool.parameters.get()).map_err(|e| broken(e.to_string()))?;
        let validator = jsonschema::validator_for(&schema).map_err(|e| broken(e.to_string()))?;
        Ok((tool.name.clone(), CheckedTool { schema, validator }))
    });
    Ok(Opened { pre, tools: tools.collect::<Result<_, PluginError>>()? })
}

/// The code of a file whose bytes are still those that were described.
async fn open_file(
    shared: &Shared,
    path: &Path,
    expected: &str,
    cache: &CodeCache,
    compiler: &Compiler,
) -> Result<Component, PluginError> {
    let bytes = read_component(path)?;
    if digest(&bytes) != expected {
        return Err(PluginError::ChangedWhileRunning { path: path.to_owned() });
    }
    compile_and_keep(shared, cache, compiler, &shown(path), &bytes).await
}

/// Reads a component file, once, with its size checked first.
pub fn read_component(path: &Path) -> Result<Vec<u8>, PluginError> {
    let failed = |e| PluginError::unreadable(path, e);
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() {
        return Err(failed(std::io::Error::other("it is not a regular file")));
    }
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .map_err(failed)?
        .take(MAX_COMPONENT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MAX_COMPONENT_BYTES {
        return Err(PluginError::TooLarge { what: shown(path), size: metadata.len() });
    }
    Ok(bytes)
}
