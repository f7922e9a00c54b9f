//! A plugin's description: run once, with every import refusing, and stored.

use std::time::Duration;

use manifest::Manifest;
use protocol::{ToolSpec, text};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use wasmtime::component::Component;

use crate::PluginError;
use crate::bindings::ml_intern::plugin::types::ToolSpec as WitToolSpec;
use crate::bindings::{Plugin, PluginPre};
use crate::engine::Shared;
use crate::error::Lasts;
use crate::inspect::{Inspection, digest, hex};
use crate::limits::{Limits, MAX_DESCRIPTION_BYTES, MAX_TOOLS};
use crate::signature::Publisher;
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
    /// Digest of what the tools say of themselves beside that: titles, output schemas, notes.
    pub unseen: String,
    /// Who signed it, if that was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<Publisher>,
}

impl Described {
    /// Whom its data and values belong to: the id alone does not say whose it is. A plugin of a project is
    /// somebody else again.
    #[must_use]
    pub fn owner(&self) -> String {
        let id = &self.manifest.id;
        self.publisher.as_ref().map_or_else(|| id.clone(), |by| format!("{id}.{}", mark_of(by.key.as_str())))
    }

    /// Digest of what a person approved: the manifest, the imports, all that the tools say of themselves, who
    /// signed it.
    #[must_use]
    pub fn approval(&self) -> String {
        let key = self.publisher.as_ref().map(|publisher| &publisher.key);
        let mut imports: Vec<&String> = self.imports.iter().collect();
        imports.sort_unstable();
        let all = (&self.manifest, imports, &self.tools, &self.unseen, key);
        let json = serde_json::to_vec(&all).unwrap_or_default();
        digest(&json)
    }
}

/// A short name for something longer.
pub(crate) fn mark_of(text: &str) -> String {
    hex(&blake3::hash(text.as_bytes()).as_bytes()[..8])
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
    let failed = |reason: String, lasts| PluginError::Description { what: what.to_owned(), reason, lasts };
    let refuse = |reason: String| failed(reason, Lasts::Always);
    let link = |error: wasmtime::Error| refuse(format!("it cannot be linked: {error:#}"));
    let pre = PluginPre::new(shared.linker.instantiate_pre(component).map_err(link)?).map_err(link)?;
    let specs = call_describe(shared, &pre).await.map_err(|stop| {
        // How long something takes is also the machine's doing.
        let is_time = matches!(stop, Stop::Cpu { .. } | Stop::Wall { .. } | Stop::Cancelled);
        let lasts = if is_time { Lasts::Unknown } else { Lasts::Always };
        failed(format!("its description failed: {stop}"), lasts)
    })?;
    let Inspection { manifest, imports, digest } = inspection;
    let unseen = unseen(&specs);
    let tools = check(&manifest, specs).map_err(refuse)?;
    Ok(Described { digest, manifest, imports, tools, unseen, publisher: None })
}

/// The tools for the model, if they are those of the manifest.
fn check(manifest: &Manifest, specs: Vec<WitToolSpec>) -> Result<Vec<ToolSpec>, String> {
    if specs.len() > MAX_TOOLS {
        return Err(format!("it has {} tools, more than {MAX_TOOLS}", specs.len()));
    }
    if let Some(name) = twice(&specs) {
        return Err(format!("it describes two tools named `{}`", text::line(name)));
    }
    let tools = specs
        .into_iter()
        .map(|spec| check_tool(manifest, spec.name, spec.description, &spec.input_schema))
        .collect::<Result<Vec<_>, _>>()?;
    match manifest.tools.keys().find(|name| !tools.iter().any(|t| t.name == **name)) {
        Some(missing) => Err(format!("its manifest has a tool `{missing}` that it does not export")),
        None => Ok(tools),
    }
}

