use bytes::Bytes;
use protocol::{Assistant, Item, ToolSpec};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalog::Thinking;
use crate::completion::CompletionOptions;
use crate::effort::{self, Effort};
use crate::encode::{arguments_text, json, more_fields, open_json, portable_id, tool_choice};
use crate::layout::{Part, parts};
use crate::pieces::Pieces;
use crate::target::{Route, Target};

/// Fewest output tokens that the wire takes.
const MIN_OUTPUT: u32 = 16;

/// Longest cache key that the wire takes, in characters.
const CACHE_KEY_CHARS: usize = 64;

/// The items so far.
#[derive(Clone)]
pub(crate) struct ResponsesPrompt {
    head: Bytes,
    has_tools: bool,
    items: Pieces,
}

#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    store: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    include: Option<[&'static str; 1]>,
    #[serde(skip_serializing_if = "str::is_empty")]
    instructions: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
    strict: bool,
}

#[derive(Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning: Option<Reasoning>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_output_tokens: Option<u32>,
    stream: bool,
}

#[derive(Serialize)]
struct Reasoning {
    effort: Effort,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum InputItem<'a> {
    Message {
        role: &'static str,
        #[serde(skip_serializing_if = "Option::is_none")]
        phase: Option<&'a str>,
        content: [Content<'a>; 1],
    },
    FunctionCall {
        call_id: String,
        name: &'a str,
        arguments: &'a str,
    },
    FunctionCallOutput {
        call_id: String,
        output: &'a str,
    },
    #[serde(untagged)]
    Record(&'a Value),
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Content<'a> {
    InputText { text: &'a str },
    OutputText { text: &'a str },
}

impl ResponsesPrompt {
    pub(crate) fn new(target: &Target, system: &str, tools: &[ToolSpec]) -> Self {
        let vendor = target.route == Route::OpenAi;
        let key: String = target.session_id.chars().take(CACHE_KEY_CHARS).collect();
        let reasons = target.facts.thinking == Some(Thinking::Effort);
        let head = Head {
            model: &target.wire_name,
            store: false,
            prompt_cache_key: Some(key).filter(|key| vendor && !key.is_empty()),
            include: reasons.then_some(["reasoning.encrypted_content"]),
            instructions: system,
            tools: tools.iter().map(Tool::new).collect(),
        };
        Self { head: open_json(&head).into(), has_tools: !tools.is_empty(), items: Pieces::default() }
    }

    pub(crate) fn push(&mut self, item: &Item, own_reasoning: Option<&Value>) {
        match item {
            Item::User { content, .. } => self.add(&InputItem::Message {
                role: "user",
                phase: None,
                content: [Content::InputText { text: content }],
            }),
            Item::Tool { tool_call_id, content, .. } => self.add(&InputItem::FunctionCallOutput {
                call_id: portable_id(tool_call_id.as_str()),
                output: content,
            }),
            Item::Assistant(assistant) => self.add_assistant(assistant, own_reasoning),
        }
    }

    fn add_assistant(&mut self, assistant: &Assistant, own_reasoning: Option<&Value>) {
        let records = own_reasoning.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        for item in parts(assistant, records).iter().filter_map(InputItem::of) {
            self.add(&item);
        }
    }

    fn add(&mut self, item: &InputItem<'_>) {
        let mut written = if self.items.is_empty() { Vec::new() } else { vec![b','] };
        written.extend(json(item));
        self.items.push(written);
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.items.len()
    }

    pub(crate) fn body(&self, target: &Target, options: &CompletionOptions) -> Vec<Bytes> {
        let mut fields = more_fields(&Options {
            tool_choice: tool_choice(self.has_tools, options),
            reasoning: options
                .effort
                .and_then(|effort| effort.fit(efforts(target)))
                .map(|effort| Reasoning { effort }),
            max_output_tokens: options.max_output_tokens.map(|tokens| tokens.max(MIN_OUTPUT)),
            stream: options.stream,
        });
        fields.extend_from_slice(br#","input":["#);
        let mut body = vec![self.head.clone(), fields.into()];
        self.items.copy_to(&mut body);
        body.push(Bytes::from_static(b"]}"));
        body
    }
}

/// The efforts that can be sent.
pub(crate) fn efforts(target: &Target) -> &[Effort] {
    match (target.facts.thinking, &target.route) {
        (Some(Thinking::Effort), _) => &target.facts.efforts,
        // Somebody else's model: it is told what it is asked to be told.
        (None, Route::Custom { .. }) if target.facts.output.is_none() => effort::COMMON,
        _ => &[],
    }
}

impl<'a> Tool<'a> {
    fn new(spec: &'a ToolSpec) -> Self {
        let ToolSpec { name, description, parameters } = spec;
        // Not strict: schemas are the tools' own and need not be of the subset that strictness wants.
        Self { r#type: "function", name, description, parameters, strict: false }
    }
}

impl<'a> InputItem<'a> {
    fn of(part: &Part<'a>) -> Option<Self> {
        match part {
            Part::Record(record) => Some(Self::Record(record)),
            Part::Text { text: "", .. } => None,
            Part::Text { text, phase } => Some(Self::Message {
                role: "assistant",
                phase: *phase,
                content: [Content::OutputText { text }],
            }),
            Part::Call(call) => Some(Self::FunctionCall {
                call_id: portable_id(call.id.as_str()),
                name: &call.name,
                arguments: arguments_text(call),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::Item;
    use serde_json::{Value, json};

    use crate::testing::{body, calls, model, result, tool, user, with_reasoning};
    use crate::{CompletionOptions, Effort};

    #[test]
    fn a_request_stores_nothing_and_carries_everything() {
        let model = model("openai/gpt-5.5");
        let mut prompt = model.prompt("be brief", &[tool("bash")]);
        prompt.push(&user("look"));
        let thought = json!({"id": "rs_1", "type": "reasoning", "summary": [], "encrypted_content": "e"});
        prompt.push(&with_reasoning(calls(Some("I look"), &["a"]), &model, json!([thought])));
        prompt.push(&result("a", "", true));
        prompt.push(&Item::Assistant(calls(Some("done"), &[])));
        let options = CompletionOptions {
            effort: Some(Effort::Max),
            max_output_tokens: Some(1),
            ..CompletionOptions::default()
        };
        let parameters: Value = serde_json::from_str(tool("x").parameters.get()).unwrap();
        assert_eq!(
            body(&model, &prompt, &options),
            json!({
                "model": "gpt-5.5",
                "store": false,
                "prompt_cache_key": "session-1",
                "include": ["reasoning.encrypted_content"],
                "instructions": "be brief",
                "tools": [{"type": "function", "name": "bash", "description": "does bash", "parameters": parameters, "strict": false}],
                "tool_choice": "auto",
                "reasoning": {"effort": "xhigh"},
                "max_output_tokens": 16,
                "stream": true,
                "input": [
                    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}]},
                    thought,
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I look"}]},
                    {"type": "function_call", "call_id": "a", "name": "bash", "arguments": "{\"command\":\"ls\"}"},
                    {"type": "function_call_output", "call_id": "a", "output": ""},
                    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]},
                ],
            })
        );
    }

    #[test]
    fn only_models_that_reason_are_spoken_to_of_it() {
        let request = |id: &str| {
            let model = model(id);
            let options = CompletionOptions { effort: Some(Effort::Minimal), ..CompletionOptions::default() };
            body(&model, &model.prompt("", &[]), &options)
        };
        let plain = request("openai/gpt-4.1");
        assert!(plain["include"].is_null() && plain["reasoning"].is_null());
        assert_eq!(request("openai/gpt-5")["reasoning"], json!({"effort": "minimal"}));
        assert_eq!(request("openai/gpt-of-tomorrow")["reasoning"], json!({"effort": "low"}));
    }

    #[test]
    fn the_phase_of_a_text_goes_back_with_it() {
        let model = model("openai/gpt-5.5");
        let mut prompt = model.prompt("", &[]);
        let layout =
            json!([{"type": "layout_text", "bytes": 6, "phase": "commentary"}, {"type": "layout_call"}]);
        prompt.push(&with_reasoning(calls(Some("I look"), &["a"]), &model, layout));
        let input = body(&model, &prompt, &CompletionOptions::default())["input"].clone();
        assert_eq!(input[0]["phase"], json!("commentary"));
        assert_eq!(input[1]["type"], json!("function_call"));
    }
}
