//! Rules on hosts and paths bind plugins, whatever was granted and however it is spelt.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::guest::probe;
use crate::hostile::server::{Server, answer};
use crate::screen::Screen;
use crate::support::{Stream, TestHost, call};

/// A host with a probe that declares and was granted all this.
fn host(steps: Vec<Step>, network: &[String]) -> TestHost {
    let nothing = ["http://127.0.0.1:1 GET".to_owned()];
    let network = if network.is_empty() { &nothing } else { network };
    let host = TestHost::outside_tmp(steps);
    let all = json!({
        "exec": true, "files": true, "kv": true, "paths": ["workspace", "tmp", "data"], "network": network,
    });
    std::fs::create_dir(host.home.join("plugins")).unwrap();
    std::fs::write(host.home.join("plugins/probe.wasm"), probe(&all)).unwrap();
    let mut grants = toml::Table::new();
    grants.insert("probe".to_owned(), toml::Value::try_from(&all).unwrap());
    host.home_file(".config/ml-intern/grants.toml", &grants.to_string());
    host
}

fn plugins(host: &TestHost) -> String {
    host.home.join("plugins").display().to_string()
}

fn run(host: &TestHost, more: &[&str]) -> Stream {
    host.stream(&[&["--plugin-dir", plugins(host).as_str()], more].concat())
}

fn attack(how: &str, with: &str, list: &[String]) -> Step {
    call("probe__attack", json!({"how": how, "with": with, "list": list}))
}

fn get(url: &str) -> Step {
    call("probe__probe", json!({"trick": "http", "with": url}))
}

/// The rules that refused something, with what it was.
fn refusals(ran: &Stream) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    denials.iter().map(|denial| (text(&denial["rule"]), text(&denial["target"]))).collect()
}

/// A server of two names, `127.0.0.1` and `localhost`, both granted. `/hop` leads from one to the other.
fn two_names() -> (Server, String, Vec<String>) {
    let server = Server::start(|head| {
        if !head.starts_with("GET /hop") {
            return answer(200, "", "fine");
        }
        let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        answer(302, &format!("location: http://{}/there\r\n", host.replace("127.0.0.1", "localhost")), "")
    });
    let other = server.url().replace("127.0.0.1", "localhost");
    let granted = vec![format!("{} GET", server.url()), format!("{other} GET")];
    (server, other, granted)
}

#[test]
fn a_denied_host_is_reached_by_no_spelling_redirect_or_grant() {
    let (server, other, granted) = two_names();
    let spelt = [
        format!("{other}/a"),
        other.replace("localhost", "LOCALHOST"),
        other.replace("localhost", "localhost."),
        format!("{}/hop", server.url()),
    ];
    let mut steps: Vec<Step> = spelt.iter().map(|url| get(url)).collect();
    steps.extend([get(&format!("{}/fine", server.url())), Step::text("ok")]);
    let host = host(steps, &granted);
    let ran = run(&host, &["--deny", "host(localhost)", "--grant", "probe", "--yolo"]);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    let expected = ("rule:host(localhost) (--deny)".to_owned(), format!("{other} GET"));
    assert_eq!(refusals(&ran), vec![expected; 4]);
    assert!(
        ran.outputs()[3].contains("the rule `host(localhost) (--deny)` denies it"),
        "{:?}",
        ran.outputs()
    );
    assert_eq!(ran.outputs()[4], "fine");
    let asked: Vec<String> =
        server.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(asked, ["/hop", "/fine"]);
    // The ledger names the rule.
    let refused = host.requests(&[]).into_iter().filter(|line| line["refused"] == true);
    let why: Vec<String> = refused.map(|line| line["why"].to_string()).collect();
    assert!(why.len() == 4 && why.iter().all(|why| why.contains("host(localhost) (--deny)")), "{why:?}");
    // A rule of the settings binds a call by hand, too.
    host.settings(&json!({"permissions": {"deny": ["host(localhost)"]}}));
    let tool = host.tool(
        "probe__probe",
        &json!({"trick": "http", "with": other}),
        &["--plugin-dir", &plugins(&host), "--grant", "probe"],
    );
    assert_eq!(tool["denial"]["rule"], "rule:host(localhost) (permissions.deny of the settings)", "{tool}");
    assert_eq!(server.heads().len(), 2);
}

