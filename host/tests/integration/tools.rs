//! The local tools, through the real plugins.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{TestHost, call};

/// Plays calls one after another and gives their outputs with whether they succeeded.
pub(crate) fn play(host: &TestHost, calls: &[(&str, Value)]) -> Vec<(String, bool)> {
    for (name, arguments) in calls {
        host.server.push(call(name, arguments.clone()));
    }
    host.server.push(Step::text("ok"));
    let ran = host.stream(&[]);
    assert_eq!(host.server.violations(), Vec::<String>::new());
    let outputs = ran.all("tool_output").into_iter();
    outputs.map(|o| (o["output"].as_str().unwrap().to_owned(), o["success"] == true)).collect()
}

pub(crate) fn read(path: &str) -> (&'static str, Value) {
    ("read", json!({"path": path}))
}

pub(crate) fn write(path: &str, content: &str) -> (&'static str, Value) {
    ("write", json!({"path": path, "content": content}))
}

pub(crate) fn edit(path: &str, old: &str, new: &str) -> (&'static str, Value) {
    ("edit", json!({"path": path, "old_str": old, "new_str": new}))
}

pub(crate) fn bash(command: &str) -> (&'static str, Value) {
    ("bash", json!({"command": command}))
}

#[test]
fn read_numbers_lines_and_says_what_it_cannot_read() {
    let host = TestHost::new([]);
    host.file("a.txt", "one\ntwo\nthree\n");
    std::fs::create_dir(host.workspace.join("folder")).unwrap();
    std::fs::write(host.workspace.join("image.png"), b"\x89PNG\xff\xfe").unwrap();
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        host.workspace.join("pipe"),
        rustix::fs::Mode::from_raw_mode(0o600),
    )
    .unwrap();
    let absolute = host.workspace.join("a.txt").display().to_string();
    let results = play(
        &host,
        &[
            ("read", json!({"path": "a.txt", "offset": 2, "limit": 1})),
            ("read", json!({"path": absolute, "offset": 0, "limit": null})),
            ("read", json!({"path": "a.txt", "offset": 9})),
            read("none.txt"),
            read("folder"),
            read("image.png"),
            read("pipe"),
            read("/etc/passwd"),
            read("../home/.config/ml-intern/cli_agent_config.json"),
        ],
    );
    assert_eq!(results[0], ("     2\ttwo".to_owned(), true));
    assert_eq!(results[1], ("     1\tone\n     2\ttwo\n     3\tthree".to_owned(), true));
    assert_eq!(results[2], (String::new(), true));
    assert_eq!(results[3], ("File not found: none.txt".to_owned(), false));
    assert!(results[4].0.contains("ls -la folder"));
    assert!(results[5].0.starts_with("read error: not UTF-8 text"));
    assert!(results[6].0.contains("not a regular file"));
    assert!(!results[7].1 && !results[7].0.contains("root:"), "{results:?}");
    assert!(!results[8].1 && !results[8].0.contains("providers"), "{results:?}");
}

#[test]
fn a_file_must_be_read_before_it_is_changed_and_again_after_it_changed() {
    let host = TestHost::new([]);
    host.file("a.txt", "one\n");
    let results = play(
        &host,
        &[
            write("a.txt", "new\n"),
            edit("a.txt", "one", "two"),
            read("a.txt"),
            edit("a.txt", "one", "two"),
            edit("a.txt", "two", "three"),
            bash("echo changed > a.txt"),
            edit("a.txt", "changed", "x"),
            write("a.txt", "lost\n"),
            read("a.txt"),
            write("a.txt", "kept\n"),
            write("new/b.txt", "ä\n"),
            edit("new/b.txt", "ä", "ö"),
        ],
    );
    assert!(!results[0].1 && results[0].0.contains("you must read it before"), "{results:?}");
    assert!(!results[1].1 && results[1].0.contains("you must read a.txt before editing"), "{results:?}");
    assert_eq!(results[3], ("Edited a.txt (1 replacement)".to_owned(), true));
    assert!(results[4].1, "{results:?}");
    assert!(!results[6].1 && results[6].0.contains("changed on disk"), "{results:?}");
    assert!(!results[7].1 && results[7].0.contains("changed on disk"), "{results:?}");
    assert_eq!(results[9], ("Wrote 5 bytes to a.txt".to_owned(), true));
    assert_eq!(results[10], ("Wrote 3 bytes to new/b.txt".to_owned(), true));
    assert_eq!((host.read("a.txt").as_str(), host.read("new/b.txt").as_str()), ("kept\n", "ö\n"));
}

