use serde::Deserialize;
use serde_json::Value;

use crate::answer::{Answer, DraftCall, Taken};
use crate::completion::FinishReason;
use crate::layout::Layout;
use crate::server_error::ServerError;
use crate::sse::Event;
use crate::usage;

/// A response while it comes in.
#[derive(Debug, Default)]
pub(crate) struct ResponsesAnswer {
    items: Vec<(u64, Value)>,
    /// Whether text came in pieces, so that the items repeat it.
    had_text: bool,
    had_summary: bool,
    layout: Layout,
}

#[derive(Deserialize)]
struct Wire {
    r#type: String,
    delta: Option<Value>,
    output_index: Option<u64>,
    item: Option<Value>,
    response: Option<Response>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Response {
    status: Option<String>,
    output: Option<Vec<Value>>,
    usage: Option<Value>,
    error: Option<Value>,
    incomplete_details: Option<Value>,
}

impl ResponsesAnswer {
    pub(crate) fn event(&mut self, event: &Event, answer: &mut Answer) -> Taken {
        if event.data.trim_ascii() == b"[DONE]" {
            return Taken::Yes;
        }
        let Ok(wire) = serde_json::from_slice::<Wire>(&event.data) else {
            return Taken::of_unknown(event);
        };
        let Wire { r#type, delta, output_index, item, response, error } = wire;
        let delta = delta.as_ref().and_then(Value::as_str).unwrap_or_default();
        match r#type.as_str() {
            "response.output_text.delta" | "response.refusal.delta" => {
                self.had_text = true;
                answer.push_text(delta);
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                answer.push_reasoning(delta);
            }
            "response.reasoning_summary_part.added" => {
                let between = if std::mem::replace(&mut self.had_summary, true) { "\n\n" } else { "" };
                answer.push_reasoning(between);
            }
            "response.output_item.done" => {
                self.items.extend(item.map(|item| (output_index.unwrap_or(u64::MAX), item)));
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                let status = r#type.trim_start_matches("response.");
                return response.map_or(Taken::Garbage, |response| self.response(status, response, answer));
            }
            "error" => {
                let error = error.filter(Value::is_object).map(|error| ServerError::of(&error));
                return Taken::Failed(error.unwrap_or_else(|| ServerError::read(&event.data)));
            }
            _ => {}
        }
        Taken::Yes
    }

    /// Takes an answer that came in one piece.
    pub(crate) fn whole(&mut self, body: &[u8], answer: &mut Answer) -> Taken {
        match serde_json::from_slice::<Response>(body) {
            Ok(response) => match response.status.clone() {
                Some(status) => self.response(&status, response, answer),
                None if response.output.is_some() => self.response("completed", response, answer),
                None => match response.error {
                    Some(error) => Taken::Failed(ServerError::of(&error)),
                    None => Taken::Garbage,
                },
            },
            Err(_) => Taken::Garbage,
        }
    }

    fn response(&mut self, status: &str, response: Response, answer: &mut Answer) -> Taken {
        let Response { output, usage, error, incomplete_details, .. } = response;
        if let Some(error) = error.filter(|error| !error.is_null()) {
            return Taken::Failed(ServerError::of(&error));
        }
        if !matches!(status, "completed" | "incomplete") {
            return Taken::Failed(ServerError::new("", &format!("the response ended as `{status}`")));
        }
        if let Some(output) = output.filter(|output| !output.is_empty()) {
            self.items = (0..).zip(output).collect();
        }
        if let Some(usage) = usage.filter(Value::is_object) {
            answer.usage = usage::of_responses(&usage);
        }
        let reason = incomplete_details.as_ref().and_then(|details| details["reason"].as_str());
        answer.finish = Some(FinishReason::from_wire(reason.unwrap_or(status)));
        answer.ended = true;
        Taken::Yes
    }

    /// Hands over the calls, and text that did not come in pieces, and notes the order of the items.
    pub(crate) fn finish(&mut self, answer: &mut Answer) {
        self.items.sort_by_key(|(index, _)| *index);
        for (_, item) in std::mem::take(&mut self.items) {
            match item["type"].as_str() {
                Some("reasoning") => self.layout.record(item),
                Some("message") => self.message(&item, answer),
                Some("function_call") => {
                    let field = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
                    self.layout.call();
                    answer.calls.push(DraftCall {
                        id: field("call_id"),
                        name: field("name"),
                        arguments: field("arguments"),
                    });
                }
                _ => {}
            }
        }
    }

    fn message(&mut self, item: &Value, answer: &mut Answer) {
        let mut bytes = 0;
        for part in item["content"].as_array().into_iter().flatten() {
            let text = part["text"].as_str().or_else(|| part["refusal"].as_str()).unwrap_or_default();
            bytes += text.len();
            if !self.had_text {
                answer.push_text(text);
            }
        }
        self.layout.text(bytes, item["phase"].as_str().map(str::to_owned));
    }

    /// Reasoning items, which have to come back unchanged: nothing is stored at the provider.
    pub(crate) fn into_reasoning(self) -> Option<Value> {
        self.layout.into_data()
    }
}
