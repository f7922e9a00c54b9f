use protocol::ToolSpec;
use serde_json::{Map, Value};

use super::Looks;
use crate::answer::DraftCall;

/// First keys of the JSON that a call is written in.
const FIRST_KEYS: [&str; 7] = ["name", "arguments", "parameters", "function", "id", "type", "tool_calls"];

/// All keys that the JSON of a call may have where no mark says that it is one.
const KEYS: [&str; 7] = ["name", "arguments", "parameters", "function", "id", "type", "index"];

/// Whether JSON that begins here looks like a call, from its first key and, if that is the name, its value.
pub(crate) fn start(text: &str, tools: &[ToolSpec]) -> Looks {
    let mut rest = text;
    for (open, optional) in [('[', true), ('{', false), ('"', false)] {
        let next = rest.trim_start();
        match next.strip_prefix(open) {
            Some(inner) => rest = inner,
            None if next.is_empty() => return Looks::Open,
            None if optional => {}
            None => return Looks::Unlike,
        }
    }
    let Some((key, rest)) = rest.split_once('"') else {
        return possible(FIRST_KEYS.iter().any(|key| key.starts_with(rest)));
    };
    if !FIRST_KEYS.contains(&key) {
        return Looks::Unlike;
    }
    let value = rest.trim_start().strip_prefix(':').map(str::trim_start).filter(|value| !value.is_empty());
    match (key, value) {
        (_, None) => possible(rest.trim_start().is_empty() || rest.trim_start().starts_with(':')),
        ("name", Some(value)) => match value.strip_prefix('"').map(|name| name.split_once('"').ok_or(name)) {
            None => Looks::Unlike,
            Some(Ok((name, _))) if is_offered(name, tools) => Looks::Like,
            Some(Ok(_)) => Looks::Unlike,
            Some(Err(beginning)) => possible(tools.iter().any(|tool| tool.name.starts_with(beginning))),
        },
        (_, Some(_)) => Looks::Like,
    }
}

fn possible(possible: bool) -> Looks {
    if possible { Looks::Open } else { Looks::Unlike }
}

pub(crate) fn is_offered(name: &str, tools: &[ToolSpec]) -> bool {
    tools.iter().any(|tool| tool.name == name)
}

/// Calls written as JSON and nothing else, without a mark: each has to have the right keys and name a tool
/// that is offered.
pub(crate) fn unmarked_calls(text: &str, tools: &[ToolSpec]) -> Option<Vec<DraftCall>> {
    let (values, rest) = values(text);
    let strict = |object: &Map<String, Value>| object.keys().all(|key| KEYS.contains(&key.as_str()));
    let mut calls = Vec::new();
    for object in values.iter().flat_map(objects) {
        let object = object?;
        let call = call(object).filter(|_| strict(object) && has_arguments(object))?;
        calls.push(call);
    }
    let offered = calls.iter().all(|call| is_offered(&call.name, tools));
    (rest.is_empty() && !calls.is_empty() && offered).then_some(calls)
}

/// Calls written as JSON behind a mark that says so, and what follows them.
pub(crate) fn marked_calls(text: &str) -> Option<(Vec<DraftCall>, &str)> {
    let (values, rest) = values(text);
    let calls: Option<Vec<DraftCall>> = values.iter().flat_map(objects).map(|object| call(object?)).collect();
    match calls {
        Some(calls) if !calls.is_empty() => Some((calls, rest)),
        // Text in strings of the JSON may have been written without escapes.
        _ => {
            let repaired = escape_controls(text);
            let (values, rest) = self::values(&repaired);
            let calls: Option<Vec<DraftCall>> =
                values.iter().flat_map(objects).map(|object| call(object?)).collect();
            calls.filter(|calls| !calls.is_empty() && rest.is_empty()).map(|calls| (calls, ""))
        }
    }
}

/// The JSON value at the start of a text, as it is written, and what follows it.
pub(crate) fn first_object(text: &str) -> Option<(String, &str)> {
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Map<String, Value>>();
    let object = stream.next()?.ok()?;
    let end = stream.byte_offset();
    Some((Value::Object(object).to_string(), &text[end..]))
}

/// JSON values one after the other, with white space, `,` or `;` between them, and what follows them.
fn values(text: &str) -> (Vec<Value>, &str) {
    let mut values = Vec::new();
    let mut rest = text.trim();
    while rest.starts_with(['{', '[']) {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
        let Some(Ok(value)) = stream.next() else { break };
        values.push(value);
        rest = rest[stream.byte_offset()..]
            .trim_start_matches(|c: char| c.is_whitespace() || c == ',' || c == ';');
    }
    (values, rest)
}

/// The objects that may be calls in a value: itself, the elements of a list, or of its `tool_calls`.
fn objects(value: &Value) -> Vec<Option<&Map<String, Value>>> {
    match value {
        Value::Array(list) => list.iter().map(Value::as_object).collect(),
        Value::Object(object) => match object.get("tool_calls").and_then(Value::as_array) {
            Some(list) => list.iter().map(Value::as_object).collect(),
            None => vec![Some(object)],
        },
        _ => vec![None],
    }
}

fn call(object: &Map<String, Value>) -> Option<DraftCall> {
    let inner = object.get("function").and_then(Value::as_object).unwrap_or(object);
    let name = inner.get("name").or_else(|| inner.get("function")).and_then(Value::as_str)?;
    let arguments = match arguments(inner) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(written)) => written.clone(),
        Some(Value::Object(arguments)) => Value::Object(arguments.clone()).to_string(),
        Some(_) => return None,
    };
    Some(DraftCall { id: String::new(), name: name.to_owned(), arguments })
}

fn has_arguments(object: &Map<String, Value>) -> bool {
    arguments(object.get("function").and_then(Value::as_object).unwrap_or(object)).is_some()
}

fn arguments(object: &Map<String, Value>) -> Option<&Value> {
    object.get("arguments").or_else(|| object.get("parameters"))
}

/// Escapes line breaks and other control characters inside of JSON strings.
fn escape_controls(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    let (mut in_string, mut after_backslash) = (false, false);
    for c in text.chars() {
        match c {
            '\n' if in_string => escaped.push_str("\\n"),
            '\r' if in_string => escaped.push_str("\\r"),
            '\t' if in_string => escaped.push_str("\\t"),
            _ => escaped.push(c),
        }
        in_string ^= c == '"' && !after_backslash;
        after_backslash = in_string && c == '\\' && !after_backslash;
    }
    escaped
}
