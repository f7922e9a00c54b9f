//! Whatever a guest does is one failed result, and the agent goes on.

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{Stream, TestHost, call};

const GRANTS: &str = "[probe]\nkv = true\npaths = [\"workspace\", \"tmp\", \"data\"]\n";

fn host(steps: Vec<Step>, grants: &str) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guests::component("probe"), plugins.join("probe.wasm")).unwrap();
    host.home_file(".config/ml-intern/grants.toml", grants);
    host.settings(&json!({"limits": {"cpu_ms": 300, "wall_time_s": 2}}));
    host
}

fn run(host: &TestHost) -> Stream {
    run_with(host, &[])
}

fn run_with(host: &TestHost, more: &[&str]) -> Stream {
    let plugins = host.home.join("plugins").display().to_string();
    host.stream(&[&["--plugin-dir", plugins.as_str()], more].concat())
}

fn trick(name: &str, with: &str) -> Step {
    call("probe__probe", json!({"trick": name, "with": with}))
}

#[test]
fn every_trick_is_one_failed_result() {
    let tricks = [
        ("panic", "it panicked or aborted"),
        ("exit", "the plugin crashed"),
        ("loop", "computed for more than 0.3 s"),
        ("recurse", "recursed deeper than 512 KiB"),
        ("allocate", "wanted more than 256 MiB"),
        ("sleep", "took more than 2 s"),
        ("flood_host", "handed more than 16 MiB"),
        ("flood_kv", "too large"),
        ("exec", "no grant for `exec`"),
        ("write", "no grant for `files`"),
        ("http", "is not a URL that can be requested"),
    ];
    // Fewer at a time than suspend a plugin.
    for tricks in tricks.chunks(4) {
        let mut steps: Vec<Step> = tricks.iter().map(|(name, _)| trick(name, "x")).collect();
        steps.push(trick("echo", "still here"));
        steps.push(Step::text("done"));
        let host = host(steps, GRANTS);
        let ran = run(&host);
        let outputs = ran.all("tool_output");
        assert_eq!(outputs.len(), tricks.len() + 1, "{}", ran.stderr);
        for ((name, message), output) in tricks.iter().zip(&outputs) {
            assert_eq!(output["success"], false, "{name}: {output}");
            assert!(output["output"].as_str().unwrap().contains(message), "{name}: {output}");
        }
        assert_eq!(outputs.last().unwrap()["output"], "still here");
        assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("done")), "{}", ran.stderr);
        assert_eq!(host.server.violations(), Vec::<String>::new());
    }
}

#[test]
fn tricks_at_the_same_time_do_not_hold_each_other_up() {
    let all = ["loop", "sleep", "allocate", "panic", "recurse", "echo"]
        .map(|name| ("probe__probe", json!({"trick": name, "with": "me"})));
    let ran = run(&host(vec![Step::calls(all), Step::text("ok")], GRANTS));
    let done: Vec<bool> = ran.all("tool_output").iter().map(|o| o["success"] == true).collect();
    assert_eq!(done, [false, false, false, false, false, true]);
}

#[test]
fn a_guest_that_hangs_in_the_kernel_costs_one_call() {
    let host = host(
        vec![
            call("bash", json!({"command": "mkfifo pipe"})),
            trick("read", "pipe"),
            trick("echo", "still here"),
            Step::text("ok"),
        ],
        GRANTS,
    );
    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[1].contains("took more than 2 s"), "{outputs:?}");
    assert_eq!((outputs[2], ran.code), ("still here", Some(0)));
}

#[test]
fn calls_that_hang_in_the_kernel_are_faults_and_keep_no_place() {
    let hang = || ("probe__probe", json!({"trick": "read", "with": "pipe"}));
    let host = host(
        vec![
            call("bash", json!({"command": "mkfifo pipe"})),
            Step::calls((0..8).map(|_| hang())),
            // All its places hang: it is not waited for, and not called any more.
            trick("echo", "still here"),
            call("bash", json!({"command": "echo mine"})),
            Step::text("ok"),
        ],
        GRANTS,
    );
    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[1..9].iter().all(|output| output.contains("took more than 2 s")), "{outputs:?}");
    assert!(outputs[9].contains("is suspended for this session"), "{outputs:?}");
    assert_eq!((outputs[10], ran.code), ("mine\n", Some(0)));
}

