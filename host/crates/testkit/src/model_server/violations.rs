use std::collections::HashSet;

use serde_json::Value;

use super::{Request, Wire};

/// What a real server would refuse in a request.
pub(crate) fn of(request: &Request) -> Vec<String> {
    let Ok(body) = serde_json::from_slice::<Value>(&request.raw) else {
        return vec!["the body is not JSON".to_owned()];
    };
    let mut found = Found::default();
    found.check(text(&body["model"]).is_some(), || "no model".to_owned());
    match request.wire() {
        Some(Wire::Chat) => chat(&body, &mut found),
        Some(Wire::Messages) => messages(&body, request, &mut found),
        Some(Wire::Responses) => responses(&body, &mut found),
        None => {}
    }
    found.list
}

#[derive(Default)]
struct Found {
    list: Vec<String>,
    /// Calls that wait for their result.
    open: Vec<String>,
    seen: HashSet<String>,
}

impl Found {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.list.push(what());
        }
    }

    fn call(&mut self, id: &Value, place: &str) {
        let id = text(id).unwrap_or_default();
        self.check(!id.is_empty(), || format!("{place}: a call without an id"));
        let is_new = self.seen.insert(id.to_owned());
        self.check(is_new, || format!("{place}: the id {id} is there twice"));
        self.open.push(id.to_owned());
    }

    fn result(&mut self, id: &Value, place: &str) {
        let id = text(id).unwrap_or_default();
        match self.open.iter().position(|open| open == id) {
            Some(position) => drop(self.open.remove(position)),
            None => self.list.push(format!("{place}: a result for {id}, which was not called or has one")),
        }
    }

    fn all_answered(&mut self, place: &str) {
        let open = std::mem::take(&mut self.open);
        self.check(open.is_empty(), || format!("{place}: calls without a result: {open:?}"));
    }

    fn arguments(&mut self, arguments: &Value, place: &str) {
        let object = text(arguments).and_then(|text| serde_json::from_str::<Value>(text).ok());
        self.check(object.is_some_and(|value| value.is_object()), || {
            format!("{place}: arguments are no JSON object")
        });
    }

    fn tools(&mut self, names: impl Iterator<Item = Value>) {
        let mut seen = HashSet::new();
        for name in names {
            let name = text(&name).unwrap_or_default().to_owned();
            self.check(!name.is_empty(), || "a tool without a name".to_owned());
            self.check(seen.insert(name.clone()), || format!("the tool {name} is there twice"));
        }
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn chat(body: &Value, found: &mut Found) {
    found.tools(list(&body["tools"]).iter().map(|tool| tool["function"]["name"].clone()));
    found.check(!list(&body["messages"]).is_empty(), || "no messages".to_owned());
    found.check(body["stream_options"].is_null() || body["stream"] == true, || {
        "stream_options without stream".to_owned()
    });
    found.check(body["tool_choice"].is_null() || !body["tools"].is_null(), || {
        "tool_choice without tools".to_owned()
    });
    for (number, message) in list(&body["messages"]).iter().enumerate() {
        let place = format!("messages[{number}]");
        let role = message["role"].as_str().unwrap_or_default();
        if role == "tool" {
            found.result(&message["tool_call_id"], &place);
            found.check(message["content"].is_string(), || format!("{place}: no content"));
            continue;
        }
        found.all_answered(&place);
        match role {
            "assistant" => {
                let calls = list(&message["tool_calls"]);
                for call in calls {
                    found.call(&call["id"], &place);
                    found.arguments(&call["function"]["arguments"], &place);
                }
                let says = text(&message["content"]).is_some();
                found.check(says || !calls.is_empty(), || format!("{place}: it says nothing"));
            }
            "system" | "developer" | "user" => {
                let blocks = list(&message["content"]).iter().all(|block| text(&block["text"]).is_some());
                found.check(!message["content"].is_null() && blocks, || format!("{place}: no content"));
            }
            other => found.list.push(format!("{place}: the role `{other}`")),
        }
    }
    found.all_answered("the end");
}

fn messages(body: &Value, request: &Request, found: &mut Found) {
    found.tools(list(&body["tools"]).iter().map(|tool| tool["name"].clone()));
    found.check(request.header("anthropic-version").is_some(), || "no anthropic-version".to_owned());
    found.check(request.header("x-api-key").or(request.header("authorization")).is_some(), || {
        "no key".to_owned()
    });
    let max_tokens = body["max_tokens"].as_u64().unwrap_or_default();
    found.check(max_tokens > 0, || "no max_tokens".to_owned());
    let thinking = &body["thinking"];
    if thinking["type"] == "enabled" {
        let budget = thinking["budget_tokens"].as_u64().unwrap_or_default();
        found.check((1024..max_tokens).contains(&budget), || {
            format!("budget_tokens {budget} of {max_tokens}")
        });
    }
    let mut marks = count_marks(list(&body["system"])) + count_marks(list(&body["tools"]));
    let mut before = "assistant";
    for (number, message) in list(&body["messages"]).iter().enumerate() {
        let place = format!("messages[{number}]");
        let role = message["role"].as_str().unwrap_or_default();
        found.check(role != before, || format!("{place}: two messages of `{role}` in a row"));
        before = role;
        let content = list(&message["content"]);
        marks += count_marks(content);
        found.check(!content.is_empty() || text(&message["content"]).is_some(), || {
            format!("{place}: no content")
        });
        blocks(role, content, &place, found);
        if role == "user" {
            found.all_answered(&place);
        }
    }
    found.check(before == "user", || "the last message is not the user's".to_owned());
    found.check(marks <= 4, || format!("{marks} cache marks"));
}

fn blocks(role: &str, content: &[Value], place: &str, found: &mut Found) {
    let mut texts = 0;
    for block in content {
        match (role, block["type"].as_str().unwrap_or_default()) {
            (_, "text") => {
                texts += 1;
                let says = text(&block["text"]).is_some_and(|text| !text.trim().is_empty());
                found.check(says, || format!("{place}: an empty text"));
            }
            ("assistant", "tool_use") => {
                found.call(&block["id"], place);
                found.check(block["input"].is_object(), || format!("{place}: input is no object"));
            }
            ("assistant", "thinking") => {
                found.check(text(&block["signature"]).is_some(), || {
                    format!("{place}: thinking without signature")
                });
            }
            ("assistant", "redacted_thinking") => {}
            ("user", "tool_result") => {
                found.result(&block["tool_use_id"], place);
                found.check(texts == 0, || format!("{place}: a tool result behind text"));
            }
            (role, kind) => found.list.push(format!("{place}: `{kind}` from `{role}`")),
        }
    }
}

fn count_marks(blocks: &[Value]) -> usize {
    blocks.iter().filter(|block| !block["cache_control"].is_null()).count()
}

fn responses(body: &Value, found: &mut Found) {
    found.tools(list(&body["tools"]).iter().map(|tool| tool["name"].clone()));
    found.check(body["store"] == false, || "the answer would be stored".to_owned());
    found.check(!body["input"].is_null(), || "no input".to_owned());
    for (number, item) in list(&body["input"]).iter().enumerate() {
        let place = format!("input[{number}]");
        match item["type"].as_str().unwrap_or("message") {
            "function_call" => {
                found.call(&item["call_id"], &place);
                found.arguments(&item["arguments"], &place);
            }
            "function_call_output" => {
                found.result(&item["call_id"], &place);
                found.check(item["output"].is_string(), || format!("{place}: no output"));
            }
            "reasoning" => {
                found.check(text(&item["id"]).is_some(), || format!("{place}: reasoning without an id"));
            }
            "message" => {
                let kind = if item["role"] == "assistant" { "output_text" } else { "input_text" };
                let fits = list(&item["content"]).iter().all(|part| part["type"] == kind);
                found.check(fits && !list(&item["content"]).is_empty(), || {
                    format!("{place}: content of another kind")
                });
            }
            other => found.list.push(format!("{place}: `{other}`")),
        }
    }
    found.all_answered("the end");
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn of_body(path: &str, body: &Value) -> Vec<String> {
        of(&Request {
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: BTreeMap::from([
                ("anthropic-version".to_owned(), "x".to_owned()),
                ("x-api-key".to_owned(), "x".to_owned()),
            ]),
            raw: body.to_string().into(),
        })
    }

    #[test]
    fn a_chat_has_to_answer_its_calls() {
        let call = json!({"id": "a", "function": {"name": "f", "arguments": "{}"}});
        let chat =
            |messages: Value| of_body("/v1/chat/completions", &json!({"model": "m", "messages": messages}));
        let user = json!({"role": "user", "content": "x"});
        let asked = json!({"role": "assistant", "tool_calls": [call]});
        let answered = json!({"role": "tool", "tool_call_id": "a", "content": ""});
        assert_eq!(chat(json!([user, asked, answered])), [""; 0]);
        assert_eq!(chat(json!([user, asked])), [r#"the end: calls without a result: ["a"]"#]);
        assert_eq!(chat(json!([user, asked, user, answered])).len(), 2);
        assert_eq!(chat(json!([user, answered])).len(), 1);
        assert_eq!(chat(json!([{"role": "assistant", "content": ""}])), ["messages[0]: it says nothing"]);
        assert_eq!(chat(json!([])), ["no messages"]);
    }

    #[test]
    fn messages_have_their_own_rules() {
        let with = |extra: Value, messages: Value| {
            let mut body = json!({"model": "m", "max_tokens": 2000, "messages": messages});
            for (key, value) in extra.as_object().into_iter().flatten() {
                body[key] = value.clone();
            }
            of_body("/v1/messages", &body)
        };
        let user = |content: Value| json!({"role": "user", "content": content});
        let text = json!({"type": "text", "text": "x"});
        let asked = json!({"role": "assistant", "content": [
            {"type": "tool_use", "id": "a", "name": "f", "input": {}}, {"type": "tool_use", "id": "b", "name": "f", "input": {}},
        ]});
        let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id});
        let none = || json!({});
        assert_eq!(
            with(none(), json!([user(json!([text])), asked, user(json!([result("a"), result("b"), text]))])),
            [""; 0]
        );
        assert_eq!(with(none(), json!([user(json!([text])), asked, user(json!([result("a")]))])).len(), 1);
        assert_eq!(
            with(none(), json!([user(json!([text])), asked, user(json!([text, result("a"), result("b")]))]))
                .len(),
            2
        );
        assert_eq!(with(none(), json!([user(json!([{"type": "text", "text": " "}]))])).len(), 1);
        assert_eq!(with(json!({"max_tokens": null}), json!([user(json!([text]))])), ["no max_tokens"]);
        let thinking = json!({"thinking": {"type": "enabled", "budget_tokens": 2000}});
        assert_eq!(with(thinking, json!([user(json!([text]))])), ["budget_tokens 2000 of 2000"]);
        let marked = json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}});
        assert_eq!(
            with(none(), json!([user(json!([marked, marked, marked, marked, marked]))])),
            ["5 cache marks"]
        );
    }

    #[test]
    fn responses_pair_calls_and_store_nothing() {
        let of_input = |store: bool, input: Value| {
            of_body("/v1/responses", &json!({"model": "m", "store": store, "input": input}))
        };
        let call = json!({"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"});
        let output = json!({"type": "function_call_output", "call_id": "a", "output": ""});
        assert_eq!(of_input(false, json!([call, output])), [""; 0]);
        assert_eq!(of_input(false, json!([output, call])).len(), 2);
        assert_eq!(of_input(true, json!([])), ["the answer would be stored"]);
    }
}
