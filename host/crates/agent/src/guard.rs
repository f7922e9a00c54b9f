//! Corrective notes when the model goes round in circles or hands back unfinished work.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};

use protocol::{Item, PlanItem, ToolCallId};
use serde_json::Value;

use crate::notes;

/// Items of the transcript's end that are looked at.
const WINDOW: usize = 30;

/// Equal calls with equal results in a row that count as a repetition.
const REPEATS: usize = 3;

/// Lengths of cycles that are looked for; each must be there twice.
const CYCLES: std::ops::RangeInclusive<usize> = 2..=5;

/// Times a text-only answer is sent back while the plan has open items.
const CONTINUATIONS: u32 = 2;

/// What was already said, so that it is said once.
#[derive(Debug, Default)]
pub(crate) struct Guard {
    said: Option<u64>,
    continuations: u32,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Signature<'a> {
    tool: &'a str,
    arguments: u64,
    result: Option<u64>,
}

impl Guard {
    /// A note if the calls at the end of the transcript repeat, once per repetition.
    pub(crate) fn repetition(&mut self, items: &[Item]) -> Option<String> {
        let signatures = signatures(&items[items.len().saturating_sub(WINDOW)..]);
        let Some((what, note)) = repetition(&signatures) else {
            self.said = None;
            return None;
        };
        if self.said.replace(what) == Some(what) {
            return None;
        }
        Some(note)
    }

    /// A note if a text-only answer leaves items of the plan open, a few times at most.
    pub(crate) fn continuation(&mut self, plan: &[PlanItem]) -> Option<String> {
        let open: Vec<&PlanItem> =
            plan.iter().filter(|p| matches!(p.status.as_str(), "pending" | "in_progress")).collect();
        if open.is_empty() || self.continuations >= CONTINUATIONS {
            return None;
        }
        self.continuations += 1;
        Some(notes::continuation(&open))
    }

    /// The model called a tool: it is working.
    pub(crate) fn worked(&mut self) {
        self.continuations = 0;
    }
}

/// The tool whose last two results both say that its arguments were malformed.
pub(crate) fn malformed_streak(items: &[Item]) -> Option<&str> {
    let mut results = items.iter().rev().filter_map(|item| match item {
        Item::Tool { tool, content, .. } => Some((tool.as_str(), content.as_str())),
        _ => None,
    });
    let (tool, last) = results.next()?;
    let (other, before) = results.next()?;
    let mark = notes::malformed_mark(tool);
    (tool == other && last.starts_with(&mark) && before.starts_with(&mark)).then_some(tool)
}

fn signatures(items: &[Item]) -> Vec<Signature<'_>> {
    let mut found = Vec::new();
    for (k, item) in items.iter().enumerate() {
        let Item::Assistant(assistant) = item else {
            continue;
        };
        for call in &assistant.tool_calls {
            let result = result_of(&items[k + 1..], &call.id);
            found.push(Signature { tool: &call.name, arguments: canonical(&call.arguments), result });
        }
    }
    found
}

fn result_of(after: &[Item], id: &ToolCallId) -> Option<u64> {
    after
        .iter()
        .map_while(|item| match item {
            Item::Tool { tool_call_id, content, .. } => Some((tool_call_id, content)),
            _ => None,
        })
        .find(|(of, _)| *of == id)
        .map(|(_, content)| canonical(content))
}

/// A hash in which the order of keys and white space of JSON do not count.
fn canonical(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    match serde_json::from_str::<Value>(text) {
        Ok(value) => hash_value(&value, &mut hasher),
        Err(_) => text.hash(&mut hasher),
    }
    hasher.finish()
}

fn hash_value(value: &Value, hasher: &mut DefaultHasher) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| name.as_str());
            fields.len().hash(hasher);
            for (name, value) in fields {
                name.hash(hasher);
                hash_value(value, hasher);
            }
        }
        Value::Array(values) => {
            values.len().hash(hasher);
            for value in values {
                hash_value(value, hasher);
            }
        }
        other => other.to_string().hash(hasher),
    }
}

