use serde_json::{Value, json};

use crate::testing::{body, bytes, call, calls, model, result, tool, user, with_reasoning};
use crate::{CompletionOptions, Effort, Prompt};
use protocol::Item;

fn mark() -> Value {
    json!({"type": "ephemeral"})
}

fn marked(text: &str) -> Value {
    json!([{"type": "text", "text": text, "cache_control": mark()}])
}

#[test]
fn a_request_of_the_router_has_every_field_in_its_place() {
    let model = model("huggingface/openai/gpt-oss-120b:groq");
    let mut prompt = model.prompt("be brief", &[tool("bash")]);
    prompt.push(&user("hello"));
    let reasoning = json!({"reasoning_content": "hm"});
    prompt.push(&with_reasoning(calls(None, &["a", "b"]), &model, reasoning));
    prompt.push(&result("a", "one", true));
    prompt.push(&result("b", "", false));
    let options = CompletionOptions { effort: Some(Effort::Max), ..CompletionOptions::default() };
    let function = json!({"name": "bash", "arguments": "{\"command\":\"ls\"}"});
    assert_eq!(
        body(&model, &prompt, &options),
        json!({
            "model": "openai/gpt-oss-120b:groq",
            "tools": [{"type": "function", "function": {
                "name": "bash", "description": "does bash",
                "parameters": {"type": "object", "properties": {"count": {"type": "integer"}, "text": {"type": "string"}}},
            }}],
            "tool_choice": "auto",
            "reasoning_effort": "high",
            "stream": true,
            "stream_options": {"include_usage": true},
            "messages": [
                {"role": "system", "content": "be brief"},
                {"role": "user", "content": "hello"},
                {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                    {"id": "a", "type": "function", "function": function},
                    {"id": "b", "type": "function", "function": function},
                ]},
                {"role": "tool", "tool_call_id": "a", "content": "one"},
                {"role": "tool", "tool_call_id": "b", "content": ""},
            ],
        })
    );
}

#[test]
fn options_change_only_what_they_are_about() {
    let model = model("a/b");
    let prompt = model.prompt("", &[tool("bash")]);
    let options = CompletionOptions { stream: false, effort: None, max_output_tokens: Some(7), tools: false };
    let request = body(&model, &prompt, &options);
    assert_eq!(request["stream"], json!(false));
    assert_eq!(request["tool_choice"], json!("none"));
    assert_eq!(request["max_completion_tokens"], json!(7));
    assert_eq!(request["messages"], json!([]));
    assert!(request["tools"].is_array() && request["reasoning_effort"].is_null());
    let request = body(&model, &model.prompt("", &[]), &CompletionOptions::default());
    assert!(request["tools"].is_null() && request["tool_choice"].is_null());
}

#[test]
fn local_servers_are_told_no_effort_and_the_older_limit() {
    let model = model("ollama/qwen3:8b");
    let options = CompletionOptions {
        effort: Some(Effort::High),
        max_output_tokens: Some(9),
        ..CompletionOptions::default()
    };
    let request = body(&model, &model.prompt("", &[]), &options);
    assert_eq!(request["model"], json!("qwen3:8b"));
    assert!(request["reasoning_effort"].is_null() && request["max_completion_tokens"].is_null());
    assert_eq!(request["max_tokens"], json!(9));
}

#[test]
fn what_says_nothing_is_left_out_and_broken_arguments_are_mended() {
    let model = model("a/b");
    let mut prompt = model.prompt("", &[]);
    prompt.push(&user("hi"));
    prompt.push(&Item::Assistant(calls(Some(""), &[])));
    let mut broken = call("x");
    broken.arguments = "{\"command\":".to_owned();
    let mut assistant = calls(Some(""), &[]);
    assistant.tool_calls.push(broken);
    prompt.push(&Item::Assistant(assistant));
    let messages = body(&model, &prompt, &CompletionOptions::default())["messages"].clone();
    assert_eq!(messages.as_array().unwrap().len(), 2);
    assert_eq!(messages[1]["tool_calls"][0]["function"]["arguments"], json!("{}"));
    assert_eq!(messages[1]["content"], Value::Null);
}

#[test]
fn reasoning_of_another_model_or_wire_does_not_go_back() {
    let (model, other) = (model("a/b"), model("a/c"));
    let mut prompt = model.prompt("", &[]);
    prompt.push(&with_reasoning(calls(None, &["a"]), &other, json!({"reasoning": "hm"})));
    prompt.push(&with_reasoning(calls(None, &["b"]), &model, json!({"reasoning": "aha"})));
    let messages = body(&model, &prompt, &CompletionOptions::default())["messages"].clone();
    assert!(messages[0]["reasoning"].is_null());
    assert_eq!(messages[1]["reasoning"], json!("aha"));
}