#[test]
fn a_changed_file_keeps_its_mode_and_what_it_was_before() {
    let host = TestHost::new([]);
    let path = host.file("run.sh", "#!/bin/sh\necho one\n");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let results = play(
        &host,
        &[
            read("run.sh"),
            edit("run.sh", "one", "two"),
            bash("./run.sh; umask; stat -c %a made 2>/dev/null"),
            write("made", "x"),
            bash("stat -c %a made"),
        ],
    );
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(results[2].0.starts_with("two\n0022"), "{results:?}");
    assert_eq!(results[4].0, "644\n");
    let sessions = host.home.join(".local/state/ml-intern/sessions");
    let undo = std::fs::read_dir(&sessions).unwrap().next().unwrap().unwrap().path().join("undo");
    let kept: Vec<String> = std::fs::read_dir(&undo)
        .unwrap()
        .map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap())
        .collect();
    assert!(kept.iter().any(|text| text == "#!/bin/sh\necho one\n"), "{kept:?}");
}

#[test]
fn edits_are_exact_or_say_why_not() {
    let host = TestHost::new([]);
    host.file("a.txt", "a\nb\na\n");
    let results = play(
        &host,
        &[
            read("a.txt"),
            edit("a.txt", "a", "a"),
            edit("a.txt", "a", "x"),
            edit("a.txt", "zzz", "x"),
            ("edit", json!({"path": "a.txt", "old_str": "a", "new_str": "x", "replace_all": true})),
            ("edit", json!({"path": "a.txt", "old_str": "x\n", "new_str": "y\n", "mode": "append_after"})),
            ("edit", json!({"path": "a.txt", "old_str": "x", "new_str": "y", "mode": "sideways"})),
            edit("none.txt", "a", "b"),
        ],
    );
    assert!(
        results[1].0.contains("must differ")
            && results[2].0.contains("occurs 2 times")
            && results[3].0.contains("was not found"),
        "{results:?}"
    );
    assert_eq!(results[4].0, "Edited a.txt (2 replacements)");
    assert!(!results[6].1 && !results[7].1);
    assert_eq!(host.read("a.txt"), "x\ny\nb\nx\n");
}

#[test]
fn python_is_checked_when_it_was_written() {
    let host = TestHost::new([]);
    let results = play(
        &host,
        &[write("a.py", "import (\n"), write("b.py", "c = SFTConfig()\n"), write("c.py", "x = 1\n")],
    );
    assert!(results.iter().all(|r| r.1));
    assert!(results[0].0.contains("Validation warnings:\n  ⚠ Python syntax error on line 1"), "{results:?}");
    assert_eq!(results[1].0.matches('⚠').count(), 2);
    assert_eq!(results[2].0, "Wrote 6 bytes to c.py");
}

#[test]
fn bash_shows_outputs_exit_codes_and_signals() {
    let host = TestHost::new([]);
    let results = play(
        &host,
        &[
            bash("echo out; echo err >&2; exit 3"),
            bash("true"),
            bash("printf '\\033[31mred\\033[0m'"),
            bash("kill -9 $$"),
            ("bash", json!({"command": "sleep 600", "timeout": 1})),
            ("bash", json!({"command": "pwd", "work_dir": "sub"})),
            ("bash", json!({"command": "pwd", "work_dir": "none"})),
            ("bash", json!({"command": "  "})),
            bash("cat"),
        ],
    );
    assert_eq!(results[0], ("out\nerr\n(exit code 3)".to_owned(), false));
    assert_eq!(results[1], ("(no output)".to_owned(), true));
    assert_eq!(results[2].0, "red");
    assert!(results[3].0.contains("SIGKILL"), "{results:?}");
    assert!(!results[4].1 && results[4].0.contains("1s") && results[4].0.contains("nohup"), "{results:?}");
    assert!(!results[5].1 && results[6].0.starts_with("bash error:"), "{results:?}");
    assert!(results[7].0.contains("no command"));
    assert_eq!(results[8], ("(no output)".to_owned(), true));
}

#[test]
fn long_output_is_shortened_and_all_of_it_is_readable() {
    let host = TestHost::new([]);
    let results = play(
        &host,
        &[
            bash("seq 1 20000"),
            bash("ls /tmp/bash_output_*"),
            bash("cat /tmp/bash_output_* | wc -l"),
            bash("yes | head -c 3000000"),
            bash("wc -c < /tmp/$(ls -t /tmp | head -n 1)"),
        ],
    );
    assert!(
        results[0].0.starts_with("1\n2\n") && results[0].0.ends_with("19999\n20000\n"),
        "{}",
        results[0].0.len()
    );
    assert!(results[0].0.contains("characters left out; the first 6,250 and the last 18,750 are shown"));
    assert!(results[0].0.chars().count() < 25_500);
    assert_eq!(results[2].0.trim(), "20000");
    let notice = results[3].0.lines().find(|line| line.starts_with("Full output saved to /tmp/")).unwrap();
    assert!(notice.contains(" (stdout, 3,000,000 bytes) — "), "{notice}");
    assert!(!notice.contains("bash_output_"), "a spill of what is shown would have a hole: {notice}");
    assert_eq!(results[4].0.trim(), "3000000");
    let path = results[1].0.trim().to_owned();
    let again = TestHost::new([]);
    assert!(!again.workspace.join(path).exists());
}

