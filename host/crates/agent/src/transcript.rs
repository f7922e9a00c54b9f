//! What the model has seen, in order. Every tool call has exactly one result, by construction.

use protocol::{Assistant, Item, ToolCallId};

/// Bytes of text that count as one token where nothing better is known.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;

/// Gives every tool call without a result one that says so, before the next item that is not a result.
/// Returns how many were missing. Needed after a crash only: a running session keeps the pairs itself.
pub(crate) fn repair(items: &mut Vec<Item>, outcome: impl Fn(&ToolCallId) -> &'static str) -> usize {
    let mut repaired = Vec::with_capacity(items.len());
    let mut open: Vec<(ToolCallId, String)> = Vec::new();
    let mut missing = 0;
    let mut close = |open: &mut Vec<(ToolCallId, String)>, repaired: &mut Vec<Item>| {
        for (id, tool) in open.drain(..) {
            missing += 1;
            let content = outcome(&id).to_owned();
            repaired.push(Item::Tool { tool_call_id: id, tool, content, success: false });
        }
    };
    for item in items.drain(..) {
        match &item {
            Item::Tool { tool_call_id, .. } => {
                let Some(at) = open.iter().position(|(id, _)| id == tool_call_id) else {
                    continue;
                };
                open.remove(at);
            }
            Item::User { .. } => close(&mut open, &mut repaired),
            Item::Assistant(assistant) => {
                close(&mut open, &mut repaired);
                open = assistant.tool_calls.iter().map(|c| (c.id.clone(), c.name.clone())).collect();
            }
        }
        repaired.push(item);
    }
    close(&mut open, &mut repaired);
    *items = repaired;
    missing
}

/// Takes back the last message of the person and everything after it.
pub(crate) fn undo(items: &mut Vec<Item>) -> usize {
    let keep =
        items.iter().rposition(|item| matches!(item, Item::User { note: false, .. })).unwrap_or(items.len());
    let removed = items.len() - keep;
    items.truncate(keep);
    removed
}

/// Rough size of an item in tokens.
pub(crate) fn tokens(item: &Item) -> u64 {
    let bytes = match item {
        Item::User { content, .. } | Item::Tool { content, .. } => content.len(),
        Item::Assistant(Assistant { content, tool_calls, .. }) => {
            let calls: usize = tool_calls.iter().map(|c| c.name.len() + c.arguments.len()).sum();
            content.as_ref().map_or(0, String::len) + calls
        }
    };
    bytes as u64 / BYTES_PER_TOKEN + 4
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;
    use protocol::ToolCall;

    use super::*;

    pub(crate) fn user(text: &str) -> Item {
        Item::User { content: text.to_owned(), note: false }
    }

    pub(crate) fn note(text: &str) -> Item {
        Item::User { content: text.to_owned(), note: true }
    }

    pub(crate) fn calls(calls: &[(&str, &str, &str)]) -> Item {
        let call = |(id, name, arguments): &(&str, &str, &str)| ToolCall {
            id: (*id).into(),
            name: (*name).to_owned(),
            arguments: (*arguments).to_owned(),
        };
        Item::Assistant(Assistant { tool_calls: calls.iter().map(call).collect(), ..Assistant::default() })
    }

    pub(crate) fn result(id: &str, content: &str) -> Item {
        Item::Tool {
            tool_call_id: id.into(),
            tool: "t".to_owned(),
            content: content.to_owned(),
            success: true,
        }
    }

    fn missing(id: &str) -> Item {
        Item::Tool {
            tool_call_id: id.into(),
            tool: "t".to_owned(),
            content: "missing".to_owned(),
            success: false,
        }
    }

    /// Every call has one result, right behind it.
    pub(crate) fn is_whole(items: &[Item]) -> bool {
        let mut open: Vec<ToolCallId> = Vec::new();
        items.iter().all(|item| match item {
            Item::Tool { tool_call_id, .. } => {
                let at = open.iter().position(|id| id == tool_call_id);
                at.map(|at| open.remove(at)).is_some()
            }
            Item::User { .. } => open.is_empty(),
            Item::Assistant(said) => {
                let answered = open.is_empty();
                open = said.tool_calls.iter().map(|call| call.id.clone()).collect();
                answered
            }
        }) && open.is_empty()
    }

    #[test]
    fn missing_results_are_added_where_they_belong() {
        let mut items = vec![
            user("a"),
            calls(&[("1", "t", "{}"), ("2", "t", "{}")]),
            result("1", "x"),
            user("b"),
            calls(&[("3", "t", "{}")]),
        ];
        assert_eq!(repair(&mut items, |_| "missing"), 2);
        let expected = vec![
            user("a"),
            calls(&[("1", "t", "{}"), ("2", "t", "{}")]),
            result("1", "x"),
            missing("2"),
            user("b"),
            calls(&[("3", "t", "{}")]),
            missing("3"),
        ];
        assert_eq!(items, expected);
        assert_eq!(repair(&mut items.clone(), |_| "missing"), 0);
    }

    #[test]
    fn undo_takes_notes_along_and_stops_at_the_person() {
        let mut items =
            vec![user("a"), calls(&[]), user("b"), note("n"), calls(&[("1", "t", "{}")]), result("1", "x")];
        assert_eq!(undo(&mut items), 4);
        assert_eq!(items, [user("a"), calls(&[])]);
        assert_eq!(undo(&mut items), 2);
        assert_eq!(undo(&mut items), 0);
    }

    proptest! {
        #[test]
        fn after_a_repair_every_call_has_one_result_right_behind_it(kinds in proptest::collection::vec(0..5_u8, 0..40)) {
            let mut items = Vec::new();
            let mut next = 0;
            for kind in kinds {
                match kind {
                    0 => items.push(user("u")),
                    1 | 2 => {
                        let ids: Vec<String> = (0..=kind).map(|k| format!("{}", next + k)).collect();
                        next += kind + 1;
                        items.push(calls(&ids.iter().map(|id| (id.as_str(), "t", "{}")).collect::<Vec<_>>()));
                    }
                    3 => items.push(result(&format!("{}", next.saturating_sub(1)), "r")),
                    _ => items.push(result("stray", "r")),
                }
            }
            repair(&mut items, |_| "missing");
            prop_assert!(is_whole(&items));
        }
    }
}
