//! Chains in real files: what is written is found again, and every change is noticed.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use ml_intern_audit::{Act, AuditLog, Report, Verdict, digest};
use proptest::prelude::*;
use protocol::{SessionId, Tier};

fn start(session: &SessionId) -> Act {
    Act::Start {
        session: session.clone(),
        version: "0.1.0".to_owned(),
        model: "chat/m".to_owned(),
        workspace: Some("/work".to_owned()),
        mode: "auto".to_owned(),
        wall: "partial".to_owned(),
        network: "off".to_owned(),
        plugins: Vec::new(),
        policy: None,
        user: None,
    }
}

/// The same, in the session's own chain.
fn start_after(session: &SessionId, head: String) -> Act {
    match start(session) {
        Act::Start { session, version, model, workspace, mode, wall, network, plugins, policy, .. } => {
            let user = Some(head);
            Act::Start { session, version, model, workspace, mode, wall, network, plugins, policy, user }
        }
        other => other,
    }
}

fn decision(n: usize) -> Act {
    Act::Decision {
        call: format!("call-{n}").into(),
        tool: "bash".to_owned(),
        component: None,
        arguments: digest(b"{}"),
        files: Vec::new(),
        tiers: [Tier::Execute].into(),
        verdict: Verdict::Allow,
        rule: "mode:auto".to_owned(),
        target: "true\nand more".to_owned(),
    }
}

/// A log with one session of some records, and the head of its chain.
fn written(folder: &std::path::Path, id: &SessionId, records: usize) -> (AuditLog, String) {
    let log = AuditLog::new(folder);
    let user = log.user(start(id)).unwrap();
    let mut chain = log.session(id).unwrap();
    chain.append(start_after(id, user), false).unwrap();
    for n in 0..records {
        chain.append(decision(n), n == 0).unwrap();
    }
    let head = chain.head().to_owned();
    log.user(Act::End { session: id.clone(), head: Some(head.clone()) }).unwrap();
    (log, head)
}

fn whats(report: &Report) -> Vec<&str> {
    report.findings.iter().map(|finding| finding.what.as_str()).collect()
}

#[test]
fn what_is_written_is_found_again_also_by_its_head() {
    let folder = tempfile::tempdir().unwrap();
    let (log, head) = written(folder.path(), &"s1".into(), 3);
    let report = log.verify(Some(&head)).unwrap();
    assert_eq!((whats(&report), report.chains, report.records), (Vec::new(), 2, 6));
    assert!(report.head.is_some_and(|(path, later)| path.contains("session-s1") && later == 0));
    assert_eq!(log.verify(Some(&digest(b"other"))).unwrap().head, None);
    assert_eq!(log.lines(Some("s1")).unwrap().len(), 4);
    assert_eq!(log.sessions().unwrap(), ["s1"]);
}

#[test]
fn a_session_that_goes_on_goes_on_in_its_chain() {
    let folder = tempfile::tempdir().unwrap();
    let id = SessionId::from("s1");
    let (log, first) = written(folder.path(), &id, 2);
    log.user(start(&id)).unwrap();
    let mut chain = log.session(&id).unwrap();
    assert_eq!(chain.head(), first);
    chain.append(decision(9), false).unwrap();
    let report = log.verify(Some(&first)).unwrap();
    assert_eq!(whats(&report), [""; 0]);
    assert_eq!(report.open, ["s1"]);
    assert_eq!(report.head.unwrap().1, 1);
}

#[test]
fn a_chain_that_is_gone_or_cut_or_strange_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = written(folder.path(), &"s1".into(), 3);
    let file = folder.path().join("audit/session-s1.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    let cut: String = text.lines().take(3).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&file, cut).unwrap();
    assert!(whats(&log.verify(None).unwrap())[0].contains("and the chain does not"));
    std::fs::remove_file(&file).unwrap();
    assert!(whats(&log.verify(None).unwrap())[0].contains("its chain is missing"));
    std::fs::write(&file, &text).unwrap();
    assert_eq!(whats(&log.verify(None).unwrap()), [""; 0]);
    std::fs::remove_file(folder.path().join("audit/user.jsonl")).unwrap();
    assert!(whats(&log.verify(None).unwrap()).iter().any(|what| what.contains("does not know this session")));
}