#[test]
fn a_tool_that_only_looks_changes_nothing_whatever_its_plugin_was_granted() {
    let look = call("probe__look", json!({"trick": "write", "with": "made.txt"}));
    let host = host(vec![look, Step::text("ok")], GRANTS);
    let ran = run_with(&host, &["--permission-mode", "plan"]);
    assert!(ran.outputs()[0].contains("no grant for `files`"), "{:?}", ran.outputs());
    assert!(!host.workspace.join("made.txt").exists());
}

#[test]
fn floods_are_bounded() {
    let ran = run(&host(
        vec![trick("flood_output", ""), trick("flood_stdout", ""), trick("flood_log", ""), Step::text("ok")],
        GRANTS,
    ));
    let outputs = ran.outputs();
    assert!(
        outputs[0].ends_with("[cut by the host: 1048576 of 8388608 bytes]") && outputs[0].len() < 1_100_000
    );
    assert_eq!(outputs[1..], ["flooded", "flooded"]);
    let logs = ran.all("tool_log");
    assert!(logs.len() <= 1_000 && logs.iter().all(|l| l["log"].as_str().unwrap().len() <= 4_096));
    assert!(!ran.stderr.contains("xxxx"));
}

#[test]
fn a_guest_sees_what_it_was_given_and_nothing_else() {
    let steps = vec![
        trick("read", "a.txt"),
        trick("read", "/etc/passwd"),
        trick("read", "../home/.config/ml-intern/cli_agent_config.json"),
        trick("read", "link/secret"),
        trick("read", "file-link"),
        trick("write_directly", "a.txt"),
        trick("write_directly", "/tmp/mine"),
        trick("read", "/tmp/mine"),
        trick("write_directly", "/data/own"),
        trick("environment", ""),
        trick("connect", "127.0.0.1:1"),
        Step::text("ok"),
    ];
    let host = host(steps, GRANTS);
    host.file("a.txt", "mine");
    let outside = host.home.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink(&outside, host.workspace.join("link")).unwrap();
    std::os::unix::fs::symlink(outside.join("secret"), host.workspace.join("file-link")).unwrap();
    let ran = run(&host);
    let outputs = ran.outputs();
    assert_eq!(outputs[0], "mine");
    for refused in [1, 2, 3, 4, 5, 10] {
        assert!(outputs[refused].starts_with("refused: "), "{refused}: {outputs:?}");
    }
    assert_eq!((outputs[6], outputs[7], outputs[8]), ("written", "written", "written"));
    assert!(outputs[9].contains("ML_INTERN_PLUGIN=probe") && !outputs[9].contains("PATH="), "{}", outputs[9]);
    assert_eq!(host.read("a.txt"), "mine");
}

#[test]
fn without_a_grant_a_guest_sees_no_folder_at_all() {
    let host = host(
        vec![
            trick("read", "a.txt"),
            trick("write_directly", "/tmp/x"),
            trick("flood_kv", ""),
            Step::text("ok"),
        ],
        "",
    );
    host.file("a.txt", "mine");
    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[0].starts_with("refused: ") && outputs[1].starts_with("refused: "), "{outputs:?}");
    assert!(outputs[2].contains("no grant for `kv`"), "{outputs:?}");
}

