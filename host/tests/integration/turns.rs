//! The loop: what is sent, what is shown, how each kind of trouble ends.

use serde_json::{Value, json};
use testkit::{Gate, Step};

use crate::support::{Stream, TestHost, call, messages};

#[test]
fn a_turn_with_a_tool_has_its_events_in_order() {
    let host = TestHost::new([
        call("read", json!({"path": "a.txt"})).saying("Reading."),
        Step::text("Done reading."),
    ]);
    host.file("a.txt", "one\n");
    let ran = host.stream(&[]);
    let expected = [
        "session",
        "ready",
        "processing",
        "assistant_chunk",
        "llm_call",
        "assistant_stream_end",
        "tool_call",
        "tool_output",
        "assistant_chunk",
        "llm_call",
        "assistant_stream_end",
        "turn_complete",
        "shutdown",
        "result",
    ];
    assert_eq!(ran.types(), expected, "{}", ran.stderr);
    assert_eq!(ran.outputs(), ["     1\tone"]);
    assert_eq!(ran.result()["result"], "Done reading.");
    assert_eq!(host.server.violations(), Vec::<String>::new());
}

#[test]
fn without_streaming_a_message_comes_before_its_bookkeeping() {
    let host = TestHost::new([call("read", json!({"path": "a.txt"})), Step::text("Done.")]);
    host.file("a.txt", "one\n");
    let ran = host.stream(&["--no-stream"]);
    let expected = [
        "session",
        "ready",
        "processing",
        "llm_call",
        "tool_call",
        "tool_output",
        "assistant_message",
        "llm_call",
        "turn_complete",
        "shutdown",
        "result",
    ];
    assert_eq!(ran.types(), expected);
    assert!(host.server.requests().iter().all(|r| r.body()["stream"] == false));
}

#[test]
fn every_wire_carries_a_conversation_of_many_calls() {
    for model in ["chat/m", "messages/m", "responses/m"] {
        for stream in [true, false] {
            let steps = [
                Step::calls([("read", json!({"path": "a.txt"})), ("read", json!({"path": "b.txt"}))])
                    .thinking("hm")
                    .repeat(5),
                Step::text("ok"),
            ];
            let host = TestHost::new(steps);
            host.file("a.txt", "one\n");
            host.file("b.txt", "two\n");
            let mut arguments = vec!["go", "-m", model, "--json"];
            if !stream {
                arguments.push("--no-stream");
            }
            let ran = Stream::of(&host.run(arguments));
            assert_eq!(ran.code, Some(0), "{model} {stream}: {}", ran.stderr);
            assert_eq!(ran.outputs(), ["     1\tone", "     1\ttwo"].repeat(5), "{model} {stream}");
            assert_eq!(host.server.violations(), Vec::<String>::new(), "{model} {stream}");
        }
    }
}

#[test]
fn calls_run_together_and_their_results_keep_the_order_of_the_calls() {
    let wait = "while [ ! -e /tmp/go ]; do sleep 0.01; done; echo first";
    let steps = [
        Step::calls([
            ("bash", json!({"command": wait})),
            ("bash", json!({"command": "touch /tmp/go; echo second"})),
        ]),
        Step::text("ok"),
    ];
    let ran = TestHost::new(steps).stream(&[]);
    assert_eq!(ran.outputs(), ["first\n", "second\n"]);
    let types = ran.types();
    let last_call = types.iter().rposition(|t| *t == "tool_call").unwrap();
    assert!(last_call < types.iter().position(|t| *t == "tool_output").unwrap());
}