#[test]
fn a_users_chain_that_was_made_anew_is_not_the_one_that_sessions_began_under() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::new(folder.path());
    let grant = |id: &str| Act::Grant { plugin: id.to_owned(), granted: Vec::new(), revoked: Vec::new() };
    log.user(grant("evil")).unwrap();
    let (log, head) = written(folder.path(), &"s1".into(), 1);
    let file = folder.path().join("audit/user.jsonl");
    // The same, by somebody who knows how, without the grant.
    std::fs::rename(&file, folder.path().join("old")).unwrap();
    log.user(start(&"s1".into())).unwrap();
    log.user(Act::End { session: "s1".into(), head: Some(head.clone()) }).unwrap();
    let found = whats(&log.verify(Some(&head)).unwrap()).join("\n");
    assert!(found.contains("the session began when the chain of the user ended with"), "{found}");
}

fn large(n: usize) -> Act {
    match decision(n) {
        Act::Decision { call, tool, component, arguments, files, tiers, verdict, rule, .. } => {
            let target = "x".repeat(200_000);
            Act::Decision { call, tool, component, arguments, files, tiers, verdict, rule, target }
        }
        other => other,
    }
}

#[test]
fn a_chain_whose_first_files_were_put_elsewhere_writes_over_none() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::new(folder.path());
    let id = SessionId::from("long");
    let part = |n: u32| folder.path().join(format!("audit/session-long.{n:06}.jsonl"));
    let mut chain = log.session(&id).unwrap();
    (0..180).for_each(|n| chain.append(large(n), false).unwrap());
    assert!(part(2).exists() && !part(3).exists());
    std::fs::remove_file(part(1)).unwrap();
    let second = std::fs::read(part(2)).unwrap();
    (180..270).for_each(|n| chain.append(large(n), false).unwrap());
    assert_eq!(std::fs::read(part(2)).unwrap(), second);
    assert!(part(3).exists() && !part(1).exists());
}

#[test]
fn a_folder_that_cannot_be_listed_is_no_empty_one() {
    use std::os::unix::fs::PermissionsExt as _;
    if rustix::process::geteuid().is_root() {
        // Root lists every folder.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = written(folder.path(), &"s1".into(), 1);
    let audit = folder.path().join("audit");
    std::fs::set_permissions(&audit, std::fs::Permissions::from_mode(0o300)).unwrap();
    // A file without a record: where the chain stands is in the files before it.
    assert!(log.session(&"new".into()).is_err());
    std::fs::set_permissions(&audit, std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_full_file_is_followed_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::new(folder.path());
    let id = SessionId::from("long");
    log.user(start(&id)).unwrap();
    let mut chain = log.session(&id).unwrap();
    (0..180).for_each(|n| chain.append(large(n), false).unwrap());
    drop(chain);
    // The next process begins where a full file ended.
    let mut chain = log.session(&id).unwrap();
    chain.append(large(180), false).unwrap();
    assert!(folder.path().join("audit/session-long.000002.jsonl").exists());
    let report = log.verify(Some(chain.head())).unwrap();
    assert_eq!((whats(&report), report.records), (Vec::new(), 182));
    std::fs::remove_file(folder.path().join("audit/session-long.000001.jsonl")).unwrap();
    assert!(whats(&log.verify(None).unwrap())[0].contains("does not follow"));
}

#[test]
fn processes_share_the_chain_of_the_user() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::new(folder.path());
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let log = &log;
            scope.spawn(move || {
                for n in 0..25 {
                    let remove = Act::Remove { plugin: format!("p{thread}-{n}"), path: String::new() };
                    log.user(remove).unwrap();
                }
            });
        }
    });
    let report = log.verify(None).unwrap();
    assert_eq!((whats(&report), report.records), (Vec::new(), 100));
}

