//! A plugin's description: run once, with every import refusing, and stored.

use std::time::Duration;

use manifest::Manifest;
use protocol::ToolSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use wasmtime::component::Component;

use crate::PluginError;
use crate::bindings::{Plugin, PluginPre};
use crate::engine::Shared;
use crate::inspect::{Inspection, digest};
use crate::limits::{Limits, MAX_DESCRIPTION_BYTES, MAX_TOOLS};
use crate::state::CallState;
use crate::stop::Stop;

/// Milliseconds of CPU that a description may take.
const DESCRIBE_CPU_MS: u64 = 2_000;

/// All that start-up needs to know of a plugin.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Described {
    /// SHA-256 of the component, in lower-case hex.
    pub digest: String,
    pub manifest: Manifest,
    pub imports: Vec<String>,
    /// Its tools under their bare names.
    pub tools: Vec<ToolSpec>,
}

impl Described {
    /// Digest of what a person approved: the manifest and what the tools say of themselves.
    pub(crate) fn approval(&self) -> String {
        let json = serde_json::to_vec(&(&self.manifest, &self.tools)).unwrap_or_default();
        digest(&json)
    }
}

/// How long a plugin may take to describe itself, waits included.
const DESCRIBE_TIME: Duration = Duration::from_secs(10);

/// Asks a component for its tools and checks them against its manifest.
pub(crate) async fn describe(
    what: &str,
    shared: &Shared,
    component: &Component,
    inspection: Inspection,
) -> Result<Described, PluginError> {
    let refuse = |reason: String| PluginError::Description { what: what.to_owned(), reason };
    let link = |error: wasmtime::Error| refuse(format!("it cannot be linked: {error:#}"));
    let pre = PluginPre::new(shared.linker.instantiate_pre(component).map_err(link)?).map_err(link)?;
    let specs = call_describe(shared, &pre)
        .await
        .map_err(|stop| refuse(format!("its description failed: {stop}")))?;
    if specs.len() > MAX_TOOLS {
        return Err(refuse(format!("it has {} tools, more than {MAX_TOOLS}", specs.len())));
    }
    let Inspection { manifest, imports, digest } = inspection;
    let tools = specs
        .into_iter()
        .map(|spec| check_tool(&manifest, spec.name, spec.description, &spec.input_schema).map_err(refuse))
        .collect::<Result<Vec<_>, _>>()?;
    if let Some(missing) = manifest.tools.keys().find(|name| !tools.iter().any(|t| t.name == **name)) {
        return Err(refuse(format!("its manifest has a tool `{missing}` that it does not export")));
    }
    Ok(Described { digest, manifest, imports, tools })
}

async fn call_describe(
    shared: &Shared,
    pre: &PluginPre<CallState>,
) -> Result<Vec<crate::bindings::ml_intern::plugin::types::ToolSpec>, Stop> {
    let _running = shared.running();
    let limits = Limits { cpu_ms: DESCRIBE_CPU_MS, ..Limits::default() };
    let mut store = CallState::refusing(&limits).into_store(&shared.engine, limits.cpu_ms);
    let plugin = tokio::time::timeout(DESCRIBE_TIME, pre.instantiate_async(&mut store)).await;
    let plugin: Plugin =
        plugin.map_err(|_| Stop::wall(DESCRIBE_TIME))?.map_err(|e| Stop::of(&e, store.data()))?;
    let tools = plugin.ml_intern_plugin_tools();
    let described = tokio::time::timeout(DESCRIBE_TIME, tools.call_describe(&mut store)).await;
    let described = described.map_err(|_| Stop::wall(DESCRIBE_TIME))?;
    described.map_err(|e| Stop::of(&e, store.data()))?.map_err(|e| Stop::Guest(e.message))
}

fn check_tool(
    manifest: &Manifest,
    name: String,
    description: String,
    schema: &str,
) -> Result<ToolSpec, String> {
    if !manifest.tools.contains_key(&name) {
        return Err(format!("its tool `{name}` has no [tools.{name}] table in plugin.toml"));
    }
    if description.len() + schema.len() > MAX_DESCRIPTION_BYTES {
        return Err(format!("tool `{name}` describes itself with more than {MAX_DESCRIPTION_BYTES} bytes"));
    }
    let not_schema = |reason: String| format!("the input schema of tool `{name}` cannot be used: {reason}");
    let value: Value = serde_json::from_str(schema).map_err(|e| not_schema(e.to_string()))?;
    if value.get("type") != Some(&Value::from("object")) {
        return Err(not_schema("its type is not `object`".to_owned()));
    }
    jsonschema::validator_for(&value).map_err(|e| not_schema(e.to_string()))?;
    let parameters = RawValue::from_string(value.to_string()).map_err(|e| not_schema(e.to_string()))?;
    Ok(ToolSpec { name, description: plain(&description), parameters })
}

/// A text from a plugin without control characters that could act on a terminal.
pub(crate) fn plain(text: &str) -> String {
    let acts = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(|c| !acts(*c)).collect()
}
