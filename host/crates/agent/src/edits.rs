//! Arguments that are texts of their own: read from files, shown, edited by a person before the yes.

use std::collections::BTreeMap;

use manifest::ToolPolicy;
use protocol::{ApprovalRequest, Item, PermissionDenial, ShownText, ToolCall, ToolResult};
use runtime::{MAX_TEXT_BYTES, NamedFile, NamedFileError};
use serde_json::Value;

use crate::session::Session;
use crate::tools::{Fate, Planned};
use crate::{StoreError, notes};

/// Where the texts of a call come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Texts {
    /// Files whose texts stand in the place of their paths.
    pub(crate) files: Vec<NamedFile>,
    /// Arguments that a person wrote anew.
    edited: Vec<String>,
}

impl Texts {
    pub(crate) fn of(files: Vec<NamedFile>) -> Self {
        Self { files, edited: Vec::new() }
    }

    /// What a person is shown of the texts.
    pub(crate) fn shown(&self, policy: &ToolPolicy, arguments: &Value) -> Vec<ShownText> {
        let one = |argument: String| {
            let text = arguments.pointer(&argument)?.as_str()?;
            let file = self.files.iter().find(|file| file.argument == argument);
            Some(ShownText {
                path: file.map(|file| file.path.clone()),
                bytes: text.len(),
                sha256: audit::digest(text.as_bytes()),
                argument,
            })
        };
        policy.texts().filter_map(one).collect()
    }

    /// What the model is told of them beside the result.
    pub(crate) fn told(&self) -> Option<String> {
        let name = |argument: &str| argument.trim_start_matches('/').to_owned();
        let read = self.files.iter().map(|file| {
            let NamedFile { argument, path, bytes, sha256, .. } = file;
            let argument = name(argument);
            format!("\n[`{argument}` was the text of {path} as it was when the call was decided: {bytes} bytes, sha256 {sha256}]")
        });
        let edited = self.edited.iter().map(|argument| {
            let argument = name(argument);
            format!("\n[the user edited `{argument}` before approving; what ran is the text that now stands in the call]")
        });
        let told: String = read.chain(edited).collect();
        (!told.is_empty()).then_some(told)
    }
}

/// The result of a call whose file is not read.
pub(crate) fn not_read(error: &NamedFileError, call: &ToolCall) -> ToolResult {
    let text = format!("not run: {error}");
    let (rule, target, remedy) = match error {
        NamedFileError::Outside(path) => (
            "path-outside".to_owned(),
            path.clone(),
            "--add-dir with the folder that the file really is in, and its path there".to_owned(),
        ),
        NamedFileError::Denied { real, rule, .. } => {
            (format!("rule:{rule}"), real.display().to_string(), format!("taking the rule `{rule}` away"))
        }
        _ => return ToolResult::failed(text),
    };
    let denial = PermissionDenial {
        tool: call.name.clone(),
        tool_call_id: call.id.clone(),
        tiers: [protocol::Tier::Read].into(),
        rule,
        target,
        remedy,
    };
    ToolResult::denied(text, denial)
}

impl Session {
    /// Puts what the person wrote in the place of a call's texts, in the transcript too, and decides about
    /// the call anew: the yes was for these bytes, and no rule is passed by writing something else.
    pub(crate) async fn take_edits(
        &mut self,
        planned: &mut Planned,
        request: &mut ApprovalRequest,
        edits: &BTreeMap<String, String>,
    ) -> Result<(), StoreError> {
        for (argument, text) in edits {
            let is_text = request.texts.iter().any(|shown| shown.argument == *argument);
            let place = planned.arguments.pointer_mut(argument).filter(|_| is_text);
            let Some(place) = place.filter(|_| text.len() <= MAX_TEXT_BYTES) else {
                planned.fate = Fate::Known(ToolResult::failed(format!(
                    "not run: what was written for `{argument}` cannot stand there"
                )));
                return Ok(());
            };
            *place = Value::String(text.clone());
            planned.texts.files.retain(|file| file.argument != *argument);
            planned.texts.edited.push(argument.clone());
        }
        // What was read of other files is in the transcript by their names, as the model gave them.
        let mut said = planned.arguments.clone();
        for file in &planned.texts.files {
            if let Some(place) = said.pointer_mut(&file.argument) {
                *place = Value::String(file.path.clone());
            }
        }
        // The model gets it with its next request, and so does whoever answers it.
        self.journal.secrets.clean_json(&mut said);
        planned.call.arguments = said.to_string();
        self.rewrite_call(&planned.call).await?;
        request.arguments.clone_from(&planned.arguments);
        let fate = self.decide_call(&planned.call, &planned.arguments, &planned.texts)?;
        planned.fate = match (&planned.fate, fate) {
            (Fate::Ask(_, Some(shown)), Fate::Ask(_, Some(now))) if !now.is_covered_by(shown) => {
                Fate::Known(ToolResult::failed(notes::CARD_IS_OLD))
            }
            (_, fate) => fate,
        };
        Ok(())
    }

    /// Puts a call as it is now in the place of the call that the model made.
    async fn rewrite_call(&mut self, call: &ToolCall) -> Result<(), StoreError> {
        let said = self.items.iter_mut().rev().find_map(|item| match item {
            Item::Assistant(said) => said.tool_calls.iter_mut().find(|known| known.id == call.id),
            _ => None,
        });
        if let Some(said) = said {
            said.arguments.clone_from(&call.arguments);
        }
        self.journal.transcript(&self.items).await?;
        self.encode();
        Ok(())
    }
}
