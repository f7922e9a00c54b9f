//! What is ordered elsewhere: allowed by name, capped, and never sent twice.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{Stream, TestHost, call};

/// What a jobs server does with an order.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    /// Takes it and says so.
    Takes,
    /// Takes it and does not answer.
    TakesSilently,
    /// Does not even take it.
    Refuses,
    /// A gateway before it says that it went wrong; it was taken.
    TakesBadly,
}

/// A jobs server: what it was asked for, in order.
struct Jobs {
    port: u16,
    seen: Arc<(Mutex<Vec<String>>, Condvar)>,
}

impl Jobs {
    fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Five digits, as the manifest has room for.
        let port = listener.local_addr().unwrap().port();
        if port < 10_000 {
            return Self::start(answer);
        }
        let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, answer, &shared));
            }
        });
        Self { port, seen }
    }

    /// The orders that were taken.
    fn taken(&self) -> Vec<String> {
        let seen = self.seen.0.lock().unwrap();
        seen.iter().filter(|line| line.starts_with("POST")).cloned().collect()
    }

    /// Waits until an order was taken.
    fn wait(&self) {
        let (lock, changed) = &*self.seen;
        let seen = lock.lock().unwrap();
        drop(changed.wait_while(seen, |seen| !seen.iter().any(|line| line.starts_with("POST"))).unwrap());
    }
}

fn serve(stream: TcpStream, answer: Answer, (lock, changed): &(Mutex<Vec<String>>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0_usize;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_order = first.starts_with("POST");
    let known = lock.lock().unwrap().iter().any(|line| *line == format!("POST {path}"));
    if !(is_order && answer == Answer::Refuses) {
        lock.lock().unwrap().push(format!("{} {path}", if is_order { "POST" } else { "GET" }));
        changed.notify_all();
    }
    let status = match (is_order, answer) {
        (true, Answer::TakesSilently) => {
            // Until the other side goes away.
            let _ = reader.read(&mut [0]);
            return;
        }
        (true, Answer::Refuses) => "400 Bad Request",
        (true, Answer::TakesBadly) => "502 Bad Gateway",
        (true, Answer::Takes) => "200 OK",
        (false, _) if known => "200 OK",
        (false, _) => "404 Not Found",
    };
    let mut stream = stream;
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok");
}

/// The plugin, with the server's port in its manifest, and granted.
fn host(jobs: &Jobs, steps: Vec<Step>) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let mut bytes = std::fs::read(guests::component("orders")).unwrap();
    let (from, to) = (*b"127.0.0.1:00001", format!("127.0.0.1:{:05}", jobs.port));
    for at in 0..bytes.len() - from.len() {
        if bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    }
    std::fs::write(plugins.join("orders.wasm"), bytes).unwrap();
    let origin = format!("http://127.0.0.1:{}", jobs.port);
    host.home_file(
        ".config/ml-intern/grants.toml",
        &format!("[orders]\nnetwork = [\"{origin} GET POST\"]\n"),
    );
    host
}

fn arguments(host: &TestHost, more: &[&str]) -> Vec<String> {
    let plugins = host.home.join("plugins").display().to_string();
    let own = ["go", "-m", "chat/m", "--json", "--plugin-dir", plugins.as_str()];
    own.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
}

fn run(host: &TestHost, more: &[&str]) -> Stream {
    Stream::of(&host.run(arguments(host, more)))
}

fn order(arguments: Value) -> Step {
    call("orders__order", arguments)
}

fn rules(ran: &Stream) -> Vec<&str> {
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    denials.iter().map(|denial| denial["rule"].as_str().unwrap()).collect()
}

const ORDER: [&str; 2] = ["--allow", "orders__order(nightly)"];

