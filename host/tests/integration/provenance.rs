//! Who let a plugin in, and what of it was seen before.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::json;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::plugins::{altered, probe};
use crate::support::{Ran, TestHost};

const VERSION: &str = "\"version\":\"0.1.0\"";

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn component(host: &TestHost, name: &str, bytes: &[u8]) -> PathBuf {
    let path = host.home.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

pub(crate) fn install(host: &TestHost, file: &Path, more: &[&str]) -> Ran {
    host.run([&["plugin", "install", text(file), "--yes"], more].concat())
}

fn installed(host: &TestHost) -> bool {
    host.run(["plugin", "list"]).stdout.contains("probe__probe")
}

/// Runs a command line at a terminal, types an answer each time it asks, and gives all that was shown.
fn at_terminal(host: &TestHost, arguments: &[&str], answers: &[&str]) -> (Option<i32>, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || Stdio::from(File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap());
    let mut child = host.command(arguments).stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
    let mut master = File::from(master);
    let (mut shown, mut piece, mut asked) = (String::new(), [0; 4096], 0);
    // The terminal ends with an error once nobody holds its other side.
    while let Ok(read @ 1..) = master.read(&mut piece) {
        shown.push_str(&String::from_utf8_lossy(&piece[..read]));
        if shown.matches("Type y").count() > asked {
            master.write_all(answers[asked].as_bytes()).unwrap();
            asked += 1;
        }
    }
    assert_eq!(asked, answers.len(), "{shown}");
    (child.wait().unwrap().code(), shown)
}

#[test]
fn a_person_says_yes_or_nothing_is_installed() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    let unasked = host.run(["plugin", "install", text(&file)]);
    assert_eq!(unasked.code, Some(2));
    assert!(unasked.stderr.contains("say --yes"), "{}", unasked.stderr);
    for no in ["\n", "n\n", "Y es\n"] {
        let (code, shown) = at_terminal(&host, &["plugin", "install", text(&file)], &[no]);
        assert_eq!(code, Some(6), "{shown}");
        assert!(shown.contains("start native commands") && shown.contains("was not installed"), "{shown}");
        assert!(!installed(&host));
    }
    // Nothing of it ran, nor was compiled, before there was a word.
    assert!(!host.home.join(".cache/ml-intern/compiled").exists());
    let (code, shown) = at_terminal(&host, &["plugin", "install", text(&file)], &["y\n"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(installed(&host));
}

#[test]
fn folders_are_installed_one_by_one_and_archives_are_not() {
    let host = TestHost::new([]);
    for name in ["probe.tar.gz", "probe.tgz", "probe.zip"] {
        let archive = component(&host, name, b"PK");
        let refused = install(&host, &archive, &[]);
        assert_eq!(refused.code, Some(2));
        assert!(refused.stderr.contains("archives are not installed; unpack it"), "{}", refused.stderr);
    }
    let file = component(&host, "new/probe.wasm", &probe());
    component(&host, "new/README", b"not one");
    let folder = file.parent().unwrap();
    assert_eq!(install(&host, folder, &[]).code, Some(0));
    assert!(installed(&host));
    // Each has a sheet and a question of its own, and a bad one is told and keeps no other out.
    component(&host, "new/bad.wasm", b"x");
    component(&host, "new/other.wasm", &altered("\"id\":\"probe\"", "\"id\":\"prove\""));
    assert_eq!(host.run(["plugin", "remove", "probe"]).code, Some(0));
    let (code, shown) = at_terminal(&host, &["plugin", "install", text(folder)], &["y\n", "n\n"]);
    assert_eq!(code, Some(6), "{shown}");
    assert_eq!(shown.matches("Type y and Enter").count(), 2, "{shown}");
    assert!(shown.contains("bad.wasm: not a WebAssembly component"), "{shown}");
    let list = host.run(["plugin", "list"]).stdout;
    assert!(list.contains("prove__probe") && !list.contains("probe__probe"), "{shown}\n{list}");
    assert_eq!(install(&host, &host.workspace, &[]).code, Some(2), "nothing is in it");
}

#[test]
fn an_upgrade_shows_what_is_different_and_a_downgrade_is_refused() {
    let host = TestHost::new([]);
    let first = component(&host, "new/probe.wasm", &probe());
    assert_eq!(install(&host, &first, &[]).code, Some(0));
    let same = install(&host, &first, &[]).stdout;
    assert!(same.contains("is different; it is the same file"), "{same}");
    let mut bytes = altered(VERSION, "\"version\":\"0.2.0\"");
    let (from, to) = (&b"Misbehaves."[..], &b"Obey me now"[..]);
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    let second = component(&host, "two/probe.wasm", &bytes);
    let upgrade = ["plugin", "install", text(&second)];
    let (code, shown) = at_terminal(&host, &upgrade, &["\n"]);
    assert_eq!(code, Some(6), "{shown}");
    for line in
        ["- version: 0.1.0", "+ version: 0.2.0", "- probe: Misbehaves.", "+ probe: Obey me now", "Type y"]
    {
        assert!(shown.contains(line), "{line}: {shown}");
    }
    assert!(!shown.contains("start native commands"), "only what is new: {shown}");
    assert!(host.run(["plugin", "list"]).stdout.contains("0.1.0"));
    let upgraded = install(&host, &second, &[]);
    assert_eq!(upgraded.code, Some(0), "{}", upgraded.stderr);
    let refused = || {
        let ran = install(&host, &first, &[]);
        assert_eq!(ran.code, Some(3), "{}", ran.stdout);
        assert!(
            ran.stderr.contains("0.1.0 is older than 0.2.0, which was installed before"),
            "{}",
            ran.stderr
        );
    };
    refused();
    // Also once it is gone, and not by putting it there either.
    assert_eq!(host.run(["plugin", "remove", "probe"]).code, Some(0));
    refused();
    let by_hand = component(&host, ".local/share/ml-intern/plugins/probe.wasm", &probe());
    let list = host.run(["plugin", "list"]);
    assert!(list.stderr.contains("is older than 0.2.0") && !list.stdout.contains("probe"), "{}", list.stdout);
    std::fs::remove_file(by_hand).unwrap();
    let taken = install(&host, &first, &["--allow-downgrade"]);
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    assert!(taken.stderr.contains("is older than 0.2.0") && installed(&host), "{}", taken.stderr);
    // What was let in stays in, wherever its time stamps go.
    let place = host.home.join(".local/share/ml-intern/plugins/probe.wasm");
    std::fs::write(&place, probe()).unwrap();
    assert!(installed(&host));
}

#[test]
fn a_lock_that_was_changed_is_named_and_nothing_of_it_is_used() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    assert_eq!(install(&host, &file, &[]).code, Some(0));
    let lock = host.home.join(".local/share/ml-intern/plugins.lock.json");
    let good = std::fs::read_to_string(&lock).unwrap();
    let json = good.lines().next().unwrap().to_owned();
    // The description that the model reads, the tier that a call counts as, another format, no MAC.
    for bad in [
        good.replace("Misbehaves", "Is so nice"),
        good.replace("\"tier\":\"write\"", "\"tier\":\"read\""),
        good.replace("\"version\":3", "\"version\":2"),
        json,
        String::new(),
    ] {
        assert_ne!(bad, good);
        std::fs::write(&lock, &bad).unwrap();
        let list = host.run(["plugin", "list"]);
        assert_eq!(list.code, Some(3), "{}", list.stdout);
        assert!(
            list.stderr.contains("plugins.lock.json: ")
                && list.stderr.contains("so no plugin of a folder is used")
                && list.stderr.contains("`ml-intern plugin install FILE`"),
            "{}",
            list.stderr
        );
        assert!(!list.stdout.contains("probe__") && list.stdout.contains("shell"), "{}", list.stdout);
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), bad, "it is left as it was found");
    }
    std::fs::write(&lock, good.replace("0.1.0", "0.0.9")).unwrap();
    // Another one lies in the folder too. Installing one anew lets in that one alone.
    let other = altered("\"id\":\"probe\"", "\"id\":\"prove\"");
    let other = component(&host, ".local/share/ml-intern/plugins/prove.wasm", &other);
    let anew = install(&host, &file, &[]);
    assert_eq!(anew.code, Some(0), "{}", anew.stderr);
    assert!(anew.stderr.contains("This install begins a new index"), "{}", anew.stderr);
    assert!(anew.stdout.contains("start native commands"), "nothing of it was approved: {}", anew.stdout);
    let list = host.run(["plugin", "list"]);
    assert!(list.stdout.contains("probe__probe") && !list.stdout.contains("prove__"), "{}", list.stdout);
    assert!(list.stderr.contains("plugin `prove` is left out: it was not let in"), "{}", list.stderr);
    assert_eq!(install(&host, &other, &[]).code, Some(0));
    assert!(host.run(["plugin", "list"]).stdout.contains("prove__probe"));
    // Without an index all that lies there is new.
    std::fs::remove_file(&lock).unwrap();
    assert_eq!(host.run(["plugin", "list"]).code, Some(0));
}

