use serde_json::{Value, json};

use super::Step;
use super::http::{Event, Kind};
use super::step::chunks;

/// The answer as a whole.
pub(crate) fn whole(step: &Step, number: usize) -> Value {
    response(step, number, status(step), items(step, number))
}

/// The answer in pieces.
pub(crate) fn events(step: &Step, number: usize) -> Vec<Event> {
    let mut events = Events::default();
    let begun = response(step, number, "in_progress", Vec::new());
    events.push(Kind::Frame, "response.created", json!({"response": begun}));
    let items = items(step, number);
    for (index, item) in items.iter().enumerate() {
        let at = |mut event: Value| {
            event["output_index"] = json!(index);
            event["item_id"] = item["id"].clone();
            event
        };
        events.push(
            Kind::Frame,
            "response.output_item.added",
            json!({"output_index": index, "item": begin(item)}),
        );
        let (name, whole) = match item["type"].as_str() {
            Some("reasoning") => ("response.reasoning_summary_text", step.thinking.as_str()),
            Some("message") => ("response.output_text", step.text.as_str()),
            _ => ("response.function_call_arguments", item["arguments"].as_str().unwrap_or_default()),
        };
        for part in chunks(whole, step) {
            events.push(Kind::Piece, &format!("{name}.delta"), at(json!({"delta": part})));
        }
        events.push(Kind::Frame, &format!("{name}.done"), at(json!({"text": whole})));
        events.push(Kind::Frame, "response.output_item.done", json!({"output_index": index, "item": item}));
    }
    if !step.omit_done {
        let ended = response(step, number, status(step), items);
        events.push(Kind::Frame, &format!("response.{}", status(step)), json!({"response": ended}));
    }
    events.list
}

#[derive(Default)]
struct Events {
    list: Vec<Event>,
}

impl Events {
    fn push(&mut self, kind: Kind, name: &str, mut event: Value) {
        event["type"] = json!(name);
        event["sequence_number"] = json!(self.list.len());
        self.list.push((kind, format!("event: {name}\ndata: {event}\n\n")));
    }
}

/// An item as it is announced: empty.
fn begin(item: &Value) -> Value {
    let mut item = item.clone();
    for (field, empty) in [("content", json!([])), ("summary", json!([])), ("arguments", json!(""))] {
        if !item[field].is_null() {
            item[field] = empty;
        }
    }
    item
}

fn items(step: &Step, number: usize) -> Vec<Value> {
    let mut items = Vec::new();
    if !step.thinking.is_empty() {
        items.push(json!({
            "id": format!("rs_{number}"), "type": "reasoning",
            "summary": [{"type": "summary_text", "text": step.thinking}],
            "encrypted_content": format!("ZW5jcnlwdGVk{number}"),
        }));
    }
    if !step.text.is_empty() || step.calls.is_empty() {
        items.push(json!({
            "id": format!("msg_{number}"), "type": "message", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": step.text, "annotations": []}],
        }));
    }
    for (index, (id, name, arguments)) in step.numbered_calls(number, "call").enumerate() {
        items.push(json!({
            "id": format!("fc_{number}_{index}"), "type": "function_call", "status": "completed",
            "call_id": id, "name": name, "arguments": arguments,
        }));
    }
    items
}

fn status(step: &Step) -> &'static str {
    if matches!(step.finish_reason(), "length" | "content_filter") { "incomplete" } else { "completed" }
}

fn response(step: &Step, number: usize, status: &str, output: Vec<Value>) -> Value {
    let reason = match step.finish_reason() {
        "length" => "max_output_tokens",
        other => other,
    };
    let [input, tokens, read, written] = step.tokens();
    let prompt = input + read + written;
    let usage = json!({
        "input_tokens": prompt, "output_tokens": tokens, "total_tokens": prompt + tokens,
        "input_tokens_details": {"cached_tokens": read},
    });
    json!({
        "id": format!("resp_{number}"), "object": "response", "status": status, "error": null,
        "incomplete_details": (status == "incomplete").then(|| json!({"reason": reason})),
        "model": "scripted-model", "output": output,
        "usage": (status != "in_progress" && !step.omit_usage).then_some(usage),
    })
}
