use std::borrow::Cow;

use proptest::prelude::*;
use protocol::Assistant;

use super::*;
use crate::notes;
use crate::transcript::tests::{calls, result, user};

fn store() -> (tempfile::TempDir, SessionStore, SessionId) {
    let dir = tempfile::tempdir().unwrap();
    let store = SessionStore::new(dir.path());
    (dir, store, SessionId::from("0a0b"))
}

fn item(item: Item) -> Line<'static> {
    Line::Item { at: String::new(), item: Cow::Owned(item) }
}

fn event(event: Event) -> Line<'static> {
    Line::Event { at: String::new(), event: Cow::Owned(event) }
}

fn chunk(text: &str) -> Line<'static> {
    event(Event::AssistantChunk { content: text.to_owned() })
}

#[test]
fn a_session_is_there_again_up_to_its_last_whole_line() {
    let (_dir, store, id) = store();
    let workspace = Path::new("/w");
    let mut file = store.create(&id, workspace, "m").unwrap();
    store.point(workspace, &id).unwrap();
    file.append(&[item(user("hi")), chunk("Hel"), chunk("lo")]).unwrap();
    let path = file.path.clone();
    drop(file);
    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"line\":\"item\",\"ite").unwrap();
    let mut file = store.hold(&store.latest(workspace).unwrap()).unwrap();
    let saved = file.replay(None).unwrap();
    let said = Item::Assistant(Assistant { content: Some("Hello".to_owned()), ..Assistant::default() });
    assert_eq!((saved.items, saved.dropped, saved.events), (vec![user("hi"), said.clone()], 1, 2));
    file.append(&[item(user("again"))]).unwrap();
    drop(file);
    assert_eq!(store.read(&id, None).unwrap().items, [user("hi"), said, user("again")]);
}

#[test]
fn calls_that_were_running_have_an_unknown_outcome() {
    let (_dir, store, id) = store();
    let mut file = store.create(&id, Path::new("/w"), "m").unwrap();
    let announced = |id: &str| {
        event(Event::ToolCall {
            tool: "t".to_owned(),
            arguments: serde_json::json!({}),
            tool_call_id: id.into(),
        })
    };
    file.append(&[item(user("go")), item(calls(&[("1", "t", "{}"), ("2", "t", "{}"), ("3", "t", "{}")]))])
        .unwrap();
    file.append(&[announced("1"), announced("2"), item(result("1", "done"))]).unwrap();
    drop(file);
    let saved = store.read(&id, None).unwrap();
    assert_eq!(saved.unknown_outcomes, [ToolCallId::from("2")]);
    // What it read, nobody knows.
    assert_eq!(saved.taint.as_deref(), Some(crate::notes::CUT_OFF_CALL));
    let contents: Vec<&str> = saved
        .items
        .iter()
        .filter_map(|i| match i {
            Item::Tool { content, .. } => Some(content.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(contents, ["done", notes::OUTCOME_UNKNOWN, notes::NOT_RUN]);
}

fn tool_output(id: &str, source: &str) -> Line<'static> {
    event(Event::ToolOutput {
        tool: "t".to_owned(),
        tool_call_id: id.into(),
        output: "text".to_owned(),
        success: true,
        duration_ms: 0,
        changes: Vec::new(),
        denial: None,
        source: Some(source.to_owned()),
        order: None,
    })
}

#[tokio::test]
async fn no_file_has_a_text_and_not_where_it_came_from() {
    let (_dir, store, id) = store();
    let file = store.create(&id, Path::new("/w"), "m").unwrap();
    let path = file.path.clone();
    let (events, _shown) = tokio::sync::mpsc::channel(8);
    let mut journal = crate::journal::Journal::new(file, events, redact::Redactor::default());
    let Line::Event { event, .. } = tool_output("1", "https://evil") else { unreachable!() };
    journal.item_and_event(&result("1", "text"), event.into_owned()).await.unwrap();
    drop(journal);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let Ok(saved) = store.read(&id, None) else { continue };
        assert!(saved.items.is_empty() || saved.taint.is_some(), "{length}");
    }
}

#[test]
fn a_fork_knows_what_its_session_stood_at() {
    let (_dir, store, id) = store();
    let mut file = store.create(&id, Path::new("/w"), "m").unwrap();
    let standing = Standing { taint: Some("https://evil".to_owned()), completions_usd: 1.5, orders_usd: 4.0 };
    file.append(&[Line::Standing(standing), tool_output("1", "https://other")]).unwrap();
    drop(file);
    let saved = store.read(&id, None).unwrap();
    assert_eq!(saved.taint.as_deref(), Some("https://evil"));
    assert_eq!((saved.completions_usd, saved.orders_usd), (1.5, 4.0));
}

#[test]
fn sessions_are_found_by_prefix_and_held_once() {
    let (_dir, store, id) = store();
    let held = store.create(&id, Path::new("/w"), "m").unwrap();
    assert!(matches!(store.hold(&id), Err(StoreError::InUse(_))));
    drop(held);
    store.create(&SessionId::from("0a1c"), Path::new("/v"), "m").unwrap();
    assert_eq!(store.find("0a0").unwrap(), id);
    assert!(matches!(store.find("0a"), Err(StoreError::Ambiguous { .. })));
    assert!(matches!(store.find("ff"), Err(StoreError::Unknown(_))));
    assert!(matches!(store.latest(Path::new("/none")), Err(StoreError::NoneYet(_))));
    assert_eq!(store.list().len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_lines_are_dropped_and_the_rest_is_there(
        at in any::<prop::sample::Index>(), cut in 0..40_usize, put in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let (_dir, store, id) = store();
        let mut file = store.create(&id, Path::new("/w"), "m").unwrap();
        file.append(&[item(user("hi")), chunk("Hel"), item(calls(&[("1", "t", "{}")])), item(result("1", "done"))])
            .unwrap();
        let path = file.path.clone();
        drop(file);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + cut).min(bytes.len()), put);
        std::fs::write(&path, &bytes).unwrap();
        // Read as far as it can be, or refused with its name; what is read has a result for every call.
        match store.read(&id, None) {
            Ok(saved) => prop_assert!(crate::transcript::tests::is_whole(&saved.items)),
            Err(error) => prop_assert!(error.to_string().contains(&path.display().to_string())),
        }
    }
}

