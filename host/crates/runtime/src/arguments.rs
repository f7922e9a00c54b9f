//! Checks a call's arguments against the tool's schema, in words a model can act on.

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use serde_json::Value;

/// Takes what models write for what is meant: nulls for arguments that may be left out are dropped, and
/// `5.0` is 5 where an integer is wanted. Everywhere in the arguments, as far as the schema tells.
pub(crate) fn drop_nulls(arguments: &mut Value, schema: &Value) {
    match arguments {
        Value::Object(fields) => {
            fields.retain(|name, value| !value.is_null() || !may_be_left_out(schema, name));
            for (name, value) in fields {
                let own = schema.get("properties").and_then(|p| p.get(name));
                if let Some(schema) = own.or_else(|| schema.get("additionalProperties")) {
                    drop_nulls(value, schema);
                }
            }
        }
        Value::Array(items) => {
            if let Some(schema) = schema.get("items") {
                items.iter_mut().for_each(|item| drop_nulls(item, schema));
            }
        }
        Value::Number(number) => {
            if wants_integer(schema)
                && let Some(integer) = number.as_f64().filter(|_| number.is_f64()).and_then(integral)
            {
                *arguments = integer.into();
            }
            return;
        }
        _ => return,
    }
    for cases in ["anyOf", "oneOf", "allOf"] {
        let cases = schema.get(cases).and_then(Value::as_array);
        cases.into_iter().flatten().for_each(|case| drop_nulls(arguments, case));
    }
}

/// A field that the schema knows, or that it would refuse, and does not require.
fn may_be_left_out(schema: &Value, name: &str) -> bool {
    let is_known = schema.get("properties").is_some_and(|p| p.get(name).is_some());
    let is_closed = schema.get("additionalProperties") == Some(&Value::Bool(false));
    let required = schema.get("required").and_then(Value::as_array);
    (is_known || is_closed) && !required.is_some_and(|r| r.iter().any(|n| n.as_str() == Some(name)))
}

fn wants_integer(schema: &Value) -> bool {
    match schema.get("type") {
        Some(Value::Array(types)) => types.iter().any(|t| t == "integer"),
        Some(one) => one == "integer",
        None => false,
    }
}

/// The integer that a number is, within what floats tell apart.
fn integral(number: f64) -> Option<i64> {
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and within 53 bits")]
    (number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0).then_some(number as i64)
}

/// Why arguments cannot be used, or nothing.
pub(crate) fn refusal(validator: &Validator, schema: &Value, arguments: &Value) -> Option<String> {
    if !arguments.is_object() {
        return Some("the arguments must be a JSON object".to_owned());
    }
    // The answer alone costs no memory; all errors are collected before the first one is shown.
    if validator.is_valid(arguments) {
        return None;
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
    fn nulls_and_whole_numbers_are_taken_everywhere() {
        let item = json!({"type": "object", "properties": {"n": {"type": ["integer", "null"]}, "must": {"type": "null"}},
            "required": ["must"], "additionalProperties": false});
        let schema = json!({"type": "object", "properties": {
            "items": {"type": "array", "items": item},
            "ratio": {"type": "number"},
            "free": {"type": "object"},
            "by_name": {"type": "object", "additionalProperties": {"type": "integer"}},
            "either": {"anyOf": [item, {"type": "string"}]},
        }});
        let mut arguments = json!({
            "items": [{"n": 5.0, "must": null}, {"n": null, "must": null}, {"n": 1.5, "must": null}],
            "ratio": 2.0, "free": {"kept": null}, "by_name": {"a": -3.0}, "either": {"n": 1e3, "must": null}, "unknown": null
        });
        drop_nulls(&mut arguments, &schema);
        assert_eq!(
            arguments,
            json!({
                "items": [{"n": 5, "must": null}, {"must": null}, {"n": 1.5, "must": null}],
                "ratio": 2.0, "free": {"kept": null}, "by_name": {"a": -3}, "either": {"n": 1000, "must": null}, "unknown": null
            })
        );
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
