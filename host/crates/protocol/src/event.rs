use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{FileChange, Need, OrderOutcome, PermissionDenial, Tier, ToolCallId, Usage};

/// What happened, for whoever watches: renderers, scripts, the session's file.
///
/// `type` and the fields are the names that users of the Python original know.
#[derive(JsonSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The tools are known; input is welcome.
    Ready {
        message: String,
        tool_count: usize,
    },
    /// A turn starts, or goes on after an approval.
    Processing {
        message: String,
    },
    /// A piece of streamed text.
    AssistantChunk {
        content: String,
    },
    /// The end of a streamed completion, also of a truncated one.
    AssistantStreamEnd {},
    /// A whole text, when not streaming.
    AssistantMessage {
        content: String,
    },
    /// A call is about to run. All calls of an answer are announced before the first result.
    ToolCall {
        tool: String,
        arguments: Value,
        tool_call_id: ToolCallId,
    },
    /// What came of a call, in the order of the calls.
    ToolOutput {
        tool: String,
        tool_call_id: ToolCallId,
        output: String,
        success: bool,
        /// Milliseconds the call took; 0 for a call that was not run.
        #[serde(default)]
        duration_ms: u64,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        changes: Vec<FileChange>,
        /// Set when this program refused the call or a part of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        denial: Option<PermissionDenial>,
        /// Where text came from that the call read and that nobody vouches for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        source: Option<String>,
        /// What became of it, if it was an order.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<OrderOutcome>,
    },
    /// Progress of a tool, or a notice of the host (`tool` is `system`).
    ToolLog {
        tool: String,
        log: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        agent_id: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// A call was approved, rejected, is running, was cancelled or abandoned.
    ToolStateChange {
        tool_call_id: ToolCallId,
        tool: String,
        state: String,
        /// What became of the order that the call was, if it was stopped after that left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        order: Option<OrderOutcome>,
    },
    /// A person has to answer with an `exec_approval`.
    ApprovalRequired {
        tools: Vec<ApprovalRequest>,
        count: usize,
    },
    /// The plan as the model keeps it.
    PlanUpdate {
        plan: Vec<PlanItem>,
    },
    /// Older items were summarised.
    Compacted {
        old_tokens: u64,
        new_tokens: u64,
    },
    /// The conversation cannot go on.
    SessionTerminated {
        reason: String,
        context_usage: u64,
        context_threshold: u64,
        error: String,
        user_message: String,
    },
    /// The turn ended by itself.
    TurnComplete {
        history_size: usize,
        final_response: Option<String>,
        reason: StopReason,
    },
    /// The turn was stopped by the person.
    Interrupted {},
    /// The turn failed.
    Error {
        error: String,
        kind: ErrorKind,
    },
    UndoComplete {},
    NewComplete {
        session_id: String,
        previous_session_id: String,
        previous_turn_count: usize,
        previous_message_count: usize,
        saved_path: Option<String>,
        clear_screen: bool,
    },
    /// The session is over.
    Shutdown {
        /// Hash of the last record of its chain in the audit log.
        #[serde(default)]
        audit_head: String,
        /// Orders of which nobody knows whether they arrived: the ids under which they are on record.
        #[serde(default)]
        open_orders: Vec<String>,
    },
    /// One completion, for the books.
    LlmCall {
        model: String,
        latency_ms: u64,
        finish_reason: Option<String>,
        cost_usd: f64,
        /// `main`, `compaction`, `research`, `effort_probe`, or `unfinished`: it broke off, and what it cost is an
        /// estimate.
        kind: String,
        #[serde(flatten)]
        usage: Usage,
    },
    /// In the session's file only: where a forked session came from.
    ResumedFrom {
        path: String,
        original_session_id: String,
        original_event_count: usize,
        forked: bool,
    },
    /// The model was changed.
    ModelChanged {
        model: String,
        route: String,
        payer: String,
    },
}

/// A call that waits for a person.
#[derive(JsonSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct ApprovalRequest {
    pub tool: String,
    pub arguments: Value,
    pub tool_call_id: ToolCallId,
    pub tiers: BTreeSet<Tier>,
    /// Why it is asked, a line for each reason.
    pub reason: String,
    /// Set when the call is already running and asks for something its tiers do not cover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub need: Option<Need>,
    /// The answer can be kept for good, as a grant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasting: bool,
    /// What the approval would be about: a path, a command, an origin.
    pub target: String,
    /// Whether an answer for the session would hold; otherwise it counts once.
    #[serde(default)]
    pub for_session: bool,
    /// What it costs at most, in USD; none if nobody knows or it costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_usd: Option<f64>,
    /// What is left of the budget, in USD; none without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining_usd: Option<f64>,
    /// Who pays for it, as far as it is known; none if it costs nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    /// What the session has read that nobody vouches for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taint: Option<String>,
    /// Which of the arguments are texts of their own, that can be edited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<ShownText>,
}

/// An argument that is a text of its own, such as a script. The text itself stands in the arguments.
#[derive(JsonSchema, Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ShownText {
    /// JSON pointer of the argument.
    pub argument: String,
    /// The file that it was read from, as the model named it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub bytes: usize,
    pub sha256: String,
}

/// One line of the plan.
#[derive(JsonSchema, Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PlanItem {
    pub id: String,
    pub content: String,
    /// `pending`, `in_progress` or `completed`.
    pub status: String,
}

/// Why a turn ended by itself.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model had nothing more to do.
    Done,
    /// The limit of steps was met.
    MaxIterations,
    /// The budget is spent.
    Budget,
}

/// What kind of failure ended a turn; decides the exit code.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// No credential, or one that was not accepted.
    Credentials,
    /// The provider failed after retries.
    Provider,
    /// The conversation does not fit the model any more.
    Context,
    /// Anything else.
    Internal,
}
