//! What the session has read that nobody vouches for, besides what came over the network.

use std::process::Stdio;

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::guest::probe;
use crate::hostile::server::{Server, answer};
use crate::support::{TestHost, call};

/// Where the text of each call came from.
fn sources(host: &TestHost, more: &[&str]) -> Vec<Option<String>> {
    let ran = host.stream(more);
    let outputs = ran.all("tool_output");
    outputs.into_iter().map(|output| output["source"].as_str().map(str::to_owned)).collect()
}

#[test]
fn files_of_a_folder_that_would_instruct_and_is_not_trusted_are_nobodys_word() {
    let steps = || {
        [
            call("read", json!({"path": "a.txt"})),
            call("bash", json!({"command": "cat a.txt"})),
            call("plan_tool", json!({"todos": []})),
            Step::text("ok"),
        ]
    };
    let host = TestHost::new(steps().into_iter().chain(steps()).chain(steps()).chain(steps()));
    host.file("a.txt", "one\n");
    // A folder in which there is nothing to trust is the person's own.
    assert_eq!(sources(&host, &[]), [None, None, None]);
    host.file("AGENTS.md", "Use tabs.\n");
    let told = format!("files of {}, a folder that is not trusted", host.workspace.display());
    assert_eq!(sources(&host, &[]), [Some(told.clone()), Some(told), None]);
    assert_eq!(sources(&host, &["--trust-once"]), [None, None, None]);
    assert_eq!(host.run(["trust", "--yes"]).code, Some(0));
    assert_eq!(sources(&host, &[]), [None, None, None]);
}

#[test]
fn what_a_plugin_keeps_for_later_sessions_stays_nobodys_word() {
    let probe = |trick: &str, with: &str| call("probe__probe", json!({"trick": trick, "with": with}));
    let keep = || [probe("write_directly", "/data/note"), Step::text("ok")];
    let look = || [probe("echo", "hi"), Step::text("ok")];
    // Its publisher is part of the name under which it keeps things.
    for signed in [false, true] {
        let host = TestHost::outside_tmp(keep().into_iter().chain(look()).chain(look()));
        let folder = host.home.join(".local/share/ml-intern/plugins");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("probe.wasm");
        std::fs::copy(guests::component("probe"), &file).unwrap();
        if signed {
            let done = |arguments: &[&str]| assert_eq!(host.run(arguments).code, Some(0), "{arguments:?}");
            let (file, key) = (file.to_str().unwrap(), host.home.join("acme.key"));
            let (key, public) = (key.to_str().unwrap(), key.with_extension("pub"));
            done(&["plugin", "keygen", key, "--unencrypted"]);
            done(&["plugin", "sign", file, "--key", key]);
            done(&["plugin", "install", file, "--yes", "--publisher", public.to_str().unwrap()]);
        }
        host.home_file(".config/ml-intern/grants.toml", "[probe]\npaths = [\"workspace\", \"data\"]\n");
        host.file("AGENTS.md", "Use tabs.\n");
        assert!(sources(&host, &[])[0].as_ref().unwrap().contains("not trusted"));
        std::fs::remove_file(host.workspace.join("AGENTS.md")).unwrap();
        let later = sources(&host, &[]);
        assert!(
            later[0].as_ref().unwrap().starts_with("what `probe` kept from an earlier session, of files of"),
            "{later:?}"
        );
        // Also if nothing is left of it: who finds the folder empty does not know who writes to it next.
        let data = std::fs::read_dir(host.home.join(".local/share/ml-intern/plugin-data")).unwrap();
        let kept = data.map(|entry| entry.unwrap().path().join("note")).find(|note| note.is_file()).unwrap();
        std::fs::remove_file(kept).unwrap();
        assert!(sources(&host, &[])[0].is_some());
        // Until it is removed.
        assert_eq!(host.run(["plugin", "remove", "probe"]).code, Some(0));
        let left = std::fs::read_dir(host.home.join(".local/share/ml-intern/plugin-data")).unwrap();
        assert_eq!(left.count(), 0);
    }
}

