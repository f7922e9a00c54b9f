//! What a component may hold of the host's.

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::guest::probe_within;
use crate::hostile::{attack, everything, host, with_probe};
use crate::support::{Ran, Stream, call};

#[test]
fn files_that_are_never_closed_cost_one_call() {
    let leak = || ("probe__attack", json!({"how": "leak", "with": "/workspace/a.txt", "list": []}));
    let mut calls: Vec<(&str, Value)> = (0..4).map(|_| leak()).collect();
    calls.extend((0..8).map(|_| ("bash", json!({"command": "cat a.txt"}))));
    let host = with_probe(
        vec![
            Step::calls(calls),
            attack("leak", "/workspace/a.txt", &[]),
            call("read", json!({"path": "a.txt"})),
            call("bash", json!({"command": "cat a.txt"})),
            call("write", json!({"path": "b.txt", "content": "x\n"})),
            Step::text("ok"),
        ],
        &everything(),
    );
    host.file("a.txt", "mine\n");
    // As many open files as most systems give a process.
    let plugins = host.home.join("plugins").display().to_string();
    let mut command = std::process::Command::new("prlimit");
    let inner = host.command(["go", "-m", "chat/m", "--json", "--plugin-dir", &plugins]);
    command.arg("--nofile=1024:1024").arg(inner.get_program()).args(inner.get_args());
    command.current_dir(&host.workspace).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = Stream::of(&Ran::of(&command.output().unwrap()));
    let outputs = ran.outputs();
    assert_eq!(outputs.len(), 16, "{}", ran.stderr);
    for leak in outputs[..4].iter().chain([&outputs[12]]) {
        assert!(leak.contains("files, folders and streams open"), "{leak}");
    }
    assert!(outputs[4..12].iter().all(|output| *output == "mine\n"), "{outputs:?}");
    assert!(
        outputs[13].contains("mine") && outputs[14] == "mine\n" && host.read("b.txt") == "x\n",
        "{outputs:?}"
    );
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("ok")), "{}", ran.stderr);
}

#[test]
fn changes_by_the_host_are_counted_as_those_of_the_guest() {
    let write = |with: &str, list: &[&str]| attack("write", with, list);
    // Two thousand changes that reach the disk take a slow one longer than other calls may.
    let probe = probe_within(&everything(), 300);
    let host = host(
        vec![
            write("/tmp/big", &["100", "1048576"]),
            write("/workspace/often.txt", &["3000", "2000", "same"]),
            call("bash", json!({"command": "du -sm /tmp | cut -f1"})),
            Step::text("ok"),
        ],
        &[("probe", probe, everything())],
    );
    host.settings(&json!({"limits": {"tmp_bytes": 8 << 20}}));
    let ran = crate::hostile::run(&host);
    let outputs = ran.outputs();
    let written: u32 = outputs[0].split(' ').next().unwrap().parse().unwrap();
    assert!((6..=8).contains(&written) && outputs[0].contains("is used up"), "{outputs:?}");
    assert!(
        outputs[1].starts_with("2000 written, then") && outputs[1].contains("at most 2000 files"),
        "{outputs:?}"
    );
    assert!(outputs[2].trim().parse::<u32>().unwrap() <= 9, "{outputs:?}");
    // What one call's changes show has an end too.
    let shown: usize = ran
        .all("tool_output")
        .iter()
        .filter_map(|event| event["changes"].as_array())
        .map(|changes| {
            changes.iter().filter_map(|change| change["diff"].as_str()).map(str::len).sum::<usize>()
        })
        .max()
        .unwrap();
    assert!(0 < shown && shown <= 1 << 20, "{shown}");
}
