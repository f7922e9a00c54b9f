use serde_json::{Map, Value, json};

use super::Step;
use super::http::{Event, Kind};
use super::step::chunks;

/// The answer as a whole.
pub(crate) fn whole(step: &Step, number: usize) -> Value {
    let mut message = Map::from_iter([("role".to_owned(), json!("assistant"))]);
    let text = (!step.text.is_empty() || step.calls.is_empty()).then_some(&step.text);
    message.insert("content".to_owned(), json!(text));
    if !step.thinking.is_empty() {
        message.insert("reasoning_content".to_owned(), json!(step.thinking));
    }
    let calls: Vec<Value> = step
        .numbered_calls(number, "call")
        .map(|(id, name, arguments)| {
            with_id(&id, json!({"type": "function", "function": {"name": name, "arguments": arguments}}))
        })
        .collect();
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), json!(calls));
    }
    let mut answer = json!({
        "id": format!("chatcmpl-{number}"),
        "object": "chat.completion",
        "model": "scripted-model",
        "choices": [{"index": 0, "message": message, "finish_reason": step.finish_reason()}],
    });
    if !step.omit_usage {
        answer["usage"] = usage(step);
    }
    answer
}

/// The answer in pieces.
pub(crate) fn events(step: &Step, number: usize) -> Vec<Event> {
    let chunk = |delta: Value, finish: Option<&str>| {
        let choices = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        data(
            &json!({"id": format!("chatcmpl-{number}"), "object": "chat.completion.chunk", "choices": choices}),
        )
    };
    let mut events = vec![(Kind::Frame, chunk(json!({"role": "assistant", "content": ""}), None))];
    let mut piece = |delta: Value| events.push((Kind::Piece, chunk(delta, None)));
    for part in chunks(&step.thinking, step) {
        piece(json!({"reasoning_content": part}));
    }
    for part in chunks(&step.text, step) {
        piece(json!({"content": part}));
    }
    for (index, (id, name, arguments)) in step.numbered_calls(number, "call").enumerate() {
        let function = json!({"name": name, "arguments": ""});
        let start = with_id(&id, json!({"index": index, "type": "function", "function": function}));
        piece(json!({"tool_calls": [start]}));
        for part in chunks(&arguments, step) {
            piece(json!({"tool_calls": [{"index": index, "function": {"arguments": part}}]}));
        }
    }
    if !step.omit_done {
        events.push((Kind::Frame, chunk(json!({}), Some(step.finish_reason()))));
    }
    if !step.omit_usage {
        events.push((Kind::Frame, data(&json!({"choices": [], "usage": usage(step)}))));
    }
    if !step.omit_done {
        events.push((Kind::Frame, "data: [DONE]\n\n".to_owned()));
    }
    events
}

fn data(value: &Value) -> String {
    format!("data: {value}\n\n")
}

/// Some servers send no id.
fn with_id(id: &str, mut call: Value) -> Value {
    if !id.is_empty() {
        call["id"] = json!(id);
    }
    call
}

fn usage(step: &Step) -> Value {
    let [input, output, read, written] = step.tokens();
    let prompt = input + read + written;
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": read, "cache_write_tokens": written},
    })
}