fn messages(prompt: &Prompt) -> Vec<Value> {
    let model = model("anthropic/claude-opus-4.8:fal-ai");
    body(&model, prompt, &CompletionOptions::default())["messages"].as_array().unwrap().clone()
}

#[test]
fn a_claude_behind_fal_gets_a_mark_on_the_last_words_before_the_newest_message() {
    let model = model("anthropic/claude-opus-4.8:fal-ai");
    let mut prompt = model.prompt("be brief", &[tool("read"), tool("bash")]);
    let request = body(&model, &prompt, &CompletionOptions::default());
    assert_eq!(request["cache_control"], mark());
    assert_eq!(request["tools"][1]["cache_control"], mark());
    assert!(request["tools"][0]["cache_control"].is_null());
    // A single message gets no mark.
    assert_eq!(messages(&prompt)[0]["content"], json!("be brief"));

    prompt.push(&user("one"));
    assert_eq!(messages(&prompt)[0]["content"], marked("be brief"));
    assert_eq!(messages(&prompt)[1]["content"], json!("one"));

    prompt.push(&Item::Assistant(calls(Some("I look"), &["a"])));
    prompt.push(&result("a", "found", true));
    assert_eq!(messages(&prompt)[0]["content"], json!("be brief"));
    assert_eq!(messages(&prompt)[1]["content"], marked("one"));
    assert_eq!(messages(&prompt)[3]["content"], json!("found"));

    prompt.push(&user("two"));
    assert_eq!(messages(&prompt)[1]["content"], marked("one"));
    assert_eq!(messages(&prompt)[4]["content"], json!("two"));

    prompt.push(&user(""));
    assert_eq!(messages(&prompt)[1]["content"], json!("one"));
    assert_eq!(messages(&prompt)[4]["content"], marked("two"));
    assert_eq!(messages(&prompt)[5]["content"], json!(""));
}

#[test]
fn gpt_behind_fal_gets_a_cache_key_and_others_get_nothing() {
    let request = |id: &str| {
        let model = model(id);
        let mut prompt = model.prompt("s", &[tool("bash")]);
        prompt.push(&user("one"));
        prompt.push(&user("two"));
        body(&model, &prompt, &CompletionOptions::default())
    };
    let gpt = request("openai/gpt-5.5:fal-ai");
    assert_eq!(gpt["prompt_cache_retention"], json!("24h"));
    assert_eq!(gpt["prompt_cache_key"], json!("session-1"));
    for id in ["openai/gpt-5.5:fal-ai", "zai-org/GLM-5.1:fal-ai", "anthropic/claude-opus-4.8:novita"] {
        assert!(!request(id).to_string().contains("cache_control"), "{id}");
    }
}

#[test]
fn a_longer_conversation_starts_with_the_same_bytes() {
    for id in ["a/b", "ollama/x"] {
        let model = model(id);
        let mut prompt = model.prompt("be brief", &[tool("bash")]);
        prompt.push(&user("hello"));
        let before = bytes(&model, &prompt, &CompletionOptions::default());
        prompt.push(&Item::Assistant(calls(None, &["a"])));
        prompt.push(&result("a", "done", true));
        let after = bytes(&model, &prompt, &CompletionOptions::default());
        assert!(after.starts_with(&before[..before.len() - 2]), "{id}");
        assert_eq!(after, bytes(&model, &prompt.clone(), &CompletionOptions::default()));
    }
}

#[test]
fn a_long_conversation_goes_out_in_few_pieces() {
    let model = model("anthropic/claude-opus-4.8:fal-ai");
    let mut prompt = model.prompt("be brief", &[tool("bash")]);
    prompt.push(&user("hello"));
    for number in 0..400 {
        let id = format!("call_{number}");
        prompt.push(&Item::Assistant(calls(None, &[&id])));
        prompt.push(&result(&id, &"x".repeat(number * 7), true));
    }
    let pieces = prompt.body(&model.target, &CompletionOptions::default());
    assert!(pieces.len() < 32, "{}", pieces.len());
    assert!(prompt.estimated_tokens() > 100_000);
    let sent: usize = pieces.iter().map(bytes::Bytes::len).sum();
    assert!(sent.abs_diff(prompt.body_bytes()) < 400, "{sent} {}", prompt.body_bytes());
}
