use std::collections::{HashSet, VecDeque};

use protocol::{Reasoning, ToolCall, Usage};
use serde_json::Value;

use crate::completion::{Completion, Delta, FinishReason};
use crate::prompt::CallIds;
use crate::rough::{NotUnderstood, RoughText};
use crate::server_error::ServerError;
use crate::sse::Event;

/// The longest id of a call that is kept; no provider makes such ids, and none takes them back.
const CALL_ID_BYTES: usize = 256;

/// An answer while it comes in.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// Everything that was given out as text.
    text: String,
    deltas: VecDeque<Delta>,
    rough: Option<RoughText>,
    pub(crate) calls: Vec<DraftCall>,
    pub(crate) usage: Usage,
    pub(crate) finish: Option<FinishReason>,
    /// The stream's own end mark was seen: nothing follows.
    pub(crate) ended: bool,
}

/// A call while it comes in.
#[derive(Clone, Debug, Default)]
pub(crate) struct DraftCall {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) arguments: String,
}

/// What an event was.
#[derive(Debug)]
pub(crate) enum Taken {
    Yes,
    /// Not JSON, or not of this wire.
    Garbage,
    /// The provider's word that the answer failed.
    Failed(ServerError),
}

impl Taken {
    /// What an event is that has not the form of its wire: the provider's error, or nothing.
    pub(crate) fn of_unknown(event: &Event) -> Self {
        if event.is_error {
            return Self::Failed(ServerError::read(&event.data));
        }
        match serde_json::from_slice::<Value>(&event.data) {
            Ok(value) if !value["error"].is_null() || value["object"] == "error" => {
                Self::Failed(ServerError::of(&value))
            }
            _ => Self::Garbage,
        }
    }
}

impl Answer {
    pub(crate) fn new(rough: Option<RoughText>) -> Self {
        Self { rough, ..Self::default() }
    }

    pub(crate) fn push_text(&mut self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        match self.rough.take() {
            None => self.show(piece),
            Some(mut rough) => {
                rough.push(piece, self);
                self.rough = Some(rough);
            }
        }
    }

    /// Text that is certainly text.
    pub(crate) fn show(&mut self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        self.text.push_str(piece);
        match self.deltas.back_mut() {
            Some(Delta::Text(text)) => text.push_str(piece),
            _ => self.deltas.push_back(Delta::Text(piece.to_owned())),
        }
    }

    pub(crate) fn push_reasoning(&mut self, piece: &str) {
        if piece.is_empty() {
            return;
        }
        match self.deltas.back_mut() {
            Some(Delta::Reasoning(text)) => text.push_str(piece),
            _ => self.deltas.push_back(Delta::Reasoning(piece.to_owned())),
        }
    }

    pub(crate) fn next_delta(&mut self) -> Option<Delta> {
        self.deltas.pop_front()
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the provider said how it ended.
    pub(crate) fn is_whole(&self) -> bool {
        self.ended || self.finish.is_some()
    }

    /// Takes back what was given out as text: it was reasoning.
    pub(crate) fn retract(&mut self) {
        self.text.clear();
    }

    /// Settles what was held back, once no more text comes.
    pub(crate) fn settle(&mut self) -> Result<(), NotUnderstood> {
        let Some(rough) = self.rough.take() else {
            return Ok(());
        };
        let found = rough.finish(self)?;
        self.calls.extend(found);
        Ok(())
    }

    /// Gives calls without an id, with one that the conversation has already or with one that is too long
    /// an id of their own.
    pub(crate) fn name_calls(&mut self, taken: &CallIds) {
        let mut used = HashSet::new();
        for call in &mut self.calls {
            let is_long = call.id.len() > CALL_ID_BYTES;
            if is_long || taken.contains(&call.id) || !used.insert(call.id.clone()) {
                call.id.clear();
            }
        }
        let mut number = taken.len();
        for call in self.calls.iter_mut().filter(|call| call.id.is_empty()) {
            call.id = loop {
                number += 1;
                let id = format!("call_{number}");
                if !taken.contains(&id) && used.insert(id.clone()) {
                    break id;
                }
            };
        }
    }

    pub(crate) fn into_completion(self, reasoning: Option<Reasoning>) -> Completion {
        let calls = !self.calls.is_empty();
        let finish = match self.finish {
            None | Some(FinishReason::Stop) if calls => FinishReason::ToolCalls,
            None => FinishReason::Stop,
            Some(reason) => reason,
        };
        let call = |DraftCall { id, name, arguments }| ToolCall {
            id: id.into(),
            name,
            arguments: if arguments.trim().is_empty() { "{}".to_owned() } else { arguments },
        };
        Completion {
            text: Some(self.text).filter(|text| !text.trim().is_empty()),
            tool_calls: self.calls.into_iter().map(call).collect(),
            reasoning,
            usage: self.usage,
            finish,
        }
    }
}
