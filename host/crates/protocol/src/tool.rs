use std::collections::BTreeSet;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{Tier, ToolCallId};

/// A tool as it is offered to the model.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ToolSpec {
    /// The name the model uses.
    pub name: String,
    pub description: String,
    /// JSON Schema of the arguments, copied into requests as it is.
    pub parameters: Box<RawValue>,
}

/// A call on its way to its tool: approved, arguments parsed.
#[derive(Clone, Debug)]
pub struct Invocation {
    pub id: ToolCallId,
    pub tool: String,
    pub arguments: Value,
    /// The id under which it is on record, if it changes, orders or ends something elsewhere.
    pub order: Option<String>,
    /// Where text came from that the session had read and nobody vouches for: some of it may be in the arguments.
    pub taint: Option<String>,
    /// It only looks for an order: it changes nothing, whatever its plugin was granted.
    pub looks: bool,
}

/// What came of a call: the one thing the transcript gets for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ToolResult {
    /// What the model reads.
    pub text: String,
    pub success: bool,
    /// The person stopped the call before it was done.
    pub cancelled: bool,
    /// How long the call itself took, from checking its arguments to giving up its memory.
    pub took: Duration,
    /// The answer for programs.
    pub structured: Option<Value>,
    /// Files that were changed, in order.
    pub changes: Vec<FileChange>,
    /// Set when a grant, a mode, a rule, a sealed path or an unanswered question stopped the call.
    pub denial: Option<PermissionDenial>,
    /// Where text came from that the call read and that nobody vouches for.
    pub source: Option<String>,
    /// Something was sent that changes something elsewhere, and no answer to it came.
    pub unsettled: bool,
    /// Something of that kind was accepted, whatever became of the call after that.
    pub accepted: bool,
    /// What became of the order that the call was.
    pub order: Option<OrderOutcome>,
}

/// What became of a call that changes, orders or ends something elsewhere.
#[derive(JsonSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct OrderOutcome {
    /// The id under which it is on record.
    pub id: String,
    pub state: OrderEnd,
    /// USD that it costs, or costs at most; 0 for what costs nothing. None: it costs something, and nobody
    /// knows how much.
    pub usd: Option<f64>,
}

/// How an order ended, as far as the call can tell.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderEnd {
    /// It was accepted, also if the call failed after that.
    Done,
    /// It was not made.
    Failed,
    /// It left and was not answered.
    Unknown,
}

impl ToolResult {
    /// A failed result.
    pub fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    /// Every text of it that is shown or kept, but for the structured answer.
    pub fn texts(&mut self) -> impl Iterator<Item = &mut String> {
        let changes = self.changes.iter_mut().flat_map(|c| std::iter::once(&mut c.path).chain(&mut c.diff));
        let denial = self.denial.iter_mut().flat_map(|d| [&mut d.target, &mut d.remedy]);
        std::iter::once(&mut self.text).chain(changes).chain(denial)
    }

    /// A failed result because something was refused.
    #[must_use]
    pub fn denied(text: impl Into<String>, denial: PermissionDenial) -> Self {
        Self { text: text.into(), denial: Some(denial), ..Self::default() }
    }
}

/// A file that a call changed.
#[derive(JsonSchema, Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FileChange {
    /// Absolute path.
    pub path: String,
    /// Lines added and removed.
    pub added: u32,
    pub removed: u32,
    /// Unified diff; none for files that are not text or very large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<String>,
}

/// A refusal by this program, as the result line lists it.
#[derive(JsonSchema, Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PermissionDenial {
    pub tool: String,
    pub tool_call_id: ToolCallId,
    pub tiers: BTreeSet<Tier>,
    /// What refused: `mode:plan`, `grant`, `sealed-path`, `unanswered`, `person`.
    pub rule: String,
    /// The file, host or command it was about.
    pub target: String,
    /// What would have allowed it: a flag or a command to type.
    pub remedy: String,
}
