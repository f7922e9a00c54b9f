//! A call asks for an origin that its plugin declares and was not granted.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::guest::probe_within;
use crate::hostile::server::{Server, answer};
use crate::screen::Screen;
use crate::support::{TestHost, call};

/// Seconds that a call of the probe may take here.
const WALL_S: u32 = 3;

/// How long a person thinks: longer than a call may take, and than its host gives it up.
const THINKS: Duration = Duration::from_secs(WALL_S as u64 + 3);

/// A host with a probe that declares the server and was granted nothing.
fn host(steps: Vec<Step>, server: &Server) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let declared = json!({"network": [format!("{} GET POST", server.url())]});
    std::fs::create_dir(host.home.join("plugins")).unwrap();
    std::fs::write(host.home.join("plugins/probe.wasm"), probe_within(&declared, WALL_S)).unwrap();
    host.settings(&json!({"limits": {"cpu_ms": 1_000}}));
    host
}

fn plugins(host: &TestHost) -> String {
    host.home.join("plugins").display().to_string()
}

fn get(server: &Server, path: &str) -> Step {
    call("probe__probe", json!({"trick": "http", "with": format!("{}{path}", server.url())}))
}

fn post(server: &Server) -> Step {
    call("probe__probe", json!({"trick": "carry", "with": format!("\nPOST\n{}/post", server.url())}))
}

fn chat(host: &TestHost) -> Screen {
    let mut screen = Screen::chat(host, &["--plugin-dir", &plugins(host)]);
    screen.until("ML INTERN", None);
    screen
}

/// The paths that the server was asked for.
fn asked(server: &Server) -> Vec<String> {
    server.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect()
}

/// What the audit log has of all sessions, act by act, without times and ids.
fn record(host: &TestHost) -> Vec<Value> {
    let chains = host.home.join(".local/state/ml-intern/audit");
    let mut files = Vec::new();
    let mut folders = vec![chains];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let lines = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect::<String>();
    lines.lines().map(|line| serde_json::from_str(line.split_once(' ').unwrap().1).unwrap()).collect()
}

/// The answers of the person that are on record for a target.
fn answers(host: &TestHost, target: &str) -> Vec<String> {
    let answers = record(host).into_iter().filter(|act| act["act"] == "answer" && act["target"] == target);
    answers.filter_map(|act| act["answer"].as_str().map(str::to_owned)).collect()
}

/// What the card asks before the key.
const ASKS: &str = "refuse with words:";

#[test]
fn a_person_is_asked_once_or_for_the_session_and_the_wait_is_not_charged() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let steps = vec![
        get(&server, "/once"),
        get(&server, "/session"),
        get(&server, "/again"),
        Step::text("Ready now."),
    ];
    let host = host(steps, &server);
    let mut screen = chat(&host);
    screen.until(ASKS, Some("go\r"));
    for part in [
        "probe__probe · read".to_owned(),
        "the plugin `probe` was not granted".to_owned(),
        "plugin  probe".to_owned(),
        format!("origin  {}", server.url()),
        "method  GET".to_owned(),
        "g for good".to_owned(),
    ] {
        assert!(screen.text.contains(&part), "{part}: {}", screen.text);
    }
    // Nothing left while nobody had answered, and the call waits longer than it may compute or take.
    std::thread::sleep(THINKS);
    assert_eq!(asked(&server), Vec::<String>::new());
    // Once is once: the next call asks again.
    screen.until_times(ASKS, 2, Some("y"));
    assert_eq!(asked(&server), ["/once"], "{}", screen.text);
    // For the session: the one after it does not.
    screen.until("Ready now.", Some("s"));
    assert_eq!(asked(&server), ["/once", "/session", "/again"], "{}", screen.text);
    assert_eq!(screen.text.matches(ASKS).count(), 2, "{}", screen.text);
    drop(screen);
    let target = format!("{} GET", server.url());
    assert_eq!(answers(&host, &target), ["once", "session"]);
    let rules: Vec<Value> = record(&host)
        .into_iter()
        .filter(|act| act["act"] == "decision" && act["target"] == target)
        .map(|act| json!([act["verdict"], act["rule"]]))
        .collect();
    assert_eq!(
        rules,
        [json!(["ask", "grant"]), json!(["ask", "grant"]), json!(["allow", "allowed-for-session"])]
    );
    assert!(!host.home.join(".config/ml-intern/grants.toml").exists());
}