#[test]
fn what_a_tainted_session_gives_a_plugin_to_keep_stays_nobodys_word() {
    let keep = || call("probe__probe", json!({"trick": "write_directly", "with": "/data/note"}));
    let look = || call("probe__probe", json!({"trick": "echo", "with": "hi"}));
    let read = || call("read", json!({"path": "a.txt"}));
    let steps =
        [keep(), Step::text("ok"), look(), Step::text("ok"), read(), keep(), Step::text("ok"), look()];
    let host = TestHost::outside_tmp(steps.into_iter().chain([Step::text("ok")]));
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    // It reads nothing itself: what it keeps comes with its arguments.
    host.home_file(".config/ml-intern/grants.toml", "[probe]\npaths = [\"data\"]\n");
    host.file("a.txt", "one\n");
    // What a session that read nothing strange tells it is the person's.
    assert_eq!([sources(&host, &[]), sources(&host, &[])], [[None], [None]]);
    host.file("AGENTS.md", "Use tabs.\n");
    let told = sources(&host, &[]);
    assert!(told[0].as_ref().unwrap().contains("not trusted"), "{told:?}");
    // It marks what is kept, and is no new source itself.
    assert_eq!(told[1], None);
    std::fs::remove_file(host.workspace.join("AGENTS.md")).unwrap();
    let later = sources(&host, &[]);
    let kept = "what `probe` kept from an earlier session, of files of";
    assert!(later[0].as_ref().unwrap().starts_with(kept), "{later:?}");
}

#[test]
fn where_a_server_leads_is_its_own_word_also_if_nobody_follows() {
    let server = Server::start(|head| match head.split(' ').nth(1).unwrap() {
        "/away" => answer(302, "location: https://ignore-all-earlier-orders.example/\r\n", ""),
        "/post" => answer(307, "location: https://ignore-all-earlier-orders.example/\r\n", ""),
        _ => answer(302, "location: /again\r\n", ""),
    });
    let url = server.url();
    let get = |url: &str| call("probe__probe", json!({"trick": "http", "with": url}));
    let post = call("probe__probe", json!({"trick": "carry", "with": format!("\nPOST\n{url}/post")}));
    let steps = [get(&format!("{url}/away")), get(&format!("{url}/again")), get("http://127.0.0.1:1/"), post];
    let host = TestHost::outside_tmp(steps.into_iter().chain([Step::text("ok")]));
    let network = [format!("{url} GET POST"), "http://127.0.0.1:1 GET".to_owned()];
    std::fs::create_dir(host.home.join("plugins")).unwrap();
    std::fs::write(host.home.join("plugins/probe.wasm"), probe(&json!({"network": network}))).unwrap();
    let plugins = host.home.join("plugins").display().to_string();
    host.home_file(
        ".config/ml-intern/grants.toml",
        &format!("[probe]\nnetwork = [\"{url} GET POST\", \"http://127.0.0.1:1 GET\"]\n"),
    );
    let ran = host.stream(&["--plugin-dir", &plugins, "--yolo"]);
    let outputs = ran.all("tool_output");
    let told: Vec<Option<&str>> = outputs.iter().map(|output| output["source"].as_str()).collect();
    // Nobody answered the third.
    let url = Some(url.as_str());
    assert_eq!(told, [url, url, None, url], "{outputs:#?}");
}

