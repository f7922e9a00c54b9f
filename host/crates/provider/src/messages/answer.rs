use serde::Deserialize;
use serde_json::{Map, Value};

use crate::answer::{Answer, DraftCall, Taken};
use crate::completion::FinishReason;
use crate::layout::Layout;
use crate::server_error::ServerError;
use crate::sse::Event;
use crate::usage::MessagesUsage;

/// A message while it comes in.
#[derive(Debug, Default)]
pub(crate) struct MessagesAnswer {
    blocks: Vec<Draft>,
    usage: MessagesUsage,
    layout: Layout,
}

#[derive(Debug)]
struct Draft {
    index: u64,
    block: Block,
}

#[derive(Debug)]
enum Block {
    Text {
        bytes: usize,
    },
    Call {
        id: String,
        name: String,
        input: Value,
        written: String,
    },
    Thinking(Map<String, Value>),
    /// Something that is kept as it is, or nothing at all.
    Other(Option<Value>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Wire {
    MessageStart {
        message: Message,
    },
    ContentBlockStart {
        index: u64,
        content_block: Value,
    },
    ContentBlockDelta {
        index: u64,
        delta: Delta,
    },
    ContentBlockStop {},
    MessageDelta {
        delta: End,
        usage: Option<Value>,
    },
    MessageStop {},
    Ping {},
    /// A whole answer.
    Message(Message),
    Error {
        error: Value,
    },
    #[serde(other)]
    Unknown,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Vec<Value>>,
    stop_reason: Option<String>,
    usage: Option<Value>,
}

#[derive(Deserialize)]
struct End {
    stop_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Delta {
    #[serde(rename = "text_delta")]
    Text { text: String },
    #[serde(rename = "thinking_delta")]
    Thinking { thinking: String },
    #[serde(rename = "signature_delta")]
    Signature { signature: String },
    #[serde(rename = "input_json_delta")]
    Input { partial_json: String },
    #[serde(other)]
    Unknown,
}

impl MessagesAnswer {
    pub(crate) fn event(&mut self, event: &Event, answer: &mut Answer) -> Taken {
        match serde_json::from_slice::<Wire>(&event.data) {
            Ok(wire) => self.take(wire, answer),
            Err(_) => Taken::of_unknown(event),
        }
    }

    /// Takes an answer that came in one piece.
    pub(crate) fn whole(&mut self, body: &[u8], answer: &mut Answer) -> Taken {
        match serde_json::from_slice::<Wire>(body) {
            Ok(wire @ (Wire::Message(_) | Wire::Error { .. })) => self.take(wire, answer),
            _ => match serde_json::from_slice::<Value>(body) {
                Ok(value) if !value["error"].is_null() => Taken::Failed(ServerError::of(&value["error"])),
                _ => Taken::Garbage,
            },
        }
    }

    fn take(&mut self, wire: Wire, answer: &mut Answer) -> Taken {
        match wire {
            Wire::MessageStart { message } => self.count(message.usage.as_ref(), answer),
            Wire::ContentBlockStart { index, content_block } => self.start(index, content_block, answer),
            Wire::ContentBlockDelta { index, delta } => self.delta(index, delta, answer),
            Wire::MessageDelta { delta, usage } => {
                self.end(delta.stop_reason.as_deref(), answer);
                self.count(usage.as_ref(), answer);
            }
            Wire::MessageStop {} => answer.ended = true,
            Wire::Message(Message { content, stop_reason, usage }) => {
                for (index, block) in (0..).zip(content.unwrap_or_default()) {
                    self.start(index, block, answer);
                }
                self.end(stop_reason.as_deref(), answer);
                self.count(usage.as_ref(), answer);
                answer.ended = true;
            }
            Wire::Error { error } => return Taken::Failed(ServerError::of(&error)),
            Wire::ContentBlockStop {} | Wire::Ping {} | Wire::Unknown => {}
        }
        Taken::Yes
    }

    fn count(&mut self, usage: Option<&Value>, answer: &mut Answer) {
        if let Some(usage) = usage {
            self.usage.update(usage);
            answer.usage = self.usage.total();
        }
    }

    fn end(&mut self, reason: Option<&str>, answer: &mut Answer) {
        if let Some(reason) = reason {
            answer.finish = Some(FinishReason::from_wire(reason));
        }
    }

    fn start(&mut self, index: u64, block: Value, answer: &mut Answer) {
        let block = match block["type"].as_str() {
            Some("text") => {
                let text = block["text"].as_str().unwrap_or_default();
                answer.push_text(text);
                Block::Text { bytes: text.len() }
            }
            Some("tool_use") => Block::Call {
                id: block["id"].as_str().unwrap_or_default().to_owned(),
                name: block["name"].as_str().unwrap_or_default().to_owned(),
                input: block["input"].clone(),
                written: String::new(),
            },
            Some("thinking") => {
                answer.push_reasoning(block["thinking"].as_str().unwrap_or_default());
                match block {
                    Value::Object(fields) => Block::Thinking(fields),
                    other => Block::Other(Some(other)),
                }
            }
            Some("redacted_thinking") => Block::Other(Some(block)),
            _ => Block::Other(None),
        };
        self.blocks.push(Draft { index, block });
    }

    fn delta(&mut self, at: u64, delta: Delta, answer: &mut Answer) {
        let Some(Draft { block, .. }) = self.blocks.iter_mut().rfind(|draft| draft.index == at) else {
            return;
        };
        match (block, delta) {
            (Block::Text { bytes }, Delta::Text { text }) => {
                *bytes += text.len();
                answer.push_text(&text);
            }
            (Block::Thinking(fields), Delta::Thinking { thinking }) => {
                append(fields, "thinking", &thinking);
                answer.push_reasoning(&thinking);
            }
            (Block::Thinking(fields), Delta::Signature { signature }) => {
                append(fields, "signature", &signature);
            }
            (Block::Call { written, .. }, Delta::Input { partial_json }) => {
                written.push_str(&partial_json);
            }
            _ => {}
        }
    }

    /// Hands the calls over and notes the order of the blocks.
    pub(crate) fn finish(&mut self, answer: &mut Answer) {
        self.blocks.sort_by_key(|draft| draft.index);
        for Draft { block, .. } in std::mem::take(&mut self.blocks) {
            match block {
                Block::Text { bytes } => self.layout.text(bytes, None),
                Block::Thinking(fields) => self.layout.record(Value::Object(fields)),
                Block::Other(Some(record)) => self.layout.record(record),
                Block::Call { id, name, input, written } if !name.is_empty() => {
                    let arguments = match input {
                        Value::Object(input) if written.is_empty() => Value::Object(input).to_string(),
                        _ => written,
                    };
                    self.layout.call();
                    answer.calls.push(DraftCall { id, name, arguments });
                }
                Block::Other(None) | Block::Call { .. } => {}
            }
        }
    }

    /// Thinking blocks, which have to come back unchanged.
    pub(crate) fn into_reasoning(self) -> Option<Value> {
        self.layout.into_data()
    }
}

/// Adds to a field that is text.
fn append(fields: &mut Map<String, Value>, name: &str, piece: &str) {
    if let Value::String(text) = fields.entry(name).or_insert_with(|| Value::String(String::new())) {
        text.push_str(piece);
    }
}
