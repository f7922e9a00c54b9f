//! One call that a person typed: decided, run and put on record as in a session, without a model.

use protocol::{ToolCall, ToolResult};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::session::{Session, build};
use crate::tools::{Fate, Planned};
use crate::turn::Fault;
use crate::{Handle, Mode, SessionConfig, Start, StartError, StoreError, notes};

/// The id of the one call.
const CALL: &str = "call_1";

/// Starts the call. Nobody is asked: what needs a person is refused. What is told meanwhile comes as events of
/// the handle, and its interrupt ends the call.
///
/// # Errors
/// When there can be no session for it.
pub fn call(
    config: SessionConfig,
    tool: &str,
    arguments: &Value,
) -> Result<(Handle, oneshot::Receiver<Result<ToolResult, StoreError>>), StartError> {
    let mut config = SessionConfig { start: Start::Call, ..config };
    config.settings.interactive = false;
    let call = ToolCall { id: CALL.into(), name: tool.to_owned(), arguments: arguments.to_string() };
    let (mut session, _, handle) = build(config)?;
    let (done, result) = oneshot::channel();
    let task = tokio::spawn(async move {
        let called = session.alone(call).await;
        session.context.wall().shutdown().await;
        // Whoever does not wait any more was told that it was interrupted.
        let _ = done.send(called);
    });
    Ok((handle(task), result))
}

impl Session {
    async fn alone(&mut self, call: ToolCall) -> Result<ToolResult, StoreError> {
        self.know_namespace(std::slice::from_ref(&call)).await?;
        let planned = self.plan_call(call)?;
        if self.settings.mode == Mode::Yolo {
            // The person typed the call. What it asks for while it runs the person did not type.
            self.settings.mode = Mode::Default;
        }
        let id = planned.call.id.clone();
        let mut result = self.outcome(planned).await?;
        self.clean(&mut result);
        self.say_remedy(&mut result);
        if result.cancelled {
            self.audit_unfinished(&id, notes::INTERRUPTED)?;
        } else {
            self.audit_outcome(&id, result.success, &result.text, result.denial.as_ref())?;
        }
        self.audit_end()?;
        Ok(result)
    }

    async fn outcome(&mut self, planned: Planned) -> Result<ToolResult, StoreError> {
        match planned.fate {
            Fate::Known(result) | Fate::Misshapen(result) => return Ok(result),
            // Not without somebody to ask; run it is never.
            Fate::Ask(..) => return Ok(ToolResult::failed(notes::NOT_RUN)),
            Fate::Run(_) => {}
        }
        let cancel = self.interrupt.token();
        match self.perform(vec![planned], &cancel).await {
            Ok(done) => Ok(done.into_iter().next().map(|(_, result)| result).unwrap_or_default()),
            Err(Fault::Store(error)) => Err(error),
            Err(Fault::Interrupted | Fault::Provider(_) | Fault::Terminated) => {
                Ok(ToolResult { cancelled: true, ..ToolResult::failed(notes::INTERRUPTED) })
            }
        }
    }
}
