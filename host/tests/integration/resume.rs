//! Nothing that was shown is lost, nothing that was done is done again.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};
use testkit::{Gate, Step};

use crate::support::{Stream, TestHost, call, messages};

/// Kills of the run; moments are drawn by how many lines were printed.
const KILLS: usize = 50;

fn session_lines(host: &TestHost, id: &str) -> Vec<Value> {
    let file = host.home.join(format!(".local/state/ml-intern/sessions/{id}/session.jsonl"));
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

#[test]
fn killed_at_any_moment_no_event_that_was_printed_is_lost() {
    let host = TestHost::new([call("read", json!({"path": "a.txt"}))
        .saying("some text before the call")
        .piece_chars(5)
        .repeat(4000)]);
    host.file("a.txt", "one\n");
    for k in 0..KILLS {
        let mut child = host
            .command(["go", "-m", "chat/m", "--json"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut reader = BufReader::new(child.stdout.take().unwrap());
        let mut printed = Vec::new();
        // A moment that differs from kill to kill, without a clock.
        for _ in 0..(k * 7919) % 97 + 1 {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            printed.push(line);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut reader, &mut rest).unwrap();
        printed.extend(rest.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(str::to_owned));
        let printed: Vec<Value> = printed.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        let id = printed[0]["session_id"].as_str().unwrap();
        let saved: Vec<Value> = session_lines(&host, id)
            .into_iter()
            .filter(|l| l["line"] == "event")
            .map(|l| l["event"].clone())
            .collect();
        let events = &printed[1..];
        assert!(saved.len() >= events.len(), "kill {k}");
        assert_eq!(&saved[..events.len()], events, "kill {k}");
        // And the session can go on, with a transcript that every provider takes.
        if k % 10 == 0 {
            let server = TestHost::new([Step::text("went on")]);
            host.settings(&json!({"providers": {"chat": {"wire": "chat", "base_url": server.server.url()}}}));
            let ran = Stream::of(&host.run(["go on", "-m", "chat/m", "--json", "--resume", id]));
            assert_eq!(ran.code, Some(0), "kill {k}: {}", ran.stderr);
            assert_eq!(server.server.violations(), Vec::<String>::new(), "kill {k}");
            host.settings(&json!({}));
        }
    }
}

#[test]
fn a_session_goes_on_where_it_was_left() {
    let host = TestHost::new([
        call("read", json!({"path": "a.txt"})),
        Step::text("first"),
        call("edit", json!({"path": "a.txt", "old_str": "one", "new_str": "two"})),
        Step::text("second"),
    ]);
    host.file("a.txt", "one\n");
    let first = host.stream(&[]);
    let second = host.stream(&["--continue"]);
    assert_eq!(second.lines[0]["session_id"], first.lines[0]["session_id"]);
    assert_eq!(second.lines[0]["resumed"], true);
    // What was read then is known to have been read now.
    assert_eq!(second.outputs(), ["Edited a.txt (1 replacement)"]);
    let body = host.server.requests().last().unwrap().body();
    assert_eq!(messages(&body, "user"), ["go", "go"]);
    assert!(messages(&body, "assistant").contains(&"first".to_owned()));
    assert_eq!(host.server.violations(), Vec::<String>::new());
}

#[test]
fn another_model_is_remembered_and_the_prompt_stays_as_it_was() {
    let host = TestHost::new([Step::text("first"), Step::text("second"), Step::text("third")]);
    host.stream(&[]);
    // The last line of a prompt tells the time, which goes on.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let other = Stream::of(&host.run(["go", "-m", "chat/other", "--json", "-c"]));
    assert_eq!(other.all("model_changed")[0]["model"], "chat/other");
    let third = Stream::of(&host.run(["go", "--json", "-c"]));
    assert_eq!(third.lines[0]["model"], "chat/other");
    assert!(third.all("model_changed").is_empty());
    let systems: Vec<String> =
        host.server.requests().iter().map(|r| r.body()["messages"][0].to_string()).collect();
    assert_eq!(systems[0], systems[1]);
    assert_eq!(systems[0], systems[2]);
}

#[test]
fn a_fork_keeps_the_plan() {
    let plan = call("plan_tool", json!({"todos": [{"id": "1", "content": "dig", "status": "completed"}]}));
    let host = TestHost::new([plan, Step::text("first"), Step::text("second")]);
    let first = host.stream(&[]);
    let fork = host.stream(&["--continue", "--fork"]);
    assert_eq!(fork.all("plan_update")[0]["plan"], first.all("plan_update")[0]["plan"]);
    assert_eq!(fork.all("resumed_from")[0]["original_event_count"], first.lines.len() - 2);
}

#[test]
fn a_session_from_another_folder_says_so_and_is_the_latest_here() {
    let host = TestHost::new([Step::text("first"), Step::text("second"), Step::text("third")]);
    let first = host.stream(&[]);
    let id = first.lines[0]["session_id"].as_str().unwrap();
    let elsewhere = host.home.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let run = |arguments: &[&str]| {
        let arguments = [&["go", "-m", "chat/m", "--json"], arguments].concat();
        let output = host.command(arguments).current_dir(&elsewhere).output().unwrap();
        Stream::of(&crate::support::Ran::of(&output))
    };
    let second = run(&["--resume", id]);
    assert!(second.notices()[0].contains("this session was at work in"), "{:?}", second.notices());
    assert_eq!(run(&["--continue"]).lines[0]["session_id"], id);
}

#[test]
fn a_fork_leaves_the_old_session_as_it_was() {
    let host = TestHost::new([Step::text("first"), Step::text("second")]);
    let first = host.stream(&[]);
    let id = first.lines[0]["session_id"].as_str().unwrap().to_owned();
    let before = session_lines(&host, &id);
    let fork = host.stream(&["--resume", &id[..8], "--fork"]);
    assert_ne!(fork.lines[0]["session_id"], first.lines[0]["session_id"]);
    assert_eq!(session_lines(&host, &id), before);
    assert!(
        messages(&host.server.requests().last().unwrap().body(), "assistant").contains(&"first".to_owned())
    );
    assert_eq!(host.run(["sessions", "--json"]).stdout.lines().count(), 2);
}

#[test]
fn a_call_that_was_running_has_an_unknown_outcome() {
    let host = TestHost::new([call("bash", json!({"command": "touch started; sleep 600"}))]);
    let mut child = host
        .command(["go", "-m", "chat/m", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    crate::turns::poll(|| host.workspace.join("started").exists());
    child.kill().unwrap();
    child.wait().unwrap();
    host.server.push(Step::text("I will look first."));
    let ran = host.stream(&["--continue"]);
    assert_eq!(ran.result()["unknown_outcomes"].as_array().unwrap().len(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("the outcome of call"), "{}", ran.stderr);
    let told = messages(&host.server.requests().last().unwrap().body(), "tool");
    assert!(told[0].starts_with("outcome unknown"), "{told:?}");
    // It is told once.
    host.server.push(Step::text("Nothing new."));
    assert_eq!(host.stream(&["--continue"]).result()["unknown_outcomes"], json!([]));
    let told = messages(&host.server.requests().last().unwrap().body(), "tool");
    assert!(told[0].starts_with("outcome unknown"), "{told:?}");
    assert_eq!(host.server.violations(), Vec::<String>::new());
}

#[test]
fn a_session_is_held_by_one_process() {
    let gate = Gate::new();
    let host = TestHost::new([Step::text("one two three").piece_chars(3).stall_after(1, &gate)]);
    let child = host
        .command(["go", "-m", "chat/m", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    gate.wait_reached();
    let ran = host.run(["go", "-m", "chat/m", "-c"]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("is in use by another ml-intern"), "{}", ran.stderr);
    gate.open();
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(0));
}
