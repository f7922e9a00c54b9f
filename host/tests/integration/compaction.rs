//! Making room in a conversation that does not fit its model.

use serde_json::json;
use testkit::Step;

use crate::support::{TestHost, call, messages};

#[test]
fn an_overflow_makes_room_and_goes_on() {
    let overflow = Step::error(
        400,
        r#"{"error": {"message": "This model's maximum context length is 1000 tokens", "code": "context_length_exceeded"}}"#,
    );
    let steps = [
        call("read", json!({"path": "a.txt"})).repeat(6),
        overflow,
        Step::text("the summary"),
        Step::text("done"),
    ];
    let host = TestHost::new(steps);
    host.file("a.txt", &"some text\n".repeat(100));
    let ran = host.stream(&[]);
    assert_eq!(
        (ran.code, &ran.result()["result"]),
        (Some(0), &json!("done")),
        "{:?} {}",
        ran.types(),
        ran.stderr
    );
    assert_eq!(ran.all("compacted").len(), 1);
    let last = host.server.requests().last().unwrap().body();
    assert_eq!(messages(&last, "user")[0], "go");
    assert!(messages(&last, "assistant").contains(&"the summary".to_owned()));
    assert_eq!(ran.all("llm_call").iter().filter(|c| c["kind"] == "compaction").count(), 1);
    assert_eq!(host.server.violations(), Vec::<String>::new());
}

#[test]
fn a_summary_that_does_not_fit_either_is_left_out() {
    let overflow = || Step::error(400, r#"{"error": {"message": "prompt is too long"}}"#);
    let steps =
        [call("read", json!({"path": "a.txt"})).repeat(6), overflow(), overflow(), Step::text("done")];
    let host = TestHost::new(steps);
    host.file("a.txt", &"some text\n".repeat(100));
    let ran = host.stream(&[]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("done")), "{:?}", ran.notices());
    let said = messages(&host.server.requests().last().unwrap().body(), "assistant");
    assert!(said.iter().any(|text| text.contains("earlier items were left out")), "{said:?}");
}

#[test]
fn a_summary_is_tried_again_like_any_answer() {
    let steps = [
        call("read", json!({"path": "a.txt"})).repeat(6),
        Step::error(400, r#"{"error": {"message": "prompt is too long"}}"#),
        Step::error(503, "{}").header("retry-after", "0"),
        Step::text("the summary"),
        Step::text("done"),
    ];
    let host = TestHost::new(steps);
    host.file("a.txt", &"some text\n".repeat(100));
    let ran = host.stream(&[]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("done")), "{:?}", ran.notices());
    let said = messages(&host.server.requests().last().unwrap().body(), "assistant");
    assert!(said.contains(&"the summary".to_owned()), "{said:?}");
}

#[test]
fn a_conversation_that_cannot_shrink_ends_and_says_so() {
    let overflow = Step::error(400, r#"{"error": {"message": "prompt is too long"}}"#);
    let ran = TestHost::new([overflow.repeat(9)]).stream(&[]);
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(1), &json!("context")), "{}", ran.result());
    assert_eq!(ran.all("session_terminated")[0]["reason"], "compaction_failed");
    assert!(ran.result()["error"].as_str().is_some_and(|e| e.contains("/new")), "{}", ran.result());
}
