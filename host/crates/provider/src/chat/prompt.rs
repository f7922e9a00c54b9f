use bytes::Bytes;
use protocol::{Assistant, Item, ToolCall, ToolSpec};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::completion::CompletionOptions;
use crate::effort::{self, Effort};
use crate::encode::{CacheControl, arguments_text, json, more_fields, open_json, tool_choice};
use crate::pieces::Pieces;
use crate::route::SESSION_ID_CHARS;
use crate::target::{Route, Target};

/// The messages so far.
///
/// Where the provider caches by marks, the text of the last `system` or `user` message before the newest
/// message is kept apart, so that the mark can be put around it without writing anything anew.
#[derive(Clone)]
pub(crate) struct ChatPrompt {
    head: Bytes,
    has_tools: bool,
    marks: bool,
    /// Up to the text that a mark goes around, or everything without marks.
    settled: Pieces,
    markable: Option<Bytes>,
    /// What follows the markable text.
    after: Pieces,
    /// The text of the newest message while it is one that may be marked once another follows.
    newest: Option<Bytes>,
    count: usize,
}

const MARK_BEFORE: &[u8] = br#"[{"type":"text","text":"#;
const MARK_AFTER: &[u8] = br#","cache_control":{"type":"ephemeral"}}]"#;

#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_retention: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_cache_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    r#type: &'static str,
    function: ToolFunction<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
struct ToolFunction<'a> {
    name: &'a str,
    description: &'a str,
    parameters: &'a RawValue,
}

#[derive(Serialize)]
struct Options {
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<Effort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<u32>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream_options: Option<StreamOptions>,
}

#[derive(Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Serialize)]
#[serde(tag = "role", rename_all = "lowercase")]
enum Message<'a> {
    System {
        content: &'a str,
    },
    User {
        content: &'a str,
    },
    Assistant {
        content: Option<&'a str>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<Call<'a>>,
        #[serde(flatten)]
        reasoning: Option<&'a Map<String, Value>>,
    },
    Tool {
        tool_call_id: &'a str,
        content: &'a str,
    },
}

#[derive(Serialize)]
struct Call<'a> {
    id: &'a str,
    r#type: &'static str,
    function: CallFunction<'a>,
}

#[derive(Serialize)]
struct CallFunction<'a> {
    name: &'a str,
    arguments: &'a str,
}

impl ChatPrompt {
    pub(crate) fn new(target: &Target, system: &str, tools: &[ToolSpec]) -> Self {
        let name = target.wire_name.as_str();
        let caching = target.route == Route::Router && name.contains(":fal");
        let marks = caching && name.starts_with("anthropic/");
        let keyed = caching && name.starts_with("openai/gpt-5.5");
        let session: String = target.session_id.chars().take(SESSION_ID_CHARS).collect();
        let mark = || marks.then_some(CacheControl::Ephemeral);
        let mut specs: Vec<Tool<'_>> = tools.iter().map(Tool::new).collect();
        if let Some(last) = specs.last_mut() {
            last.cache_control = mark();
        }
        let head = Head {
            model: name,
            cache_control: mark(),
            prompt_cache_retention: keyed.then_some("24h"),
            prompt_cache_key: (keyed && !session.is_empty()).then_some(session),
            tools: specs,
        };
        let mut prompt = Self {
            head: open_json(&head).into(),
            has_tools: !tools.is_empty(),
            marks,
            settled: Pieces::default(),
            markable: None,
            after: Pieces::default(),
            newest: None,
            count: 0,
        };
        if !system.is_empty() {
            prompt.add(&Message::System { content: system }, system);
        }
        prompt
    }

    pub(crate) fn push(&mut self, item: &Item, own_reasoning: Option<&Value>) {
        match item {
            Item::User { content, .. } => self.add(&Message::User { content }, content),
            Item::Assistant(assistant) => {
                // A message that says nothing is refused by strict servers and tells the model nothing.
                if assistant.content.as_ref().is_some_and(|text| !text.is_empty())
                    || !assistant.tool_calls.is_empty()
                {
                    self.add(&Message::assistant(assistant, own_reasoning), "");
                }
            }
            Item::Tool { tool_call_id, content, .. } => {
                self.add(&Message::Tool { tool_call_id: tool_call_id.as_str(), content }, "");
            }
        }
    }