#[test]
fn an_order_needs_a_rule_that_names_it_and_a_price_that_fits() {
    let jobs = Jobs::start(Answer::Takes);
    let nightly = |flavor: &str, timeout: &str| {
        order(json!({"operation": "run", "name": "nightly", "flavor": flavor, "timeout": timeout}))
    };
    let steps =
        vec![nightly("small", "2h"), order(json!({"operation": "run", "name": "other"})), Step::text("ok")];
    let ran = run(&host(&jobs, steps), &ORDER);
    assert_eq!(
        (jobs.taken().len(), rules(&ran), ran.code),
        (1, vec!["mode:auto"], Some(6)),
        "{}",
        ran.stderr
    );
    assert!(ran.result()["permission_denials"][0]["remedy"].as_str().unwrap().contains("--allow"));
    // No price, more than the ten dollars of a run without a person, and what two of them cost together.
    let steps = || {
        vec![
            nightly("h100", "1h"),
            nightly("large", "3h"),
            nightly("large", "2h"),
            nightly("small", "3h"),
            Step::text("ok"),
        ]
    };
    let ran = run(&host(&jobs, steps()), &ORDER);
    assert_eq!(
        (jobs.taken().len(), rules(&ran)),
        (2, vec!["budget", "budget", "budget"]),
        "{:?}",
        ran.outputs()
    );
    assert!(ran.outputs()[0].contains("nobody knows what this costs"), "{:?}", ran.outputs());
    assert!(ran.outputs()[1].contains("12.00 USD, and 10.00 USD"), "{:?}", ran.outputs());
    assert!(ran.outputs()[3].contains("3.00 USD, and 2.00 USD"), "{:?}", ran.outputs());
    // Also where everything may run.
    let ran = run(&host(&jobs, steps()), &["--yolo", "--max-budget-usd", "0"]);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let free = host(&jobs, steps());
    free.settings(&json!({"headless_budget_usd": 0}));
    let ran = run(&free, &["--yolo"]);
    assert_eq!((jobs.taken().len(), rules(&ran)), (2, vec!["budget"; 4]), "{:?}", ran.outputs());
}

#[test]
fn an_order_without_a_model_is_capped_and_on_record_too() {
    let jobs = Jobs::start(Answer::Takes);
    let host = host(&jobs, Vec::new());
    let plugins = host.home.join("plugins").display().to_string();
    let nightly = |flavor: &str| {
        let arguments = json!({"operation": "run", "name": "nightly", "flavor": flavor, "timeout": "3h"});
        host.tool("orders__order", &arguments, &["--plugin-dir", &plugins])
    };
    assert_eq!(nightly("large")["denial"]["rule"], "budget");
    assert_eq!((nightly("small")["success"].clone(), jobs.taken().len()), (json!(true), 1));
    let user = host.run(["audit", "export"]).stdout;
    let start = user.lines().rfind(|line| line.contains("\"start\"")).unwrap();
    let start: Value = serde_json::from_str(start).unwrap();
    let records = host.run(["audit", "export", start["session"].as_str().unwrap()]).stdout;
    let states = records
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["state"].as_str().map(str::to_owned));
    assert_eq!(states.collect::<Vec<_>>(), ["sent", "done"]);
}

#[test]
fn what_goes_on_without_end_is_asked_for_in_every_mode() {
    let jobs = Jobs::start(Answer::Takes);
    let steps = vec![
        order(json!({"operation": "Schedule", "name": "nightly"})),
        order(json!({"operation": "schedule", "name": "nightly"})),
        Step::text("ok"),
    ];
    let ran = run(&host(&jobs, steps), &["--yolo"]);
    assert!(rules(&ran).iter().all(|rule| *rule == "never-automatic"), "{:?}", ran.outputs());
    assert_eq!((jobs.taken().len(), ran.code), (0, Some(6)));
}

#[test]
fn runs_side_by_side_share_the_budget() {
    let jobs = Jobs::start(Answer::Takes);
    let eight = order(json!({"operation": "run", "name": "nightly", "flavor": "large", "timeout": "2h"}));
    let host = host(&jobs, vec![eight.clone(), Step::text("ok"), eight, Step::text("ok")]);
    assert_eq!(run(&host, &ORDER).code, Some(0));
    // The first run has ended; what it ordered has not.
    let second = run(&host, &ORDER);
    assert_eq!((jobs.taken().len(), rules(&second)), (1, vec!["budget"]), "{:?}", second.outputs());
}

