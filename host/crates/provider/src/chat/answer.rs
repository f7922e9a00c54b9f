use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use crate::answer::{Answer, DraftCall, Taken};
use crate::completion::FinishReason;
use crate::server_error::ServerError;
use crate::sse::Event;
use crate::usage;

/// A chat completion while it comes in.
#[derive(Debug, Default)]
pub(crate) struct ChatAnswer {
    slots: Vec<Slot>,
    /// Under which name reasoning came, and what it was.
    reasoning: Option<(&'static str, String)>,
}

#[derive(Debug, Default)]
struct Slot {
    index: Option<u64>,
    call: DraftCall,
}

#[derive(Deserialize)]
struct Chunk {
    choices: Option<Vec<Choice>>,
    usage: Option<Value>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    delta: Option<Message>,
    message: Option<Message>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
    refusal: Option<Value>,
    reasoning_content: Option<Value>,
    reasoning: Option<Value>,
    tool_calls: Option<Vec<CallPart>>,
}

#[derive(Deserialize)]
struct CallPart {
    index: Option<u64>,
    id: Option<String>,
    function: Option<FunctionPart>,
}

#[derive(Default, Deserialize)]
struct FunctionPart {
    name: Option<String>,
    arguments: Option<Value>,
}

impl ChatAnswer {
    pub(crate) fn event(&mut self, event: &Event, answer: &mut Answer) -> Taken {
        if event.data.trim_ascii() == b"[DONE]" {
            answer.ended = true;
            return Taken::Yes;
        }
        match self.chunk(&event.data, answer) {
            Taken::Garbage => Taken::of_unknown(event),
            taken => taken,
        }
    }

    /// Takes an answer that came in one piece.
    pub(crate) fn whole(&mut self, body: &[u8], answer: &mut Answer) -> Taken {
        answer.ended = true;
        self.chunk(body, answer)
    }

    fn chunk(&mut self, data: &[u8], answer: &mut Answer) -> Taken {
        let Ok(Chunk { choices, usage, error }) = serde_json::from_slice::<Chunk>(data) else {
            return Taken::Garbage;
        };
        if let Some(error) = error.filter(|error| !error.is_null()) {
            return Taken::Failed(ServerError::of(&error));
        }
        if choices.is_none() && usage.is_none() {
            return Taken::Garbage;
        }
        if let Some(usage) = usage.filter(Value::is_object) {
            answer.usage = usage::of_chat(&usage);
        }
        if let Some(choice) = choices.and_then(|choices| choices.into_iter().next()) {
            self.choice(choice, answer);
        }
        Taken::Yes
    }

    fn choice(&mut self, choice: Choice, answer: &mut Answer) {
        let Choice { delta, message, finish_reason } = choice;
        for message in [delta, message].into_iter().flatten() {
            self.message(message, answer);
        }
        if let Some(reason) = finish_reason.filter(|reason| !reason.is_empty()) {
            answer.finish = Some(FinishReason::from_wire(&reason));
        }
    }

    fn message(&mut self, message: Message, answer: &mut Answer) {
        let Message { content, refusal, reasoning_content, reasoning, tool_calls } = message;
        match (reasoning_content.as_ref().and_then(Value::as_str), reasoning.as_ref().and_then(Value::as_str))
        {
            (Some(text), _) => self.reasoning("reasoning_content", text, answer),
            (None, Some(text)) => self.reasoning("reasoning", text, answer),
            (None, None) => {}
        }
        match content {
            Some(Value::String(text)) => answer.push_text(&text),
            Some(Value::Array(parts)) => parts.iter().for_each(|part| self.part(part, answer)),
            _ => {}
        }
        if let Some(text) = refusal.as_ref().and_then(Value::as_str) {
            answer.push_text(text);
        }
        let known = self.slots.len();
        for part in tool_calls.unwrap_or_default() {
            self.call(part, known);
        }
    }

    /// A part of a content that is a list.
    fn part(&mut self, part: &Value, answer: &mut Answer) {
        if let Some(text) = part["text"].as_str() {
            answer.push_text(text);
        }
        for thought in part["thinking"].as_array().into_iter().flatten() {
            answer.push_reasoning(thought["text"].as_str().unwrap_or_default());
        }
    }

    fn reasoning(&mut self, field: &'static str, text: &str, answer: &mut Answer) {
        if !text.is_empty() {
            self.reasoning.get_or_insert((field, String::new())).1.push_str(text);
            answer.push_reasoning(text);
        }
    }

    /// Takes a piece of a call; the first `known` calls were there before the list that it is in.
    fn call(&mut self, part: CallPart, known: usize) {
        let CallPart { index, id, function } = part;
        let FunctionPart { name, arguments } = function.unwrap_or_default();
        let (id, name) = (id.unwrap_or_default(), name.unwrap_or_default());
        // Two entries of one list are two calls, even if a server numbers neither.
        let found = self.find(index, &id, &name).filter(|slot| index.is_some() || *slot < known);
        let slot = match found {
            Some(slot) => &mut self.slots[slot],
            None => {
                self.slots.push(Slot { index, call: DraftCall::default() });
                let last = self.slots.len() - 1;
                &mut self.slots[last]
            }
        };
        let call = &mut slot.call;
        if call.id.is_empty() {
            call.id = id;
        }
        // Some servers repeat the name with every piece, some send it in pieces.
        if name != call.name && call.arguments.is_empty() {
            call.name.push_str(&name);
        }
        match arguments {
            Some(Value::String(piece)) => call.arguments.push_str(&piece),
            None | Some(Value::Null) => {}
            Some(object) => call.arguments.push_str(&object.to_string()),
        }
    }

    /// The call that a piece goes on with, or none if it begins another.
    fn find(&self, index: Option<u64>, id: &str, name: &str) -> Option<usize> {
        let position = match index {
            Some(_) => self.slots.iter().rposition(|slot| slot.index == index),
            None if !id.is_empty() && !name.is_empty() => {
                return self.slots.iter().rposition(|slot| slot.call.id == id);
            }
            None => self.slots.len().checked_sub(1),
        }?;
        let call = &self.slots[position].call;
        let is_other_id = !id.is_empty() && !call.id.is_empty() && call.id != id;
        // Not looked at for ordinary pieces, which have no name: arguments can be long and come in many.
        let is_done = || {
            call.arguments.trim_end().ends_with('}')
                && serde_json::from_str::<IgnoredAny>(&call.arguments).is_ok()
        };
        let is_other_name = !name.is_empty() && name != call.name && !call.name.is_empty();
        // Servers that do not count give every call the same index, or none: a new call shows by its name.
        let begins_another = match index {
            Some(_) => !name.is_empty() && is_other_id && (is_other_name || is_done()),
            None => !name.is_empty() && (is_other_name || is_done()),
        };
        (!begins_another).then_some(position)
    }

    /// Hands the calls over, in the order of their indexes.
    pub(crate) fn finish(&mut self, answer: &mut Answer) {
        let mut slots = std::mem::take(&mut self.slots);
        slots.sort_by_key(|slot| slot.index);
        answer.calls.extend(slots.into_iter().map(|slot| slot.call).filter(|call| !call.name.is_empty()));
    }

    /// Reasoning that led to calls, which some models lose their thread without.
    pub(crate) fn into_reasoning(self, answer: &Answer) -> Option<Value> {
        let (field, text) = self.reasoning.filter(|_| !answer.calls.is_empty())?;
        Some(json!({ field: text }))
    }
}
