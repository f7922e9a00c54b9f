//! What a stranger's plugin takes has an end: disk, the compiler's time, and patience.

use serde_json::{Value, json};
use testkit::Step;
use testkit::wasm::{function, functions, number, plugin};

use crate::support::{Stream, TestHost, call};

const GRANTS: &str = "[probe]\npaths = [\"workspace\", \"tmp\", \"data\"]\n";

/// Instructions.
const LOOP: u8 = 0x03;
const NOTHING: u8 = 0x40;
const END: u8 = 0x0b;
const BRANCH_IF: u8 = 0x0d;
const LOCAL_GET: u8 = 0x20;
const LOCAL_SET: u8 = 0x21;
const IS_ZERO: u8 = 0x50;
const ADD: u8 = 0x7c;

const MANIFEST: &str =
    r#"{"id":"bomb","version":"1.0.0","description":"Ticks.","tools":{"tick":{"tier":"read"}}}"#;

fn host(steps: Vec<Step>, limits: &Value) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guests::component("probe"), plugins.join("probe.wasm")).unwrap();
    host.home_file(".config/ml-intern/grants.toml", GRANTS);
    host.settings(&json!({"limits": limits}));
    host
}

fn run(host: &TestHost) -> Stream {
    let plugins = host.home.join("plugins").display().to_string();
    host.stream(&["--plugin-dir", &plugins])
}

fn trick(name: &str, with: &str) -> Step {
    call("probe__probe", json!({"trick": name, "with": with}))
}

/// The number before the colon.
fn count(output: &str) -> u64 {
    output.split(':').next().unwrap().parse().unwrap_or_else(|e| panic!("{e}: {output}"))
}

#[test]
fn a_guest_fills_its_folders_to_the_quota_and_no_further() {
    let quotas = json!({"tmp_bytes": 4 << 20, "tmp_files": 50, "data_bytes": 2 << 20, "data_files": 20});
    let steps = vec![
        trick("fill", "/tmp/a"),
        trick("fill", "/tmp/b"),
        // What is gone is given back.
        call("bash", json!({"command": "rm /tmp/a"})),
        trick("fill", "/tmp/c"),
        trick("fill_files", "/tmp"),
        trick("fill", "/data/a"),
        trick("fill_files", "/data"),
        trick("echo", "still here"),
        Step::text("ok"),
    ];
    let host = host(steps, &quotas);
    let ran = run(&host);
    let outputs = ran.outputs();
    let block = 64 << 10;
    assert!((4 << 20) - block <= count(outputs[0]) && count(outputs[0]) <= 4 << 20, "{outputs:?}");
    assert_eq!(count(outputs[1]), 0, "{outputs:?}");
    assert_eq!(count(outputs[3]), 4 << 20, "{outputs:?}");
    assert!((40..=50).contains(&count(outputs[4])), "{outputs:?}");
    assert!((2 << 20) - block <= count(outputs[5]) && count(outputs[5]) <= 2 << 20, "{outputs:?}");
    assert!((15..=20).contains(&count(outputs[6])), "{outputs:?}");
    assert_eq!((outputs[7], ran.code), ("still here", Some(0)));
    // What one session left counts in the next.
    host.server.push(trick("fill", "/data/b"));
    host.server.push(Step::text("ok"));
    let ran = run(&host);
    assert_eq!(count(ran.outputs()[0]), 0, "{:?}", ran.outputs());
}

#[test]
fn what_a_guest_removes_or_moves_is_counted_until_its_call_ended() {
    let quotas = json!({"tmp_bytes": 4 << 20, "data_bytes": 4 << 20});
    let steps = vec![
        trick("hoard", "/tmp/a"),
        trick("hoard", "/tmp/b"),
        trick("hoard", "/data/a"),
        trick("fill", "/tmp/c"),
        trick("smuggle", "/tmp/c"),
        call("bash", json!({"command": "stat -c %s /tmp/c"})),
        Step::text("ok"),
    ];
    let host = host(steps, &quotas);
    let ran = run(&host);
    let outputs = ran.outputs();
    assert_eq!([0, 1, 2].map(|k| count(outputs[k])), [4, 4, 4], "{outputs:?}");
    assert_eq!(count(outputs[3]), 4 << 20, "{outputs:?}");
    assert!(outputs[4].starts_with("refused"), "{outputs:?}");
    assert_eq!((outputs[5], ran.code), ("4194304\n", Some(0)));
}

#[test]
fn a_plugin_that_keeps_crashing_is_suspended_and_the_others_are_not() {
    let crashes = ["panic", "exit", "recurse", "flood_host", "panic"].map(|name| trick(name, "x"));
    let more = [trick("echo", "x"), call("bash", json!({"command": "echo works"})), Step::text("ok")];
    let host = host(crashes.into_iter().chain(more).collect(), &json!({}));
    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[4].contains("crashed"), "{outputs:?}");
    assert!(outputs[5].contains("`probe` is suspended for this session"), "{outputs:?}");
    assert_eq!((outputs[6], ran.code), ("works\n", Some(0)));
}

#[test]
fn an_answer_for_programs_has_a_limit_too() {
    let host = host(vec![trick("flood_structured", ""), Step::text("ok")], &json!({}));
    let ran = run(&host);
    assert!(ran.outputs()[0].contains("larger than 1048576 bytes"), "{:?}", ran.outputs());
}