    /// Adds a message; `markable` is its text if a mark may ever go around it.
    fn add(&mut self, message: &Message<'_>, markable: &str) {
        let mut written = json(message);
        if self.count > 0 {
            written.insert(0, b',');
        }
        self.count += 1;
        if !self.marks {
            self.settled.push(written);
            return;
        }
        if let Some(text) = self.newest.take() {
            if let Some(before) = self.markable.replace(text) {
                self.settled.push(before);
            }
            self.settled.append(&mut self.after);
            self.after.push(&b"}"[..]);
        }
        if markable.is_empty() {
            self.after.push(written);
        } else {
            let text = json(&markable);
            written.truncate(written.len() - text.len() - 1);
            self.after.push(written);
            self.newest = Some(text.into());
        }
    }

    pub(crate) fn len(&self) -> usize {
        let kept = |text: &Option<Bytes>| text.as_ref().map_or(0, Bytes::len);
        self.head.len() + self.settled.len() + kept(&self.markable) + self.after.len() + kept(&self.newest)
    }

    pub(crate) fn body(&self, target: &Target, options: &CompletionOptions) -> Vec<Bytes> {
        let mut fields = more_fields(&self.options(target, options));
        fields.extend_from_slice(br#","messages":["#);
        let mut body = vec![self.head.clone(), fields.into()];
        self.settled.copy_to(&mut body);
        if let Some(text) = &self.markable {
            body.extend([Bytes::from_static(MARK_BEFORE), text.clone(), Bytes::from_static(MARK_AFTER)]);
        }
        self.after.copy_to(&mut body);
        if let Some(text) = &self.newest {
            body.extend([text.clone(), Bytes::from_static(b"}")]);
        }
        body.push(Bytes::from_static(b"]}"));
        body
    }

    fn options(&self, target: &Target, options: &CompletionOptions) -> Options {
        let router = target.route == Route::Router;
        Options {
            tool_choice: tool_choice(self.has_tools, options),
            reasoning_effort: options.effort.and_then(|effort| effort.fit(efforts(target))),
            max_completion_tokens: options.max_output_tokens.filter(|_| router),
            max_tokens: options.max_output_tokens.filter(|_| !router),
            stream: options.stream,
            stream_options: options.stream.then_some(StreamOptions { include_usage: true }),
        }
    }
}

/// The efforts that can be sent. Local servers are never told any: what they do with one is anyone's guess.
pub(crate) fn efforts(target: &Target) -> &[Effort] {
    match &target.route {
        Route::Local(_) => &[],
        Route::Custom { .. } if !target.facts.efforts.is_empty() => &target.facts.efforts,
        Route::Custom { .. } | Route::Router | Route::Anthropic | Route::OpenAi => effort::COMMON,
    }
}

impl<'a> Tool<'a> {
    fn new(spec: &'a ToolSpec) -> Self {
        let ToolSpec { name, description, parameters } = spec;
        Self {
            r#type: "function",
            function: ToolFunction { name, description, parameters },
            cache_control: None,
        }
    }
}

impl<'a> Message<'a> {
    fn assistant(assistant: &'a Assistant, own_reasoning: Option<&'a Value>) -> Self {
        let call = |call: &'a ToolCall| Call {
            id: call.id.as_str(),
            r#type: "function",
            function: CallFunction { name: &call.name, arguments: arguments_text(call) },
        };
        Self::Assistant {
            content: assistant.content.as_deref().filter(|text| !text.is_empty()),
            tool_calls: assistant.tool_calls.iter().map(call).collect(),
            reasoning: own_reasoning.and_then(Value::as_object),
        }
    }
}

#[cfg(test)]
mod tests;
