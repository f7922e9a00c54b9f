//! What a run costs: completions and orders, for one run, for runs at once, and what a person is asked.

use std::process::{Child, Stdio};

use serde_json::{Value, json};
use testkit::Step;

use crate::jobs::{Answer, Jobs, arguments, host, order, run};
use crate::orders::{ORDER, rules};
use crate::screen::Screen;
use crate::support::{Ran, Stream, TestHost, call};

/// Settings in which a completion of 1,000 tokens costs one USD.
fn priced(host: &TestHost, more: &Value) {
    let price = json!({"input": 1_000, "output": 1_000});
    let chat = json!({"wire": "chat", "base_url": host.server.url(), "key_env": "TEST_KEY", "price": price});
    let mut settings = json!({"providers": {"chat": chat}});
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    host.settings(&settings);
}

fn look() -> Step {
    call("read", json!({"path": "a.txt"}))
}

fn job(name: &str, flavor: &str, timeout: &str) -> Step {
    order(json!({"operation": "run", "name": name, "flavor": flavor, "timeout": timeout}))
}

#[test]
fn a_run_ends_when_its_budget_is_spent() {
    let host = TestHost::new([look().usage(1_000, 0, 0, 0).repeat(9)]);
    priced(&host, &json!({}));
    host.file("a.txt", "one\n");
    let ran = host.stream(&["--max-budget-usd", "2.5"]);
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(7), &json!("budget")), "{}", ran.stderr);
    assert_eq!((host.server.requests().len(), &ran.result()["total_cost_usd"]), (3, &json!(3.0)));
    assert!(ran.notices().iter().any(|notice| notice.contains("the budget of 2.50 USD is spent (3.00 USD)")));
    // Who goes on goes on with what is left: nothing.
    let again = host.stream(&["--continue", "--max-budget-usd", "2.5"]);
    assert_eq!((again.code, host.server.requests().len()), (Some(7), 3), "{}", again.stderr);
    // One answer that costs more than there was is an answer, and no success.
    let dear = TestHost::new([Step::text("here it is").usage(1_000, 0, 0, 0)]);
    priced(&dear, &json!({}));
    let ran = dear.stream(&["--max-budget-usd", "0.5"]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(7), &json!("here it is")), "{}", ran.stderr);
    // The same without a budget does not end so, and a model without a price does not begin with one.
    let free = TestHost::new([Step::text("ok")]);
    assert_eq!(free.stream(&[]).code, Some(0));
    let refused = free.run(["go", "-m", "chat/m", "--json", "--max-budget-usd", "1"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("has no known price"), "{}", refused.stderr);
    assert_eq!(free.server.requests().len(), 1);
}

#[test]
fn a_completion_that_broke_off_is_paid_for_too_and_so_is_one_that_nobody_counted() {
    let long = "word ".repeat(300);
    for step in [Step::text(long.as_str()).piece_chars(100).cut_after(8), Step::text("ok").omit_usage()] {
        let host = TestHost::new([step]);
        priced(&host, &json!({}));
        let ran = host.stream(&["--max-budget-usd", "0.01"]);
        let cost = ran.result()["total_cost_usd"].as_f64().unwrap();
        assert!(cost > 0.01, "{:?}", ran.result());
        // It is in the session's file.
        let again = host.stream(&["--continue", "--max-budget-usd", "0.01"]);
        assert_eq!((again.code, host.server.requests().len()), (Some(7), 1), "{}", again.stderr);
    }
}

#[test]
fn orders_and_completions_are_paid_from_one_budget() {
    let jobs = Jobs::start(Answer::Takes);
    let steps = vec![
        job("nightly", "large", "1h").usage(1_000, 0, 0, 0),
        job("nightly", "small", "1h").usage(1_000, 0, 0, 0),
        Step::text("never asked for"),
    ];
    let host = host(&jobs, steps);
    priced(&host, &json!({}));
    let ran = run(&host, &[ORDER[0], ORDER[1], "--max-budget-usd", "5.5"]);
    // 1 + 4 are spent, then another 1: the second order does not fit, and nothing more is asked.
    assert_eq!((ran.code, jobs.taken().len()), (Some(7), 1), "{:?}", ran.outputs());
    assert!(ran.outputs()[1].contains("1.00 USD, and 0.00 USD"), "{:?}", ran.outputs());
    assert_eq!(ran.result()["orders_usd"], 4.0);
    assert_eq!(host.server.requests().len(), 2);
}