#[test]
fn a_compile_bomb_costs_one_refused_plugin() {
    let counted = plugin(MANIFEST, &[functions(1, &function(40_000, &[]))]);
    // Nothing in it is too many, and all of it together keeps the compiler busy.
    let sum = |k: usize| {
        let [a, b, c] = [7, 13, 31].map(|step| number(k * step % 9_000));
        [[LOCAL_GET].as_slice(), &a, &[LOCAL_GET], &b, &[ADD, LOCAL_SET], &c].concat()
    };
    let work: Vec<u8> = (0..60_000).flat_map(sum).collect();
    let again = [[LOOP, NOTHING].as_slice(), &work, &[LOCAL_GET, 5, IS_ZERO, BRANCH_IF, 0, END]].concat();
    let slow = plugin(MANIFEST, &[functions(8, &function(9_000, &again))]);
    for (bytes, reason) in [(counted, "has more than 10000 variables"), (slow, "more than 1 s")] {
        let steps = vec![call("bash", json!({"command": "echo works"})), Step::text("ok")];
        let host = host(steps, &json!({"compile_s": 1}));
        std::fs::remove_file(host.home.join("plugins/probe.wasm")).unwrap();
        std::fs::write(host.home.join("plugins/bomb.wasm"), bytes).unwrap();
        let ran = run(&host);
        assert!(ran.stderr.contains("bomb.wasm") && ran.stderr.contains(reason), "{reason}: {}", ran.stderr);
        assert_eq!((ran.outputs(), ran.code), (vec!["works\n"], Some(0)));
        // The next start does not try again: the file costs its time once.
        if reason.starts_with("more than") {
            let again =
                host.run(["plugin", "list", "--plugin-dir", host.home.join("plugins").to_str().unwrap()]);
            assert!(
                again.stderr.contains("at an earlier start") && !again.stderr.contains("compiling it once"),
                "{}",
                again.stderr
            );
        }
    }
}

#[test]
fn advice_on_deep_python_never_fails_the_change() {
    let blocks: String = (0..140).map(|k| format!("{}if x:\n", " ".repeat(k))).collect();
    let texts = [
        format!("x = {}1{}\n", "(".repeat(50_000), ")".repeat(50_000)),
        format!("x = {}1\n", "-".repeat(100_000)),
        format!("x = 1{}\n", "+1".repeat(100_000)),
        // As deep as is still parsed.
        format!("x = {}1{}\n", "(".repeat(145), ")".repeat(145)),
        format!("x = {}1\n", "-".repeat(140)),
        format!("{blocks}{}pass\n", " ".repeat(140)),
    ];
    let steps = texts.iter().enumerate();
    let steps = steps.map(|(k, text)| call("write", json!({"path": format!("{k}.py"), "content": text})));
    let host = host(steps.chain([Step::text("ok")]).collect(), &json!({}));
    let ran = run(&host);
    for (k, output) in ran.all("tool_output").into_iter().enumerate() {
        assert_eq!(output["success"], true, "{k}: {output}");
        assert_eq!(host.read(&format!("{k}.py")), texts[k]);
    }
    assert_eq!(ran.outputs().len(), texts.len());
}

#[test]
fn a_grant_bounds_one_plugin_and_not_the_others() {
    let steps = vec![
        trick("loop", "x"),
        trick("fill", "/data/a"),
        call("bash", json!({"command": "sleep 600", "timeout": 600})),
        Step::text("ok"),
    ];
    let host = host(steps, &json!({}));
    let folder = host.home.join("plugins").display().to_string();
    let bound = |id: &str, limits: &[&str]| {
        let mut line = vec!["plugin", "grant", id, "--plugin-dir", folder.as_str()];
        limits.iter().for_each(|limit| line.extend(["--limit", limit]));
        host.run(line)
    };
    let ran = bound("probe", &["cpu_ms=200", "data_bytes=100000"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, "granted probe: limit cpu_ms 200\ngranted probe: limit data_bytes 100000\n");
    assert_eq!(bound("workspace", &["kv_bytes=8"]).code, Some(0));
    assert_eq!(bound("shell", &["wall_time_s=1"]).code, Some(0));
    for (wrong, why) in [
        ("cpu=1", "`cpu` is none of cpu_ms, memory_bytes"),
        ("cpu_ms=0", "cpu_ms is from 1 to 30000"),
        ("cpu_ms", "--limit NAME=NUMBER, such as cpu_ms=10000: not cpu_ms"),
        ("tmp_bytes=5", "`tmp_bytes` is none of"),
    ] {
        let ran = bound("probe", &[wrong]);
        assert!(ran.code == Some(2) && ran.stderr.contains(why), "{wrong}: {}", ran.stderr);
    }
    let told = host.run(["plugin", "grants", "probe", "--plugin-dir", &folder]).stdout;
    assert!(
        told.contains("probe: paths data\n") && told.contains("probe: limit data_bytes 100000\n"),
        "{told}"
    );
    let sheet = host.run(["plugin", "info", "workspace"]).stdout;
    assert!(sheet.contains("no more than kv_bytes 8\n") && sheet.contains("— granted"), "{sheet}");

    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[0].contains("computed for more than 0.2 s"), "{outputs:?}");
    assert!((1..=100_000).contains(&count(outputs[1])), "{outputs:?}");
    assert!(outputs[2].contains("took more than 1 s"), "{outputs:?}");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    // A grant of everything leaves what bounds it as it was; taken back, nothing does.
    assert_eq!(bound("probe", &[]).code, Some(0));
    let told = |id: &str| host.run(["plugin", "grants", id, "--plugin-dir", &folder]).stdout;
    assert!(told("probe").contains("probe: exec\n") && told("probe").contains("limit cpu_ms 200"));
    assert_eq!(host.run(["plugin", "revoke", "shell", "--plugin-dir", &folder]).code, Some(0));
    assert!(told("shell").contains("shell: exec\n") && !told("shell").contains("limit"));
}