#[test]
fn broken_arguments_are_answered_and_a_streak_is_corrected() {
    let broken = || call("write", Value::from("{\"path\": \"a.txt\", \"content\": \"ab"));
    let list = call("write", json!([1]));
    let ran_host = TestHost::new([broken(), broken(), list, Step::text("ok")]);
    let ran = ran_host.stream(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for output in ran.outputs() {
        assert!(output.starts_with("ERROR: Tool call to 'write' had malformed JSON arguments"), "{output}");
    }
    assert!(ran.all("tool_call").iter().all(|c| c["arguments"] == json!({})));
    let body = ran_host.server.requests()[2].body();
    assert!(
        messages(&body, "user")
            .last()
            .unwrap()
            .starts_with("[SYSTEM: Repeated malformed tool arguments detected for 'write'")
    );
    assert!(!ran_host.workspace.join("a.txt").exists());
    assert_eq!(ran_host.server.violations(), Vec::<String>::new());
}

#[test]
fn arguments_in_a_wrong_shape_are_explained() {
    let steps = [
        call("read", json!({"args": "a.txt"})),
        call("read", json!({"file": "a.txt"})),
        call("read", json!({"path": 7})),
        call("nothing", json!({})),
        Step::text("ok"),
    ];
    let ran = TestHost::new(steps).stream(&[]);
    let outputs = ran.outputs();
    assert!(outputs[0].contains("`args` must be a JSON object"), "{outputs:?}");
    assert!(
        outputs[1].contains("unknown field `file`; the fields are `path`, `offset`, `limit`"),
        "{outputs:?}"
    );
    assert!(outputs[2].contains("`path`: 7 is not of type \"string\""), "{outputs:?}");
    assert!(outputs[3].contains("there is no tool `nothing`; the tools are bash, read"), "{outputs:?}");
    // The misshapen one is not announced.
    assert_eq!(ran.all("tool_call").len(), 3);
}

#[test]
fn an_answer_cut_inside_its_calls_runs_none_of_them() {
    let steps = [
        call("write", json!({"path": "a.txt", "content": "x"})).saying("Writing.").finish("length"),
        Step::text("ok"),
    ];
    let host = TestHost::new(steps);
    let ran = host.stream(&[]);
    assert!(!host.workspace.join("a.txt").exists() && ran.outputs().is_empty());
    let body = host.server.requests()[1].body();
    let note = messages(&body, "user").last().unwrap().clone();
    assert!(
        note.starts_with("[SYSTEM: your answer met the output limit") && note.contains("write"),
        "{note}"
    );
    assert_eq!(messages(&body, "assistant"), ["Writing."]);
    assert!(
        ran.notices().iter().any(|n| n.contains("truncated") && n.contains("write")),
        "{:?}",
        ran.notices()
    );
}

#[test]
fn a_text_while_the_plan_is_open_is_sent_back_twice() {
    let plan = call("plan_tool", json!({"todos": [{"id": "1", "content": "dig", "status": "in_progress"}]}));
    let host = TestHost::new([plan, Step::text("I could dig.").repeat(3)]);
    let ran = host.stream(&[]);
    assert_eq!(ran.code, Some(0));
    assert_eq!(
        ran.all("plan_update")[0]["plan"],
        json!([{"id": "1", "content": "dig", "status": "in_progress"}])
    );
    let notes = messages(&host.server.requests().last().unwrap().body(), "user");
    assert_eq!(
        notes.iter().filter(|n| n.starts_with("[SYSTEM: CONTINUATION GUARD]")).count(),
        2,
        "{notes:?}"
    );
    assert!(notes.last().unwrap().contains("1. dig [in_progress]"));
    assert_eq!(ran.notices().iter().filter(|n| n.contains("text-only response")).count(), 2);
}

#[test]
fn a_repetition_is_told_once() {
    let host = TestHost::new([call("read", json!({"path": "a.txt"})).repeat(8), Step::text("ok")]);
    host.file("a.txt", "x\n");
    host.stream(&[]);
    let notes = messages(&host.server.requests().last().unwrap().body(), "user");
    assert_eq!(notes.iter().filter(|n| n.starts_with("[SYSTEM: REPETITION GUARD]")).count(), 1, "{notes:?}");
}

#[test]
fn an_empty_answer_is_asked_for_again_and_then_told() {
    let ran = TestHost::new([Step::text(""), Step::text("here")]).stream(&[]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("here")));
    let ran = TestHost::new([Step::text("").repeat(3)]).stream(&[]);
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(1), &json!("empty_answer")));
    assert!(ran.result()["error"].as_str().unwrap().contains("it ended with `stop`"), "{}", ran.result());
    let filtered =
        TestHost::new([Step::text("").finish("content_filter").repeat(3)]).run(["go", "-m", "chat/m"]);
    assert!(
        filtered.stderr.contains("an empty answer again (it ended with `content_filter`)"),
        "{}",
        filtered.stderr
    );
    // One empty answer after each step is no streak.
    let read = || call("read", json!({"path": "a.txt"}));
    let ran = TestHost::new([Step::text(""), read(), Step::text(""), Step::text("here")]).stream(&[]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("here")));
}