#[test]
fn runs_at_once_never_spend_more_than_the_purse() {
    let jobs = Jobs::start(Answer::Costs(0.01));
    let once = Step::reply(|request| {
        let asked = request.body()["messages"].as_array().unwrap().iter().any(|m| m["role"] == "tool");
        if asked { Step::text("ok") } else { job("nightly", "large", "1h") }
    });
    let host = host(&jobs, vec![once.repeat(64)]);
    let spawn = |_: usize| -> Child {
        let mut command = host.command(arguments(&host, &ORDER));
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let children: Vec<Child> = (0..6).map(spawn).collect();
    let ran: Vec<Stream> =
        children.into_iter().map(|child| Stream::of(&Ran::of(&child.wait_with_output().unwrap()))).collect();
    // Two of 4 USD each fit into 10; what a stranger's plugin says of a lower price gives nothing back.
    assert_eq!(jobs.taken().len(), 2);
    let refused = ran.iter().flat_map(|ran| rules(ran)).filter(|rule| *rule == "budget").count();
    assert_eq!(refused, 4, "{:?}", ran.iter().map(Stream::outputs).collect::<Vec<_>>());
}

#[test]
fn a_plugin_can_say_that_its_order_costs_more_and_never_less() {
    for (told, counted, second) in [(0.1, 4.0, true), (7.5, 7.5, false)] {
        let jobs = Jobs::start(Answer::Costs(told));
        let host =
            host(&jobs, vec![job("nightly", "large", "1h"), job("nightly", "large", "1h"), Step::text("ok")]);
        let ran = run(&host, &ORDER);
        let first = &ran.all("tool_output")[0]["order"];
        assert_eq!((&first["state"], &first["usd"]), (&json!("done"), &json!(counted)));
        assert_eq!(jobs.taken().len(), if second { 2 } else { 1 }, "{:?}", ran.outputs());
        // The next run knows, also while the first one's session is over.
        host.server.push(job("nightly", "large", "1h"));
        host.server.push(Step::text("ok"));
        assert_eq!(rules(&run(&host, &ORDER)), ["budget"], "{told}");
    }
}

#[test]
fn a_person_is_asked_at_5_10_and_20_usd_and_no_ends_the_turn() {
    let host = TestHost::new([look().usage(5_000, 0, 0, 0).repeat(4), Step::text("the last word")]);
    priced(&host, &json!({}));
    host.file("a.txt", "one\n");
    let mut screen = Screen::chat(&host, &[]);
    screen.say("go");
    for (spent, requests, next) in [("5.00", 1, "y"), ("10.00", 2, "y"), ("20.00", 4, "n")] {
        screen.next(&format!("this session has cost {spent} USD"), None);
        assert_eq!(host.server.requests().len(), requests, "{}", screen.text);
        screen.next("refuse with words:", None);
        let after = match next {
            "y" => "read",
            _ => "stopped at 20.00 USD; another message asks again",
        };
        screen.next(after, Some(next));
    }
    // Nothing is asked of the model until the person says so.
    screen.say("go on");
    screen.next("this session has cost 20.00 USD", None);
    assert_eq!(host.server.requests().len(), 4);
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("y"));
}

#[test]
fn a_summary_is_paid_from_the_budget_too() {
    let steps = [look(), look(), look(), look(), Step::text("the last word").usage(5_000, 0, 0, 0)];
    let summary = Step::text("a summary").usage(5_000, 0, 0, 0);
    let host = TestHost::new(steps.into_iter().chain([summary]));
    priced(&host, &json!({}));
    host.file("a.txt", "one\n");
    let mut screen = Screen::chat(&host, &["--max-budget-usd", "5"]);
    screen.say("go");
    screen.next("the last word", None);
    screen.say("/compact");
    screen.next("stopped: ", None);
    screen.say("/quit");
    screen.next("Bye.", None);
    assert_eq!(host.server.requests().len(), 5, "{}", screen.text);
}

#[test]
fn a_model_of_the_router_has_the_price_that_the_router_says_if_it_is_one() {
    let run = |pricing: Value| {
        let mut host = TestHost::new([Step::text("the last word").usage(1_000_000, 0, 0, 0)]);
        host.set("HF_TOKEN", "hf_abcdefghijklmnop0123456789");
        let to = json!({"to": host.server.url(), "private": true, "credentials": true, "methods": ["GET", "POST"]});
        host.settings(&json!({"origins": {"https://router.huggingface.co": to}}));
        let served =
            json!({"provider": "novita", "status": "live", "context_length": 100_000, "pricing": pricing});
        host.server.serve("/v1/models", json!({"data": [{"id": "org/model", "providers": [served]}]}));
        let ran = host.run(["go", "--json", "-m", "org/model:novita", "--max-budget-usd", "5"]);
        (
            ran.code,
            ran.stdout.lines().last().map(|line| serde_json::from_str::<Value>(line).unwrap()),
            ran.stderr,
        )
    };
    let (code, result, told) = run(json!({"input": 2.0, "output": 4.0}));
    assert_eq!((code, &result.unwrap()["total_cost_usd"]), (Some(0), &json!(2.0)), "{told}");
    for none in [json!(0), json!(-1), json!("free"), json!(null), json!("NaN")] {
        let (code, _, told) = run(json!({"input": none, "output": none}));
        assert!(code == Some(2) && told.contains("has no known price"), "{none}: {told}");
    }
}

