use protocol::Item;
use serde_json::{Value, json};

use crate::testing::{body, bytes, calls, model, result, tool, user, with_reasoning};
use crate::{CompletionOptions, Effort, Model, Prompt};

fn claude() -> Model {
    model("anthropic/claude-opus-4.8")
}

fn request(model: &Model, prompt: &Prompt) -> Value {
    body(model, prompt, &CompletionOptions::default())
}

fn mark() -> Value {
    json!({"type": "ephemeral"})
}

#[test]
fn a_request_has_its_marks_and_its_limit() {
    let model = claude();
    let mut prompt = model.prompt("be brief", &[tool("read"), tool("bash")]);
    prompt.push(&user("hello"));
    let parameters: Value = serde_json::from_str(tool("x").parameters.get()).unwrap();
    assert_eq!(
        request(&model, &prompt),
        json!({
            "model": "claude-opus-4-8",
            "system": [{"type": "text", "text": "be brief", "cache_control": mark()}],
            "tools": [
                {"name": "read", "description": "does read", "input_schema": parameters},
                {"name": "bash", "description": "does bash", "input_schema": parameters, "cache_control": mark()},
            ],
            "max_tokens": 64_000,
            "tool_choice": {"type": "auto"},
            "stream": true,
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "hello", "cache_control": mark()}]},
            ],
        })
    );
}

#[test]
fn results_and_words_behind_them_are_one_message_and_marks_move_on() {
    let model = claude();
    let mut prompt = model.prompt("", &[]);
    prompt.push(&user("look"));
    let thoughts = json!([{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "redacted_thinking", "data": "d"}]);
    prompt.push(&with_reasoning(calls(Some("I look"), &["a", "b:1"]), &model, thoughts));
    prompt.push(&result("a", "one", true));
    prompt.push(&result("b:1", "", false));
    prompt.push(&user("go on"));
    let messages = request(&model, &prompt)["messages"].clone();
    let odd_id = messages[1]["content"][4]["id"].clone();
    assert!(odd_id.as_str().unwrap().starts_with("call_"));
    assert_eq!(
        messages,
        json!([
            {"role": "user", "content": [{"type": "text", "text": "look", "cache_control": mark()}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "d"},
                {"type": "text", "text": "I look"},
                {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "ls"}},
                {"type": "tool_use", "id": odd_id, "name": "bash", "input": {"command": "ls"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "a", "content": "one"},
                {"type": "tool_result", "tool_use_id": odd_id, "is_error": true},
                {"type": "text", "text": "go on", "cache_control": mark()},
            ]},
        ])
    );
    prompt.push(&Item::Assistant(calls(Some("done"), &[])));
    prompt.push(&user("more"));
    let written = request(&model, &prompt)["messages"].to_string();
    assert_eq!(written.matches("cache_control").count(), 2);
    assert!(!written.contains(r#""text":"look","cache_control""#));
    assert!(written.contains(r#""text":"go on","cache_control""#));
}

#[test]
fn there_are_never_more_than_four_marks() {
    let model = claude();
    let mut prompt = model.prompt("s", &[tool("bash")]);
    for number in 0..30 {
        prompt.push(&user("look"));
        prompt.push(&Item::Assistant(calls(None, &[&format!("c{number}")])));
        prompt.push(&result(&format!("c{number}"), "one", true));
        let marks = request(&model, &prompt).to_string().matches("cache_control").count();
        assert!(marks <= 4, "{marks}");
    }
}

#[test]
fn what_the_wire_refuses_does_not_get_there() {
    let model = claude();
    let mut prompt = model.prompt(" ", &[]);
    prompt.push(&Item::Assistant(calls(Some("a summary"), &[])));
    prompt.push(&Item::Assistant(calls(Some(" \n"), &[])));
    prompt.push(&user(" "));
    let request = request(&model, &prompt);
    assert!(request["system"].is_null());
    let messages = request["messages"].as_array().unwrap();
    let roles: Vec<_> = messages.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user"]);
    assert_eq!(messages[2]["content"][0]["text"], json!("(no text)"));
}

#[test]
fn models_are_told_to_think_in_the_way_they_know() {
    let asked = |id: &str, effort: Option<Effort>, max_output_tokens: Option<u32>| {
        let model = model(id);
        let options = CompletionOptions { effort, max_output_tokens, ..CompletionOptions::default() };
        let request = body(&model, &model.prompt("", &[]), &options);
        (
            request["thinking"].clone(),
            request["output_config"].clone(),
            request["max_tokens"].as_u64().unwrap(),
        )
    };
    let adaptive = json!({"type": "adaptive"});
    for (id, effort, sent) in [
        ("anthropic/claude-opus-4-8", Effort::Max, "max"),
        ("anthropic/claude-opus-4-6", Effort::Xhigh, "high"),
        ("anthropic/claude-sonnet-4-6", Effort::Minimal, "low"),
        ("anthropic/claude-of-tomorrow", Effort::Max, "high"),
    ] {
        let (thinking, config, _) = asked(id, Some(effort), None);
        assert_eq!((thinking, config), (adaptive.clone(), json!({"effort": sent})), "{id}");
    }
    let haiku = "anthropic/claude-haiku-4-5-20251001";
    let budget = |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens});
    assert_eq!(asked(haiku, Some(Effort::High), None), (budget(24_576), Value::Null, 64_000));
    assert_eq!(asked(haiku, Some(Effort::High), Some(3_000)), (budget(1_500), Value::Null, 3_000));
    assert_eq!(asked(haiku, Some(Effort::High), Some(2_000)), (Value::Null, Value::Null, 2_000));
    assert_eq!(asked(haiku, None, None), (Value::Null, Value::Null, 64_000));
}

#[test]
fn a_budget_is_not_asked_for_in_a_turn_that_began_without_thinking() {
    let model = model("anthropic/claude-haiku-4-5");
    let options = CompletionOptions { effort: Some(Effort::Low), ..CompletionOptions::default() };
    let thinks = |prompt: &Prompt| !body(&model, prompt, &options)["thinking"].is_null();
    let mut prompt = model.prompt("", &[]);
    prompt.push(&user("look"));
    prompt.push(&Item::Assistant(calls(None, &["a"])));
    prompt.push(&result("a", "one", true));
    assert!(!thinks(&prompt));
    prompt.push(&Item::Assistant(calls(Some("done"), &[])));
    prompt.push(&user("next"));
    assert!(thinks(&prompt));
}

#[test]
fn the_part_in_front_of_the_marks_stays_the_same_bytes() {
    let model = claude();
    let mut prompt = model.prompt("be brief", &[tool("bash")]);
    let without_marks = |prompt: &Prompt| {
        let bytes = bytes(&model, prompt, &CompletionOptions::default());
        String::from_utf8(bytes).unwrap().replace(r#","cache_control":{"type":"ephemeral"}"#, "")
    };
    prompt.push(&user("hello"));
    for number in 0..20 {
        let before = without_marks(&prompt);
        prompt.push(&Item::Assistant(calls(None, &[&format!("c{number}")])));
        prompt.push(&result(&format!("c{number}"), "done", true));
        // Behind the last block its brace, and the ends of list, message, list and request.
        assert!(without_marks(&prompt).starts_with(&before[..before.len() - 5]));
    }
    let pieces = prompt.body(&model.target, &CompletionOptions::default());
    assert!(pieces.len() < 32, "{}", pieces.len());
}
