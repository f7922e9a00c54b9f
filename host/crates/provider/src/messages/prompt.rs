use bytes::Bytes;
use protocol::{Assistant, Item, ToolSpec};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalog::Thinking;
use crate::completion::CompletionOptions;
use crate::effort::{self, Effort};
use crate::encode::{CacheControl, MARK, arguments, json, more_fields, open_json, portable_id, tool_choice};
use crate::layout::{Part, parts};
use crate::pieces::Pieces;
use crate::target::{Route, Target};

/// Output tokens that are asked for at most when nobody says otherwise, and for a model that nothing is
/// known about at its vendor and elsewhere. The wire has no way of not asking.
const MAX_OUTPUT: u32 = 64_000;
const VENDOR_OUTPUT: u32 = 32_000;
const OTHER_OUTPUT: u32 = 8_192;

/// Fewest thinking tokens that the wire takes.
const MIN_BUDGET: u32 = 1_024;

/// Stands for a text that is empty, which the wire refuses.
const NO_TEXT: &str = "(no text)";

/// Opens a conversation whose first item is the model's; the wire wants the user's first.
const OPENING: &str = "(the conversation goes on)";

/// The messages so far.
///
/// The newest block of the user's side is kept without its closing brace, so that a cache mark can end it
/// in one request and be gone in the next. The newest block of the side before it gets a mark too: a
/// provider looks back only some twenty blocks from a mark, and one step can add more.
#[derive(Clone)]
pub(crate) struct MessagesPrompt {
    head: Bytes,
    has_tools: bool,
    /// Up to the last block of the previous user message, which is open.
    settled: Pieces,
    /// From there on.
    recent: Pieces,
    end: End,
    /// A call since the last words of the user came without thinking, so none may be asked for by budget.
    unthinking: bool,
}

/// Where `recent` ends.
#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    Nothing,
    /// Inside the last block of a user message.
    UserBlock {
        /// Whether the message holds a tool result.
        results: bool,
    },
    /// Behind an assistant message.
    Assistant,
}

#[derive(Serialize)]
struct Head<'a> {
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<[Block<'a>; 1]>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tools: Vec<Tool<'a>>,
}

#[derive(Serialize)]
struct Tool<'a> {
    name: &'a str,
    description: &'a str,
    input_schema: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<CacheControl>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Block<'a> {
    Text {
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<CacheControl>,
    },
    ToolUse {
        id: String,
        name: &'a str,
        input: Input<'a>,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(skip_serializing_if = "str::is_empty")]
        content: &'a str,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
    },
    #[serde(untagged)]
    Record(&'a Value),
}

#[derive(Serialize)]
#[serde(untagged)]
enum Input<'a> {
    Written(&'a RawValue),
    Empty {},
}

#[derive(Serialize)]
struct AssistantMessage<'a> {
    role: &'static str,
    content: Vec<Block<'a>>,
}

#[derive(Serialize)]
struct Options {
    max_tokens: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    thinking: Option<ThinkingOption>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_config: Option<OutputConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice>,
    stream: bool,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum ThinkingOption {
    Adaptive,
    Enabled { budget_tokens: u32 },
}

#[derive(Serialize)]
struct OutputConfig {
    effort: Effort,
}

#[derive(Serialize)]
struct ToolChoice {
    r#type: &'static str,
}

impl MessagesPrompt {
    pub(crate) fn new(target: &Target, system: &str, tools: &[ToolSpec]) -> Self {
        let mark = || Some(CacheControl::Ephemeral);
        let mut specs: Vec<Tool<'_>> = tools.iter().map(Tool::new).collect();
        if let Some(last) = specs.last_mut() {
            last.cache_control = mark();
        }
        let head = Head {
            model: &target.wire_name,
            system: (!system.trim().is_empty())
                .then(|| [Block::Text { text: system, cache_control: mark() }]),
            tools: specs,
        };
        Self {
            head: open_json(&head).into(),
            has_tools: !tools.is_empty(),
            settled: Pieces::default(),
            recent: Pieces::default(),
            end: End::Nothing,
            unthinking: false,
        }
    }

    pub(crate) fn push(&mut self, item: &Item, own_reasoning: Option<&Value>) {
        match item {
            Item::User { content, .. } => {
                if self.end != (End::UserBlock { results: true }) {
                    self.unthinking = false;
                }
                let text = if content.trim().is_empty() { NO_TEXT } else { content };
                self.add_block(&Block::Text { text, cache_control: None }, false);
            }
            Item::Tool { tool_call_id, content, success, .. } => {
                let tool_use_id = portable_id(tool_call_id.as_str());
                self.add_block(&Block::ToolResult { tool_use_id, content, is_error: !success }, true);
            }
            Item::Assistant(assistant) => self.add_assistant(assistant, own_reasoning),
        }
    }

