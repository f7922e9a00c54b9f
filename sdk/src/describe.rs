use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::bindings::ml_intern::plugin::types as wit;
use crate::{Call, Output, ToolError};

/// A tool: the type's fields are its arguments.
///
/// Fields that are `Option` or have `#[serde(default)]` may be left out by the model. Unknown fields are
/// refused with the known names; `#[serde(deny_unknown_fields)]` is not needed.
pub trait Tool: DeserializeOwned + JsonSchema {
    /// The name, without the plugin's id: `[a-z][a-z0-9_]*`.
    const NAME: &'static str;
    /// What the model reads about it.
    const DESCRIPTION: &'static str;

    /// Does the work.
    ///
    /// # Errors
    /// An error is a failed result: the model reads its message and may try something else.
    fn run(self, call: &Call) -> Result<Output, ToolError>;
}

/// A tool's specification, as `describe` exports it.
#[must_use]
pub fn describe<T: Tool>() -> wit::ToolSpec {
    wit::ToolSpec {
        name: T::NAME.to_owned(),
        title: None,
        description: T::DESCRIPTION.to_owned(),
        input_schema: input_schema::<T>().to_string(),
        output_schema: None,
        extra: None,
    }
}

/// The schema of a tool's arguments, in the form that every provider takes: everything inlined, no
/// `$schema`, `title` or numeric `format`, no nulls, unknown fields refused.
fn input_schema<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|s| {
            s.inline_subschemas = true;
            s.meta_schema = None;
        })
        .with_transform(RecursiveTransform(simplify));
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    RecursiveTransform(close_objects).transform(&mut schema);
    let mut schema = schema.to_value();
    if let Value::Object(root) = &mut schema {
        // The doc comment of the type is for the author; the tool has its own description.
        root.remove("description");
        root.entry("properties").or_insert_with(|| Value::Object(Map::new()));
        root.entry("additionalProperties").or_insert(Value::Bool(false));
    }
    schema
}

fn simplify(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    object.remove("title");
    let numeric = |t: &Value| t == "integer" || t == "number";
    let is_numeric = match object.get("type") {
        Some(Value::Array(types)) => types.iter().any(numeric),
        Some(one) => numeric(one),
        None => false,
    };
    if is_numeric {
        object.remove("format");
    }
    drop_null(object);
}

/// An argument that may be left out needs no null: the host drops nulls before it checks.
fn drop_null(object: &mut Map<String, Value>) {
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|t| t != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if object.get("default") == Some(&Value::Null) {
        object.remove("default");
    }
    if let Some(Value::Array(choices)) = object.get_mut("enum") {
        choices.retain(|c| !c.is_null());
    }
    let Some(Value::Array(cases)) = object.get_mut("anyOf") else {
        return;
    };
    cases.retain(|case| case.get("type") != Some(&Value::from("null")));
    if let [Value::Object(only)] = cases.as_slice() {
        let only = only.clone();
        object.remove("anyOf");
        for (key, value) in only {
            object.entry(key).or_insert(value);
        }
    }
}

fn close_objects(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut()
        && object.contains_key("properties")
    {
        object.entry("additionalProperties").or_insert(Value::Bool(false));
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    #[allow(dead_code, reason = "only its schema is looked at")]
    enum Mode {
        Fast,
        Careful,
    }

    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Step {
        name: String,
    }

    /// Not shown to the model.
    #[derive(Deserialize, JsonSchema)]
    #[allow(dead_code, reason = "only its schema is looked at")]
    struct Input {
        /// A path.
        path: String,
        /// How many.
        limit: Option<u32>,
        mode: Option<Mode>,
        steps: Vec<Step>,
        ratio: Option<f64>,
    }

    #[test]
    fn the_schema_is_plain_closed_and_inlined() {
        assert_eq!(
            input_schema::<Input>(),
            json!({
                "type": "object",
                "properties": {
                    "path": {"description": "A path.", "type": "string"},
                    "limit": {"description": "How many.", "type": "integer", "minimum": 0},
                    "mode": {"type": "string", "enum": ["fast", "careful"]},
                    "steps": {"type": "array", "items": {
                        "type": "object",
                        "properties": {"name": {"type": "string"}},
                        "required": ["name"],
                        "additionalProperties": false
                    }},
                    "ratio": {"type": "number"}
                },
                "required": ["path", "steps"],
                "additionalProperties": false
            })
        );
    }

    #[derive(Deserialize, JsonSchema)]
    struct Nothing {}

    #[test]
    fn a_tool_without_arguments_has_an_empty_object() {
        assert_eq!(
            input_schema::<Nothing>(),
            json!({"type": "object", "properties": {}, "additionalProperties": false})
        );
    }
}
