//! Figures of the whole process.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Instant;

use serde_json::json;

use crate::server::{Seen, play};
use crate::{Figure, ms};

const BINARY: &str = env!("CARGO_BIN_EXE_ml-intern");

/// Runs for the start, and for the long session.
const STARTS: usize = 30;
const SESSIONS: usize = 5;

/// Steps of the long session, and how many around a step are looked at.
const STEPS: usize = 210;
const AROUND: usize = 8;

pub(crate) fn figures() -> Vec<Figure> {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    let home = root.path().join("home");
    let work = root.path().join("work");
    for folder in [home.join(".config/ml-intern"), home.join(".local/share/ml-intern/plugins"), work.clone()]
    {
        std::fs::create_dir_all(folder).unwrap();
    }
    std::fs::write(work.join("a.txt"), "one\ntwo\nthree\n").unwrap();
    // One plugin that is not bundled, so that the lock index is read.
    std::fs::copy(guests::component("probe"), home.join(".local/share/ml-intern/plugins/probe.wasm"))
        .unwrap();
    run(&home, &work, 0);
    let starts: Vec<(Instant, Vec<Seen>)> = (0..STARTS).map(|_| run(&home, &work, 0)).collect();
    let sessions: Vec<Vec<Seen>> = (0..SESSIONS).map(|_| run(&home, &work, STEPS).1).collect();
    let first = starts.iter().map(|(start, seen)| ms(seen[0].first_byte - *start)).collect();
    let at = |step: usize| {
        let gap = |seen: &Vec<Seen>, k: usize| ms(seen[k].first_byte - seen[k - 1].answered);
        let near = step - AROUND..step + AROUND;
        sessions.iter().flat_map(|seen| near.clone().map(|k| gap(seen, k)).collect::<Vec<_>>()).collect()
    };
    let (early, late) = (
        Figure::new("host time per step, at step 10", "ms", 1.5, at(10)),
        Figure::new("host time per step, at step 200", "ms", 1.5, at(200)),
    );
    let ratio = late.median() / early.median();
    vec![
        Figure::new("process start → first byte of the request, all plugins installed", "ms", 20.0, first),
        Figure::new(
            "peak RSS, one-shot prompt",
            "MiB",
            36.0,
            starts.iter().map(|(_, seen)| seen[0].peak_mib).collect(),
        ),
        Figure::new(
            "peak RSS after 200 tool calls",
            "MiB",
            48.0,
            sessions.iter().map(|seen| seen[200].peak_mib).collect(),
        ),
        Figure::new("`plugin info` of a component file, not run", "ms", 50.0, sheets(&home)),
        early,
        late,
        Figure::new("step 200 against step 10", "×", 1.5, vec![ratio]),
        Figure::new("first request's body for \"hello\"", "kB", 16.0, vec![first_body(&starts)]),
    ]
}

/// The sheet of a component that was never seen, before any of its code ran.
fn sheets(home: &Path) -> Vec<f64> {
    let one = || {
        let started = Instant::now();
        let mut command = Command::new(BINARY);
        command.env_clear().env("HOME", home).args(["plugin", "info"]).arg(guests::component("orders"));
        let sheet = command.output().unwrap();
        assert!(sheet.status.success() && String::from_utf8_lossy(&sheet.stdout).contains("can reach"));
        ms(started.elapsed())
    };
    (0..STARTS).map(|_| one()).collect()
}

fn first_body(starts: &[(Instant, Vec<Seen>)]) -> f64 {
    starts[0].1[0].body_bytes as f64 / 1e3
}

/// Runs the program against a model that asks for `steps` reads.
fn run(home: &Path, work: &Path, steps: usize) -> (Instant, Vec<Seen>) {
    let (pid, source) = channel();
    let (port, seen) = play(steps, source);
    let provider = json!({"wire": "chat", "base_url": format!("http://127.0.0.1:{port}")});
    let settings = json!({"providers": {"bench": provider}}).to_string();
    std::fs::write(home.join(".config/ml-intern/cli_agent_config.json"), settings).unwrap();
    let mut command = Command::new(BINARY);
    command.args(["hello", "-m", "bench/model", "--json"]).current_dir(work).env_clear();
    command.env("HOME", home).env("PATH", "/usr/bin:/bin");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let mut child = command.spawn().unwrap();
    pid.send(child.id()).unwrap();
    let seen = seen.recv().unwrap();
    child.wait().unwrap();
    (start, seen)
}
