//! With `auto`: what is the user's own on the Hub is made and changed without a question, nothing else is.

use serde_json::{Value, json};
use testkit::Step;

use crate::jobs::{Answer, Jobs, host, order, run};
use crate::orders::rules;
use crate::support::{Stream, TestHost, call};

fn repo(operation: &str, repo: &str, more: Value) -> Step {
    let mut arguments = json!({"operation": operation, "repo": repo});
    for (name, value) in more.as_object().unwrap() {
        arguments[name] = value.clone();
    }
    call("orders__repo", arguments)
}

fn create(name: &str) -> Step {
    repo("create", name, json!({"private": true}))
}

fn change(name: &str) -> Step {
    repo("change", name, json!({}))
}

/// A host whose Hub is the server.
fn with_hub(hub: &Jobs, steps: Vec<Step>) -> TestHost {
    let mut host = host(hub, steps);
    let here = format!("http://127.0.0.1:{}", hub.port);
    let mirror = json!({"to": here, "credentials": true, "private": true, "methods": ["GET", "POST"]});
    host.settings(&json!({"origins": {"https://huggingface.co": mirror}}));
    host.set("HF_TOKEN", "hf_abcdefghijklmnopqrstuvwx");
    host
}

/// What was done, call by call.
fn done(ran: &Stream) -> Vec<bool> {
    ran.all("tool_output").iter().map(|output| output["success"] == true).collect()
}

#[test]
fn what_is_the_users_own_is_made_and_changed_and_nothing_else() {
    let hub = Jobs::start(Answer::Hub);
    let steps = vec![
        change("me/new"),
        create("me/new"),
        change("me/new"),
        // Of another kind, it is another one.
        repo("change", "me/new", json!({"kind": "dataset"})),
        repo("change", "me/new", json!({"private": false})),
        repo("publish", "me/new", json!({})),
        create("them/new"),
        create("Me/new"),
        repo("create", "me/open", json!({"private": false})),
        repo("create", "me/open", json!({})),
        // It was there: what somebody else made is not made by finding it.
        create("me/there"),
        change("me/there"),
        repo("delete", "me/there", json!({})),
        repo("delete", "me/new", json!({})),
        Step::text("ok"),
    ];
    let host = with_hub(&hub, steps);
    let ran = run(&host, &[]);
    let allowed = [1, 2, 10, 13];
    let expected: Vec<bool> = (0..14).map(|k| allowed.contains(&k)).collect();
    assert_eq!((done(&ran), ran.code), (expected, Some(6)), "{:?}", ran.outputs());
    assert!(rules(&ran).iter().all(|rule| *rule == "mode:auto"), "{:?}", rules(&ran));
    let made: Vec<&str> = vec!["create", "change", "create", "delete"];
    let posts: Vec<String> = made.iter().map(|verb| format!("POST /api/repos/{verb}")).collect();
    assert_eq!(hub.taken(), posts);
    assert_eq!(hub.asked(), ["GET /api/whoami-v2"]);
    let shown = host.audited("show");
    assert!(shown.contains("by own-namespace") && shown.contains("made      model me/new"), "{shown}");
    // Asked once for a token, not once for a run; what another session made is not this one's.
    for step in [create("me/other"), change("me/new"), Step::text("ok")] {
        host.server.push(step);
    }
    assert_eq!(done(&run(&host, &[])), [true, false]);
    assert_eq!(hub.asked().len(), 1);
    let names = std::fs::read_to_string(host.home.join(".local/state/ml-intern/hub.json")).unwrap();
    assert!(names.contains("\"me\"") && !names.contains("hf_"), "{names}");
    // The session that made it goes on with it; one that branches off did not make it.
    for (more, expected) in [(["--continue"].as_slice(), true), (&["--continue", "--fork"], false)] {
        host.server.push(change("me/other"));
        host.server.push(Step::text("ok"));
        assert_eq!(done(&run(&host, more)), [expected], "{more:?}");
    }
}

#[test]
fn what_was_read_of_others_has_to_be_outvoted_by_name() {
    let hub = Jobs::start(Answer::Hub);
    let find = || {
        order(
            json!({"operation": "find", "order": "x", "name": "look", "server": format!("http://127.0.0.1:{}", hub.port)}),
        )
    };
    let steps = || vec![find(), create("me/new"), Step::text("ok")];
    let looks = ["--allow", "orders__order(look)"];
    let ran = run(&with_hub(&hub, steps()), &looks);
    assert_eq!((done(&ran), rules(&ran)), (vec![true, false], vec!["taint"]), "{:?}", ran.outputs());
    let named = run(&with_hub(&hub, steps()), &[looks[0], looks[1], "--allow", "orders__repo(me/new)"]);
    assert_eq!(done(&named), [true, true], "{:?}", named.outputs());
}

#[test]
fn nobody_is_asked_whose_a_token_is_where_it_does_not_matter() {
    let hub = Jobs::start(Answer::Hub);
    let ran_with = |more: &[&str]| {
        let host = with_hub(&hub, vec![create("me/new"), Step::text("ok")]);
        done(&run(&host, more))
    };
    assert_eq!(ran_with(&["--offline"]), [false]);
    assert_eq!(ran_with(&["--permission-mode", "ask"]), [false]);
    assert_eq!(ran_with(&["--permission-mode", "plan"]), [false]);
    let host = with_hub(&hub, vec![change("me/new"), Step::text("ok")]);
    assert_eq!(done(&run(&host, &[])), [false]);
    assert!(hub.asked().is_empty());
    // A Hub that does not say it: the run goes on, and it is told.
    let silent = Jobs::start(Answer::Refuses);
    let host = with_hub(&silent, vec![create("me/new"), Step::text("ok")]);
    let ran = run(&host, &[]);
    assert_eq!(done(&ran), [false]);
    assert!(ran.notices().iter().any(|notice| notice.contains("which namespace of the Hub is yours")));
}