#[test]
fn text_from_the_network_has_to_be_outvoted_by_name() {
    let jobs = Jobs::start(Answer::Takes);
    let find = order(json!({"operation": "find", "order": "x"}));
    let steps =
        |first: Step| vec![first, order(json!({"operation": "run", "name": "nightly"})), Step::text("ok")];
    let both =
        ["--allow", "orders__order(operation=find)", "--permission-mode", "ask", "--allow", "orders__order"];
    let ran = run(&host(&jobs, steps(find.clone())), &both);
    assert_eq!(rules(&ran).len(), 1, "{:?}", ran.outputs());
    assert_eq!(ran.all("tool_output")[0]["source"], format!("http://127.0.0.1:{}", jobs.port));
    let named = ["--allow", "orders__order(operation=find)", "--allow", "orders__order(nightly)"];
    assert_eq!(run(&host(&jobs, steps(find)), &named).code, Some(0));
    assert_eq!(jobs.taken().len(), 1);
}

#[test]
fn an_order_that_is_not_answered_is_not_sent_again() {
    for answer in [Answer::TakesBadly, Answer::Refuses] {
        let jobs = Jobs::start(answer);
        let run_it = || order(json!({"operation": "run", "name": "nightly"}));
        let again = order(json!({"operation": "run", "name": "nightly "}));
        let host = host(&jobs, vec![run_it(), run_it(), again, Step::text("ok")]);
        let ran = run(&host, &["--yolo"]);
        match answer {
            Answer::Refuses => assert_eq!((rules(&ran).len(), ran.code), (0, Some(0)), "{:?}", ran.outputs()),
            _ => {
                assert_eq!(
                    (jobs.taken().len(), rules(&ran)),
                    (1, vec!["unknown-order"; 2]),
                    "{:?}",
                    ran.outputs()
                );
                assert!(ran.outputs()[0].contains("whether it arrived is unknown"), "{:?}", ran.outputs());
                // Nor by whoever goes on, or branches off.
                for more in [["--continue", "--yolo"].as_slice(), &["--continue", "--fork", "--yolo"]] {
                    host.server.push(run_it());
                    host.server.push(Step::text("ok"));
                    let ran = run(&host, more);
                    // It is there when it is looked for, so that it is known.
                    assert!(
                        ran.notices().iter().any(|notice| notice.contains("arrived: it was found")),
                        "{:?}",
                        ran.notices()
                    );
                }
            }
        }
    }
}

/// Runs until `until` says so, kills the run, and lets the model order the same again.
fn killed_and_resumed(answer: Answer, until: impl Fn(&Jobs, &mut dyn BufRead)) {
    let jobs = Jobs::start(answer);
    let run_it = || order(json!({"operation": "run", "name": "nightly", "flavor": "small"}));
    let host = host(&jobs, vec![run_it(), run_it(), Step::text("ok"), run_it(), Step::text("ok")]);
    host.settings(&json!({"limits": {"wall_time_s": 2}}));
    let mut child =
        host.command(arguments(&host, &ORDER)).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    until(&jobs, &mut lines);
    child.kill().unwrap();
    child.wait().unwrap();
    let before = jobs.taken().len();
    let ran = run(&host, &["--continue", ORDER[0], ORDER[1]]);
    let after = jobs.taken().len();
    let refused = ran.outputs().iter().any(|output| output.contains("unknown") || output.contains("refused"));
    assert!(before <= 1 && after <= 1, "{before} {after} {:?}", ran.outputs());
    // What may have been on its way is not ordered again; what certainly was not is ordered now.
    assert!(
        if before == 1 { refused } else { refused || after == 1 },
        "{before} {after} {:?}",
        ran.outputs()
    );
}

#[test]
fn killed_around_the_moment_it_leaves_an_order_is_made_once() {
    let read_until = |lines: &mut dyn BufRead, kind: &str| {
        let mut line = String::new();
        while lines.read_line(&mut line).unwrap() > 0 && !line.contains(kind) {
            line.clear();
        }
    };
    // Taken, and not answered.
    killed_and_resumed(Answer::TakesSilently, |jobs, _| jobs.wait());
    // Announced: the order may be on record, on its way, or neither.
    for _ in 0..10 {
        killed_and_resumed(Answer::TakesSilently, |_, lines| read_until(lines, "\"tool_call\""));
    }
}