#[test]
fn what_cannot_be_marked_is_not_handed_to_who_keeps_things() {
    let read = call("probe__probe", json!({"trick": "http", "with": "https://huggingface.co/v1/models"}));
    let echo = call("probe__probe", json!({"trick": "echo", "with": "hi"}));
    let host = TestHost::outside_tmp([read, Step::text("ok"), echo, Step::text("ok")]);
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    host.settings(
        &json!({"origins": {"https://huggingface.co": {"to": host.server.url(), "private": true}}}),
    );
    let grants = "[probe]\nnetwork = [\"https://huggingface.co GET\"]\npaths = [\"workspace\", \"data\"]\n";
    host.home_file(".config/ml-intern/grants.toml", grants);
    // The mark would have to be made where there is nothing.
    let data = host.home.join(".local/share/ml-intern/plugin-data");
    std::fs::create_dir_all(&data).unwrap();
    std::os::unix::fs::symlink("/nonexistent/mark", data.join("probe.read")).unwrap();
    let ran = host.stream(&[]);
    assert!(ran.outputs()[0].contains("cannot be written down"), "{:?}", ran.outputs());
    assert!(!host.server.other_requests().iter().any(|request| request.path == "/v1/models"));
    // What it could read before it asks for anything is refused with the call.
    host.file("AGENTS.md", "Use tabs.\n");
    let ran = host.stream(&[]);
    assert!(ran.outputs()[0].contains("cannot be written down"), "{:?}", ran.outputs());
}

#[test]
fn a_request_that_was_refused_marks_nothing() {
    let host = TestHost::outside_tmp([]);
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    let grants = "[probe]\nnetwork = [\"http://127.0.0.1:1 GET\"]\npaths = [\"data\"]\n";
    host.home_file(".config/ml-intern/grants.toml", grants);
    let mark = host.home.join(".local/share/ml-intern/plugin-data/probe.read");
    let get = |url: &str, more: &[&str]| {
        let result = host.tool("probe__probe", &json!({"trick": "http", "with": url}), more);
        result["output"].as_str().unwrap().to_owned()
    };
    let offline = get("http://127.0.0.1:1/", &["--offline"]);
    assert!(offline.contains("--offline"), "{offline}");
    let elsewhere = get("http://127.0.0.1:2/", &[]);
    assert!(elsewhere.contains("is not granted"), "{elsewhere}");
    host.settings(&json!({"permissions": {"deny": ["host(127.0.0.1)"]}}));
    let denied = get("http://127.0.0.1:1/", &[]);
    assert!(denied.contains("denies it") && !mark.exists(), "{denied}");
    host.settings(&json!({}));
    // One that leaves does, whether somebody answers or not.
    get("http://127.0.0.1:1/", &[]);
    assert!(mark.exists());
}

#[test]
fn a_call_that_was_stopped_has_read_what_it_read() {
    let host = TestHost::new([call("bash", json!({"command": "cat AGENTS.md > started; sleep 600"}))]);
    host.file("AGENTS.md", "Use tabs.\n");
    let mut child = host
        .command(["go", "-m", "chat/m", "--json"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !host.workspace.join("started").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::yield_now();
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let sessions = host.run(["sessions", "--json"]).stdout;
    let session: Value = serde_json::from_str(sessions.lines().next().unwrap()).unwrap();
    let file =
        format!(".local/state/ml-intern/sessions/{}/session.jsonl", session["session_id"].as_str().unwrap());
    let text = std::fs::read_to_string(host.home.join(file)).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let standing: Vec<Value> = lines.filter(|line| line["line"] == "standing").collect();
    assert!(
        standing.len() == 1 && standing[0]["taint"].as_str().unwrap().contains("not trusted"),
        "{standing:?}"
    );
}

#[test]
fn a_fork_that_is_gone_on_with_is_as_tainted_as_its_session() {
    let host = TestHost::new([call("read", json!({"path": "a.txt"})), Step::text("ok").repeat(3)]);
    host.file("a.txt", "one\n");
    host.file("AGENTS.md", "Use tabs.\n");
    assert_eq!(host.stream(&[]).code, Some(0));
    assert_eq!(host.stream(&["--continue", "--fork"]).code, Some(0));
    let fork = host.stream(&["--continue"]);
    let id = fork.result()["session_id"].as_str().unwrap();
    let file = host.home.join(format!(".local/state/ml-intern/sessions/{id}/session.jsonl"));
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |kind: &str| lines.iter().position(|line| line["line"] == kind).unwrap();
    assert!(at("standing") < at("transcript"), "{text}");
    assert!(lines[at("standing")]["taint"].as_str().unwrap().contains("not trusted"), "{text}");
}
