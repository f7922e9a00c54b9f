use std::path::Path;

use super::*;
use crate::rules::{Asked, Effect, Rule, Rules};

/// Facts of a harmless kind: walled, free, no rules.
fn facts(mode: Mode, tiers: &BTreeSet<Tier>, interactive: bool) -> Facts<'_> {
    Facts {
        mode,
        tiers,
        walled: true,
        allowed_before: false,
        interactive,
        rules: Matched::default(),
        taint: None,
        never_automatic: false,
        money: Money::Within(1.0),
        own: None,
        unknown_order: None,
        ways: WAYS,
    }
}

/// All that a person can say who is bound by no policy.
const WAYS: Ways = Ways { allow: Some(BY_FLAG), auto: true, yolo: true, budget: true };

fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Allow { .. } => "allow",
        Decision::Ask { .. } => "ask",
        Decision::Deny(_) => "deny",
    }
}

fn decision(mode: Mode, tier: Tier, walled: bool, interactive: bool) -> &'static str {
    let tiers = [tier].into();
    word(&decide(&Facts { walled, ..facts(mode, &tiers, interactive) }))
}

fn rules(list: &[(Effect, &str)]) -> Rules {
    let mut rules = Rules::default();
    for (effect, text) in list {
        rules.push(Rule::parse(*effect, text, "--test", Path::new("/work")).unwrap());
    }
    rules
}

