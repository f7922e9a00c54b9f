use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ToolCallId;

/// One entry of a transcript, in the order the model sees it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Item {
    /// What the person said, or a note of the host that the model reads as such.
    User {
        content: String,
        /// Written by the host, not by the person.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        note: bool,
    },
    /// What the model said.
    Assistant(Assistant),
    /// What came of a tool call.
    Tool { tool_call_id: ToolCallId, tool: String, content: String, success: bool },
}

/// One answer of the model.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Assistant {
    /// Its text, if it had any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// The calls it asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Reasoning that the provider wants to see again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Reasoning>,
    /// The text stands for earlier items that were compacted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
}

/// A call that the model asked for.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ToolCall {
    pub id: ToolCallId,
    pub name: String,
    /// The arguments as the model wrote them: JSON, or `{}` where they were not.
    pub arguments: String,
}

/// A provider's own record of the model's reasoning. Only the wire format and model that made it get it back.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Reasoning {
    /// `chat`, `messages` or `responses`.
    pub wire: String,
    pub model: String,
    /// The blocks or fields, untouched.
    pub data: Value,
}