#[test]
fn whoever_goes_on_counts_at_the_price_of_the_model_that_goes_on() {
    let step = || Step::text("the last word").usage(1_000_000, 0, 0, 0);
    let mut host = TestHost::new([step(), step()]);
    host.set("HF_TOKEN", "hf_abcdefghijklmnop0123456789");
    let to =
        json!({"to": host.server.url(), "private": true, "credentials": true, "methods": ["GET", "POST"]});
    host.settings(&json!({"origins": {"https://router.huggingface.co": to}}));
    let pricing = json!({"input": 2.0, "output": 4.0});
    let served =
        json!({"provider": "novita", "status": "live", "context_length": 100_000, "pricing": pricing});
    host.server.serve("/v1/models", json!({"data": [{"id": "org/model", "providers": [served]}]}));
    assert_eq!(host.run(["go", "--json", "-m", "org/model:novita"]).code, Some(0));
    let again = host.run(["on", "--json", "--continue", "--max-budget-usd", "5"]);
    let last: Value = serde_json::from_str(again.stdout.lines().last().unwrap_or("{}")).unwrap();
    assert_eq!((again.code, &last["total_cost_usd"]), (Some(0), &json!(2.0)), "{}", again.stderr);
}

#[test]
fn an_order_of_unknown_price_is_made_by_a_persons_word_and_told_as_unknown() {
    let jobs = Jobs::start(Answer::Takes);
    let host = host(&jobs, vec![job("nightly", "h100", "1h"), Step::text("the last word")]);
    let plugins = host.home.join("plugins").display().to_string();
    let mut screen = Screen::chat(&host, &["--plugin-dir", &plugins]);
    screen.say("go");
    screen.next("nobody knows what this costs", None);
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("y"));
    drop(screen);
    assert_eq!(jobs.taken().len(), 1);
    let shown = host.audited("show");
    assert!(shown.contains("sent for nobody knows how much"), "{shown}");
    // It is in no sum, and told beside it.
    host.server.push(Step::text("ok"));
    let ran = run(&host, &["--continue"]);
    assert_eq!(
        (&ran.result()["orders_usd"], &ran.result()["orders_of_unknown_price"]),
        (&json!(0.0), &json!(1))
    );
}

#[test]
fn orders_of_one_answer_share_what_is_left_on_their_cards_too() {
    let jobs = Jobs::start(Answer::Takes);
    let eight = || {
        let arguments = json!({"operation": "run", "name": "nightly", "flavor": "large", "timeout": "2h"});
        ("orders__order", arguments)
    };
    let host =
        host(&jobs, vec![Step::calls([eight(), eight()]).usage(1, 0, 0, 0), Step::text("the last word")]);
    priced(&host, &json!({}));
    let plugins = host.home.join("plugins").display().to_string();
    let mut screen = Screen::chat(&host, &["--plugin-dir", &plugins, "--max-budget-usd", "10"]);
    screen.say("go");
    screen.next("at most 8.00 USD, of ", None);
    screen.next("refuse with words:", None);
    screen.next("of the budget are left", Some("y"));
    screen.next("at most 8.00 USD, of 2.00 USD that are left", None);
    screen.next("refuse with words:", None);
    screen.next("the last word", Some("n"));
    assert_eq!(jobs.taken().len(), 1);
}

#[test]
fn what_another_run_took_while_a_card_was_shown_is_not_spent_twice() {
    let jobs = Jobs::start(Answer::Takes);
    let eight = || job("nightly", "large", "2h").usage(1, 0, 0, 0);
    let host = host(&jobs, vec![eight()]);
    priced(&host, &json!({}));
    let plugins = host.home.join("plugins").display().to_string();
    let mut screen = Screen::chat(&host, &["--plugin-dir", &plugins, "--max-budget-usd", "10"]);
    screen.say("go");
    screen.next("at most 8.00 USD, of 10.00 USD that are left", None);
    screen.next("refuse with words:", None);
    host.server.push(eight());
    host.server.push(Step::text("ok"));
    assert_eq!(run(&host, &ORDER).code, Some(0));
    host.server.push(Step::text("the last word"));
    screen.next("the last word", Some("y"));
    assert_eq!(jobs.taken().len(), 1);
}

#[test]
fn an_order_that_costs_much_is_asked_about_also_where_everything_may_run() {
    let jobs = Jobs::start(Answer::Takes);
    let host = host(
        &jobs,
        vec![job("nightly", "large", "1h"), job("nightly", "large", "1h"), Step::text("the last word")],
    );
    let plugins = host.home.join("plugins").display().to_string();
    let mut screen = Screen::chat(&host, &["--plugin-dir", &plugins, "--yolo"]);
    screen.say("go");
    screen.next("it may cost 4.00 USD, 8.00 USD with what this session has cost", None);
    assert_eq!(jobs.taken().len(), 1);
    screen.next("refuse with words:", None);
    // Who said yes to that is not asked again at once.
    screen.next("the last word", Some("y"));
    assert_eq!(jobs.taken().len(), 2);
    assert!(!screen.text.contains("go on"), "{}", screen.text);
}
