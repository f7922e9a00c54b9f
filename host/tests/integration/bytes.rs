//! An approval is for bytes: of a file that an argument names, and of what a person wrote in its place.

use std::os::unix::fs::symlink;

use audit::digest;
use serde_json::{Value, json};
use testkit::Step;

use crate::credentials::files;
use crate::jobs::{Answer, Jobs, host, order, run};
use crate::orders::{ORDER, rules};
use crate::screen::Screen;
use crate::support::{TestHost, call, messages};

fn script(script: &str) -> Step {
    order(json!({"operation": "run", "name": "nightly", "script": script}))
}

fn chat(host: &TestHost) -> Screen {
    let plugins = host.home.join("plugins").display().to_string();
    let mut screen = Screen::chat(host, &["--plugin-dir", &plugins]);
    screen.say("go");
    screen
}

/// The arguments of the last call as the model is told them, and its result.
fn told(host: &TestHost) -> (Value, String) {
    let body = host.server.requests().last().unwrap().body();
    let said = body["messages"].as_array().unwrap().iter().rev().find(|m| m["role"] == "assistant").unwrap();
    let arguments = said["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    (serde_json::from_str(arguments).unwrap(), messages(&body, "tool").pop().unwrap())
}

#[test]
fn a_file_that_an_argument_names_is_what_was_shown_whatever_becomes_of_it() {
    let jobs = Jobs::start(Answer::Takes);
    let host = host(&jobs, vec![script("train.py"), Step::text("the last word")]);
    let (seen, other) = ("print('seen')\u{202e}\n", "print('other')\n");
    host.file("train.py", seen);
    let mut screen = chat(&host);
    screen.next("│ print('seen')\\u{202e}", None);
    screen.next("from the file train.py, 17 bytes", None);
    screen.next(&digest(seen.as_bytes()), None);
    screen.next("refuse with words:", None);
    host.file("train.py", other);
    screen.next("the last word", Some("y"));
    assert_eq!(jobs.bodies()[0]["script"], seen);
    // The model said a path, and is told which bytes that was.
    let (arguments, result) = told(&host);
    assert_eq!(arguments["script"], "train.py");
    assert!(result.contains(&digest(seen.as_bytes())), "{result}");
    drop(screen);
    let export = host.audited("export");
    assert!(export.contains(&digest(seen.as_bytes())) && !export.contains(&digest(other.as_bytes())));
}

#[test]
fn a_file_that_a_rule_denies_reaches_no_tool_by_an_argument_that_names_it() {
    let jobs = Jobs::start(Answer::Takes);
    let named =
        |script: &str| order(json!({"operation": "run", "name": "n", "flavor": "none", "script": script}));
    let steps = vec![named("secrets/x.txt"), named("folder/x.txt"), named("fine.txt"), Step::text("ok")];
    let host = host(&jobs, steps);
    host.file("secrets/x.txt", "secret");
    host.file("fine.txt", "fine");
    symlink("secrets", host.workspace.join("folder")).unwrap();
    let ran = run(&host, &["--deny", "path(secrets)", "--yolo"]);
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    let rules: Vec<&Value> = denials.iter().map(|denial| &denial["rule"]).collect();
    assert_eq!(
        (ran.code, rules),
        (Some(6), vec![&json!("rule:path(secrets) (--deny)"); 2]),
        "{}",
        ran.stderr
    );
    let sent: Vec<Value> = jobs.bodies().iter().map(|body| body["script"].clone()).collect();
    assert_eq!(sent, ["fine"]);
    assert!(!host.server.requests().last().unwrap().body().to_string().contains("\"secret\""));
}

#[test]
fn a_person_edits_a_script_and_says_yes_to_what_it_became() {
    let jobs = Jobs::start(Answer::Takes);
    let mut host = host(&jobs, vec![script("train.py"), script("print(4)"), Step::text("the last word")]);
    host.file("train.py", "print(1)\n");
    let edit = host.home.join("edit.sh");
    // One that fails, and after that one that writes.
    let text = "#!/bin/sh\nenv > \"$HOME/env\"\npwd > \"$HOME/cwd\"\n\
                test -e \"$HOME/once\" || { touch \"$HOME/once\"; exit 3; }\nsed -i s/1/2/ \"$1\"\n";
    std::fs::write(&edit, text).unwrap();
    host.set("VISUAL", &format!("/bin/sh {}", edit.display()));
    host.set("SOME_API_KEY", "abcdefgh12345678");
    let mut screen = chat(&host);
    screen.next("│ print(1)", None);
    screen.next("e edit", None);
    screen.next("not edited: `/bin/sh", Some("e"));
    screen.next("│ print(1)", None);
    screen.next("e edit", None);
    screen.next("│ print(2)", Some("e"));
    screen.next("/script as you wrote it, 9 bytes", None);
    screen.next(&digest(b"print(2)\n"), None);
    // Nothing was sent: the new text needs a yes of its own.
    assert!(jobs.taken().is_empty());
    screen.next("refuse with words:", None);
    screen.next("script: print(4)", Some("y"));
    assert_eq!(jobs.bodies()[0]["script"], "print(2)\n");
    let (arguments, result) = told(&host);
    assert_eq!(arguments["script"], "print(2)\n");
    assert!(result.contains("the user edited `script` before approving"), "{result}");
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("y"));
    assert_eq!(jobs.bodies()[1]["script"], "print(4)");
    drop(screen);
    let export = host.audited("export");
    assert!(
        export.contains(&format!("\"edited\":{{\"/script\":\"{}\"}}", digest(b"print(2)\n"))),
        "{export}"
    );
    // The editor starts in a folder of its own, knows no credential, and leaves nothing behind.
    let variables = std::fs::read_to_string(host.home.join("env")).unwrap();
    assert!(variables.contains("HOME=") && !variables.contains("_KEY"), "{variables}");
    let folder = host.home.join(".local/state/ml-intern/edit");
    assert_eq!(std::fs::read_to_string(host.home.join("cwd")).unwrap().trim(), folder.to_str().unwrap());
    assert!(std::fs::read_dir(folder).unwrap().next().is_none());
    // Who goes on goes on with what was edited.
    host.server.push(Step::text("ok"));
    run(&host, &["--continue"]);
    let body = host.server.requests().last().unwrap().body().to_string();
    assert!(body.contains("print(2)") && !body.contains("train.py"), "{body}");
}