#[test]
fn granted_changes_are_undoable_and_stay_inside() {
    let grants = "[probe]\nfiles = true\npaths = [\"workspace\"]\n";
    let steps = vec![
        trick("write", "a.txt"),
        trick("rename", "a.txt"),
        trick("remove", "a.txt.moved"),
        trick("rename", "../x"),
        trick("remove", "/etc/hostname"),
        trick("write", ".env"),
        Step::text("ok"),
    ];
    let host = host(steps, grants);
    let ran = run(&host);
    let outputs = ran.outputs();
    assert_eq!(outputs[..3], ["written", "moved", "removed"], "{outputs:?}");
    assert!(
        outputs[3].contains("outside") && outputs[4].contains("outside") && outputs[5].contains("sealed"),
        "{outputs:?}"
    );
    assert!(std::path::Path::new("/etc/hostname").exists());
}

#[test]
fn what_acts_on_a_terminal_does_not_reach_it() {
    let said = "a\u{1b}[2Jb\u{1b}]0;title\u{7}\u{9b}31m\n";
    let steps = vec![trick("escape", ""), trick("panic", "x\u{1b}[31m"), Step::text(said)];
    let host = host(steps, GRANTS);
    let plugins = host.home.join("plugins").display().to_string();
    let ran = host.run(["go", "-v", "-m", "chat/m", "--plugin-dir", &plugins]);
    assert_eq!(host.server.completions(), 3, "{}", ran.stderr);
    for shown in [&ran.stderr, &ran.stdout] {
        assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{shown:?}");
    }
    assert!(ran.stdout.starts_with("ab"), "{:?}", ran.stdout);
}

#[test]
fn requests_go_only_where_both_sides_allow_it() {
    // The probe declares one origin that nothing listens on; no grant can widen that.
    let host = host(
        vec![
            trick("http", "http://127.0.0.1:1/"),
            trick("http", "http://127.0.0.1:2/"),
            trick("http", "https://example.com/"),
            trick("http", "http://169.254.169.254/"),
            Step::text("ok"),
        ],
        "[probe]\nnetwork = [\"http://127.0.0.1:1 GET\", \"http://127.0.0.1:2\", \"https://example.com\"]\n",
    );
    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[0].contains("cannot connect to http://127.0.0.1:1"), "{outputs:?}");
    assert!(outputs[1..].iter().all(|o| o.contains("is not granted")), "{outputs:?}");
    // The ledger knows what was tried as well as what left.
    let ledger = host.requests(&[]);
    let of_plugin: Vec<&Value> = ledger.iter().filter(|r| r["who"] == "plugin probe").collect();
    assert_eq!(of_plugin[0]["origin"], "http://127.0.0.1:1");
    assert!(of_plugin[0]["failed"].as_str().unwrap().contains("cannot connect"), "{ledger:?}");
    assert_eq!(of_plugin[0]["why"], "http://127.0.0.1:1 GET");
    let refused: Vec<&str> =
        of_plugin[1..].iter().filter(|r| r["refused"] == true).filter_map(|r| r["origin"].as_str()).collect();
    assert_eq!(refused, ["http://127.0.0.1:2", "https://example.com", "http://169.254.169.254"]);
}

#[test]
fn the_ledger_has_every_request_and_offline_leaves_the_model_alone() {
    let host = host(
        vec![trick("http", "http://127.0.0.1:1/"), Step::text("ok")],
        "[probe]\nnetwork = [\"http://127.0.0.1:1 GET\"]\n",
    );
    let ran = run_with(&host, &["--offline"]);
    assert!(ran.outputs()[0].contains("--offline"), "{:?}", ran.outputs());
    let ledger = host.requests(&["--run", ran.result()["session_id"].as_str().unwrap()]);
    let left: Vec<&Value> = ledger.iter().filter(|r| r["refused"] == false).collect();
    assert_eq!(left.len(), host.server.requests().len());
    for request in left {
        assert_eq!(request["origin"], host.server.url());
        assert_eq!((&request["why"], &request["status"]), (&Value::from("model"), &Value::from(200)));
        assert!(request["sent"].as_u64().unwrap() > 1000 && request["received"].as_u64().unwrap() > 10);
    }
    assert_eq!(ledger.iter().filter(|r| r["refused"] == true).count(), 1);
}
