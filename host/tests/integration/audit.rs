//! The audit log: every decision before it takes effect, every outcome, and nobody changes it unseen.

use std::process::Stdio;

use serde_json::{Value, json};
use testkit::{Gate, Step};

use crate::support::{Ran, Stream, TestHost, call};

/// The records of a session.
fn records(host: &TestHost, session: &str) -> Vec<Value> {
    let ran = host.run(["audit", "export", session]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn acts<'a>(records: &'a [Value], act: &str) -> Vec<&'a Value> {
    records.iter().filter(|record| record["act"] == act).collect()
}

#[test]
fn decisions_and_outcomes_are_recorded_and_the_head_finds_them() {
    let host = TestHost::new([
        Step::calls([("read", json!({"path": "a.txt"})), ("bash", json!({"command": "id"}))]),
        Step::text("done"),
    ]);
    host.file("a.txt", "one\n");
    let ran = host.stream(&["--permission-mode", "plan"]);
    let id = ran.result()["session_id"].as_str().unwrap();
    let head = ran.result()["audit_head"].as_str().unwrap();
    let records = records(&host, id);
    let decisions = acts(&records, "decision");
    assert_eq!(decisions[0]["verdict"], "allow");
    assert_eq!((&decisions[0]["tool"], &decisions[0]["rule"]), (&json!("read"), &json!("mode:plan")));
    assert_eq!(decisions[0]["component"].as_str().unwrap().len(), 64);
    assert_eq!((&decisions[1]["verdict"], &decisions[1]["target"]), (&json!("deny"), &json!("id")));
    let outcomes = acts(&records, "outcome");
    assert_eq!(outcomes[0]["success"], true);
    assert_eq!((&outcomes[1]["success"], &outcomes[1]["refused"]), (&json!(false), &json!("mode:plan")));
    assert_eq!(records.last().unwrap()["act"], "end");

    let verified = host.run(["audit", "verify", "--head", head]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    assert!(verified.stdout.contains("the head is the last record"));
}

#[test]
fn a_changed_record_is_named_and_the_head_is_gone() {
    let host = TestHost::new([call("bash", json!({"command": "echo evil"})), Step::text("done")]);
    let ran = host.stream(&[]);
    let (id, head) = (&ran.result()["session_id"], ran.result()["audit_head"].as_str().unwrap());
    let file = format!(".local/state/ml-intern/audit/session-{}.jsonl", id.as_str().unwrap());
    let text = std::fs::read_to_string(host.home.join(&file)).unwrap();
    host.home_file(&file, &text.replace("echo evil", "echo good"));
    let verified = host.run(["audit", "verify"]);
    assert_eq!(verified.code, Some(1));
    assert!(verified.stdout.contains(":2: this line is no record, or it was changed"), "{}", verified.stdout);
    // The whole chain made anew by somebody who knows how: the head that was kept is not in it.
    std::fs::remove_file(host.home.join(&file)).unwrap();
    std::fs::remove_file(host.home.join(".local/state/ml-intern/audit/user.jsonl")).unwrap();
    let lost = host.run(["audit", "verify", "--head", head]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.stdout.contains("no chain has this head"), "{}", lost.stdout);
}

#[test]
fn a_run_whose_last_record_cannot_be_written_is_no_success() {
    let gate = Gate::new();
    let host = TestHost::new([Step::text("done").stall_after(0, &gate)]);
    let mut command = host.command(["go", "-m", "chat/m", "--json"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    gate.wait_reached();
    let records = host.home.join(".local/state/ml-intern/audit");
    std::fs::rename(&records, records.with_extension("gone")).unwrap();
    std::fs::write(&records, "no folder").unwrap();
    gate.open();
    let ran = Stream::of(&Ran::of(&child.wait_with_output().unwrap()));
    let result = ran.result();
    assert_eq!((ran.code, &result["is_error"]), (Some(1), &json!(true)), "{result}");
    assert!(result["audit_head"].is_null() && ran.types().contains(&"turn_complete"), "{result}");
}

#[test]
fn a_decision_is_on_record_while_its_command_still_runs() {
    let gate = Gate::new();
    let host = TestHost::new([
        call("bash", json!({"command": "echo started; touch here"})),
        Step::text("never seen").stall_after(0, &gate),
    ]);
    let mut child =
        host.command(["go", "-m", "chat/m"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    gate.wait_reached();
    child.kill().unwrap();
    child.wait().unwrap();
    gate.open();
    let id = host.run(["sessions", "--json"]).stdout;
    let id: Value = serde_json::from_str(id.lines().next().unwrap()).unwrap();
    let id = id["session_id"].as_str().unwrap();
    assert_eq!(acts(&records(&host, id), "outcome").len(), 1);
    let verified = host.run(["audit", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    assert!(verified.stdout.contains("has no recorded end"), "{}", verified.stdout);
    // It goes on in the same chain.
    let server = TestHost::new([Step::text("went on")]);
    host.settings(&json!({"providers": {"chat": {"wire": "chat", "base_url": server.server.url()}}}));
    assert_eq!(host.stream(&["--continue"]).code, Some(0));
    let later = records(&host, id);
    assert_eq!((acts(&later, "start").len(), acts(&later, "end").len()), (2, 1));
    assert_eq!(host.run(["audit", "verify"]).code, Some(0));
}

#[test]
fn the_head_of_a_session_holds_what_was_granted_before_it() {
    let host = TestHost::new([Step::text("done")]);
    host.file("AGENTS.md", "Use tabs.\n");
    assert_eq!(host.run(["trust", "--yes"]).code, Some(0));
    let head = host.stream(&[]).result()["audit_head"].as_str().unwrap().to_owned();
    assert_eq!(host.run(["audit", "verify", "--head", &head]).code, Some(0));
    // The chain of the user begins anew and says nothing of trust.
    let user = ".local/state/ml-intern/audit/user.jsonl";
    std::fs::remove_file(host.home.join(user)).unwrap();
    host.tool("bash", &json!({"command": "true"}), &[]);
    let verified = host.run(["audit", "verify", "--head", &head]);
    assert_eq!(verified.code, Some(1), "{}", verified.stdout);
    assert!(
        verified.stdout.contains("the session began when the chain of the user ended with"),
        "{}",
        verified.stdout
    );
}

#[test]
fn without_a_record_nothing_runs() {
    let host = TestHost::new([call("bash", json!({"command": "touch made"})), Step::text("done")]);
    host.home_file(".local/state/ml-intern/audit", "a file where the folder should be");
    let ran = host.run(["go", "-m", "chat/m"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("the audit log"), "{}", ran.stderr);
    assert!(!host.workspace.join("made").exists());
}

#[test]
fn a_call_without_a_model_is_on_record_too() {
    let host = TestHost::new([]);
    host.tool("bash", &json!({"command": "exit 3"}), &[]);
    let user = host.run(["audit", "export"]).stdout;
    let start: Value = serde_json::from_str(user.lines().next().unwrap()).unwrap();
    let records = records(&host, start["session"].as_str().unwrap());
    let kinds: Vec<&str> = records.iter().filter_map(|record| record["act"].as_str()).collect();
    assert_eq!(kinds, ["start", "decision", "outcome", "saved", "end"]);
    assert_eq!((&records[1]["rule"], &records[2]["success"]), (&json!("mode:yolo"), &json!(false)));
    assert_eq!(records[0]["model"], "none: `ml-intern tool`");
    assert_eq!(host.run(["audit", "verify"]).code, Some(0));
}

#[test]
fn an_empty_log_and_a_head_that_is_none_are_told() {
    let host = TestHost::new([]);
    let verified = host.run(["audit", "verify"]);
    assert_eq!(verified.code, Some(0));
    assert!(verified.stdout.contains("there is no record yet"), "{}", verified.stdout);
    assert_eq!(host.run(["audit", "verify", "--head", "abc"]).code, Some(2));
}

#[test]
fn a_torn_record_does_not_keep_the_program_from_its_work() {
    let host = TestHost::new([Step::text("first"), Step::text("second")]);
    let id = host.stream(&[]).result()["session_id"].as_str().unwrap().to_owned();
    for name in ["user".to_owned(), format!("session-{id}")] {
        let file = format!(".local/state/ml-intern/audit/{name}.jsonl");
        let text = std::fs::read_to_string(host.home.join(&file)).unwrap();
        host.home_file(&file, &format!("{text}0a1b {{\"seq\""));
    }
    assert_eq!(host.stream(&["--continue"]).code, Some(0));
    let verified = host.run(["audit", "verify"]);
    assert_eq!(verified.code, Some(0), "{}", verified.stdout);
    assert_eq!(verified.stdout.matches(".torn").count(), 2, "{}", verified.stdout);
}
