//! Files that change between the moment they were checked and the moment they are used.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::guest::Guest;
use crate::hostile::{host, run};
use crate::support::{TestHost, call};

/// A component that tells a text.
fn says(id: &str, text: &str) -> Guest {
    let mut guest = Guest::new(id);
    guest.data = vec![(5_000, text.into())];
    guest.invoke = Guest::answers(5_000, text.len());
    guest
}

#[test]
fn a_file_that_changes_after_it_was_checked_is_not_run() {
    let honest = says("swapped", "honest");
    let plugins = [("swapped", honest.component(), json!({}))];
    let host = host(Vec::new(), &plugins);
    let file = host.home.join("plugins/swapped.wasm");
    let evil = says("swapped", "evil").component();
    // The model answers after the plugins were looked at and before the first of them is opened.
    host.server.push(Step::reply(move |_| {
        std::fs::write(&file, &evil).unwrap();
        call("swapped__go", json!({}))
    }));
    host.server.push(call("bash", json!({"command": "echo works"})));
    host.server.push(Step::text("ok"));
    let ran = run(&host);
    let outputs = ran.outputs();
    assert!(outputs[0].contains("changed while the session ran"), "{outputs:?}");
    assert_eq!((outputs[1], ran.code), ("works\n", Some(0)));
}

#[test]
fn a_file_that_keeps_changing_is_run_as_it_was_described_or_not_at_all() {
    let mut evil = says("swapped", "evil");
    evil.tools.push("more".to_owned());
    let (honest, evil) = (says("swapped", "honest").component(), evil.component());
    let host = host(Vec::new(), &[("swapped", honest, json!({}))]);
    let plugins = host.home.join("plugins");
    let list = host.run(["plugin", "list", "--plugin-dir", plugins.to_str().unwrap()]);
    assert_eq!(list.code, Some(0), "{}", list.stderr);
    let (file, beside) = (plugins.join("swapped.wasm"), host.home.join("other.wasm"));
    std::fs::write(&beside, evil).unwrap();
    let (stop, ended) = std::sync::mpsc::channel::<()>();
    let swapper = std::thread::spawn(move || {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        while ended.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            renameat_with(CWD, &file, CWD, &beside, RenameFlags::EXCHANGE).unwrap();
        }
    });
    let mut said = Vec::new();
    for _ in 0..20 {
        let ran =
            host.run(["tool", "swapped__go", "{}", "--json", "--plugin-dir", plugins.to_str().unwrap()]);
        said.push(ran.stdout + &ran.stderr);
    }
    drop(stop);
    swapper.join().unwrap();
    // What was approved has one tool.
    assert!(said.iter().all(|text| !text.contains("evil")), "{said:?}");
}

/// Two plugins among the user's own, called once so that their code is kept.
fn installed() -> (TestHost, PathBuf) {
    let host = TestHost::outside_tmp([]);
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let mut good = says("good", "hi");
    good.data.push((10_000, vec![1; 50_000]));
    std::fs::write(folder.join("good.wasm"), good.component()).unwrap();
    std::fs::write(folder.join("other.wasm"), says("other", "evil").component()).unwrap();
    assert_eq!(good_says(&host), json!("hi"));
    assert_eq!(host.tool("other__go", &json!({}), &[])["output"], "evil");
    let cache = host.home.join(".cache/ml-intern/compiled");
    (host, cache)
}

fn good_says(host: &TestHost) -> Value {
    host.tool("good__go", &json!({}), &[])["output"].clone()
}

/// The good one's code, which is the larger, and the other's.
fn kept(cache: &Path) -> (PathBuf, PathBuf) {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|path| std::fs::metadata(path).unwrap().len());
    assert_eq!(files.len(), 2);
    (files[1].clone(), files[0].clone())
}

fn not_used(host: &TestHost) -> usize {
    let log = std::fs::read_to_string(host.home.join(".local/state/ml-intern/logs/ml-intern.log"));
    log.unwrap_or_default().matches("is not used").count()
}

#[test]
fn kept_code_is_used_only_as_it_was_written_and_by_whom() {
    type Attack = (&'static str, fn(&Path, &Path));
    let attacks: [Attack; 9] = [
        ("emptied", |code, _| std::fs::write(code, "").unwrap()),
        ("cut", |code, _| {
            let bytes = std::fs::read(code).unwrap();
            std::fs::write(code, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("first byte", |code, _| flip(code, 0)),
        ("last byte", |code, _| {
            flip(code, usize::try_from(std::fs::metadata(code).unwrap().len()).unwrap() - 1);
        }),
        ("code of another", |code, other| {
            std::fs::copy(other, code).unwrap();
        }),
        ("writable by others", |code, _| {
            std::fs::set_permissions(code, std::fs::Permissions::from_mode(0o666)).unwrap();
        }),
        ("a link", |code, _| {
            let aside = code.with_extension("aside");
            std::fs::rename(code, &aside).unwrap();
            std::os::unix::fs::symlink(&aside, code).unwrap();
        }),
        ("a folder", |code, _| {
            std::fs::remove_file(code).unwrap();
            std::fs::create_dir(code).unwrap();
        }),
        ("of another user", |code, _| {
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(code, Some(65_534), None).unwrap();
            } else {
                flip(code, 1);
            }
        }),
    ];
    let (host, cache) = installed();
    let (code, other) = kept(&cache);
    let good = std::fs::read(&code).unwrap();
    for (k, (name, attack)) in attacks.iter().enumerate() {
        attack(&code, &other);
        assert_eq!(good_says(&host), json!("hi"), "{name}");
        assert_eq!(not_used(&host), k + 1, "{name}");
        // Back to what is used without a word.
        if std::fs::symlink_metadata(&code).unwrap().is_dir() {
            std::fs::remove_dir(&code).unwrap();
        } else {
            std::fs::remove_file(&code).unwrap();
        }
        std::fs::write(&code, &good).unwrap();
        std::fs::set_permissions(&code, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(good_says(&host), json!("hi"), "{name}");
        assert_eq!(not_used(&host), k + 1, "{name}");
    }
    // The whole folder, led elsewhere, where somebody else's code lies.
    let elsewhere = host.home.join("elsewhere");
    std::fs::rename(&cache, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &cache).unwrap();
    let moved = |path: &Path| elsewhere.join(path.file_name().unwrap());
    std::fs::copy(moved(&other), moved(&code)).unwrap();
    assert_eq!(good_says(&host), json!("hi"));
}

fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn machine_code_is_no_plugin() {
    let (host, cache) = installed();
    let (code, _) = kept(&cache);
    let bytes = std::fs::read(&code).unwrap();
    let folder = host.home.join("plugins");
    std::fs::create_dir(&folder).unwrap();
    for (name, bytes) in
        [("whole.wasm", &bytes[..]), ("bare.wasm", &bytes[..bytes.len() - 32]), ("code.cwasm", &bytes[..])]
    {
        let file = folder.join(name);
        std::fs::write(&file, bytes).unwrap();
        for act in [&["install", "--yes"][..], &["info"]] {
            let ran = host.run([&["plugin"], act, &[file.to_str().unwrap()]].concat());
            assert_eq!(ran.code, Some(3), "{name} {act:?}: {}", ran.stdout);
            assert!(ran.stderr.contains("not a WebAssembly component"), "{name} {act:?}: {}", ran.stderr);
        }
    }
    let list = host.run(["plugin", "list", "--plugin-dir", folder.to_str().unwrap()]);
    assert_eq!(list.code, Some(3));
    assert_eq!(list.stderr.matches("not a WebAssembly component").count(), 2, "{}", list.stderr);
}
