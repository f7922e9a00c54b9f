//! Calls written in angle brackets. None of these forms is XML: nothing in them is escaped.

use protocol::ToolSpec;
use serde_json::{Map, Value};

use crate::answer::DraftCall;

/// `<function=NAME> <parameter=KEY>VALUE</parameter> … </function>`, and what follows it.
pub(crate) fn function<'a>(text: &'a str, tools: &[ToolSpec]) -> Option<(DraftCall, &'a str)> {
    let (name, body) = text.strip_prefix("<function=")?.split_once('>')?;
    let name = name.trim().trim_matches(['"', '\'']);
    let (body, rest) = until(body, &["</function>", "<function=", "</tool_call>"]);
    let rest = rest.strip_prefix("</function>").unwrap_or(rest);
    // Llama 3.1 writes the arguments as one JSON object.
    if let Some((arguments, _)) = super::json::first_object(body.trim_start()) {
        return Some((draft(name, arguments), rest));
    }
    let arguments =
        parameters(body, "<parameter=", |key| Some(key.trim_matches(['"', '\''])), schema(name, tools))?;
    Some((draft(name, arguments), rest))
}

/// `<invoke name="NAME"> <parameter name="KEY">VALUE</parameter> … </invoke>`, and what follows it.
pub(crate) fn invoke<'a>(text: &'a str, tools: &[ToolSpec]) -> Option<(DraftCall, &'a str)> {
    let (name, body) = text.strip_prefix("<invoke name=")?.split_once('>')?;
    let name = quoted(name)?;
    let (body, rest) = until(body, &["</invoke>", "<invoke name="]);
    let rest = rest.strip_prefix("</invoke>").unwrap_or(rest);
    let arguments = parameters(body, "<parameter name=", quoted, schema(name, tools))?;
    Some((draft(name, arguments), rest))
}

/// `NAME <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value> …`, which is all of a text.
pub(crate) fn key_value(text: &str, tools: &[ToolSpec]) -> Option<DraftCall> {
    let (name, mut rest) = until(text, &["<arg_key>"]);
    let name = name.trim();
    let schema = schema(name, tools);
    let mut arguments = Map::new();
    while let Some((_, pair)) = rest.split_once("<arg_key>") {
        let (key, after) = pair.split_once("</arg_key>")?;
        let (_, value) = after.split_once("<arg_value>")?;
        let (value, after) = until(value, &["</arg_value>", "<arg_key>"]);
        arguments.insert(key.trim().to_owned(), typed(key.trim(), value, schema.as_ref()));
        rest = after;
    }
    let is_name = !name.is_empty() && !name.contains(char::is_whitespace);
    is_name.then(|| draft(name, Value::Object(arguments).to_string()))
}

fn draft(name: &str, arguments: String) -> DraftCall {
    DraftCall { id: String::new(), name: name.to_owned(), arguments }
}

/// All parameters of a call as JSON; none if something between them is not a parameter.
fn parameters<'a>(
    body: &'a str,
    open: &str,
    key_of: impl Fn(&'a str) -> Option<&'a str>,
    schema: Option<Value>,
) -> Option<String> {
    let mut arguments = Map::new();
    let mut rest = body.trim();
    while !rest.is_empty() {
        let (key, value) = rest.strip_prefix(open)?.split_once('>')?;
        let key = key_of(key)?;
        let (value, after) = until(value, &["</parameter>", open]);
        arguments.insert(key.to_owned(), typed(key, value, schema.as_ref()));
        rest = after.strip_prefix("</parameter>").unwrap_or(after).trim_start();
    }
    Some(Value::Object(arguments).to_string())
}

/// A text up to the first of these marks, and from there on.
fn until<'a>(text: &'a str, marks: &[&str]) -> (&'a str, &'a str) {
    let end = marks.iter().filter_map(|mark| text.find(mark)).min().unwrap_or(text.len());
    text.split_at(end)
}

/// The text between quotes at the start of an attribute.
fn quoted(attribute: &str) -> Option<&str> {
    let quote = attribute.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    attribute[1..].split_once(quote).map(|(text, _)| text)
}

fn schema(name: &str, tools: &[ToolSpec]) -> Option<Value> {
    let tool = tools.iter().find(|tool| tool.name == name)?;
    serde_json::from_str(tool.parameters.get()).ok()
}

/// A value with the type that the schema gives it: text, unless something else is allowed and it is that.
fn typed(key: &str, written: &str, schema: Option<&Value>) -> Value {
    let text = written.strip_prefix('\n').unwrap_or(written);
    let text = text.strip_suffix('\n').unwrap_or(text);
    let wanted = schema.map(|schema| &schema["properties"][key]["type"]);
    let is_text = match wanted {
        Some(Value::String(kind)) => kind == "string",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "string"),
        _ => false,
    };
    if is_text {
        return Value::String(text.to_owned());
    }
    serde_json::from_str(text.trim()).unwrap_or_else(|_| Value::String(text.to_owned()))
}