#[test]
fn a_secret_in_a_file_goes_nowhere() {
    let token = "hf_abcdefghijklmnop0123456789";
    let jobs = Jobs::start(Answer::Takes);
    let mut host =
        host(&jobs, vec![script("train.py"), Step::text("one"), script("train.py"), Step::text("two")]);
    host.set("HF_TOKEN", token);
    host.file("train.py", &format!("login('{token}') # 1\n"));
    // As a run shows it, and as its file keeps it.
    let ran = run(&host, &ORDER);
    assert!(ran.outputs()[0].contains("secret"), "{:?}", ran.outputs());
    let shown = serde_json::to_string(&ran.lines).unwrap();
    assert!(!shown.contains(token) && shown.contains("[redacted:"), "{shown}");
    // And after an edit, which puts the text in the place of the path.
    let edit = host.home.join("edit.sh");
    std::fs::write(&edit, "#!/bin/sh\nsed -i 's/# 1/# 2/' \"$1\"\n").unwrap();
    host.set("VISUAL", &format!("/bin/sh {}", edit.display()));
    let mut screen = chat(&host);
    screen.next("e edit", None);
    // The person sees it: it is what would be sent.
    screen.next(&format!("login('{token}') # 2"), Some("e"));
    screen.next("refuse with words:", None);
    screen.next("two", Some("y"));
    drop(screen);
    assert!(jobs.bodies().is_empty());
    let asked = host.server.requests();
    assert!(asked.iter().all(|request| !request.body().to_string().contains(token)));
    assert!(asked.last().unwrap().body().to_string().contains("[redacted:"));
    for file in files(&host.home.join(".local/state/ml-intern")) {
        assert!(
            !String::from_utf8_lossy(&std::fs::read(&file).unwrap()).contains(token),
            "{}",
            file.display()
        );
    }
}