/// The repetition at the end of the calls, by a number that names it, and what is said about it.
fn repetition(signatures: &[Signature<'_>]) -> Option<(u64, String)> {
    let last = signatures.last()?;
    let run = signatures.iter().rev().take_while(|s| *s == last).count();
    if run >= REPEATS {
        return Some((name_of(std::slice::from_ref(last)), notes::repetition(last.tool)));
    }
    CYCLES.into_iter().find_map(|length| {
        let start = signatures.len().checked_sub(2 * length)?;
        let (first, second) = signatures[start..].split_at(length);
        // Two equal calls in a row are no cycle of two.
        let varied = first.iter().any(|s| s != &first[0]);
        (first == second && varied).then(|| {
            let tools: Vec<&str> = first.iter().map(|s| s.tool).collect();
            (name_of(first), notes::cycle(&tools))
        })
    })
}

/// The same for every rotation of a cycle, so that one cycle is told once.
fn name_of(cycle: &[Signature<'_>]) -> u64 {
    let one = |s: &Signature<'_>| {
        let mut hasher = DefaultHasher::new();
        (s.tool, s.arguments, s.result).hash(&mut hasher);
        hasher.finish()
    };
    cycle.iter().map(one).fold(0, u64::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::tests::{calls, result, user};

    fn run(steps: &[(&str, &str, &str)]) -> Vec<Item> {
        let mut items = vec![user("go")];
        for (k, (tool, arguments, answer)) in steps.iter().enumerate() {
            let id = k.to_string();
            items.extend([calls(&[(&id, tool, arguments)]), result(&id, answer)]);
        }
        items
    }

    fn notes_of(steps: &[(&str, &str, &str)]) -> Vec<String> {
        let mut guard = Guard::default();
        (1..=steps.len()).filter_map(|n| guard.repetition(&run(&steps[..n]))).collect()
    }

    #[test]
    fn three_equal_calls_are_told_once_however_long_it_goes_on() {
        let same = ("bash", r#"{"a":1,"b":[1,2]}"#, "x");
        assert!(notes_of(&[same; 2]).is_empty());
        let said = notes_of(&[same; 8]);
        assert_eq!(said.len(), 1);
        assert!(
            said[0].starts_with("[SYSTEM: REPETITION GUARD]") && said[0].contains("'bash'"),
            "{}",
            said[0]
        );
    }

    #[test]
    fn a_repetition_that_comes_back_is_told_again() {
        let (a, b) = (("bash", "{}", "x"), ("read", "{}", "y"));
        assert_eq!(notes_of(&[a, a, a, b, a, a, a]).len(), 2);
    }

    #[test]
    fn key_order_and_space_do_not_count_but_arrays_and_results_do() {
        let variants = [
            ("bash", r#"{"a":1,"b":2}"#, "x"),
            ("bash", r#"{ "b": 2, "a": 1 }"#, "x"),
            ("bash", r#"{"b":2,"a":1}"#, "x"),
        ];
        assert_eq!(notes_of(&variants).len(), 1);
        assert!(
            notes_of(&[("bash", "[1,2]", "x"), ("bash", "[2,1]", "x"), ("bash", "[1,2]", "x")]).is_empty()
        );
        assert!(notes_of(&[("bash", "{}", "1%"), ("bash", "{}", "2%"), ("bash", "{}", "3%")]).is_empty());
        assert_eq!(notes_of(&[("bash", "broken", "x"); 3]).len(), 1);
    }

    #[test]
    fn cycles_are_told_with_their_tools() {
        let (a, b) = (("read", "{}", "x"), ("edit", "{}", "y"));
        assert!(notes_of(&[a, a, b, a, a]).is_empty());
        let said = notes_of(&[a, b, a, b, a, b]);
        assert_eq!(said.len(), 1);
        assert!(said[0].contains("[read → edit]"), "{}", said[0]);
    }

    #[test]
    fn malformed_results_of_one_tool_in_a_row() {
        let broken = notes::malformed("t", "eof");
        let other = notes::malformed("u", "eof");
        assert_eq!(malformed_streak(&run(&[("t", "{}", &broken), ("t", "{}", &broken)])), Some("t"));
        assert_eq!(malformed_streak(&run(&[("t", "{}", &broken)])), None);
        assert_eq!(
            malformed_streak(&run(&[("t", "{}", &broken), ("t", "{}", "ok"), ("t", "{}", &broken)])),
            None
        );
        assert_eq!(malformed_streak(&run(&[("t", "{}", &broken), ("t", "{}", &other)])), None);
    }

    #[test]
    fn open_items_send_a_text_back_twice() {
        let item = |id: &str, status: &str| PlanItem {
            id: id.to_owned(),
            content: String::new(),
            status: status.to_owned(),
        };
        let plan: Vec<PlanItem> = ["1", "2", "3", "4", "5", "6"].map(|id| item(id, "pending")).to_vec();
        let mut guard = Guard::default();
        let note = guard.continuation(&plan).unwrap();
        assert!(note.starts_with("[SYSTEM: CONTINUATION GUARD]"));
        assert!(note.contains("4. (unnamed task) [pending]; ... and 2 more."), "{note}");
        assert!(guard.continuation(&plan).is_some() && guard.continuation(&plan).is_none());
        guard.worked();
        assert!(guard.continuation(&plan).is_some());
        assert!(Guard::default().continuation(&[item("1", "completed")]).is_none());
    }
}
