//! What a person is asked while calls run, and what comes of the answer.

use std::collections::BTreeMap;

use protocol::{
    ApprovalAnswer, ApprovalRequest, Event, HostReply, HostRequest, Need, Operation, Tier, ToolCallId, text,
};
use runtime::Pending;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::StoreError;
use crate::approval::{Decision, Denied, NeedFacts, decide_need, need_holds_for_session};
use crate::decision::{forbidden, order};
use crate::notes;
use crate::orders::Order;
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
            Need::SealedPath { path, .. } => (Tier::Write, path.clone()),
            Need::Network { grant, sends: false, .. } => (Tier::Read, grant.clone()),
            Need::Network { grant, sends: true, .. } => (Tier::Remote, grant.clone()),
            Need::Budget { spent_usd, .. } => (Tier::Spend, format!("{spent_usd:.2} USD")),
        };
        // A grant is the plugin's, whichever of its tools asks.
        let scope = match &need {
            Need::Network { plugin, grant, .. } => (plugin.clone(), format!("network {grant}")),
            need => (tool.clone(), format!("{need:?}")),
        };
        let allowed = match &need {
            Need::Network { host, .. } => self.settings.rules.allows_host(host),
            _ => None,
        };
        let kept = self.can_be_kept(&tool, &need);
        let sends = matches!(need, Need::Network { sends: true, .. });
        let order = Order { again: self.unknown_of(&tool), ..order(None, target.clone()) };
        let unknown = self.told_of(&order.again);
        let by_policy = match &need {
            Need::Budget { .. } => None,
            Need::SealedPath { .. } | Need::Network { granted: true, .. } => {
                self.settings.policy.tier(tier).err()
            }
            // Whoever allows it, or says yes, grants it.
            Need::Network { granted: false, grant, .. } => {
                let may_grant = || self.settings.policy.flag("--grant", &format!("granting `{grant}`"));
                self.settings.policy.tier(tier).and_then(|()| may_grant()).err()
            }
        };
        let facts = NeedFacts {
            mode: self.settings.mode,
            interactive: self.settings.interactive,
            allowed_before: self.allowed.contains(&scope),
            allowed,
            on_tier: self.settings.rules.on_tier(tier),
            unknown_order: unknown.as_deref(),
            tainted: self.taint.is_some(),
            need: &need,
            ways: self.ways(),
        };
        let holds = need_holds_for_session(&need) && !facts.is_careful();
        let decision = by_policy.map_or_else(|| decide_need(&facts), forbidden);
        self.audit_need(&call, &tool, tier, &target, &decision)?;
        let reason = match decision {
            Decision::Allow { .. } => {
                if sends {
                    self.becomes_order(order, &call, &tool).await?;
                }
                return Ok(HostReply::Allowed);
            }
            Decision::Deny(Denied { rule, message, remedy }) => {
                return Ok(HostReply::Refused { message, rule, remedy });
            }
            Decision::Ask { reason, .. } => reason,
        };
        let payer = matches!(need, Need::Budget { .. }).then(|| self.model.payer().to_owned());
        let request = ApprovalRequest {
            tool: tool.clone(),
            arguments: Value::Object(serde_json::Map::new()),
            tool_call_id: call.clone(),
            tiers: [tier].into(),
            reason: reason.clone(),
            need: Some(need),
            lasting: kept.is_some(),
            target: target.clone(),
            for_session: holds,
            price_usd: None,
            remaining_usd: None,
            payer,
            taint: self.taint.clone().filter(|_| tier == Tier::Remote),
            texts: Vec::new(),
        };
        let answers = match self.ask(vec![request], cancel).await {
            Err(Fault::Interrupted) => Vec::new(),
            other => other?,
        };
        let answer = answers.into_iter().next().unwrap_or(Answer::Abandoned);
        self.audit_answer(&call, &target, &answer)?;
        Ok(match answer {
            Answer::Approved { until, .. } => {
                let until = if holds { until } else { Until::Once };
                self.hold(until, scope, kept.as_ref()).await?;
                if sends {
                    self.becomes_order(order, &call, &tool).await?;
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

    /// What would be granted for good: to a plugin whose grants are the user's and its own, and where no rule asks
    /// each time.
    fn can_be_kept(&self, tool: &str, need: &Need) -> Option<(String, String)> {
        match need {
            Need::Network { plugin, grant, rule: None, .. }
                if !self.runtime.is_bundled(tool)
                    && self.runtime.plugin(tool).is_some_and(|plugin| plugin.has_grants) =>
            {
                Some((plugin.clone(), grant.clone()))
            }
            _ => None,
        }
    }

    /// Lets what was approved hold for as long as the person said.
    async fn hold(
        &mut self,
        until: Until,
        scope: (String, String),
        kept: Option<&(String, String)>,
    ) -> Result<(), StoreError> {
        if until == Until::Once {
            return Ok(());
        }
        self.allowed.insert(scope.clone());
        let Some((plugin, grant)) = kept.filter(|_| until == Until::Good) else { return Ok(()) };
        let of_id = |known: &&std::sync::Arc<runtime::Plugin>| known.described.manifest.id == *plugin;
        let gone = || "the plugin is gone".to_owned();
        let kept = self.runtime.plugins().iter().find(of_id).ok_or_else(gone);
        let said = match kept.and_then(|plugin| (self.keep_grant)(plugin, grant)) {
            Ok(()) => {
                self.granted.insert(scope);
                format!("granted {plugin}: network {grant}; `ml-intern plugin revoke {plugin}` takes it back")
            }
            Err(reason) => format!("{plugin} has {grant} for this session; it could not be kept: {reason}"),
        };
        self.notice(said).await
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

/// How long an approval holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Until {
    Once,
    Session,
    Good,
}

impl Until {
    /// The word that stands for it in the audit log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Once => "once",
            Self::Session => "session",
            Self::Good => "for good",
        }
    }
}

/// What a person said about one call.
pub(crate) enum Answer {
    Approved {
        until: Until,
        /// The texts that the person wrote anew, by the argument.
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
        Some(ApprovalAnswer { approved: true, for_session, for_good, edits, .. }) => {
            let until = match (for_good, for_session) {
                (true, _) => Until::Good,
                (false, true) => Until::Session,
                (false, false) => Until::Once,
            };
            Answer::Approved { until, edits: edits.clone() }
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