#[test]
fn a_host_that_is_asked_about_needs_an_answer_though_it_was_granted() {
    let (server, other, granted) = two_names();
    let host = host(vec![get(&other), get(&format!("{}/hop", server.url())), Step::text("ok")], &granted);
    let ran = run(&host, &["--ask", "host(localhost)", "--yolo"]);
    let expected = ("rule:host(localhost) (--ask)".to_owned(), format!("{other} GET"));
    assert_eq!((ran.code, refusals(&ran)), (Some(6), vec![expected; 2]), "{}", ran.stderr);
    assert_eq!(server.heads().len(), 1);
    // With a person: the question, and for good it cannot be.
    for step in [get(&format!("{other}/asked")), Step::text("All done.")] {
        host.server.push(step);
    }
    let mut screen = Screen::chat(&host, &["--plugin-dir", &plugins(&host), "--ask", "host(localhost)"]);
    screen.until("ML INTERN", None);
    screen.until("refuse with words:", Some("go\r"));
    assert!(screen.text.contains("the rule `host(localhost) (--ask)` asks"), "{}", screen.text);
    assert!(!screen.text.contains("for good"), "{}", screen.text);
    screen.until("All done.", Some("y"));
    assert!(server.heads()[1].starts_with("GET /asked"));
}

#[test]
fn a_denied_address_is_reached_by_no_name_and_told_as_a_denial() {
    let (server, other, granted) = two_names();
    let host = host(vec![get(&other), Step::text("ok")], &granted);
    let ran = run(&host, &["--deny", "host(127.0.0.0/8)", "--yolo"]);
    let denied = ("rule:host(127.0.0.0/8) (--deny)".to_owned(), format!("{other} at 127.0.0.1"));
    assert_eq!((ran.code, refusals(&ran)), (Some(6), vec![denied]), "{:?}", ran.outputs());
    assert_eq!(ran.result()["permission_denials"][0]["tiers"], json!(["read"]));
    assert!(server.heads().is_empty());
}

