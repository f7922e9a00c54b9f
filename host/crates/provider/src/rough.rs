//! Local servers may leave reasoning and tool calls in the text. Here they are taken out of it, while it
//! streams: what may still turn out to be one of them is held back.

use std::sync::Arc;

use protocol::ToolSpec;

use crate::answer::{Answer, DraftCall};
use crate::completion::FinishReason;
use crate::text_calls::TextCalls;
use crate::think::{Segment, Think};

/// A call that a model clearly tried to write and that nobody can read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum NotUnderstood {
    #[error("it wrote a tool call into its text that cannot be read")]
    Unreadable,
    #[error("it wrote a call of `{0}` into its text, a tool that it was not offered")]
    NoSuchTool(String),
}

/// The text of an answer whose server may not have parsed it.
#[derive(Debug)]
pub(crate) struct RoughText {
    think: Think,
    calls: Option<TextCalls>,
}

impl RoughText {
    /// Looks for reasoning, and for calls if any tool is offered.
    pub(crate) fn new(tools: &Arc<[ToolSpec]>) -> Self {
        let calls = (!tools.is_empty()).then(|| TextCalls::new(Arc::clone(tools)));
        Self { think: Think::default(), calls }
    }

    pub(crate) fn push(&mut self, piece: &str, answer: &mut Answer) {
        let calls = &mut self.calls;
        self.think.push(piece, |segment| pass(segment, calls.as_mut(), answer));
    }

    pub(crate) fn finish(self, answer: &mut Answer) -> Result<Vec<DraftCall>, NotUnderstood> {
        let Self { think, mut calls } = self;
        think.finish(|segment| pass(segment, calls.as_mut(), answer));
        let Some(calls) = calls else { return Ok(Vec::new()) };
        if !answer.calls.is_empty() {
            answer.show(&calls.into_held());
            return Ok(Vec::new());
        }
        let found = calls.finish(answer.finish == Some(FinishReason::Length))?;
        answer.show(&found.text);
        Ok(found.calls)
    }
}

fn pass(segment: Segment<'_>, calls: Option<&mut TextCalls>, answer: &mut Answer) {
    match (segment, calls) {
        (Segment::Reasoning(text), _) => answer.push_reasoning(text),
        (Segment::Text(text), None) => answer.show(text),
        (Segment::Text(text), Some(calls)) => calls.push(text, |text| answer.show(text)),
        (Segment::Retract, calls) => {
            answer.retract();
            if let Some(calls) = calls {
                calls.forget();
            }
        }
    }
}