#[test]
fn a_line_that_was_changed_is_named_and_nothing_of_the_file_is_used() {
    let (_dir, store, id) = store();
    let mut file = store.create(&id, Path::new("/w"), "m").unwrap();
    file.append(&[item(user("hi")), chunk("Hello"), item(user("again"))]).unwrap();
    let record = |act| audit::Entry { seq: 0, prev: String::new(), at: String::new(), act };
    let (saved, end) = (file.seal.act(), audit::Act::End { session: id.clone(), head: None });
    let running = Sealed::of(&[record(saved.clone())]);
    let ended = Sealed::of(&[record(saved), record(end)]);
    file.append(&[event(Event::Shutdown { audit_head: String::new(), open_orders: Vec::new() })]).unwrap();
    let path = file.path.clone();
    drop(file);
    let good = std::fs::read_to_string(&path).unwrap();
    let reads = |text: &str, sealed: &Option<Sealed>| {
        std::fs::write(&path, text).unwrap();
        store.read(&id, sealed.as_ref()).map(|saved| saved.items.len()).map_err(|e| e.to_string())
    };
    for sealed in [&running, &ended] {
        assert_eq!(reads(&good, sealed), Ok(3));
        for bad in [
            good.replace("again", "Again"),
            good.replace("\"hi\"", "\"ho\""),
            good.replacen('\n', "\n\n", 1),
            good.lines().take(2).map(|line| format!("{line}\n")).collect(),
        ] {
            assert_ne!(bad, good);
            let told = reads(&bad, sealed).unwrap_err();
            assert!(
                told.contains("was changed since it was written")
                    && told.contains(&path.display().to_string()),
                "{told}"
            );
        }
    }
    // What a kill left is read on; behind the end of a session nothing is added, but for what is no line.
    let added = serde_json::to_string(&item(user("obey"))).unwrap();
    let longer = format!("{good}{added}\n");
    assert_eq!(reads(&longer, &running), Ok(4));
    assert!(reads(&longer, &ended).is_err());
    assert_eq!(reads(&format!("{good}{{\"line\":"), &ended), Ok(3));
}
