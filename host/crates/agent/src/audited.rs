//! What the audit log gets of a session: every decision before it takes effect, and what came of it.

use std::collections::BTreeSet;

use audit::{Act, Plugin, Verdict, digest};
use protocol::{PermissionDenial, Tier, ToolCall, ToolCallId};

use crate::StoreError;
use crate::approval::Decision;
use crate::questions::Answer;
use crate::session::Session;

/// Characters of a target that are kept; the whole is in the session's file, under the digest.
const TARGET: usize = 400;

impl Session {
    /// Adds a record to the session's chain. A call whose record cannot be written does not run.
    pub(crate) fn audit(&mut self, act: Act) -> Result<(), StoreError> {
        Ok(self.chain.append(act, false)?)
    }

    /// Opens the chain of the session as it is now, and says in both chains that it starts.
    pub(crate) fn audit_start(&mut self) -> Result<(), StoreError> {
        let plugins = self.runtime.plugins().iter().map(|plugin| Plugin {
            id: plugin.described.manifest.id.clone(),
            version: plugin.described.manifest.version.clone(),
            digest: plugin.described.digest.clone(),
        });
        let start = Act::Start {
            session: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.id().to_owned(),
            workspace: self.workplace.workspace.as_ref().map(|path| path.display().to_string()),
            mode: self.settings.mode.to_string(),
            wall: self.settings.wall.to_owned(),
            network: self.settings.network.to_owned(),
            plugins: plugins.collect(),
        };
        self.audit_log.user(start.clone())?;
        self.audit(start)
    }

    /// Says in both chains that the session ends.
    pub(crate) fn audit_end(&mut self) -> Result<(), StoreError> {
        self.audit(Act::End { session: self.id.clone(), head: None })?;
        let head = Some(self.chain.head().to_owned());
        Ok(self.audit_log.user(Act::End { session: self.id.clone(), head })?)
    }

    pub(crate) fn audit_decision(
        &mut self,
        call: &ToolCall,
        tiers: &BTreeSet<Tier>,
        target: &str,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let (verdict, rule) = match decision {
            Decision::Allow { rule } => (Verdict::Allow, rule),
            Decision::Ask { rule, .. } => (Verdict::Ask, rule),
            Decision::Deny(denied) => (Verdict::Deny, &denied.rule),
        };
        let plugin = self.runtime.plugin(&call.name);
        self.audit(Act::Decision {
            call: call.id.clone(),
            tool: call.name.clone(),
            component: plugin.map(|plugin| plugin.described.digest.clone()),
            arguments: digest(call.arguments.as_bytes()),
            tiers: tiers.clone(),
            verdict,
            rule: rule.clone(),
            target: target.chars().take(TARGET).collect(),
        })
    }

    pub(crate) fn audit_answer(
        &mut self,
        call: &ToolCallId,
        target: &str,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        let answer = match answer {
            Answer::Approved { for_session: false } => "once",
            Answer::Approved { for_session: true } => "session",
            Answer::Rejected { .. } => "rejected",
            Answer::Abandoned => "abandoned",
        };
        let target = target.chars().take(TARGET).collect();
        self.audit(Act::Answer { call: call.clone(), target, answer: answer.to_owned() })
    }

    pub(crate) fn audit_outcome(
        &mut self,
        call: &ToolCallId,
        success: bool,
        text: &str,
        denial: Option<&PermissionDenial>,
    ) -> Result<(), StoreError> {
        self.audit(Act::Outcome {
            call: call.clone(),
            success,
            output: digest(text.as_bytes()),
            refused: denial.map(|denial| denial.rule.clone()),
        })
    }
}