#[test]
fn a_refused_call_asks_once_and_an_interrupted_one_ends() {
    let server = Server::start(|_| answer(200, "", "fine"));
    // It tries three times.
    let list = ["x-a: 1", "x-b: 2", "x-c: 3"];
    let tries = call("probe__attack", json!({"how": "headers", "with": server.url(), "list": list}));
    let steps = vec![tries, Step::text("Refused then."), get(&server, "/stop"), Step::text("Never said.")];
    let host = host(steps, &server);
    let mut screen = chat(&host);
    screen.until(ASKS, Some("go\r"));
    screen.until("Refused then.", Some("n"));
    assert_eq!(screen.text.matches(ASKS).count(), 1, "{}", screen.text);
    let told = host.server.requests()[1].body().to_string();
    assert_eq!(told.matches("the user refused").count(), list.len(), "{told}");
    screen.until_times(ASKS, 2, Some("go\r"));
    screen.until("nterrupted", Some("\u{3}"));
    drop(screen);
    assert_eq!(asked(&server), Vec::<String>::new());
    let target = format!("{} GET", server.url());
    assert_eq!(answers(&host, &target), ["rejected", "abandoned"]);
}

#[test]
fn what_is_granted_for_good_stands_in_the_grants_file_and_in_the_log() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let steps = vec![
        get(&server, "/one"),
        Step::text("First turn."),
        get(&server, "/two"),
        Step::text("Second turn."),
    ];
    let host = host(steps, &server);
    let file = ".config/ml-intern/grants.toml";
    host.home_file(file, "# mine\n[other]\nkv = true\n");
    let mut screen = chat(&host);
    screen.until(ASKS, Some("go\r"));
    screen.until("First turn.", Some("g"));
    let target = format!("{} GET", server.url());
    assert!(screen.text.contains(&format!("granted probe: network {target}")), "{}", screen.text);
    // It holds in a new conversation, too.
    screen.until("/two", Some("/new\rgo\r"));
    screen.until("Second turn.", None);
    drop(screen);
    assert_eq!(asked(&server), ["/one", "/two"]);
    assert_eq!(answers(&host, &target), ["for good"]);
    let text = std::fs::read_to_string(host.home.join(file)).unwrap();
    assert!(text.starts_with("# mine\n"), "{text}");
    let grants: toml::Table = text.parse().unwrap();
    assert_eq!(grants["other"]["kv"], toml::Value::Boolean(true));
    let given = toml::Value::from(vec![target.clone()]);
    assert!(
        grants["probe"]["network"] == given && grants["probe"]["exec"] == toml::Value::Boolean(false),
        "{text}"
    );
    let granted: Vec<Value> = record(&host).into_iter().filter(|act| act["act"] == "grant").collect();
    assert_eq!(granted.len(), 1, "{granted:?}");
    assert_eq!(
        (&granted[0]["plugin"], &granted[0]["granted"]),
        (&json!("probe"), &json!([format!("network {target}")]))
    );
    // A run without a person has it; what was not granted it has not.
    for step in [get(&server, "/three"), post(&server), Step::text("ok")] {
        host.server.push(step);
    }
    let ran = host.stream(&["--plugin-dir", &plugins(&host)]);
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    assert_eq!(denials.len(), 1, "{denials:?}");
    assert_eq!(denials[0]["target"], json!(format!("{} POST", server.url())));
    assert_eq!(asked(&server), ["/one", "/two", "/three"]);
    assert_eq!(host.run(["audit", "verify"]).code, Some(0));
    // And it is taken back as every grant is.
    let revoked = host.run(["plugin", "revoke", "probe"]);
    assert!(revoked.stdout.contains(&format!("revoked probe: network {target}")), "{}", revoked.stderr);
}