/// A name that two tools have: the model would mean one and get the other.
fn twice(specs: &[WitToolSpec]) -> Option<&str> {
    let mut names: Vec<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Digest of what no model sees of a plugin's tools, whatever their order.
fn unseen(specs: &[WitToolSpec]) -> String {
    let mut all: Vec<_> = specs.iter().map(|s| (&s.name, &s.title, &s.output_schema, &s.extra)).collect();
    all.sort_unstable();
    digest(&serde_json::to_vec(&all).unwrap_or_default())
}

async fn call_describe(shared: &Shared, pre: &PluginPre<CallState>) -> Result<Vec<WitToolSpec>, Stop> {
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
    inlined(&value).map_err(not_schema)?;
    jsonschema::validator_for(&value).map_err(|e| not_schema(e.to_string()))?;
    harmless(&mut value)
        .map_err(|hidden| not_schema(format!("`{}` has characters that nobody sees", text::line(&hidden))))?;
    let parameters = RawValue::from_string(value.to_string()).map_err(|e| not_schema(e.to_string()))?;
    Ok(ToolSpec { name, description: text::plain(&description).into_owned(), parameters })
}

/// A schema stands for what is written in it: one that refers to its own parts could stand for more than any
/// check of arguments has time and memory for.
fn inlined(value: &Value) -> Result<(), String> {
    let refers = |key: &str| matches!(key, "$ref" | "$dynamicRef" | "$recursiveRef");
    match value {
        Value::Array(list) => list.iter().try_for_each(inlined),
        Value::Object(map) => map.iter().try_for_each(|(key, value)| match value {
            Value::String(_) if refers(key) => Err(format!("it has a `{key}`; write out what it refers to")),
            value => inlined(value),
        }),
        _ => Ok(()),
    }
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
    use manifest::Manifest;
    use serde_json::json;

    use super::{WitToolSpec, check, harmless, inlined, unseen};

    fn spec(name: &str) -> WitToolSpec {
        WitToolSpec {
            name: name.to_owned(),
            title: None,
            description: String::new(),
            input_schema: "{\"type\":\"object\"}".to_owned(),
            output_schema: None,
            extra: None,
        }
    }

    fn described(unseen: &str) -> super::Described {
        super::Described {
            digest: String::new(),
            manifest: Manifest::from_toml(
                "id = \"p\"\nversion = \"1.0.0\"\ndescription = \"\"\n[tools.t]\ntier = \"read\"\n",
            )
            .unwrap(),
            imports: Vec::new(),
            tools: Vec::new(),
            unseen: unseen.to_owned(),
            publisher: None,
        }
    }

    #[test]
    fn titles_and_output_schemas_are_part_of_what_is_approved() {
        let plain = unseen(&[spec("a"), spec("b")]);
        assert_eq!(plain, unseen(&[spec("b"), spec("a")]));
        let text = || Some("x".to_owned());
        let changed = [
            WitToolSpec { title: text(), ..spec("a") },
            WitToolSpec { output_schema: text(), ..spec("a") },
            WitToolSpec { extra: text(), ..spec("a") },
        ]
        .map(|tool| unseen(&[tool, spec("b")]));
        assert!(!changed.contains(&plain) && changed[0] != changed[1] && changed[1] != changed[2]);
        assert_ne!(described(&plain).approval(), described(&changed[0]).approval());
    }

    #[test]
    fn a_name_is_that_of_one_tool() {
        let manifest = Manifest::from_toml(
            "id = \"p\"\nversion = \"1.0.0\"\ndescription = \"\"\n[tools.a]\ntier = \"read\"\n[tools.b]\ntier = \"read\"\n",
        )
        .unwrap();
        assert_eq!(check(&manifest, vec![spec("a"), spec("b")]).unwrap().len(), 2);
        let doubled = check(&manifest, vec![spec("a"), spec("b"), spec("a")]).unwrap_err();
        assert_eq!(doubled, "it describes two tools named `a`");
    }

    #[test]
    fn a_schema_refers_to_nothing() {
        let doubled =
            json!({"type": "object", "$defs": {"a": {"required": ["z"]}}, "allOf": [{"$ref": "#/$defs/a"}]});
        assert!(inlined(&doubled).unwrap_err().contains("`$ref`"));
        assert!(inlined(&json!({"properties": {"$ref": {"type": "string"}}})).is_ok());
    }

    #[test]
    fn imports_are_part_of_what_is_approved() {
        let described = |imports: &[&str]| super::Described {
            imports: imports.iter().map(|i| (*i).to_owned()).collect(),
            ..described("")
        };
        assert_eq!(described(&["a", "b"]).approval(), described(&["b", "a"]).approval());
        assert_ne!(described(&["a"]).approval(), described(&["a", "ml-intern:plugin/exec@0.1.0"]).approval());
    }

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
