//! What the audit log gets of a session: every decision before it takes effect, and what came of it.

use std::collections::BTreeSet;

use audit::{Act, Plugin, ReadFile, Verdict, digest};
use protocol::{PermissionDenial, Tier, ToolCall, ToolCallId};
use serde_json::Value;

use crate::StoreError;
use crate::approval::Decision;
use crate::edits::Texts;
use crate::questions::Answer;
use crate::session::Session;

/// Characters of an id or a name that a model made up which are kept.
const NAME: usize = 200;

fn clip(text: &str, characters: usize) -> String {
    text.chars().take(characters).collect()
}

fn clip_id(id: &ToolCallId) -> ToolCallId {
    clip(id.as_str(), NAME).into()
}

fn told(decision: &Decision) -> (Verdict, &str) {
    match decision {
        Decision::Allow { rule } => (Verdict::Allow, rule),
        Decision::Ask { rule, .. } => (Verdict::Ask, rule),
        Decision::Deny(denied) => (Verdict::Deny, &denied.rule),
    }
}

impl Session {
    /// Adds a record to the session's chain. A call whose record cannot be written does not run.
    fn audit(&mut self, act: Act) -> Result<(), StoreError> {
        Ok(self.chain.append(act, false)?)
    }

    /// Says in both chains that the session starts. Its own has the head of the user's: whoever keeps the head of
    /// a session holds what was installed, granted and trusted before it, too.
    pub(crate) fn audit_start(&mut self, model: &str) -> Result<(), StoreError> {
        let plugins = self.runtime.plugins().iter().map(|plugin| Plugin {
            id: plugin.described.manifest.id.clone(),
            version: plugin.described.manifest.version.clone(),
            digest: plugin.described.digest.clone(),
            publisher: plugin.described.publisher.as_ref().map(|publisher| publisher.key.to_string()),
        });
        let start = |user| Act::Start {
            session: self.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: model.to_owned(),
            workspace: self.workplace.workspace.as_ref().map(|path| path.display().to_string()),
            mode: self.settings.mode.to_string(),
            wall: self.settings.wall.to_owned(),
            network: self.settings.network.to_owned(),
            plugins: plugins.clone().collect(),
            policy: self.settings.policy_mark.clone(),
            user,
        };
        let head = self.audit_log.user(start(None))?;
        let start = start(Some(head));
        self.audit(start)
    }

    /// Puts on record what the session's file holds: a line that is changed later is found when it is read.
    pub(crate) fn audit_saved(&mut self) -> Result<(), StoreError> {
        self.audit(self.journal.seal())
    }

    /// Says in both chains that the session ends.
    pub(crate) fn audit_end(&mut self) -> Result<(), StoreError> {
        self.audit_saved()?;
        self.audit(Act::End { session: self.id.clone(), head: None })?;
        let head = Some(self.chain.head().to_owned());
        self.audit_log.user(Act::End { session: self.id.clone(), head })?;
        Ok(())
    }

    pub(crate) fn audit_decision(
        &mut self,
        call: &ToolCall,
        arguments: &Value,
        texts: &Texts,
        tiers: &BTreeSet<Tier>,
        target: &str,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let (verdict, rule) = told(decision);
        let files = texts.files.iter().map(|file| ReadFile {
            argument: clip(&file.argument, NAME),
            path: audit::shown_target(&file.path),
            sha256: file.sha256.clone(),
        });
        let files: Vec<ReadFile> = files.collect();
        let arguments = match files.is_empty() {
            true => digest(call.arguments.as_bytes()),
            false => digest(arguments.to_string().as_bytes()),
        };
        let plugin = self.runtime.plugin(&call.name);
        self.audit(Act::Decision {
            call: clip_id(&call.id),
            tool: clip(&call.name, NAME),
            component: plugin.map(|plugin| plugin.described.digest.clone()),
            arguments,
            files,
            tiers: tiers.clone(),
            verdict,
            rule: rule.to_owned(),
            target: audit::shown_target(target),
        })
    }

    /// Records what was decided about something that a running call needs.
    pub(crate) fn audit_need(
        &mut self,
        call: &ToolCallId,
        tool: &str,
        tier: Tier,
        target: &str,
        decision: &Decision,
    ) -> Result<(), StoreError> {
        let (verdict, rule) = told(decision);
        let component = self.runtime.plugin(tool).map(|plugin| plugin.described.digest.clone());
        self.audit(Act::Decision {
            call: clip_id(call),
            tool: clip(tool, NAME),
            component,
            arguments: digest(target.as_bytes()),
            files: Vec::new(),
            tiers: [tier].into(),
            verdict,
            rule: rule.to_owned(),
            target: audit::shown_target(target),
        })
    }

    pub(crate) fn audit_answer(
        &mut self,
        call: &ToolCallId,
        target: &str,
        answer: &Answer,
    ) -> Result<(), StoreError> {
        let (answer, edits) = match answer {
            Answer::Approved { until, edits } => (until.as_str(), Some(edits)),
            Answer::Rejected { .. } => ("rejected", None),
            Answer::Abandoned => ("abandoned", None),
        };
        let (target, answer) = (audit::shown_target(target), answer.to_owned());
        let written = |(argument, text): (&String, &String)| (clip(argument, NAME), digest(text.as_bytes()));
        let edited = edits.into_iter().flatten().map(written).collect();
        self.audit(Act::Answer { call: clip_id(call), target, answer, edited })
    }

    pub(crate) fn audit_credential(
        &mut self,
        call: &ToolCallId,
        plugin: String,
        credential: String,
        origin: String,
    ) -> Result<(), StoreError> {
        self.audit(Act::Credential { call: clip_id(call), plugin, credential, origin })
    }

    pub(crate) fn audit_outcome(
        &mut self,
        call: &ToolCallId,
        success: bool,
        text: &str,
        denial: Option<&PermissionDenial>,
    ) -> Result<(), StoreError> {
        self.audit(Act::Outcome {
            call: clip_id(call),
            success,
            output: digest(text.as_bytes()),
            refused: denial.map(|denial| denial.rule.clone()),
        })
    }

    /// Records that a call ended without an outcome of its own.
    pub(crate) fn audit_unfinished(&mut self, call: &ToolCallId, why: &str) -> Result<(), StoreError> {
        self.audit(Act::Unfinished { call: clip_id(call), why: why.to_owned() })
    }
}