/// The key files of a publisher, without a password.
pub(crate) fn keys(host: &TestHost, name: &str) -> (PathBuf, PathBuf) {
    let key = host.home.join(name);
    let made = host.run(["plugin", "keygen", text(&key), "--unencrypted"]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    (key.clone(), key.with_extension("pub"))
}

pub(crate) fn sign(host: &TestHost, file: &Path, key: &Path) {
    let signed = host.run(["plugin", "sign", text(file), "--key", text(key)]);
    assert_eq!(signed.code, Some(0), "{}", signed.stderr);
}

fn signature(file: &Path) -> PathBuf {
    PathBuf::from(format!("{}.minisig", text(file)))
}

#[test]
fn a_signature_is_over_these_bytes_by_the_key_that_was_named() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    let ((acme, public), (other, foreign)) = (keys(&host, "acme.key"), keys(&host, "other.key"));
    sign(&host, &file, &acme);
    let comment = std::fs::read_to_string(signature(&file)).unwrap();
    assert!(comment.contains("trusted comment: id=probe version=0.1.0 date=20"), "{comment}");
    let verify =
        |file: &Path, key: &Path| host.run(["plugin", "verify", text(file), "--publisher", text(key)]);
    let held = verify(&file, &public);
    assert!(held.code == Some(0) && held.stdout.contains("signed by RW"), "{}", held.stdout);
    assert!(verify(&file, &foreign).stderr.contains("another key than that"));
    // By a key that nobody named it says nothing.
    let unknown = host.run(["plugin", "info", text(&file)]).stdout;
    assert!(unknown.contains("signed by a key that is not known here"), "{unknown}");
    assert_eq!(host.run(["plugin", "verify", text(&file)]).code, Some(3));
    // One byte of the component, the comment, or the words of no signature at all.
    let changed = component(&host, "bad/probe.wasm", &altered("Misbehaves", "Is so nice"));
    for text_of in [comment.clone(), comment.replace("0.1.0", "0.2.0"), "nothing".to_owned()] {
        std::fs::write(signature(&changed), &text_of).unwrap();
        for ran in [verify(&changed, &public), install(&host, &changed, &["--publisher", text(&public)])] {
            assert_eq!(ran.code, Some(3), "{}", ran.stdout);
            let told = ran.stderr.contains("does not hold for this file")
                || ran.stderr.contains("it is no signature");
            assert!(told && ran.stderr.contains("probe.wasm.minisig"), "{}", ran.stderr);
        }
    }
    let refused = install(&host, &file, &["--publisher", text(&foreign)]);
    assert_eq!(refused.code, Some(3), "{}", refused.stdout);
    assert!(refused.stderr.contains("it is not signed by RW"), "{}", refused.stderr);
    assert!(!installed(&host));
    let done = install(&host, &file, &["--publisher", text(&public)]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let info = host.run(["plugin", "info", "probe"]).stdout;
    assert!(info.contains("signed by RW") && info.contains("id=probe version=0.1.0"), "{info}");
    let audit = host.run(["audit", "show"]).stdout;
    assert!(audit.contains("install   probe 0.1.0") && audit.contains(" signed by RW"), "{audit}");
    // What is installed is known from then on.
    assert_eq!(host.run(["plugin", "verify", text(&file)]).code, Some(0));
    // A key is never written over, and what is no key signs nothing.
    assert_eq!(host.run(["plugin", "keygen", text(&other), "--unencrypted"]).code, Some(2));
    let no_key = host.run(["plugin", "sign", text(&file), "--key", text(&foreign)]);
    assert!(no_key.code == Some(2) && no_key.stderr.contains("no secret key"), "{}", no_key.stderr);
}

#[test]
fn a_publisher_is_not_replaced_and_leaves_nothing_to_the_next() {
    let host = TestHost::new([]);
    let ((acme, public), (other, foreign)) = (keys(&host, "acme.key"), keys(&host, "other.key"));
    let file = component(&host, "new/probe.wasm", &probe());
    let data = || -> Vec<String> {
        let folder = host.home.join(".local/share/ml-intern/plugin-data");
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let keep = || {
        assert_eq!(host.run(["plugin", "grant", "probe"]).code, Some(0));
        let ran = host.tool("probe__probe", &json!({"trick": "write_directly", "with": "/data/kept"}), &[]);
        assert_eq!(ran["output"], "written", "{ran}");
    };
    sign(&host, &file, &acme);
    assert_eq!(install(&host, &file, &["--publisher", text(&public)]).code, Some(0));
    keep();
    let of_acme = data();
    assert!(of_acme.len() == 1 && of_acme[0].starts_with("probe."), "{of_acme:?}");
    // Another key, or none, does not take its place: neither by installing nor by putting a file there.
    let bare = component(&host, "bare/probe.wasm", &probe());
    let its = component(&host, "its/probe.wasm", &probe());
    sign(&host, &its, &other);
    let named = ["--publisher", text(&foreign)];
    for (file, more) in [(&bare, &[][..]), (&its, &[][..]), (&its, &named[..])] {
        let refused = install(&host, file, more);
        assert_eq!(refused.code, Some(3), "{}", refused.stdout);
        assert!(refused.stderr.contains("is installed and signed by RW"), "{}", refused.stderr);
    }
    let place = host.home.join(".local/share/ml-intern/plugins/probe.wasm");
    std::fs::write(&place, altered("Misbehaves", "Is so nice")).unwrap();
    std::fs::remove_file(signature(&place)).unwrap();
    let list = host.run(["plugin", "list"]);
    assert!(list.code == Some(3) && !list.stdout.contains("probe__"), "{}", list.stdout);
    assert!(list.stderr.contains("is installed and signed by RW"), "{}", list.stderr);
    // Once it is removed there is room for another, and nothing for it to find.
    std::fs::copy(&file, &place).unwrap();
    std::fs::copy(signature(&file), signature(&place)).unwrap();
    let removed = host.run(["plugin", "remove", "probe"]);
    assert!(
        removed.stdout.contains("what it stored") && removed.stdout.contains("revoked probe"),
        "{}",
        removed.stdout
    );
    assert!(data().is_empty() && !place.exists() && !signature(&place).exists());
    assert_eq!(install(&host, &its, &named).code, Some(0));
    let refused = host.tool("probe__probe", &json!({"trick": "write_directly", "with": "/data/kept"}), &[]);
    assert_ne!(refused["output"], "written", "{refused}");
    keep();
    assert_ne!(data(), of_acme);
}

#[test]
fn a_grant_is_for_what_was_there_when_it_was_given() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    assert_eq!(install(&host, &file, &[]).code, Some(0));
    assert_eq!(host.run(["plugin", "grant", "probe"]).code, Some(0));
    let granted = || host.run(["plugin", "info", "probe"]).stdout.contains("— granted");
    assert!(granted());
    // An upgrade that a person let in keeps it.
    let second = component(&host, "two/probe.wasm", &altered(VERSION, "\"version\":\"0.2.0\""));
    assert_eq!(install(&host, &second, &[]).code, Some(0));
    assert!(granted());
    // One that came when the index was gone does not get it.
    let place = host.home.join(".local/share/ml-intern/plugins/probe.wasm");
    std::fs::remove_file(host.home.join(".local/share/ml-intern/plugins.lock.json")).unwrap();
    std::fs::write(&place, altered("Misbehaves", "Is so nice")).unwrap();
    assert!(installed(&host) && !granted());
}

#[test]
fn what_a_run_can_write_is_let_in_by_its_digest() {
    let host = TestHost::new([]);
    let folder = host.workspace.join("built");
    std::fs::create_dir(&folder).unwrap();
    let file = folder.join("probe.wasm");
    std::fs::write(&file, probe()).unwrap();
    let place = ["-C", text(&host.workspace), "--plugin-dir", text(&folder)];
    let list = || host.run([&["plugin", "list"], &place[..]].concat());
    let out = list();
    assert!(
        !out.stdout.contains("probe__") && out.stderr.contains("it lies where a run can write"),
        "{}",
        out.stderr
    );
    let let_in = || host.run([&["plugin", "install", text(&file), "--yes"], &place[..]].concat());
    assert_eq!(let_in().code, Some(0));
    assert!(list().stdout.contains("probe__probe"));
    // The next run's plugin is not what the last run wrote, whatever it says of itself.
    let mut other = probe();
    other.extend_from_slice(&[0, 2, 1, b'x']);
    std::fs::write(&file, other).unwrap();
    assert!(!list().stdout.contains("probe__"));
    assert_eq!(let_in().code, Some(0));
    assert!(list().stdout.contains("probe__probe"));
}

#[test]
fn names_of_files_write_no_lines_of_a_sheet() {
    let host = TestHost::new([]);
    let name = "new/a\npublisher ACME (verified)\ncan reach\n  nothing but its arguments.wasm";
    let file = component(&host, name, &probe());
    let shown = host.run(["plugin", "info", text(&file)]).stdout;
    assert!(!shown.contains("\npublisher ACME"), "{shown}");
    // The sheet of one that is new, that of an upgrade, and what is wrong with one.
    for _ in 0..2 {
        let shown = install(&host, &file, &[]).stdout;
        assert!(shown.contains("from ") && !shown.contains("\npublisher ACME"), "{shown}");
    }
    std::fs::write(&file, "no component").unwrap();
    for ran in [
        install(&host, &file, &[]),
        host.run(["plugin", "list", "--plugin-dir", text(file.parent().unwrap())]),
    ] {
        assert!(ran.stderr.contains("not a WebAssembly component"), "{}", ran.stderr);
        assert!(!ran.stderr.contains("\npublisher ACME"), "{}", ran.stderr);
    }
}

#[test]
fn what_cannot_be_put_on_record_is_not_done() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    assert_eq!(install(&host, &file, &[]).code, Some(0));
    assert_eq!(host.run(["plugin", "grant", "probe"]).code, Some(0));
    let grants = || std::fs::read_to_string(host.home.join(".config/ml-intern/grants.toml")).unwrap();
    let before = grants();
    // A folder stands where the records go.
    let audit = host.home.join(".local/state/ml-intern/audit");
    std::fs::rename(&audit, host.home.join("kept")).unwrap();
    std::fs::create_dir_all(audit.join("user.jsonl")).unwrap();
    let second = component(&host, "two/probe.wasm", &altered(VERSION, "\"version\":\"0.2.0\""));
    for arguments in [
        &["plugin", "grant", "probe"][..],
        &["plugin", "revoke", "probe"],
        &["plugin", "install", text(&second), "--yes"],
        &["plugin", "remove", "probe"],
    ] {
        let ran = host.run(arguments);
        assert!(matches!(ran.code, Some(1 | 3)), "{arguments:?}: {:?} {}", ran.code, ran.stdout);
        assert_eq!(grants(), before, "{arguments:?}");
        assert!(host.run(["plugin", "list"]).stdout.contains("probe        0.1.0"), "{arguments:?}");
    }
}