#[test]
fn without_a_person_the_refusal_names_the_flag_and_the_run_ends_with_6() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let host = host(vec![get(&server, "/a"), post(&server), Step::text("I could not.")], &server);
    // Not even --yolo gives what was not granted.
    let ran = host.stream(&["--plugin-dir", &plugins(&host), "--yolo"]);
    assert_eq!(
        (ran.code, &ran.result()["subtype"]),
        (Some(6), &json!("permission_denied")),
        "{}",
        ran.stderr
    );
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    assert_eq!(denials.len(), 2, "{denials:?}");
    for (denial, (method, tier)) in denials.iter().zip([("GET", "read"), ("POST", "remote")]) {
        let target = format!("{} {method}", server.url());
        assert_eq!(
            (&denial["tool"], &denial["rule"], &denial["tiers"], &denial["target"]),
            (&json!("probe__probe"), &json!("grant"), &json!([tier]), &json!(target))
        );
        assert_eq!(denial["remedy"], "--grant probe, or for good: ml-intern plugin grant probe");
    }
    assert!(ran.outputs()[0].contains("the plugin `probe` was not granted"), "{:?}", ran.outputs());
    assert_eq!(asked(&server), Vec::<String>::new());
    // One call by hand asks nobody either.
    let url = format!("{}/tool", server.url());
    let tool = |more: &[&str]| {
        let folder = plugins(&host);
        let more = [&["--plugin-dir", folder.as_str()], more].concat();
        host.tool("probe__probe", &json!({"trick": "http", "with": url}), &more)
    };
    assert_eq!(tool(&[])["denial"]["target"], json!(format!("{} GET", server.url())));
    assert_eq!(asked(&server), Vec::<String>::new());
    // With the flag that the refusal names it works.
    assert_eq!(tool(&["--grant", "probe"])["success"], true);
    for step in [get(&server, "/a"), Step::text("ok")] {
        host.server.push(step);
    }
    let ran = host.stream(&["--plugin-dir", &plugins(&host), "--grant", "probe", "--yolo"]);
    assert_eq!((ran.code, ran.outputs()), (Some(0), vec!["fine"]), "{}", ran.stderr);
    assert_eq!(asked(&server), ["/tool", "/a"]);
    // A mode that only looks sends nothing, whoever could be asked.
    for step in [post(&server), Step::text("ok")] {
        host.server.push(step);
    }
    let ran = host.stream(&["--plugin-dir", &plugins(&host), "--permission-mode", "plan"]);
    assert_eq!(ran.result()["permission_denials"][0]["rule"], "mode:plan", "{:?}", ran.outputs());
    assert_eq!(asked(&server).len(), 2);
}

#[test]
fn what_is_let_send_while_it_runs_is_bound_like_what_was_granted_before() {
    let server = Server::start(|_| answer(502, "", "bad gateway"));
    let allowed = ["--allow", "host(127.0.0.1)"];
    let run = |host: &TestHost, more: &[&str]| {
        let folder = plugins(host);
        host.stream(&[["--plugin-dir", &folder].as_slice(), &allowed, more].concat())
    };
    let steps = || vec![post(&server), post(&server), Step::text("ok")];
    // A rule on what changes something elsewhere.
    let denied = host(steps(), &server);
    let ran = run(&denied, &["--deny", "tier(remote)"]);
    let rules: Vec<_> = ran.result()["permission_denials"].as_array().unwrap().iter().collect();
    assert!(rules.iter().all(|denial| denial["rule"] == "rule:tier(remote) (--deny)"), "{rules:?}");
    assert_eq!((rules.len(), ran.code, asked(&server).len()), (2, Some(6), 0), "{:?}", ran.outputs());
    // It is an order: one that went unanswered is not made again, and no run ends well with it.
    let host = host(steps(), &server);
    let ran = run(&host, &[]);
    assert_eq!(asked(&server).len(), 1, "{:?}", ran.outputs());
    assert!(ran.outputs()[0].contains("whether it arrived is unknown"), "{:?}", ran.outputs());
    assert!(ran.outputs()[1].contains("nobody knows whether it arrived"), "{:?}", ran.outputs());
    assert_eq!(ran.result()["open_orders"].as_array().unwrap().len(), 1);
}

#[test]
fn what_is_granted_for_good_is_for_this_file_and_no_changed_one_is_offered_it() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let steps =
        [get(&server, "/one"), Step::text("First turn."), get(&server, "/two"), Step::text("The end.")];
    let host = host(steps.into(), &server);
    let mut screen = chat(&host);
    screen.until(ASKS, Some("go\r"));
    screen.until("First turn.", Some("g"));
    drop(screen);
    // Another plugin takes its place, and a changed one lies beside it.
    let file = host.home.join("plugins/probe.wasm");
    let mut changed = std::fs::read(&file).unwrap();
    changed.extend_from_slice(&[0, 2, 1, b'a']);
    std::fs::copy(guests::component("orders"), &file).unwrap();
    std::fs::write(host.home.join("plugins/z.wasm"), changed).unwrap();
    // What one start learned of it the next one goes by.
    host.run(["plugin", "list", "--plugin-dir", &plugins(&host)]);
    let mut screen = chat(&host);
    screen.until(ASKS, Some("go\r"));
    assert!(!screen.text.contains("for good"), "{}", screen.text);
    screen.until("The end.", Some("y"));
    assert_eq!(asked(&server), ["/one", "/two"]);
}
