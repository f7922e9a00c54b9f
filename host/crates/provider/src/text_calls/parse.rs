use protocol::ToolSpec;

use super::{Form, Found, Looks, MARKS, json, xml};
use crate::answer::DraftCall;
use crate::rough::NotUnderstood;

/// What models put around or behind a call and what is no text either.
const TRAILERS: [&str; 9] = [
    "</tool_call>",
    "</function_calls>",
    "</minimax:tool_call>",
    "</function>",
    "</invoke>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|im_end|>",
    "</s>",
];

/// Whether a mark stands here and is followed by what a call goes on with.
pub(crate) fn marked_start(text: &str, tools: &[ToolSpec]) -> Looks {
    let Some(mark) = MARKS.iter().find(|mark| text.starts_with(**mark)) else {
        let beginning = MARKS.iter().any(|mark| mark.starts_with(text));
        return if beginning { Looks::Open } else { Looks::Unlike };
    };
    let behind = &text[mark.len()..];
    match *mark {
        "<function=" => match behind.split_once('>') {
            Some((name, _)) if is_name(name) => Looks::Like,
            None if behind.is_empty() || is_name(behind) => Looks::Open,
            _ => Looks::Unlike,
        },
        "<invoke name=" => match behind.chars().next() {
            Some('"' | '\'') => Looks::Like,
            Some(_) => Looks::Unlike,
            None => Looks::Open,
        },
        mark if mark.starts_with("<|") || !mark.starts_with('<') || mark.starts_with("<｜") => Looks::Like,
        _ => body_start(behind.trim_start(), tools),
    }
}

/// Whether what follows a mark is a call: JSON, another mark, or the name of a tool.
fn body_start(body: &str, tools: &[ToolSpec]) -> Looks {
    if body.is_empty() {
        return Looks::Open;
    }
    if body.starts_with(['{', '[', '<']) {
        return Looks::Like;
    }
    let name = body.split(|c: char| c.is_whitespace() || c == '<').next().unwrap_or_default();
    if name.len() < body.len() {
        return if json::is_offered(name, tools) { Looks::Like } else { Looks::Unlike };
    }
    if tools.iter().any(|tool| tool.name.starts_with(name)) { Looks::Open } else { Looks::Unlike }
}