    /// Adds a block to the user's side; consecutive ones make up one message.
    fn add_block(&mut self, block: &Block<'_>, is_result: bool) {
        let (before, results) = match self.end {
            End::Nothing => (&br#"{"role":"user","content":["#[..], false),
            End::UserBlock { results } => (&b"},"[..], results),
            End::Assistant => (&br#",{"role":"user","content":["#[..], false),
        };
        let mut written = before.to_vec();
        written.extend(open_json(block));
        self.recent.push(written);
        self.end = End::UserBlock { results: results || is_result };
    }

    fn add_assistant(&mut self, assistant: &Assistant, own_reasoning: Option<&Value>) {
        let records = own_reasoning.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let content: Vec<Block<'_>> = parts(assistant, records).iter().filter_map(Block::of).collect();
        if content.is_empty() {
            return;
        }
        if !assistant.tool_calls.is_empty() && records.is_empty() {
            self.unthinking = true;
        }
        if self.end == End::Nothing {
            self.add_block(&Block::Text { text: OPENING, cache_control: None }, false);
        }
        let before = match self.end {
            End::UserBlock { .. } => {
                self.settled.append(&mut self.recent);
                &b"}]},"[..]
            }
            End::Nothing | End::Assistant => &b","[..],
        };
        let mut written = before.to_vec();
        written.extend(json(&AssistantMessage { role: "assistant", content }));
        self.recent.push(written);
        self.end = End::Assistant;
    }

    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.settled.len() + self.recent.len()
    }

    pub(crate) fn body(&self, target: &Target, options: &CompletionOptions) -> Vec<Bytes> {
        let mut fields = more_fields(&self.options(target, options));
        fields.extend_from_slice(br#","messages":["#);
        let mut body = vec![self.head.clone(), fields.into()];
        self.settled.copy_to(&mut body);
        if !self.settled.is_empty() {
            body.push(Bytes::from_static(MARK));
        }
        self.recent.copy_to(&mut body);
        if matches!(self.end, End::UserBlock { .. }) {
            body.extend([Bytes::from_static(MARK), Bytes::from_static(b"}]}")]);
        }
        body.push(Bytes::from_static(b"]}"));
        body
    }

    fn options(&self, target: &Target, options: &CompletionOptions) -> Options {
        let max_tokens = options.max_output_tokens.unwrap_or_else(|| default_output(target));
        let effort = options.effort.and_then(|effort| effort.fit(efforts(target)));
        let thinking = effort.and_then(|effort| match target.facts.thinking? {
            Thinking::Adaptive => Some(ThinkingOption::Adaptive),
            Thinking::Budget if self.unthinking => None,
            Thinking::Budget => {
                budget(effort, max_tokens).map(|budget_tokens| ThinkingOption::Enabled { budget_tokens })
            }
            Thinking::Effort => None,
        });
        let adaptive = target.facts.thinking == Some(Thinking::Adaptive);
        Options {
            max_tokens,
            thinking,
            output_config: effort.filter(|_| adaptive).map(|effort| OutputConfig { effort }),
            tool_choice: tool_choice(self.has_tools, options).map(|choice| ToolChoice { r#type: choice }),
            stream: options.stream,
        }
    }
}

fn default_output(target: &Target) -> u32 {
    let known = target.facts.output.map(|tokens| tokens.min(MAX_OUTPUT));
    known.unwrap_or(if target.route == Route::Anthropic { VENDOR_OUTPUT } else { OTHER_OUTPUT })
}

/// The efforts that make a difference for a model.
pub(crate) fn efforts(target: &Target) -> &[Effort] {
    match target.facts.thinking {
        Some(Thinking::Adaptive) => &target.facts.efforts,
        Some(Thinking::Budget) => effort::COMMON,
        Some(Thinking::Effort) | None => &[],
    }
}

/// Thinking tokens for an effort: at most half of the output, so that an answer fits behind them.
fn budget(effort: Effort, max_tokens: u32) -> Option<u32> {
    let wanted = match effort {
        Effort::Minimal | Effort::Low => 4_096,
        Effort::Medium => 10_240,
        Effort::High | Effort::Xhigh | Effort::Max => 24_576,
    };
    Some(wanted.min(max_tokens / 2)).filter(|budget| *budget >= MIN_BUDGET)
}

impl<'a> Tool<'a> {
    fn new(spec: &'a ToolSpec) -> Self {
        let ToolSpec { name, description, parameters } = spec;
        Self { name, description, input_schema: parameters, cache_control: None }
    }
}

impl<'a> Block<'a> {
    fn of(part: &Part<'a>) -> Option<Self> {
        match part {
            Part::Record(record) => Some(Self::Record(record)),
            Part::Text { text, .. } if text.trim().is_empty() => None,
            Part::Text { text, .. } => Some(Self::Text { text, cache_control: None }),
            Part::Call(call) => Some(Self::ToolUse {
                id: portable_id(call.id.as_str()),
                name: &call.name,
                input: arguments(call).map_or(Input::Empty {}, Input::Written),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