#[test]
fn an_edit_is_decided_about_like_what_the_model_wrote() {
    let jobs = Jobs::start(Answer::Takes);
    let mut host = host(&jobs, vec![script("print(1)"), Step::text("the last word")]);
    host.set("EDITOR", "sed -i s/1/forbidden/");
    let plugins = host.home.join("plugins").display().to_string();
    let deny = ["--plugin-dir", plugins.as_str(), "--deny", "orders__order(script=*forbidden*)"];
    let mut screen = Screen::chat(&host, &deny);
    screen.say("go");
    screen.next("e edit", None);
    screen.next("script: print(forbidden)", Some("e"));
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("y"));
    assert!(jobs.taken().is_empty());
    assert!(told(&host).1.contains("denies it"));
}

#[test]
fn files_of_elsewhere_and_texts_that_name_none() {
    let jobs = Jobs::start(Answer::Takes);
    let steps =
        ["away.py", "secret/key.py", "long.py", "/etc/passwd", "print(1)", "../outside.py"].map(script);
    let host = host(&jobs, steps.into_iter().chain([Step::text("ok")]).collect());
    std::fs::write(host.home.parent().unwrap().join("outside.py"), "OUTSIDE").unwrap();
    symlink("../outside.py", host.workspace.join("away.py")).unwrap();
    host.file("secret/key.py", "SECRET");
    host.file("long.py", &" ".repeat(300 << 10));
    let ran = run(&host, &[ORDER[0], ORDER[1], "--deny", "path(secret/**)"]);
    assert_eq!(rules(&ran), ["path-outside", "rule:path(secret/**) (--deny)"], "{:?}", ran.outputs());
    assert!(ran.outputs()[2].contains("more than 256 KiB"), "{:?}", ran.outputs());
    let scripts: Vec<Value> = jobs.bodies().iter().map(|body| body["script"].clone()).collect();
    assert_eq!(scripts, ["/etc/passwd", "print(1)", "../outside.py"]);
    // A plugin that may not read the workspace gets none of its files.
    let grants = host.home.join(".config/ml-intern/grants.toml");
    let fewer = std::fs::read_to_string(&grants).unwrap().replace("paths", "# paths");
    std::fs::write(&grants, fewer).unwrap();
    host.server.push(script("secret/key.py"));
    host.server.push(Step::text("ok"));
    run(&host, &ORDER);
    assert_eq!(jobs.bodies().last().unwrap()["script"], "secret/key.py");
}

#[test]
fn a_secret_that_a_model_server_says_is_not_repeated() {
    let token = "hf_abcdefghijklmnop0123456789";
    let escaped = format!("{{\"path\": \"leak.txt\", \"content\": \"\\u0068{}\"}}", &token[1..]);
    let steps = [
        call("bash", json!({"command": format!("echo {token}")})),
        call("write", Value::String(escaped)).call_ids([token]).thinking(format!("I know {token}.")),
        call(token, json!({})),
        Step::text(format!("Your token is {token}: keep it.")).finish(token),
    ];
    let mut host = TestHost::new(steps);
    host.set("HF_TOKEN", token);
    let ran = host.stream(&[]);
    let shown = serde_json::to_string(&ran.lines).unwrap();
    assert!(!shown.contains(token), "{shown}");
    let text: String =
        ran.all("assistant_chunk").iter().filter_map(|chunk| chunk["content"].as_str()).collect();
    assert_eq!(text, "Your token is [redacted:hf]: keep it.");
    assert_eq!(ran.result()["result"], json!(text));
    assert_eq!(host.read("leak.txt"), "[redacted:hf]");
    for file in files(&host.home.join(".local/state/ml-intern")) {
        assert!(
            !String::from_utf8_lossy(&std::fs::read(&file).unwrap()).contains(token),
            "{}",
            file.display()
        );
    }
}

