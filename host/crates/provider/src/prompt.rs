use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use protocol::{Item, ToolSpec};
use serde_json::Value;

use crate::chat::ChatPrompt;
use crate::completion::CompletionOptions;
use crate::messages::MessagesPrompt;
use crate::responses::ResponsesPrompt;
use crate::settings::WireFormat;
use crate::target::Target;

/// A conversation as one model's provider wants to see it.
///
/// Every item is written once, when it is pushed; a request shares what was written. Cheap to clone: both
/// copies share what they have in common.
#[derive(Clone)]
pub struct Prompt {
    encoder: Encoder,
    wire: WireFormat,
    /// The model's id, to know which reasoning is its own.
    model: String,
    pub(crate) call_ids: Arc<CallIds>,
    pub(crate) tools: Arc<[ToolSpec]>,
}

#[derive(Clone)]
enum Encoder {
    Chat(ChatPrompt),
    Messages(MessagesPrompt),
    Responses(ResponsesPrompt),
}

/// The ids of all calls so far, so that an answer's can be told from them.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallIds {
    taken: HashSet<String>,
}

impl CallIds {
    pub(crate) fn insert(&mut self, id: &str) {
        self.taken.insert(id.to_owned());
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.taken.contains(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.taken.len()
    }
}

impl Prompt {
    pub(crate) fn new(target: &Target, system: &str, tools: &[ToolSpec]) -> Self {
        let encoder = match target.wire {
            WireFormat::Chat => Encoder::Chat(ChatPrompt::new(target, system, tools)),
            WireFormat::Messages => Encoder::Messages(MessagesPrompt::new(target, system, tools)),
            WireFormat::Responses => Encoder::Responses(ResponsesPrompt::new(target, system, tools)),
        };
        // Only where calls may have to be found in the text are the tools needed again.
        let tools = if target.is_rough() { tools.into() } else { Arc::default() };
        Self { encoder, wire: target.wire, model: target.id.clone(), call_ids: Arc::default(), tools }
    }

    /// Adds the next item of the transcript.
    pub fn push(&mut self, item: &Item) {
        let own_reasoning = self.own_reasoning(item);
        match &mut self.encoder {
            Encoder::Chat(prompt) => prompt.push(item, own_reasoning),
            Encoder::Messages(prompt) => prompt.push(item, own_reasoning),
            Encoder::Responses(prompt) => prompt.push(item, own_reasoning),
        }
        if let Item::Assistant(assistant) = item {
            for call in &assistant.tool_calls {
                Arc::make_mut(&mut self.call_ids).insert(call.id.as_str());
            }
        }
    }

    fn own_reasoning<'a>(&self, item: &'a Item) -> Option<&'a Value> {
        let Item::Assistant(assistant) = item else {
            return None;
        };
        let reasoning = assistant.reasoning.as_ref()?;
        (reasoning.wire == self.wire.as_str() && reasoning.model == self.model).then_some(&reasoning.data)
    }

    /// A quarter of the bytes: near enough until a provider has counted.
    #[must_use]
    pub fn estimated_tokens(&self) -> u64 {
        self.body_bytes() as u64 / 4
    }

    /// Bytes of a request, less a few that its options add.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        match &self.encoder {
            Encoder::Chat(prompt) => prompt.len(),
            Encoder::Messages(prompt) => prompt.len(),
            Encoder::Responses(prompt) => prompt.len(),
        }
    }

    /// Whether it was made for this model.
    pub(crate) fn fits(&self, target: &Target) -> bool {
        self.wire == target.wire && self.model == target.id
    }

    pub(crate) fn body(&self, target: &Target, options: &CompletionOptions) -> Vec<Bytes> {
        match &self.encoder {
            Encoder::Chat(prompt) => prompt.body(target, options),
            Encoder::Messages(prompt) => prompt.body(target, options),
            Encoder::Responses(prompt) => prompt.body(target, options),
        }
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prompt")
            .field("model", &self.model)
            .field("bytes", &self.body_bytes())
            .finish_non_exhaustive()
    }
}
