//! The format of `stream-json` is published and kept.

use std::sync::LazyLock;

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{Stream, TestHost, call, grade};

/// The published schema, as a validator. Every stream of the tests is checked against it.
pub(crate) static SCHEMA: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
    let schema: Value = serde_json::from_str(include_str!("../../schema/stream-json.schema.json")).unwrap();
    jsonschema::validator_for(&schema).unwrap()
});

#[test]
fn the_published_schema_is_the_programs_own() {
    let printed = TestHost::new([]).run(["config", "schema"]).stdout;
    let published = include_str!("../../schema/stream-json.schema.json");
    assert_eq!(
        printed, published,
        "write the output of `ml-intern config schema` to host/schema/stream-json.schema.json"
    );
}

#[test]
fn the_schema_refuses_what_is_no_line() {
    for line in [
        json!({}),
        json!({"type": "nothing"}),
        json!({"type": "tool_call"}),
        json!({"type": "result"}),
        json!("x"),
    ] {
        assert!(!SCHEMA.is_valid(&line), "{line}");
    }
}

#[test]
fn the_first_line_is_the_session_and_the_last_the_one_result() {
    let host =
        TestHost::new([call("bash", json!({"command": "true"})), Step::text("ok").usage(100, 10, 40, 0)]);
    let ran =
        Stream::of(&host.run(["go", "-m", "chat/m", "--json", "--wall", "read-only", "--network", "open"]));
    let session = &ran.lines[0];
    let workspace = host.workspace.display().to_string();
    for (key, value) in [
        ("type", "session"),
        ("model", "chat/m"),
        ("workspace", workspace.as_str()),
        ("mode", "auto"),
        ("wall", grade()),
        ("network", "open"),
    ] {
        assert_eq!(session[key], value);
    }
    assert_eq!(session["tools"], json!(["bash", "read", "write", "edit", "plan_tool"]));
    assert!(
        session["route"].as_str().unwrap().starts_with("http://127.0.0.1")
            && session["payer"].as_str().unwrap().starts_with("your account")
    );
    assert_eq!(ran.all("result").len(), 1);
    let result = ran.result();
    assert_eq!(
        (&result["num_turns"], &result["is_error"], &result["permission_denials"]),
        (&json!(2), &json!(false), &json!([]))
    );
    assert_eq!(result["usage"]["cache_read_tokens"], 40);
    assert_eq!(result["session_id"], session["session_id"]);
}

#[test]
fn changed_files_are_in_the_result() {
    let host =
        TestHost::new([call("write", json!({"path": "a.txt", "content": "1\n2\n"})), Step::text("ok")]);
    let ran = host.stream(&[]);
    let path = host.workspace.join("a.txt").display().to_string();
    assert_eq!(ran.result()["changed_files"], json!({path.clone(): [2, 0]}));
    let change = &ran.all("tool_output")[0]["changes"][0];
    assert_eq!((&change["path"], &change["added"]), (&json!(path), &json!(2)));
    assert!(change["diff"].as_str().unwrap().contains("+1\n+2\n"));
}