#[test]
fn a_record_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = written(folder.path(), &"s1".into(), 1);
    let huge = Act::Remove { plugin: "x".repeat(300_000), path: String::new() };
    assert!(log.user(huge).unwrap_err().to_string().contains("too large"));
}

#[test]
fn what_a_power_loss_leaves_is_put_aside_and_the_chain_goes_on() {
    let whole = "{\"seq\": 1}\n";
    for rest in [&b"0a1b2c {\"seq\":3,"[..], b"\0\0\0\0", b"0a1b2c {\"seq\":3}\n", whole.as_bytes(), b"\n"] {
        for user in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let (log, _) = written(folder.path(), &"s1".into(), 2);
            let name = if user { "user" } else { "session-s1" };
            let file = folder.path().join(format!("audit/{name}.jsonl"));
            let before = std::fs::read(&file).unwrap();
            std::fs::write(&file, [&before, rest].concat()).unwrap();
            assert!(whats(&log.verify(None).unwrap())[0].contains("puts it aside"), "{name}");
            log.user(start(&"s1".into())).unwrap();
            log.session(&"s1".into()).unwrap().append(decision(9), false).unwrap();
            let report = log.verify(None).unwrap();
            assert_eq!(whats(&report), [""; 0], "{name} {rest:?}");
            assert!(report.notes[0].what.contains(&format!("{name}.000001.torn")), "{:?}", report.notes);
            let aside = std::fs::read(file.with_file_name(format!("{name}.000001.torn"))).unwrap();
            assert_eq!(aside, [&before, rest].concat());
            assert_eq!(std::fs::read(file.with_file_name(format!("{name}.000001.jsonl"))).unwrap(), before);
        }
    }
}

#[test]
fn a_chain_with_nothing_but_a_torn_line_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let log = AuditLog::new(folder.path());
    std::fs::create_dir(folder.path().join("audit")).unwrap();
    std::fs::write(folder.path().join("audit/user.jsonl"), "0a1b").unwrap();
    log.check_writable().unwrap();
    let report = log.verify(None).unwrap();
    assert_eq!((whats(&report), report.records), (Vec::new(), 1));
    assert!(folder.path().join("audit/user.000001.torn").exists());
}

#[test]
fn a_record_without_its_line_end_is_not_glued_to() {
    let folder = tempfile::tempdir().unwrap();
    let (log, head) = written(folder.path(), &"s1".into(), 2);
    let file = folder.path().join("audit/session-s1.jsonl");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.trim_end()).unwrap();
    let mut chain = log.session(&"s1".into()).unwrap();
    assert_eq!(chain.head(), head);
    log.user(start(&"s1".into())).unwrap();
    chain.append(decision(9), false).unwrap();
    let report = log.verify(Some(&head)).unwrap();
    assert_eq!((whats(&report), report.notes.len(), report.records), (Vec::new(), 0, 7));
}

#[test]
fn an_end_that_the_user_was_not_told_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (log, _) = written(folder.path(), &"s1".into(), 1);
    log.user(start(&"s1".into())).unwrap();
    let mut chain = log.session(&"s1".into()).unwrap();
    (0..2).for_each(|_| chain.append(Act::End { session: "s1".into(), head: None }, false).unwrap());
    assert!(whats(&log.verify(None).unwrap())[0].contains("the chain of the user does not say so"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Whatever byte of a finished session is changed, it is noticed.
    #[test]
    fn every_changed_byte_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let folder = tempfile::tempdir().unwrap();
        let (log, head) = written(folder.path(), &"s1".into(), 3);
        let file = folder.path().join("audit/session-s1.jsonl");
        let mut bytes = std::fs::read(&file).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        std::fs::write(&file, &bytes).unwrap();
        let report = log.verify(Some(&head)).unwrap();
        prop_assert!(!report.findings.is_empty(), "byte {at}");
    }
}
