//! What a person is asked while calls run, and what comes of the answer.

use std::collections::BTreeMap;

use protocol::{
    ApprovalAnswer, ApprovalRequest, Event, HostReply, HostRequest, Need, Operation, Tier, ToolCallId, text,
};
use runtime::Pending;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::approval::{Decision, Denied, decide_need};
use crate::notes;
use crate::session::Session;
use crate::turn::Fault;

impl Session {
    /// Answers what a running call needs.
    pub(crate) async fn answer(&mut self, need: Pending, cancel: &CancellationToken) -> Result<(), Fault> {
        let Pending { call, tool, request, reply } = need;
        let answer = match request {
            HostRequest::Log { message, .. } => {
                self.journal.emit(Event::ToolLog { tool, log: message, agent_id: None, label: None }).await?;
                HostReply::Noted
            }
            HostRequest::Decide(need) => self.decide_need(call, tool, need, cancel).await?,
            HostRequest::UseCredential { plugin, credential, origin } => {
                self.audit_credential(&call, plugin, credential, origin)?;
                HostReply::Noted
            }
        };
        // A call that was cancelled meanwhile does not listen any more.
        let _ = reply.send(answer);
        Ok(())
    }

    /// Decides about what a running call needs, asks if it has to be, and records both.
    pub(crate) async fn decide_need(
        &mut self,
        call: ToolCallId,
        tool: String,
        need: Need,
        cancel: &CancellationToken,
    ) -> Result<HostReply, Fault> {
        let (tier, target) = match &need {
            Need::SealedPath { path } => (Tier::Write, path.clone()),
            Need::Network { grant, .. } => (Tier::Read, grant.clone()),
            Need::Budget { spent_usd, .. } => (Tier::Spend, format!("{spent_usd:.2} USD")),
        };
        let scope = (tool.clone(), format!("{need:?}"));
        let before = self.allowed.contains(&scope);
        let decision = decide_need(self.settings.mode, self.settings.interactive, before, &need);
        self.audit_need(&call, &tool, tier, &target, &decision)?;
        let reason = match decision {
            Decision::Allow { .. } => return Ok(HostReply::Allowed),
            Decision::Deny(Denied { rule, message, remedy }) => {
                return Ok(HostReply::Refused { message, rule, remedy });
            }
            Decision::Ask { reason, .. } => reason,
        };
        let request = ApprovalRequest {
            tool,
            arguments: Value::Object(serde_json::Map::new()),
            tool_call_id: call.clone(),
            tiers: [tier].into(),
            reason: reason.clone(),
            need: Some(need),
            target: target.clone(),
            price_usd: None,
            remaining_usd: None,
            taint: None,
            texts: Vec::new(),
        };
        let answers = match self.ask(vec![request], cancel).await {
            Err(Fault::Interrupted) => Vec::new(),
            other => other?,
        };
        let answer = answers.into_iter().next().unwrap_or(Answer::Abandoned);
        self.audit_answer(&call, &target, &answer)?;
        Ok(match answer {
            Answer::Approved { for_session, .. } => {
                if for_session {
                    self.allowed.insert(scope);
                }
                HostReply::Allowed
            }
            Answer::Rejected { feedback } => HostReply::Refused {
                message: with_feedback(&format!("{reason}; the user refused"), feedback.as_deref()),
                rule: "person".to_owned(),
                remedy: "approve it".to_owned(),
            },
            Answer::Abandoned => HostReply::Refused {
                message: notes::ABANDONED.to_owned(),
                rule: "unanswered".to_owned(),
                remedy: "approve it".to_owned(),
            },
        })
    }

    /// Asks the person and waits. Other operations wait meanwhile; a new message answers with "go on
    /// without".
    pub(crate) async fn ask(
        &mut self,
        requests: Vec<ApprovalRequest>,
        cancel: &CancellationToken,
    ) -> Result<Vec<Answer>, Fault> {
        let ids: Vec<ToolCallId> = requests.iter().map(|r| r.tool_call_id.clone()).collect();
        let count = requests.len();
        self.journal.emit(Event::ApprovalRequired { tools: requests, count }).await?;
        loop {
            let submission = tokio::select! {
                biased;
                () = cancel.cancelled() => return Err(Fault::Interrupted),
                submission = self.operations.recv() => submission,
            };
            match submission {
                Some(submission) => match submission.operation {
                    Operation::ExecApproval { approvals } => return Ok(answers(&ids, &approvals)),
                    Operation::UserInput { .. } | Operation::Shutdown => {
                        self.queue.push_back(submission);
                        return Ok(ids.iter().map(|_| Answer::Abandoned).collect());
                    }
                    _ => self.queue.push_back(submission),
                },
                None => {
                    self.ended = true;
                    return Ok(ids.iter().map(|_| Answer::Abandoned).collect());
                }
            }
        }
    }
}

/// What a person said about one call.
pub(crate) enum Answer {
    /// With the texts that the person wrote anew, by the argument.
    Approved {
        for_session: bool,
        edits: BTreeMap<String, String>,
    },
    Rejected {
        feedback: Option<String>,
    },
    Abandoned,
}

/// A call without an answer is refused.
fn answers(ids: &[ToolCallId], given: &[ApprovalAnswer]) -> Vec<Answer> {
    let one = |id: &ToolCallId| match given.iter().find(|a| a.tool_call_id == *id) {
        Some(ApprovalAnswer { approved: true, for_session, edits, .. }) => {
            Answer::Approved { for_session: *for_session, edits: edits.clone() }
        }
        Some(ApprovalAnswer { feedback, .. }) => Answer::Rejected { feedback: feedback.clone() },
        None => Answer::Rejected { feedback: None },
    };
    ids.iter().map(one).collect()
}

pub(crate) fn with_feedback(said: &str, feedback: Option<&str>) -> String {
    match feedback.map(text::plain).filter(|f| !f.trim().is_empty()) {
        Some(feedback) => format!("{said}. User feedback: {feedback}"),
        None => said.to_owned(),
    }
}