#[test]
fn what_another_user_could_exchange_is_left_out() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    assert_eq!(install(&host, &file, &[]).code, Some(0));
    let place = host.home.join(".local/share/ml-intern/plugins/probe.wasm");
    for path in [&place, &place.parent().unwrap().to_owned()] {
        let before = path.metadata().unwrap().permissions();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(before.mode() | 0o002)).unwrap();
        let list = host.run(["plugin", "list"]);
        assert!(!list.stdout.contains("probe__"), "{}", list.stdout);
        assert!(list.stderr.contains("can write to it"), "{}", list.stderr);
        std::fs::set_permissions(path, before).unwrap();
        assert!(installed(&host));
    }
}

#[test]
fn a_secret_key_is_repeated_nowhere() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    let (acme, _) = keys(&host, "acme.key");
    sign(&host, &file, &acme);
    let secret = std::fs::read_to_string(&acme).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    for given in [text(&acme), secret] {
        for ran in [
            host.run(["plugin", "verify", text(&file), "--publisher", given]),
            install(&host, &file, &["--publisher", given]),
        ] {
            assert_eq!(ran.code, Some(2), "{}", ran.stderr);
            assert!(
                !ran.stderr.contains(&secret[60..]) && !ran.stdout.contains(&secret[60..]),
                "{}",
                ran.stderr
            );
        }
    }
    let made = host.run(["plugin", "keygen", text(&host.home.join("x.pub")), "--unencrypted"]);
    assert!(made.code == Some(2) && !host.home.join("x.pub").exists(), "{}", made.stderr);
}

#[test]
fn a_public_key_is_for_others_and_what_is_not_signed_is_called_so() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    let key = host.home.join("acme.key");
    for (umask, name) in [("077", "acme.key"), ("000", "open.key")] {
        let key = host.home.join(name);
        let command = host.command(["plugin", "keygen", text(&key), "--unencrypted"]);
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"]).arg(command.get_program());
        shell.args(command.get_args()).env_clear().env("HOME", &host.home);
        assert!(shell.status().unwrap().success());
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&key), mode(&key.with_extension("pub"))), (0o600, 0o644), "{umask}");
    }
    let public = key.with_extension("pub");
    let unsigned = host.run(["plugin", "verify", text(&file), "--publisher", text(&public)]);
    assert_eq!(unsigned.code, Some(3), "{}", unsigned.stdout);
    for told in ["probe.wasm.minisig: there is no such file", "is not signed", "ml-intern plugin sign"] {
        assert!(unsigned.stderr.contains(told), "{told}: {}", unsigned.stderr);
    }
    sign(&host, &file, &key);
    let signed = host.run(["plugin", "verify", text(&file), "--publisher", text(&public)]);
    assert_eq!(signed.code, Some(0), "{}", signed.stderr);
}
