//! Checks a call's arguments against the tool's schema, in words a model can act on.

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// Takes nulls for arguments that may be left out: models write them for "nothing".
pub(crate) fn drop_nulls(arguments: &mut Value, schema: &Value) {
    let required = |name: &str| {
        schema
            .get("required")
            .and_then(Value::as_array)
            .is_some_and(|r| r.iter().any(|n| n.as_str() == Some(name)))
    };
    if let Value::Object(fields) = arguments {
        fields.retain(|name, value| !value.is_null() || required(name));
    }
}

/// Why arguments cannot be used, or nothing.
pub(crate) fn refusal(validator: &Validator, schema: &Value, arguments: &Value) -> Option<String> {
    if !arguments.is_object() {
        return Some("the arguments must be a JSON object".to_owned());
    }
    let problems: Vec<String> =
        validator.iter_errors(arguments).take(3).map(|e| problem(&e, schema)).collect();
    (!problems.is_empty()).then(|| format!("the arguments cannot be used: {}", problems.join("; ")))
}

fn problem(error: &jsonschema::ValidationError<'_>, schema: &Value) -> String {
    let path = error.instance_path().to_string();
    let at = if path.is_empty() { String::new() } else { format!("`{}`: ", path.trim_start_matches('/')) };
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } if path.is_empty() => {
            let known = schema.get("properties").and_then(Value::as_object);
            let known: Vec<&str> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
            format!("unknown field `{}`; the fields are `{}`", unexpected.join("`, `"), known.join("`, `"))
        }
        ValidationErrorKind::Required { property } => {
            format!("{at}missing field `{}`", property.as_str().unwrap_or_default())
        }
        _ => {
            let text = error.to_string();
            let text = if text.len() > 300 { "the value does not fit the schema".to_owned() } else { text };
            format!("{at}{text}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(mut arguments: Value) -> Option<String> {
        let schema = json!({
            "type": "object",
            "properties": {"path": {"type": "string"}, "limit": {"type": "integer"}, "todos": {"type": "array", "items": {
                "type": "object", "properties": {"status": {"enum": ["a", "b"]}}, "required": ["status"], "additionalProperties": false}}},
            "required": ["path"],
            "additionalProperties": false
        });
        drop_nulls(&mut arguments, &schema);
        refusal(&jsonschema::validator_for(&schema).unwrap(), &schema, &arguments)
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(check(json!({"path": "a", "limit": null})), None);
        assert_eq!(check(json!([])).unwrap(), "the arguments must be a JSON object");
        assert_eq!(
            check(json!({"path": "a", "lines": 3})).unwrap(),
            "the arguments cannot be used: unknown field `lines`; the fields are `path`, `limit`, `todos`"
        );
        assert!(check(json!({})).unwrap().ends_with("missing field `path`"));
        assert!(check(json!({"path": null})).unwrap().contains("`path`: null is not of type"));
        assert!(check(json!({"path": "a", "limit": "x"})).unwrap().contains("`limit`: \"x\" is not of type"));
        assert!(
            check(json!({"path": "a", "todos": [{"status": "done"}]})).unwrap().contains("`todos/0/status`")
        );
    }
}