#[test]
fn a_redirect_to_what_was_not_granted_is_a_denial_as_a_request_is() {
    let (server, other, declared) = two_names();
    let host = host(vec![get(&format!("{}/hop", server.url())), Step::text("ok")], &declared);
    let grants = format!("[probe]\nnetwork = [\"{}\"]\n", declared[0]);
    host.home_file(".config/ml-intern/grants.toml", &grants);
    let ran = run(&host, &["--yolo"]);
    let denied = ("grant".to_owned(), format!("{other} GET"));
    assert_eq!((ran.code, refusals(&ran)), (Some(6), vec![denied]), "{:?}", ran.outputs());
    let remedy = &ran.result()["permission_denials"][0]["remedy"];
    assert_eq!(remedy, "--grant probe, or for good: ml-intern plugin grant probe");
    // What no grant would help is told by its own name.
    host.server.push(get(&other));
    host.server.push(Step::text("ok"));
    let ran = run(&host, &["--offline"]);
    assert!(ran.outputs()[0].contains("is not reachable with --offline"), "{:?}", ran.outputs());
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn a_rule_that_asks_about_a_mirror_asks() {
    let server = Server::start(|_| answer(200, "", "by mirror"));
    let hub = "https://huggingface.co".to_owned();
    let granted = [format!("{hub} GET")];
    let host = host(vec![get(&hub), Step::text("The end.")], &granted);
    host.settings(&json!({
        "origins": {hub: {"to": server.url()}}, "permissions": {"ask": ["host(127.0.0.1)"]},
    }));
    let mut screen = Screen::chat(&host, &["--plugin-dir", &plugins(&host)]);
    screen.until("ML INTERN", None);
    screen.until("refuse with words:", Some("go\r"));
    assert!(server.heads().is_empty(), "{}", screen.text);
    screen.until("The end.", Some("y"));
    assert_eq!(server.heads().len(), 1, "{}", screen.text);
}

#[test]
fn an_allowed_host_answers_for_what_a_plugin_declares_and_no_more() {
    let (server, other, granted) = two_names();
    let steps =
        || [get(&format!("{}/a", server.url())), get(&other), get("http://127.0.0.1:1/"), Step::text("ok")];
    let host = host(steps().into(), &granted);
    std::fs::remove_file(host.home.join(".config/ml-intern/grants.toml")).unwrap();
    let ran = run(&host, &["--allow", "host(127.0.0.1)"]);
    assert_eq!(refusals(&ran), [("grant".to_owned(), format!("{other} GET"))], "{:?}", ran.outputs());
    assert_eq!(ran.outputs()[0], "fine");
    assert!(ran.outputs()[2].contains("is not granted"), "{:?}", ran.outputs());
    // What denies wins.
    for step in steps() {
        host.server.push(step);
    }
    let ran = run(&host, &["--allow", "host(127.0.0.1)", "--deny", "host(127.0.0.1)"]);
    assert_eq!(refusals(&ran)[0].0, "rule:host(127.0.0.1) (--deny)");
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn what_is_no_rule_is_refused_with_the_forms() {
    let host = TestHost::new([]);
    for rule in [
        "host",
        "host()",
        "host(https://a.b)",
        "host(a.*.b)",
        "host(a b)",
        "path(~/x)",
        "path(*/../x)",
        "hosts(a",
    ] {
        let ran = host.run(["go", "-m", "chat/m", "--deny", rule]);
        assert_eq!(ran.code, Some(2), "{rule}: {}", ran.stderr);
        assert!(
            ran.stderr.contains(&format!("--deny: `{rule}` is no rule"))
                && ran.stderr.contains("`host(*.example.com)`")
                && ran.stderr.contains("`path(/data/raw/**)`"),
            "{rule}: {}",
            ran.stderr
        );
    }
}

/// A workspace with a secret, a way to it by links, and something beside it.
fn secrets(host: &TestHost) {
    host.file("data/raw/key.txt", "secret");
    host.file("data/fine.txt", "fine");
    symlink("data/raw", host.workspace.join("folder")).unwrap();
    symlink("data/raw/key.txt", host.workspace.join("link")).unwrap();
    symlink("folder", host.workspace.join("chain")).unwrap();
}

/// Every spelling of the secret that leads to it where no rule does anything.
fn spellings(workspace: &Path) -> Vec<String> {
    let inside = [
        "data/raw/key.txt",
        "data/./raw//key.txt",
        "data/../data/raw/key.txt",
        "folder/key.txt",
        "chain/key.txt",
        "chain/../raw/key.txt",
        "folder/../../data/raw/key.txt",
        "link",
    ];
    let both = ["/workspace".to_owned(), workspace.display().to_string()];
    both.iter().flat_map(|root| inside.map(|path| format!("{root}/{path}"))).collect()
}

#[test]
fn a_denied_path_is_neither_read_listed_nor_looked_at_by_any_spelling() {
    let rules =
        ["path(data/raw/**)", "path(data/raw)", "path(DATA/Raw/**)", "path(chain/**)", "path(**/raw)"];
    for (k, rule) in rules.iter().enumerate() {
        let host = host(Vec::new(), &[]);
        secrets(&host);
        let files = spellings(&host.workspace);
        let folders: Vec<String> =
            ["/workspace/data/raw", "/workspace/folder", "/workspace/chain/."].map(str::to_owned).into();
        let fine = ["/workspace/data/fine.txt".to_owned()];
        for step in [
            attack("read", "", &files),
            attack("look", "", &[files.clone(), folders.clone()].concat()),
            attack("read", "", &fine),
            attack("look", "", &["/workspace/data".to_owned()]),
            Step::text("ok"),
        ] {
            host.server.push(step);
        }
        // Without the rule all of it is there.
        if k == 0 {
            let all = run(&host, &[]);
            assert_eq!(all.outputs()[0].matches("WORKED").count(), files.len(), "{}", all.outputs()[0]);
            assert!(!all.outputs()[1].contains("refused \"stat"), "{}", all.outputs()[1]);
            for step in [
                attack("read", "", &files),
                attack("look", "", &[files.clone(), folders.clone()].concat()),
                attack("read", "", &fine),
                attack("look", "", &["/workspace/data".to_owned()]),
                Step::text("ok"),
            ] {
                host.server.push(step);
            }
        }
        let ran = run(&host, &["--deny", rule, "--yolo"]);
        let outputs = ran.outputs();
        assert!(!outputs[0].contains("WORKED") && !outputs[0].contains("secret"), "{rule}: {}", outputs[0]);
        // A link that leads to it may be seen as a link, by its own name, and nothing more.
        let seen: Vec<&str> = outputs[1].lines().filter(|line| line.starts_with("WORKED")).collect();
        assert!(
            seen.iter().all(|line| {
                let (what, path) = line[8..].split_once(' ').unwrap();
                let path = path.split('"').next().unwrap();
                ["link", "leads"].contains(&what) && (path.ends_with("/link") || path.ends_with("/folder"))
            }),
            "{rule}: {seen:#?}"
        );
        // Beside it all is as it was; the folder above can be listed and does not name it.
        let listing = outputs[3].lines().find(|line| line.contains("list ")).unwrap();
        assert!(listing.contains("\"fine.txt\"") && !listing.contains("\"raw\""), "{rule}: {listing}");
        assert!(outputs[2].starts_with("WORKED"), "{rule}: {}", outputs[2]);

        assert_eq!(ran.code, Some(6), "{rule}");
        let by = format!("rule:{rule} (--deny)");
        assert!(refusals(&ran).iter().all(|(rule, _)| *rule == by), "{rule}: {:?}", refusals(&ran));
    }
}

#[test]
fn a_denied_folder_that_was_added_is_not_there_and_nothing_changes_what_is_denied() {
    let host = host(Vec::new(), &[]);
    secrets(&host);
    let added = host.home.parent().unwrap().join("added");
    std::fs::create_dir(&added).unwrap();
    std::fs::write(added.join("a.txt"), "secret").unwrap();
    let added = added.display().to_string();
    for step in [
        attack("read", "", &[format!("{added}/a.txt")]),
        call("probe__probe", json!({"trick": "write", "with": "folder/new.txt"})),
        call("probe__probe", json!({"trick": "remove", "with": "data/raw/key.txt"})),
        call("probe__probe", json!({"trick": "rename", "with": "chain/key.txt"})),
        call("write", json!({"path": "chain/new.txt", "content": "x"})),
        call("read", json!({"path": "link"})),
        Step::text("ok"),
    ] {
        host.server.push(step);
    }
    let rule = format!("path({added}/**)");
    let ran = run(
        &host,
        &["--add-dir", &format!("{added}:rw"), "--deny", &rule, "--deny", "path(data/RAW/**)", "--yolo"],
    );
    let done = ran.all("tool_output").iter().filter(|output| output["success"] == true).count();
    assert_eq!(done, 1, "only the attack tells its tale: {:?}", ran.outputs());
    assert!(
        !ran.outputs()[0].contains("WORKED") && !ran.outputs()[5].contains("secret"),
        "{:?}",
        ran.outputs()
    );
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(host.read("data/raw/key.txt"), "secret");
    assert!(!host.workspace.join("data/raw/new.txt").exists());
}

#[test]
fn a_folder_that_keeps_becoming_a_link_does_not_lead_to_what_is_denied() {
    let host = host(vec![attack("race", "swap/key.txt", &["3000".to_owned()]), Step::text("ok")], &[]);
    secrets(&host);
    host.file("swap/key.txt", "harmless");
    symlink("data/raw", host.workspace.join("other")).unwrap();
    let (swap, other) = (host.workspace.join("swap"), host.workspace.join("other"));
    let (stop, swaps) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (ended, counted) = (stop.clone(), swaps.clone());
    let swapper = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            renameat_with(CWD, &swap, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let ran = run(&host, &["--deny", "path(data/raw/**)", "--yolo"]);
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(ran.outputs()[0].ends_with(" leaked 0"), "{:?}", ran.outputs());
    assert!(swaps.load(Ordering::Relaxed) > 1_000);
    assert_eq!(host.read("data/raw/key.txt"), "secret");
}