#[test]
fn background_children_live_across_calls_and_end_with_the_session() {
    let host = TestHost::new([]);
    let results = play(
        &host,
        &[
            bash(
                "nohup sh -c 'while :; do echo tick >> /tmp/ticks; sleep 0.05; done' > /tmp/out.log 2>&1 & echo $!",
            ),
            bash("while [ \"$(wc -l < /tmp/ticks)\" -lt 3 ]; do sleep 0.05; done; echo alive; echo $PPID"),
            ("read", json!({"path": "/tmp/ticks", "limit": 1})),
            bash("sleep 600 & echo started"),
        ],
    );
    assert!(results[1].0.starts_with("alive"), "{results:?}");
    assert_eq!(results[2].0, "     1\ttick");
    assert_eq!(results[3].0, "started\n");
    let left = std::process::Command::new("pgrep").args(["-f", "echo tick >> /tmp/ticks"]).output().unwrap();
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
}

#[test]
fn a_plan_is_kept_and_a_wrong_one_changes_nothing() {
    let host = TestHost::new([]);
    let todo = |id: &str, status: &str| json!({"id": id, "content": "c", "status": status});
    for arguments in [
        json!({"todos": [todo("1", "pending"), todo("2", "completed")]}),
        json!({"todos": [todo("1", "done")]}),
        json!({"todos": []}),
    ] {
        host.server.push(call("plan_tool", arguments));
    }
    host.server.push(Step::text("ok"));
    let ran = host.stream(&[]);
    assert_eq!(ran.outputs()[0], "Plan updated:\n\n  [x] 2. c\n  [ ] 1. c\n\n1/2 done");
    assert!(ran.outputs()[1].contains("todos/0/status"), "{:?}", ran.outputs());
    assert_eq!(ran.outputs()[2], "Plan is empty.");
    assert_eq!(ran.all("plan_update").len(), 2);
}

#[test]
fn a_tool_can_be_called_without_a_model() {
    let host = TestHost::new([]);
    host.file("a.txt", "one\n");
    let result = host.tool("read", &json!({"path": "a.txt"}), &[]);
    assert_eq!((&result["output"], &result["success"]), (&json!("     1\tone"), &json!(true)));
    let ran = host.run(["tool", "bash", r#"{"command": "exit 4"}"#]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), "(no output)\n(exit code 4)\n"));
    let ran = host.run(["tool", "write", r#"{"path": "AGENTS.md", "content": "x"}"#]);
    assert_eq!(ran.code, Some(6), "{}{}", ran.stdout, ran.stderr);
    // It is no session, and leaves nothing.
    assert_eq!(host.run(["sessions"]).stdout, "There are no saved sessions.\n");
    assert_eq!(host.run(["go", "-m", "chat/m", "--continue"]).code, Some(2));
}

#[test]
fn a_call_without_a_model_is_decided_as_in_a_session() {
    let host = TestHost::new([]);
    host.file("data/a.csv", "1\n");
    host.settings(&json!({"permissions": {"deny": ["bash(rm*)", "path(data/**)"], "ask": ["bash(make*)"]}}));
    let denied = |tool: &str, arguments: &Value, rule: &str| {
        let result = host.tool(tool, arguments, &[]);
        assert_eq!(
            (&result["success"], &result["denial"]["rule"]),
            (&json!(false), &json!(rule)),
            "{result}"
        );
    };
    denied("bash", &json!({"command": "rm a.csv"}), "rule:bash(rm*) (permissions.deny of the settings)");
    let path = json!({"path": "data/a.csv", "content": "2\n"});
    denied("write", &path, "rule:path(data/**) (permissions.deny of the settings)");
    // Nobody is there to be asked.
    denied("bash", &json!({"command": "make"}), "rule:bash(make*) (permissions.ask of the settings)");
    assert_eq!(host.read("data/a.csv"), "1\n");
    assert_eq!(host.tool("bash", &json!({"command": "echo ok"}), &[])["success"], true);
}