fn is_name(text: &str) -> bool {
    let text = text.trim_matches(['"', '\'']);
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

/// Whether the content of a code block looks like a call.
pub(crate) fn block_start(content: &str, tools: &[ToolSpec]) -> Looks {
    let content = content.trim_start();
    match content.chars().next() {
        None => Looks::Open,
        Some('{' | '[') => json::start(content, tools),
        Some('<') => marked_start(content, tools),
        Some(_) => Looks::Unlike,
    }
}

/// The calls in a code block, with its first line and, if it is there, its last; nothing else may be in it.
pub(crate) fn block_calls(block: &str, tools: &[ToolSpec]) -> Option<Vec<DraftCall>> {
    let (_, content) = block.split_once('\n')?;
    let content = content.trim_end();
    let content = content.trim_end_matches('`').trim();
    if !content.starts_with('<') {
        return json::unmarked_calls(content, tools);
    }
    let found = marked(content, tools).ok()?;
    (found.text.trim().is_empty() && !found.calls.is_empty()).then_some(found.calls)
}

/// Reads held text.
pub(crate) fn held(form: Form, text: &str, tools: &[ToolSpec]) -> Result<Found, NotUnderstood> {
    let calls = match form {
        Form::Marked => return marked(text, tools),
        Form::Bare => json::unmarked_calls(without_trailers(text), tools),
        Form::Fenced => blocks(text, tools),
    };
    // JSON that is no call after all is something the model wanted to say.
    Ok(calls.map_or_else(
        || Found { calls: Vec::new(), text: text.to_owned() },
        |calls| Found { calls, text: String::new() },
    ))
}

/// Code blocks with calls, one after the other.
fn blocks(text: &str, tools: &[ToolSpec]) -> Option<Vec<DraftCall>> {
    let mut calls = Vec::new();
    let mut rest = without_trailers(text);
    while !rest.is_empty() {
        let ticks = rest.len() - rest.trim_start_matches('`').len();
        let first_line = rest.find('\n')? + 1;
        let end = super::block_end(rest, first_line, ticks).unwrap_or(rest.len());
        if ticks < 3 {
            return None;
        }
        calls.extend(block_calls(&rest[..end], tools)?);
        rest = rest[end..].trim_start();
    }
    (!calls.is_empty()).then_some(calls)
}

fn without_trailers(text: &str) -> &str {
    let mut text = text.trim();
    while let Some(shorter) = TRAILERS.iter().find_map(|trailer| text.strip_suffix(trailer)) {
        text = shorter.trim_end();
    }
    text
}

/// Calls with marks, and the text between them.
fn marked(text: &str, tools: &[ToolSpec]) -> Result<Found, NotUnderstood> {
    let mut found = Found::default();
    let mut rest = text;
    while !rest.is_empty() {
        if marked_start(rest, tools) == Looks::Like {
            let (calls, after) = one_mark(rest, tools).ok_or(NotUnderstood::Unreadable)?;
            found.calls.extend(calls);
            rest = skip_trailers(after);
            continue;
        }
        let step = rest.chars().next().map_or(1, char::len_utf8);
        let next = rest[step..].find(['<', '[']).map_or(rest.len(), |at| step + at);
        found.text.push_str(&rest[..next]);
        rest = &rest[next..];
    }
    if found.text.trim().is_empty() {
        found.text.clear();
    }
    match found.calls.first() {
        Some(call) if !found.calls.iter().any(|call| json::is_offered(&call.name, tools)) => {
            Err(NotUnderstood::NoSuchTool(call.name.clone()))
        }
        _ => Ok(found),
    }
}

fn skip_trailers(text: &str) -> &str {
    let mut rest = text;
    while let Some(after) = TRAILERS.iter().find_map(|trailer| rest.trim_start().strip_prefix(trailer)) {
        rest = after;
    }
    rest
}

/// The calls behind the mark that stands here, and what follows them.
fn one_mark<'a>(text: &'a str, tools: &[ToolSpec]) -> Option<(Vec<DraftCall>, &'a str)> {
    let one = |(call, rest): (DraftCall, &'a str)| (vec![call], rest);
    if text.starts_with("<function=") {
        return xml::function(text, tools).map(one);
    }
    if text.starts_with("<invoke name=") {
        return xml::invoke(text, tools).map(one);
    }
    if let Some(body) = text.strip_prefix("<tool_call>") {
        let (body, after) = body.split_once("</tool_call>").unwrap_or((body, ""));
        return tool_call(body.trim(), tools).map(|calls| (calls, after));
    }
    if let Some(body) = text.strip_prefix("[TOOL_CALLS]") {
        return mistral(body);
    }
    for mark in ["<|python_tag|>", "<|tool_call|>"] {
        if let Some(body) = text.strip_prefix(mark) {
            return json::marked_calls(without_trailers(body)).filter(|(_, rest)| rest.is_empty());
        }
    }
    for mark in ["<function_calls>", "<minimax:tool_call>"] {
        if let Some(body) = text.strip_prefix(mark) {
            let body = body.trim_start();
            return if body.starts_with('<') { one_mark(body, tools) } else { json::marked_calls(body) };
        }
    }
    None
}

/// What stands between `<tool_call>` and its end.
fn tool_call(body: &str, tools: &[ToolSpec]) -> Option<Vec<DraftCall>> {
    if body.starts_with("<function=") {
        let mut calls = Vec::new();
        let mut rest = body;
        while !rest.is_empty() {
            let (call, after) = xml::function(rest, tools)?;
            calls.push(call);
            rest = after.trim();
        }
        return Some(calls);
    }
    if body.starts_with("<invoke name=") {
        return xml::invoke(body, tools).map(|(call, _)| vec![call]);
    }
    if body.starts_with(['{', '[']) {
        // A brace too many at the end is a common slip.
        return json::marked_calls(body)
            .filter(|(_, rest)| rest.trim_matches('}').is_empty())
            .map(|(calls, _)| calls);
    }
    xml::key_value(body, tools).map(|call| vec![call])
}

/// `[{…}, …]`, or `NAME{…}` and `NAME[ARGS]{…}` as often as there are calls.
fn mistral(body: &str) -> Option<(Vec<DraftCall>, &str)> {
    let body = body.trim_start();
    if body.starts_with(['{', '[']) {
        return json::marked_calls(body);
    }
    let (name, _) = body.split_once(['{', '['])?;
    let after = &body[name.len()..];
    let after = after.strip_prefix("[ARGS]").unwrap_or(after);
    let (arguments, rest) = json::first_object(after.trim_start())?;
    is_name(name.trim())
        .then(|| (vec![DraftCall { id: String::new(), name: name.trim().to_owned(), arguments }], rest))
}

/// A call that a limit cut off: its name is enough to tell the model what happened.
pub(crate) fn cut_off(text: String, tools: &[ToolSpec]) -> Found {
    let named = tools.iter().find(|tool| {
        let name = tool.name.as_str();
        [format!("\"{name}\""), format!("={name}>"), format!("'{name}'")]
            .iter()
            .any(|form| text.contains(form))
    });
    match named {
        Some(tool) => {
            let call = DraftCall { id: String::new(), name: tool.name.clone(), arguments: text };
            Found { calls: vec![call], text: String::new() }
        }
        None => Found { calls: Vec::new(), text },
    }
}
