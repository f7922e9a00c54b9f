//! The order of an answer's parts, for the wires where reasoning goes back between text and calls.

use protocol::{Assistant, ToolCall};
use serde_json::{Value, json};

const TEXT: &str = "layout_text";
const CALL: &str = "layout_call";

/// One part of an answer on its way back to the provider.
pub(crate) enum Part<'a> {
    /// A reasoning block or item, untouched.
    Record(&'a Value),
    Text {
        text: &'a str,
        /// What the provider called this part of the text.
        phase: Option<&'a str>,
    },
    Call(&'a ToolCall),
}

/// The order in which the parts of an answer came.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Entry {
    Record(Value),
    Text { bytes: usize, phase: Option<String> },
    Call,
}

impl Layout {
    pub(crate) fn record(&mut self, record: Value) {
        self.entries.push(Entry::Record(record));
    }

    pub(crate) fn text(&mut self, bytes: usize, phase: Option<String>) {
        if bytes > 0 {
            self.entries.push(Entry::Text { bytes, phase });
        }
    }

    pub(crate) fn call(&mut self) {
        self.entries.push(Entry::Call);
    }

    /// The records, with marks between them where text and calls did not simply follow; none without either.
    pub(crate) fn into_data(self) -> Option<Value> {
        let rank = |entry: &Entry| match entry {
            Entry::Record(_) => 0,
            Entry::Text { .. } => 1,
            Entry::Call => 2,
        };
        let texts = self.entries.iter().filter(|entry| matches!(entry, Entry::Text { .. })).count();
        let phased = self.entries.iter().any(|entry| matches!(entry, Entry::Text { phase: Some(_), .. }));
        let plain = self.entries.is_sorted_by_key(rank) && texts <= 1 && !phased;
        if !phased && !self.entries.iter().any(|entry| matches!(entry, Entry::Record(_))) {
            return None;
        }
        let entries = self.entries.into_iter().filter_map(|entry| match entry {
            Entry::Record(record) => Some(record),
            Entry::Text { .. } | Entry::Call if plain => None,
            Entry::Text { bytes, phase } => Some(json!({"type": TEXT, "bytes": bytes, "phase": phase})),
            Entry::Call => Some(json!({"type": CALL})),
        });
        Some(entries.collect())
    }
}

/// The parts of an answer in the order they came, as far as `records` tells it and still fits.
pub(crate) fn parts<'a>(assistant: &'a Assistant, records: &'a [Value]) -> Vec<Part<'a>> {
    marked_parts(assistant, records).unwrap_or_else(|| {
        let records = records.iter().filter(|record| !is_mark(record)).map(Part::Record);
        let text = assistant.content.iter().map(|text| Part::Text { text, phase: None });
        records.chain(text).chain(assistant.tool_calls.iter().map(Part::Call)).collect()
    })
}

fn marked_parts<'a>(assistant: &'a Assistant, records: &'a [Value]) -> Option<Vec<Part<'a>>> {
    let mut text = assistant.content.as_deref().unwrap_or_default();
    let mut calls = assistant.tool_calls.iter();
    let mut parts = Vec::with_capacity(records.len());
    for record in records {
        parts.push(match record["type"].as_str() {
            Some(TEXT) => {
                let bytes = usize::try_from(record["bytes"].as_u64()?).ok()?;
                let (part, rest) = text.split_at_checked(bytes)?;
                text = rest;
                Part::Text { text: part, phase: record["phase"].as_str() }
            }
            Some(CALL) => Part::Call(calls.next()?),
            _ => Part::Record(record),
        });
    }
    (text.is_empty() && calls.next().is_none()).then_some(parts)
}

fn is_mark(record: &Value) -> bool {
    matches!(record["type"].as_str(), Some(TEXT | CALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(assistant: &Assistant, records: &[Value]) -> Vec<String> {
        let show = |part: &Part<'_>| match part {
            Part::Record(record) => record.to_string(),
            Part::Text { text, phase } => format!("{text}/{phase:?}"),
            Part::Call(call) => call.id.to_string(),
        };
        parts(assistant, records).iter().map(show).collect()
    }

    fn assistant(text: &str, calls: &[&str]) -> Assistant {
        let call = |id: &&str| ToolCall { id: (*id).into(), name: "n".into(), arguments: "{}".into() };
        Assistant {
            content: Some(text.to_owned()),
            tool_calls: calls.iter().map(call).collect(),
            ..Assistant::default()
        }
    }

    #[test]
    fn the_usual_order_needs_no_marks() {
        let mut layout = Layout::default();
        layout.record(json!(1));
        layout.text(2, None);
        layout.call();
        let data = layout.into_data().unwrap();
        assert_eq!(data, json!([1]));
        assert_eq!(shown(&assistant("hi", &["a"]), data.as_array().unwrap()), ["1", "hi/None", "a"]);
    }

    #[test]
    fn another_order_is_kept_unless_the_text_changed() {
        let mut layout = Layout::default();
        layout.record(json!(1));
        layout.text(3, Some("commentary".to_owned()));
        layout.record(json!(2));
        layout.call();
        layout.call();
        let data = layout.into_data().unwrap();
        let data = data.as_array().unwrap();
        let kept = shown(&assistant("hé", &["a", "b"]), data);
        assert_eq!(kept, ["1", "hé/Some(\"commentary\")", "2", "a", "b"]);
        let changed = shown(&assistant("h", &["a", "b"]), data);
        assert_eq!(changed, ["1", "2", "h/None", "a", "b"]);
    }

    #[test]
    fn an_answer_without_reasoning_leaves_nothing() {
        let mut layout = Layout::default();
        layout.text(3, None);
        layout.call();
        assert_eq!(layout.into_data(), None);
    }
}