/// The decision about `jobs` with target `me/model`.
fn with_rules(
    list: &[(Effect, &str)],
    change: impl FnOnce(&mut Facts<'_>),
    mode: Mode,
    tier: Tier,
) -> Decision {
    let (rules, tiers) = (rules(list), [tier].into());
    let arguments = serde_json::json!({"repo": "me/model"});
    let asked = Asked {
        tool: "jobs",
        arguments: &arguments,
        target: "me/model",
        paths: &[],
        files: &[],
        workspace: Path::new("/work"),
        tiers: &tiers,
        target_argument: Some("repo"),
        is_lookup: false,
        is_command: false,
    };
    let mut facts = Facts { rules: rules.matched(&asked), ..facts(mode, &tiers, true) };
    change(&mut facts);
    decide(&facts)
}

#[test]
fn the_table() {
    let table = [
        (Mode::Default, ["allow", "allow", "allow", "ask", "ask", "ask"]),
        (Mode::Plan, ["allow", "deny", "deny", "deny", "deny", "deny"]),
        (Mode::Ask, ["allow", "ask", "ask", "ask", "ask", "ask"]),
        (Mode::Auto, ["allow", "allow", "allow", "deny", "allow", "deny"]),
        (Mode::Yolo, ["allow", "allow", "allow", "allow", "allow", "allow"]),
    ];
    for (mode, row) in table {
        assert_eq!(Tier::ALL.map(|tier| decision(mode, tier, true, true)), row, "{mode}");
    }
}

#[test]
fn auto_lets_through_what_is_the_users_own() {
    let of = |own, tier, change: fn(&mut Facts<'_>)| {
        let tiers = [tier].into();
        let mut facts = Facts { own: Some(own), ..facts(Mode::Auto, &tiers, false) };
        change(&mut facts);
        word(&decide(&facts))
    };
    let as_it_is: fn(&mut Facts<'_>) = |_| {};
    assert_eq!(of(Own::Makes, Tier::Remote, as_it_is), "allow");
    assert_eq!(of(Own::Made, Tier::Remote, as_it_is), "allow");
    assert_eq!(of(Own::Made, Tier::Destructive, as_it_is), "allow");
    assert_eq!(of(Own::Makes, Tier::Destructive, as_it_is), "deny");
    assert_eq!(of(Own::Made, Tier::Remote, |facts| facts.taint = Some("https://example.com")), "deny");
    assert_eq!(of(Own::Made, Tier::Remote, |facts| facts.mode = Mode::Ask), "deny");
    assert_eq!(of(Own::Made, Tier::Remote, |facts| facts.mode = Mode::Plan), "deny");
    assert_eq!(of(Own::Made, Tier::Remote, |facts| facts.unknown_order = Some("order 1")), "deny");
}

#[test]
fn without_a_wall_commands_are_asked_for_or_refused() {
    assert_eq!(decision(Mode::Default, Tier::Execute, false, true), "ask");
    assert_eq!(decision(Mode::Auto, Tier::Execute, false, false), "deny");
    assert_eq!(decision(Mode::Yolo, Tier::Execute, false, false), "allow");
}

#[test]
fn an_ask_that_nobody_answers_is_a_denial() {
    assert_eq!(decision(Mode::Ask, Tier::Write, true, false), "deny");
    assert_eq!(decision(Mode::Default, Tier::Spend, true, false), "deny");
}

#[test]
fn the_most_restrictive_tier_wins_and_an_empty_set_is_refused() {
    let tiers = [Tier::Read, Tier::Remote].into();
    let Decision::Deny(denied) = decide(&facts(Mode::Auto, &tiers, false)) else { panic!("allowed") };
    assert_eq!(denied.rule, "mode:auto");
    assert!(denied.message.contains("`remote`"));
    let none = BTreeSet::new();
    assert_eq!(word(&decide(&facts(Mode::Yolo, &none, true))), "deny");
}

#[test]
fn an_allow_for_the_session_counts_where_nothing_else_has_to_be_asked() {
    let tiers = [Tier::Remote].into();
    let before = Facts { allowed_before: true, ..facts(Mode::Ask, &tiers, true) };
    assert_eq!(decide(&before), Decision::Allow { rule: "allowed-for-session".to_owned() });
    for careful in [
        Facts { walled: false, ..before.clone() },
        Facts { taint: Some("text from the network"), ..before.clone() },
        Facts { never_automatic: true, ..before.clone() },
        Facts { money: Money::TooDear("32 USD".to_owned()), ..before.clone() },
        Facts { unknown_order: Some("order 1"), ..before.clone() },
    ] {
        assert_eq!(word(&decide(&careful)), "ask", "{careful:?}");
    }
}

#[test]
fn rules_refine_modes_and_the_most_restrictive_wins() {
    use Effect::{Allow, Ask, Deny};
    let of = |list: &[(Effect, &str)], mode, tier| word(&with_rules(list, |_| {}, mode, tier)).to_owned();
    assert_eq!(of(&[(Deny, "jobs")], Mode::Yolo, Tier::Read), "deny");
    assert_eq!(of(&[(Deny, "tier(remote)"), (Allow, "jobs(me/model)")], Mode::Yolo, Tier::Remote), "deny");
    assert_eq!(of(&[(Ask, "jobs"), (Allow, "jobs(me/model)")], Mode::Yolo, Tier::Read), "ask");
    assert_eq!(of(&[(Allow, "jobs")], Mode::Ask, Tier::Write), "allow");
    // What leaves the machine has to be named.
    assert_eq!(of(&[(Allow, "jobs")], Mode::Auto, Tier::Remote), "deny");
    assert_eq!(of(&[(Allow, "jobs(*)")], Mode::Auto, Tier::Remote), "deny");
    assert_eq!(of(&[(Allow, "jobs(me/*)")], Mode::Auto, Tier::Remote), "allow");
    // A mode that only looks is not lifted by a rule.
    assert_eq!(of(&[(Allow, "jobs(me/*)")], Mode::Plan, Tier::Write), "deny");
    // Neither is a missing wall.
    let unwalled =
        |mode| word(&with_rules(&[(Allow, "jobs(me/*)")], |f| f.walled = false, mode, Tier::Execute));
    assert_eq!((unwalled(Mode::Default), unwalled(Mode::Auto)), ("ask", "deny"));
}

#[test]
fn what_tainted_the_session_is_asked_about_unless_the_target_is_named() {
    let of = |list: &[(Effect, &str)], mode, tier| {
        word(&with_rules(list, |facts| facts.taint = Some("https://example.com"), mode, tier))
    };
    let names: [(Effect, &str); 1] = [(Effect::Allow, "jobs(me/model)")];
    for tier in [Tier::Remote, Tier::Spend, Tier::Destructive] {
        assert_eq!(of(&[], Mode::Default, tier), "ask");
        assert_eq!(of(&[(Effect::Allow, "jobs")], Mode::Default, tier), "ask");
        assert_eq!(of(&names, Mode::Default, tier), "allow");
        assert_eq!(of(&names, Mode::Auto, tier), "allow");
        assert_eq!(of(&[], Mode::Yolo, tier), "allow");
    }
    assert_eq!(of(&[], Mode::Auto, Tier::Spend), "ask");
    assert_eq!(of(&[], Mode::Default, Tier::Execute), "allow");
}

#[test]
fn money_orders_and_what_a_manifest_never_wants_automatic() {
    let dear = || Money::TooDear("it costs 32.00 USD and 10.00 USD are left".to_owned());
    let of = |change: fn(&mut Facts<'_>), mode| with_rules(&[], change, mode, Tier::Spend);
    let set: fn(&mut Facts<'_>) = |facts| facts.money = Money::TooDear("too dear".to_owned());
    assert_eq!(word(&of(set, Mode::Yolo)), "ask");
    assert_eq!(word(&of(set, Mode::Auto)), "deny");
    let Decision::Deny(denied) = of(set, Mode::Auto) else { panic!("allowed") };
    assert!(denied.remedy.contains("--max-budget-usd"), "{denied:?}");
    assert_eq!(word(&of(|facts| facts.never_automatic = true, Mode::Yolo)), "ask");
    assert_eq!(word(&of(|facts| facts.unknown_order = Some("order 1"), Mode::Yolo)), "ask");
    // The policy's bound is lifted by nobody; an amount that a person is asked about is asked about.
    let bound: fn(&mut Facts<'_>) = |facts| facts.money = Money::Forbidden("too much".to_owned());
    let asked: fn(&mut Facts<'_>) = |facts| facts.money = Money::Asked("8.00 USD".to_owned());
    for mode in [Mode::Default, Mode::Auto, Mode::Yolo] {
        assert_eq!((word(&of(bound, mode)), word(&of(asked, mode))), ("deny", "ask"), "{mode}");
    }
    // Nothing is ordered, nothing is paid.
    let free = with_rules(&[], |facts| facts.money = Money::TooDear(String::new()), Mode::Auto, Tier::Write);
    assert_eq!(word(&free), "allow");
    // Nobody there: refused, and the reason is the rule.
    let tiers = [Tier::Spend].into();
    let headless = Facts { money: dear(), ..facts(Mode::Yolo, &tiers, false) };
    let Decision::Deny(denied) = decide(&headless) else { panic!("allowed") };
    assert_eq!(denied.rule, "budget");
}

#[test]
fn a_person_is_told_every_reason_and_an_answer_for_the_session_is_taken_where_it_holds() {
    let tiers: BTreeSet<Tier> = [Tier::Remote, Tier::Spend].into();
    let facts = Facts {
        taint: Some("https://example.com"),
        unknown_order: Some("order 1"),
        money: Money::TooDear("it costs 32.00 USD and 10.00 USD are left".to_owned()),
        ..facts(Mode::Default, &tiers, true)
    };
    let Decision::Ask { reason, .. } = decide(&facts) else { panic!("not asked") };
    for part in [
        "tier `remote`",
        "tier `spend`",
        "order 1 was sent",
        "10.00 USD are left",
        "has read https://example.com",
    ] {
        assert!(reason.lines().filter(|line| line.contains(part)).count() == 1, "{part}: {reason}");
    }
    assert!(!holds_for_session(&facts));
    assert!(holds_for_session(&Facts { taint: None, unknown_order: None, money: Money::None, ..facts }));
    let sealed = Need::SealedPath { path: "/w/.env".to_owned(), sha256: None, change: None };
    assert!(!need_holds_for_session(&sealed));
}

#[test]
fn what_allows_it_is_what_can_really_be_said() {
    let remedy = |mode, tier, ways| {
        let tiers = [tier].into();
        let Decision::Deny(denied) = decide(&Facts { ways, ..facts(mode, &tiers, false) }) else {
            panic!("not refused: {mode} {tier}")
        };
        denied.remedy
    };
    let by_hand = Ways { allow: Some(IN_SETTINGS), auto: false, yolo: false, budget: false };
    let fixed = Ways { allow: None, ..by_hand };
    let administrator = "another policy, by this machine's administrator";
    assert_eq!(remedy(Mode::Ask, Tier::Write, WAYS), "--permission-mode auto, or a run at a terminal");
    assert_eq!(remedy(Mode::Ask, Tier::Write, fixed), "a run at a terminal");
    assert_eq!(remedy(Mode::Plan, Tier::Write, fixed), administrator);
    assert_eq!(remedy(Mode::Plan, Tier::Remote, fixed), administrator);
    assert_eq!(remedy(Mode::Auto, Tier::Remote, by_hand), format!("{IN_SETTINGS}, or a run at a terminal"));
    let all = format!("{BY_FLAG}, --yolo, or a run at a terminal");
    assert_eq!(remedy(Mode::Auto, Tier::Remote, WAYS), all);
    assert_eq!(by_hand.raised(), "`headless_budget_usd` in the settings");
    // A rule of the policy is not theirs to take away, whoever refused by it.
    let rule = || Rule::parse(Effect::Deny, "jobs", "/etc/policy.toml:3", Path::new("/work")).unwrap();
    let mut rules = Rules::default();
    rules.push(rule().of_policy());
    let denied = rules.of_denial("rule:jobs (/etc/policy.toml:3)").unwrap();
    assert_eq!(denied.remedy(), format!("{administrator} (/etc/policy.toml:3)"));
    assert_eq!(rule().remedy(), "taking the rule `jobs (/etc/policy.toml:3)` away");
    // Whom a rule asks may say yes.
    rules.push(Rule::parse(Effect::Ask, "jobs", "--ask", Path::new("/work")).unwrap());
    assert!(rules.of_denial("rule:jobs (--ask)").is_none());
}

#[test]
fn what_is_asked_about_each_time_is_offered_for_no_session() {
    let need = |sends| Need::Network {
        plugin: "jobs".to_owned(),
        grant: "https://a.example GET".to_owned(),
        host: "a.example".to_owned(),
        sends,
        rule: None,
        granted: false,
    };
    let (reads, posts) = (need(false), need(true));
    let rules = rules(&[(Effect::Ask, "tier(read)")]);
    let facts = |need, tainted, on_tier| NeedFacts {
        mode: Mode::Default,
        interactive: true,
        allowed_before: true,
        allowed: None,
        on_tier,
        unknown_order: None,
        tainted,
        need,
        ways: WAYS,
    };
    for (need, tainted, on_tier, careful) in [
        (&reads, false, (None, None), false),
        (&reads, true, (None, None), false),
        (&posts, false, (None, None), false),
        (&posts, true, (None, None), true),
        (&reads, false, rules.on_tier(Tier::Read), true),
    ] {
        let facts = facts(need, tainted, on_tier);
        let answer = if careful { "ask" } else { "allow" };
        assert_eq!((facts.is_careful(), word(&decide_need(&facts))), (careful, answer), "{need:?}");
    }
}
