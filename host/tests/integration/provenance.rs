//! Who let a plugin in, and what of it was seen before.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::plugins::{altered, probe};
use crate::support::{Ran, TestHost};

const VERSION: &str = "\"version\":\"0.1.0\"";

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn component(host: &TestHost, name: &str, bytes: &[u8]) -> PathBuf {
    let path = host.home.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

fn install(host: &TestHost, file: &Path, more: &[&str]) -> Ran {
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
        good.replace("\"version\":2", "\"version\":1"),
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
    assert!(list.stderr.contains("plugin `prove` was not let in"), "{}", list.stderr);
    assert_eq!(install(&host, &other, &[]).code, Some(0));
    assert!(host.run(["plugin", "list"]).stdout.contains("prove__probe"));
    // Without an index all that lies there is new.
    std::fs::remove_file(&lock).unwrap();
    assert_eq!(host.run(["plugin", "list"]).code, Some(0));
}
