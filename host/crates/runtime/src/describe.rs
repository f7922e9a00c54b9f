//! A plugin's description: run once, with every import refusing, and stored.

use std::time::Duration;

use manifest::Manifest;
use protocol::{ToolSpec, text};
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
    let mut value: Value = serde_json::from_str(schema).map_err(|e| not_schema(e.to_string()))?;
    if value.get("type") != Some(&Value::from("object")) {
        return Err(not_schema("its type is not `object`".to_owned()));
    }
    jsonschema::validator_for(&value).map_err(|e| not_schema(e.to_string()))?;
    harmless(&mut value)
        .map_err(|hidden| not_schema(format!("`{}` has characters that nobody sees", text::line(&hidden))))?;
    let parameters = RawValue::from_string(value.to_string()).map_err(|e| not_schema(e.to_string()))?;
    Ok(ToolSpec { name, description: text::plain(&description).into_owned(), parameters })
}

/// Takes what acts or is unseen out of a schema's texts for the model. Names and values cannot be changed
/// without changing what they mean: one that has such characters is given back.
fn harmless(value: &mut Value) -> Result<(), String> {
    match value {
        Value::String(text) if text::plain(text) != text.as_str() => Err(text.clone()),
        Value::Array(list) => list.iter_mut().try_for_each(harmless),
        Value::Object(map) => map.iter_mut().try_for_each(|(key, value)| match value {
            _ if text::plain(key) != key.as_str() => Err(key.clone()),
            Value::String(words) if matches!(key.as_str(), "description" | "title" | "$comment") => {
                *words = text::plain(words).into_owned();
                Ok(())
            }
            other => harmless(other),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::harmless;

    #[test]
    fn a_schema_hides_nothing() {
        let mut schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "description": "A\u{1b}[31m\u{200b} path.\u{202e}"},
        }});
        harmless(&mut schema).unwrap();
        assert_eq!(schema["properties"]["a"]["description"], "A path.");
        let mut named = json!({"properties": {"pa\u{200b}th": {}}});
        assert_eq!(harmless(&mut named), Err("pa\u{200b}th".to_owned()));
        let mut valued = json!({"properties": {"a": {"enum": ["x", "y\u{202e}"]}}});
        assert_eq!(harmless(&mut valued), Err("y\u{202e}".to_owned()));
    }
}
