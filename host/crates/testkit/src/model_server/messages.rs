use serde_json::{Value, json};

use super::Step;
use super::http::{Event, Kind};
use super::step::chunks;

/// The answer as a whole.
pub(crate) fn whole(step: &Step, number: usize) -> Value {
    let mut content = Vec::new();
    if !step.thinking.is_empty() {
        content.push(json!({"type": "thinking", "thinking": step.thinking, "signature": signature(number)}));
    }
    if !step.text.is_empty() || step.calls.is_empty() {
        content.push(json!({"type": "text", "text": step.text}));
    }
    for (id, name, arguments) in step.numbered_calls(number, "toolu") {
        let input: Value = serde_json::from_str(&arguments).unwrap_or_else(|_| json!({}));
        content.push(json!({"type": "tool_use", "id": id, "name": name, "input": input}));
    }
    let mut answer = head(number);
    answer["content"] = json!(content);
    answer["stop_reason"] = json!(stop_reason(step));
    if !step.omit_usage {
        answer["usage"] = usage(step, true);
    }
    answer
}

/// The answer in pieces.
pub(crate) fn events(step: &Step, number: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut message = head(number);
    if !step.omit_usage {
        message["usage"] = usage(step, false);
    }
    push(&mut events, Kind::Frame, json!({"type": "message_start", "message": message}));
    let mut index = 0;
    if !step.thinking.is_empty() {
        let start = json!({"type": "thinking", "thinking": "", "signature": ""});
        let deltas =
            chunks(&step.thinking, step).map(|part| json!({"type": "thinking_delta", "thinking": part}));
        let sign = json!({"type": "signature_delta", "signature": signature(number)});
        block(&mut events, &mut index, start, deltas.chain([sign]));
    }
    if !step.text.is_empty() || step.calls.is_empty() {
        let deltas = chunks(&step.text, step).map(|part| json!({"type": "text_delta", "text": part}));
        block(&mut events, &mut index, json!({"type": "text", "text": ""}), deltas);
        push(&mut events, Kind::Frame, json!({"type": "ping"}));
    }
    for (id, name, arguments) in step.numbered_calls(number, "toolu") {
        let start = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
        let deltas =
            chunks(&arguments, step).map(|part| json!({"type": "input_json_delta", "partial_json": part}));
        block(&mut events, &mut index, start, deltas);
    }
    if step.omit_done {
        return events;
    }
    let mut end =
        json!({"type": "message_delta", "delta": {"stop_reason": stop_reason(step), "stop_sequence": null}});
    if !step.omit_usage {
        end["usage"] = json!({"output_tokens": step.tokens()[1]});
    }
    push(&mut events, Kind::Frame, end);
    push(&mut events, Kind::Frame, json!({"type": "message_stop"}));
    events
}

fn block(events: &mut Vec<Event>, index: &mut usize, start: Value, deltas: impl Iterator<Item = Value>) {
    let at = *index;
    *index += 1;
    push(events, Kind::Frame, json!({"type": "content_block_start", "index": at, "content_block": start}));
    for delta in deltas {
        push(events, Kind::Piece, json!({"type": "content_block_delta", "index": at, "delta": delta}));
    }
    push(events, Kind::Frame, json!({"type": "content_block_stop", "index": at}));
}

fn push(events: &mut Vec<Event>, kind: Kind, event: Value) {
    let name = event["type"].as_str().unwrap_or_default();
    let text = format!("event: {name}\ndata: {event}\n\n");
    events.push((kind, text));
}

fn head(number: usize) -> Value {
    json!({
        "id": format!("msg_{number}"), "type": "message", "role": "assistant", "model": "scripted-model",
        "content": [], "stop_reason": null, "stop_sequence": null,
    })
}

fn signature(number: usize) -> String {
    format!("c2lnbmF0dXJl{number}")
}

fn stop_reason(step: &Step) -> &str {
    match step.finish_reason() {
        "stop" => "end_turn",
        "length" => "max_tokens",
        "tool_calls" => "tool_use",
        "content_filter" => "refusal",
        other => other,
    }
}

/// Input tokens leave the cached ones out here.
fn usage(step: &Step, is_whole: bool) -> Value {
    let [input, output, read, written] = step.tokens();
    json!({
        "input_tokens": input,
        "output_tokens": if is_whole { output } else { 1 },
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
    })
}
