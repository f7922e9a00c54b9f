use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ToolCallId;

/// A wish of the person or of a program, on its way to the session.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Submission {
    /// Chosen by the sender, such as `sub_1`.
    pub id: String,
    pub operation: Operation,
}

/// What is wished. Operations are done one at a time, in order; an interrupt is not one of them.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "op_type", content = "data", rename_all = "snake_case")]
pub enum Operation {
    /// Run a turn.
    UserInput { text: String },
    /// Answer an `approval_required` event. A call without an answer is refused.
    ExecApproval { approvals: Vec<ApprovalAnswer> },
    /// Take back the last user message and everything after it.
    Undo,
    /// Summarise older items now.
    Compact,
    /// Start a new conversation.
    New { clear_screen: bool },
    /// Use another model from the next completion on.
    SetModel { model: String },
    /// End the session.
    Shutdown,
}

/// A person's answer for one call.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ApprovalAnswer {
    pub tool_call_id: ToolCallId,
    pub approved: bool,
    /// Words for the model, as they were typed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feedback: Option<String>,
    /// Approve the same kind of need for the rest of the session.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_session: bool,
    /// Keep it for good, where the request says that this can be: `lasting`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub for_good: bool,
    /// Texts of the call as the person wrote them anew, by the JSON pointer of the argument.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub edits: BTreeMap<String, String>,
}