#[test]
fn a_file_that_a_call_of_the_same_answer_changes_is_read_after_it() {
    let write = ("write", json!({"path": "fresh.py", "content": "print('fresh')\n"}));
    let change = ("bash", json!({"command": "echo \"print('new')\" > train.py"}));
    let send = |script: &str| {
        ("orders__order", json!({"operation": "run", "name": "nightly", "flavor": "none", "script": script}))
    };
    let answer = || {
        let calls = [write.clone(), send("fresh.py"), send("train.py"), change.clone()];
        vec![Step::calls(calls), Step::text("the last word")]
    };
    let sent = |jobs: &Jobs| {
        let bodies = jobs.bodies();
        let mut scripts: Vec<String> =
            bodies.iter().map(|body| body["script"].as_str().unwrap().to_owned()).collect();
        scripts.sort();
        scripts
    };
    // Where nobody is asked, and on the cards where somebody is.
    let jobs = Jobs::start(Answer::Takes);
    let unasked = host(&jobs, answer());
    unasked.file("train.py", "print('old')\n");
    let ran = run(&unasked, &["--yolo"]);
    assert_eq!((ran.code, ran.outputs().len()), (Some(0), 4), "{:?}", ran.outputs());
    assert_eq!(sent(&jobs), ["print('fresh')\n", "print('new')\n"]);
    let shown = serde_json::to_string(&ran.lines).unwrap();
    assert!(!shown.contains("print('old')"), "{shown}");

    let jobs = Jobs::start(Answer::Takes);
    let asked = host(&jobs, answer());
    asked.file("train.py", "print('old')\n");
    let mut screen = chat(&asked);
    screen.next("│ print('fresh')", None);
    screen.next("refuse with words:", None);
    screen.next("│ print('new')", Some("y"));
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("y"));
    assert_eq!(sent(&jobs), ["print('fresh')\n", "print('new')\n"]);
    assert!(!screen.text.contains("print('old')"), "{}", screen.text);
}

#[test]
fn a_target_that_is_the_text_of_a_file_is_on_record_without_what_is_held() {
    let token = "hf_abcdefghijklmnop0123456789";
    let jobs = Jobs::start(Answer::Takes);
    let steps = vec![order(json!({"operation": "run", "name": "notes.txt"})), Step::text("the last word")];
    let mut host = host(&jobs, steps);
    host.set("HF_TOKEN", token);
    host.file("notes.txt", &format!("{token} "));
    let plugin = host.home.join("plugins/orders.wasm");
    let mut bytes = std::fs::read(&plugin).unwrap();
    let (from, to) = (b"\"text_or_file\":[\"script\"]", b"\"text_or_file\":[\"name\"  ]");
    // It stands there more than once.
    while let Some(at) = bytes.windows(from.len()).position(|window| window == from) {
        bytes[at..at + to.len()].copy_from_slice(to);
    }
    std::fs::write(&plugin, bytes).unwrap();
    let mut screen = chat(&host);
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("n"));
    drop(screen);
    assert!(jobs.taken().is_empty() && host.audited("export").contains("[redacted:"));
    for file in files(&host.home.join(".local/state/ml-intern")) {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        assert!(!text.contains(token), "{}: {text}", file.display());
    }
}

#[test]
fn a_card_says_which_file_was_not_read() {
    let jobs = Jobs::start(Answer::Takes);
    let host = host(&jobs, vec![script("train.py"), Step::text("the last word")]);
    host.file("train.py", "print(1)\n");
    let grants = host.home.join(".config/ml-intern/grants.toml");
    let fewer = std::fs::read_to_string(&grants).unwrap().replace("paths", "# paths");
    std::fs::write(&grants, fewer).unwrap();
    let mut screen = chat(&host);
    screen.next("refuse with words:", None);
    let card: String = screen.text.split_whitespace().collect();
    assert!(card.contains("train.pywasnotread:thepluginmaynotread"), "{}", screen.text);
    screen.next("the last word", Some("n"));
}