#[test]
fn failures_of_the_provider_have_their_exit_codes_and_remedies() {
    let case = |step: Step| TestHost::new([step, Step::text("ok")]).stream(&[]);
    let refused = |status, body: &str| case(Step::error(status, body));
    let ran = refused(401, r#"{"error": {"message": "invalid api key"}}"#);
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(4), &json!("credentials")));
    let ran = refused(402, r#"{"error": {"message": "insufficient credits"}}"#);
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(5), &json!("provider")));
    assert!(ran.result()["error"].as_str().unwrap().contains("credits"), "{}", ran.result());
    let ran = refused(404, r#"{"error": {"message": "model not found", "code": "model_not_found"}}"#);
    assert_eq!(ran.code, Some(5));
    let ran = case(Step::raw_sse(["data: not json\n\n", "data: nor this\n\n"]));
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
}

#[test]
fn what_may_pass_is_tried_again() {
    for status in [429, 500, 503, 529] {
        let step = Step::error(status, r#"{"error": {"message": "later"}}"#).header("retry-after", "0");
        let host = TestHost::new([step.repeat(2), Step::text("ok")]);
        let ran = host.stream(&[]);
        assert_eq!(ran.code, Some(0), "{status}: {}", ran.stderr);
        assert_eq!(host.server.requests().len(), 3, "{status}");
        assert_eq!(
            ran.notices().iter().filter(|n| n.contains("retrying in 0s")).count(),
            2,
            "{:?}",
            ran.notices()
        );
    }
    let host = TestHost::new([Step::error(500, "{}").header("retry-after", "0").repeat(9)]);
    let ran = host.stream(&[]);
    assert_eq!((ran.code, host.server.requests().len()), (Some(5), 3));
}

#[test]
fn a_server_that_stops_half_way_keeps_what_was_said() {
    for model in ["chat/m", "messages/m", "responses/m"] {
        let host = TestHost::new([Step::text("one two three four five six").piece_chars(4).cut_after(3)]);
        let ran = Stream::of(&host.run(["go", "-m", model, "--json"]));
        assert_eq!(ran.code, Some(5), "{model}: {}", ran.stderr);
        let shown: String = ran.all("assistant_chunk").iter().filter_map(|c| c["content"].as_str()).collect();
        assert!("one two three four five six".starts_with(&shown) && !shown.is_empty(), "{model}: {shown}");
        assert_eq!(ran.types().iter().filter(|t| **t == "assistant_stream_end").count(), 1, "{model}");
        // It is in the session, so that the next turn knows it.
        host.server.push(Step::text("ok"));
        host.run(["again", "-m", model, "-c"]);
        assert!(host.server.requests().last().unwrap().contains(&shown), "{model}");
        assert_eq!(host.server.violations(), Vec::<String>::new(), "{model}");
    }
}

#[test]
fn a_garbled_line_in_a_stream_is_skipped() {
    let piece = |text: &str| {
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": null}]})
        )
    };
    let end = format!(
        "data: {}\n\ndata: [DONE]\n\n",
        json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    );
    let ran = TestHost::new([Step::raw_sse([
        piece("a"),
        "data: {broken\n\n".to_owned(),
        ": comment\n\n".to_owned(),
        piece("b"),
        end,
    ])])
    .stream(&[]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("ab")), "{}", ran.stderr);
}

#[test]
fn a_long_id_of_a_call_does_not_end_the_session() {
    let host = TestHost::new([
        call("read", json!({"path": "a.txt"})).call_ids(["x".repeat(300_000)]),
        Step::text("ok"),
    ]);
    host.file("a.txt", "one\n");
    let ran = host.stream(&[]);
    assert_eq!((ran.code, ran.outputs()), (Some(0), vec!["     1\tone"]), "{}", ran.stderr);
    assert_eq!(ran.all("tool_call")[0]["tool_call_id"], "call_1");
}

#[test]
fn the_window_of_a_local_server_is_asked_for_and_said() {
    let host = TestHost::new([Step::text("ok")]);
    host.server.serve("/props", json!({"default_generation_settings": {"n_ctx": 2048}}));
    let ran = Stream::of(&host.run(["go", "-m", "llamacpp/m", "--json"]));
    let notice = ran.notices().join("\n");
    assert!(notice.contains("a window of 2048 tokens") && notice.contains("-c "), "{notice}");
    let notice_at = ran.types().iter().position(|t| *t == "tool_log").unwrap();
    assert!(notice_at < ran.types().iter().position(|t| *t == "processing").unwrap());
}

