//! What a component may hold of the host's.

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::{attack, everything, with_probe};
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
        assert!(leak.contains("it held more than 96 open files and streams"), "{leak}");
    }
    assert!(outputs[4..12].iter().all(|output| *output == "mine\n"), "{outputs:?}");
    assert!(
        outputs[13].contains("mine") && outputs[14] == "mine\n" && host.read("b.txt") == "x\n",
        "{outputs:?}"
    );
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("ok")), "{}", ran.stderr);
}
