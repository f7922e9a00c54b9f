//! What is the user's own on the Hub: the namespace of that name, and what this session made there.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use audit::{Act, Entry};
use manifest::{Repository, RepositoryCall};
use protocol::{ToolCall, ToolCallId, ToolResult};
use serde_json::Value;

use crate::approval::Own;
use crate::session::Session;
use crate::{Mode, StoreError};

/// The origin of the Hub, as plugins name it.
const HUB: &str = "https://huggingface.co";

type Answer = Result<Option<String>, String>;

/// Asks for the user's own namespace on the Hub. None: there is no token, or nothing may be asked. An error
/// says why it could not be.
pub type AskNamespace = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// What is the user's own.
pub(crate) struct Namespace {
    ask: AskNamespace,
    /// The answer, once there was one.
    name: Option<Option<String>>,
    /// Repositories that this session made.
    made: HashSet<Repository>,
}

impl Namespace {
    pub(crate) fn new(ask: AskNamespace) -> Self {
        Self { ask, name: None, made: HashSet::new() }
    }

    /// Takes in what the session made before it was left.
    pub(crate) fn restore(&mut self, records: &[Entry]) {
        self.made.extend(records.iter().filter_map(|entry| match &entry.act {
            Act::Made { kind, namespace, name, .. } => {
                let (kind, namespace, name) = (kind.clone(), namespace.clone(), name.clone());
                Some(Repository { kind, namespace, name })
            }
            _ => None,
        }));
    }

    /// Another session begins.
    pub(crate) fn forget_made(&mut self) {
        self.made.clear();
    }

    /// How a call stays within what is the user's own, if it does.
    fn own(&self, call: &RepositoryCall) -> Option<Own> {
        match call {
            RepositoryCall::CreatesPrivate(repository) => {
                let name = self.name.as_ref()?.as_ref()?;
                (*name == repository.namespace).then_some(Own::Makes)
            }
            RepositoryCall::Changes(repository) => self.made.contains(repository).then_some(Own::Made),
        }
    }
}

impl Session {
    /// What a call does to a repository of the Hub.
    fn repository_call(&self, tool: &str, arguments: &Value) -> Option<RepositoryCall> {
        self.runtime.policy(tool)?.repository.as_ref()?.of(arguments)
    }

    /// How a call stays within what is the user's own, if it does.
    pub(crate) fn own(&self, tool: &str, arguments: &Value) -> Option<Own> {
        self.namespace.own(&self.repository_call(tool, arguments)?)
    }

    /// Asks for the user's namespace, once, if a decision about one of the calls depends on it.
    pub(crate) async fn know_namespace(&mut self, calls: &[ToolCall]) -> Result<(), StoreError> {
        let depends = |call: &ToolCall| {
            let arguments = serde_json::from_str(&call.arguments).unwrap_or_default();
            matches!(self.repository_call(&call.name, &arguments), Some(RepositoryCall::CreatesPrivate(_)))
        };
        if self.settings.mode != Mode::Auto || self.namespace.name.is_some() || !calls.iter().any(depends) {
            return Ok(());
        }
        let answer = (self.namespace.ask)().await;
        if let Err(reason) = &answer {
            self.notice(format!("which namespace of the Hub is yours is not known: {reason}")).await?;
        }
        self.namespace.name = Some(answer.unwrap_or_default());
        Ok(())
    }

    /// Takes note of a repository that a call made, and of what came back from one that is the session's own:
    /// that is no text of somebody else.
    pub(crate) fn settle_repository(
        &mut self,
        call: &ToolCallId,
        made: Option<(RepositoryCall, Option<Own>)>,
        result: &mut ToolResult,
    ) -> Result<(), StoreError> {
        let Some((what, own)) = made else { return Ok(()) };
        if own.is_some() && result.source.as_deref() == Some(HUB) {
            result.source = None;
        }
        let says = |answer: &Value| answer.pointer("/repository/created") == Some(&Value::Bool(true));
        let created = result.success && !result.unsettled && result.structured.as_ref().is_some_and(says);
        let RepositoryCall::CreatesPrivate(repository) = what else { return Ok(()) };
        if !created {
            return Ok(());
        }
        let Repository { kind, namespace, name } = repository.clone();
        self.chain.append(Act::Made { call: call.clone(), kind, namespace, name }, true)?;
        self.namespace.made.insert(repository);
        Ok(())
    }

    /// What is to be settled of a call when it has ended.
    pub(crate) fn repository_of(
        &self,
        tool: &str,
        arguments: &Value,
    ) -> Option<(RepositoryCall, Option<Own>)> {
        let call = self.repository_call(tool, arguments)?;
        let own = self.namespace.own(&call);
        Some((call, own))
    }
}