#[test]
fn a_call_written_as_text_is_understood_from_local_models() {
    let text = "<tool_call>\n{\"name\": \"read\", \"arguments\": {\"path\": \"a.txt\"}}\n</tool_call>";
    let host = TestHost::new([Step::text(text), Step::text("ok")]);
    host.file("a.txt", "one\n");
    let ran = Stream::of(&host.run(["go", "-m", "llamacpp/m", "--json"]));
    assert_eq!(ran.outputs(), ["     1\tone"], "{:?}", ran.types());
    assert!(ran.all("assistant_chunk").iter().all(|c| !c["content"].as_str().unwrap().contains("tool_call")));
}

#[test]
fn a_limit_of_steps_ends_the_turn_with_7() {
    let host = TestHost::new([call("read", json!({"path": "a.txt"})).repeat(9)]);
    host.file("a.txt", "x\n");
    let ran = host.stream(&["--max-iterations", "3"]);
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(7), &json!("max_iterations")));
    assert_eq!(host.server.requests().len(), 3);
    assert_eq!(ran.all("turn_complete")[0]["final_response"], Value::Null);
}

#[test]
fn an_interrupt_stops_a_stream_a_command_and_a_retry() {
    let gate = Gate::new();
    let steps: [(&str, Step); 3] = [
        ("stream", Step::text("one two three four").piece_chars(4).stall_after(2, &gate)),
        ("command", call("bash", json!({"command": "touch started; sleep 600"}))),
        ("retry", Step::error(503, "{}").header("retry-after", "100")),
    ];
    for (name, step) in steps {
        let host = TestHost::new([step]);
        let child = host
            .command(["go", "-m", "chat/m", "--json"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        match name {
            "stream" => gate.wait_reached(),
            "command" => poll(|| host.workspace.join("started").exists()),
            _ => poll(|| !host.server.requests().is_empty()),
        }
        poll(|| {
            session_has(
                &host,
                if name == "command" {
                    "tool_call"
                } else if name == "retry" {
                    "retrying"
                } else {
                    "processing"
                },
            )
        });
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT)
            .unwrap();
        let ran = Stream::of(&crate::support::Ran::of(&child.wait_with_output().unwrap()));
        gate.open();
        assert_eq!(
            (ran.code, &ran.result()["subtype"]),
            (Some(130), &json!("interrupted")),
            "{name}: {:?}",
            ran.types()
        );
        assert_eq!(ran.all("interrupted").len(), 1, "{name}");
        if name == "command" {
            assert_eq!(ran.all("tool_state_change")[0]["state"], "cancelled");
        }
    }
}

#[test]
fn an_interrupt_before_the_turn_stops_it() {
    let gate = Gate::new();
    let host = TestHost::new([Step::text("never seen").stall_after(0, &gate).repeat(9)]);
    for _ in 0..5 {
        let child = host
            .command(["go", "-m", "chat/m", "--json"])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // The program listens; that is long before its turn begins.
        let status = format!("/proc/{}/status", child.id());
        let caught = || {
            let status = std::fs::read_to_string(&status).unwrap_or_default();
            let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
            u64::from_str_radix(mask, 16).unwrap_or(0)
        };
        poll(|| caught() & 0b10 != 0);
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let ran = Stream::of(&crate::support::Ran::of(&child.wait_with_output().unwrap()));
        assert_eq!((ran.code, &ran.result()["subtype"]), (Some(130), &json!("interrupted")));
    }
    gate.open();
}

#[test]
fn sigterm_ends_with_143() {
    let host = TestHost::new([call("bash", json!({"command": "touch started; sleep 600"}))]);
    let child = host
        .command(["go", "-m", "chat/m", "--json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    poll(|| host.workspace.join("started").exists());
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::TERM)
        .unwrap();
    let ran = Stream::of(&crate::support::Ran::of(&child.wait_with_output().unwrap()));
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(143), &json!("terminated")));
}

/// Waits for a condition, with a deadline.
pub(crate) fn poll(condition: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "it did not happen");
        std::thread::yield_now();
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
}

fn session_has(host: &TestHost, text: &str) -> bool {
    let sessions = host.home.join(".local/state/ml-intern/sessions");
    let files = std::fs::read_dir(sessions).into_iter().flatten().filter_map(Result::ok);
    files
        .filter_map(|e| std::fs::read_to_string(e.path().join("session.jsonl")).ok())
        .any(|lines| lines.contains(text))
}
