//! Signals outside of a turn.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::TestHost;

/// Waits until the program looks at a signal itself.
fn looks_at(child: &Child, signal: Signal) {
    let status = format!("/proc/{}/status", child.id());
    let bit = 1_u64 << (signal.as_raw() - 1);
    loop {
        let text = std::fs::read_to_string(&status).unwrap();
        let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        if u64::from_str_radix(caught.trim(), 16).unwrap() & bit != 0 {
            return;
        }
        assert!(!text.contains("State:\tZ"), "it ended without looking at signals");
        std::thread::yield_now();
    }
}

#[test]
fn a_signal_before_there_is_a_session_ends_the_run_with_a_result() {
    for (signal, code, subtype) in [(Signal::INT, 130, "interrupted"), (Signal::TERM, 143, "terminated")] {
        let host = TestHost::new([]);
        // Its prompt does not come.
        let mut child = host
            .command(["run", "-", "-m", "chat/m", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        looks_at(&child, signal);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let stdin = child.stdin.take();
        let output = child.wait_with_output().unwrap();
        drop(stdin);
        assert_eq!(output.status.code(), Some(code));
        let line: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&line["exit_code"], &line["subtype"]), (&Value::from(code), &Value::from(subtype)));
        assert!(host.server.requests().is_empty());
    }
}

#[test]
fn a_signal_while_a_plugin_is_compiled_leaves_nothing_behind() {
    let host = TestHost::outside_tmp([]);
    let folder = host.home.join("plugins");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    let child = host
        .command(["go", "-m", "chat/m", "--json", "--plugin-dir", folder.to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    looks_at(&child, Signal::INT);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let compiler = loop {
        // A thread of the program starts it, so that it is a child of that thread.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().flatten();
        let texts = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        if let Some(id) = texts.flat_map(|text| text.split_whitespace().next().map(str::to_owned)).next() {
            break id;
        }
        assert!(std::path::Path::new(&children).exists(), "it ended without compiling");
        std::thread::yield_now();
    };
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stdout));
    // Killed, and gone as soon as the kernel has come to it.
    let state = || std::fs::read_to_string(format!("/proc/{compiler}/status")).unwrap_or_default();
    while !state().is_empty() && !state().contains("State:\tZ") {
        std::thread::yield_now();
    }
}
