use protocol::{Reasoning, ToolCall, Usage};

use crate::effort::Effort;

/// How a completion is asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompletionOptions {
    /// Whether the answer comes in pieces.
    pub stream: bool,
    /// How much to think; fitted to what the model takes. None: the model's own default.
    pub effort: Option<Effort>,
    /// Tokens. None: the provider's default, or what the model can give where the wire wants a number.
    pub max_output_tokens: Option<u32>,
    /// Whether tools may be called. Their specs stay in the request either way, for the prompt cache.
    pub tools: bool,
}

impl Default for CompletionOptions {
    fn default() -> Self {
        Self { stream: true, effort: None, max_output_tokens: None, tools: true }
    }
}

/// A piece of an answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Delta {
    Text(String),
    Reasoning(String),
}

/// A whole answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Completion {
    /// None if it had no text.
    pub text: Option<String>,
    pub tool_calls: Vec<ToolCall>,
    /// For the provider to see again with the next request.
    pub reasoning: Option<Reasoning>,
    pub usage: Usage,
    pub finish: FinishReason,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum FinishReason {
    #[default]
    Stop,
    /// A limit of tokens was met.
    Length,
    ToolCalls,
    ContentFilter,
    /// The provider's own word.
    Other(String),
}

impl FinishReason {
    /// The reason as chat completions call it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
            Self::Other(word) => word,
        }
    }

    /// The reason in the words of any wire.
    pub(crate) fn from_wire(word: &str) -> Self {
        match word {
            "stop" | "end_turn" | "stop_sequence" | "eos" | "eos_token" | "completed" => Self::Stop,
            "length" | "max_tokens" | "max_output_tokens" | "model_context_window_exceeded" => Self::Length,
            "tool_calls" | "tool_use" | "function_call" => Self::ToolCalls,
            "content_filter" | "refusal" => Self::ContentFilter,
            _ => Self::Other(word.to_owned()),
        }
    }
}
