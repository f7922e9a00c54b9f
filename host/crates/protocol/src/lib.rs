//! What crosses the boundaries of ml-intern. Plain data: no I/O, no async, no clock.

mod event;
mod ids;
mod item;
mod need;
mod operation;
mod tool;
mod usage;

pub use event::{ApprovalRequest, ErrorKind, Event, PlanItem, ShownText, StopReason};
pub use ids::{SessionId, ToolCallId};
pub use item::{Assistant, Item, Reasoning, ToolCall};
pub use manifest::{Tier, text};
pub use need::{HostReply, HostRequest, LogLevel, Need};
pub use operation::{ApprovalAnswer, Operation, Submission};
pub use tool::{FileChange, Invocation, OrderEnd, OrderOutcome, PermissionDenial, ToolResult, ToolSpec};
pub use usage::Usage;
