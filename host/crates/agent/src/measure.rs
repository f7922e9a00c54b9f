//! For the benchmark: what the decision about a call costs.

use std::time::{Duration, Instant};

use protocol::{ToolCall, ToolCallId};

use crate::session::build;
use crate::{SessionConfig, StartError};

/// Decides about a call so many times, with both of its records, and tells how long each took. It is not
/// run.
///
/// # Errors
/// When there can be no session.
pub fn decisions(
    config: SessionConfig,
    (tool, arguments): (&str, &str),
    times: usize,
) -> Result<Vec<Duration>, StartError> {
    let (mut session, _opening, _handle) = build(config)?;
    let mut took = Vec::with_capacity(times);
    for k in 0..times {
        let id = ToolCallId::from(format!("call_{k}").as_str());
        let call = ToolCall { id, name: tool.to_owned(), arguments: arguments.to_owned() };
        let started = Instant::now();
        session.plan_call(call.clone())?;
        session.audit_outcome(&call.id, true, "done", None)?;
        took.push(started.elapsed());
    }
    Ok(took)
}
