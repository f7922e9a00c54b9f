//! Ways out of the folders that were given.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde_json::json;
use testkit::Step;

use crate::hostile::{all_refused, attack, everything, run, with_probe};
use crate::support::{TestHost, call};

/// A folder beside the workspace, with a secret in it.
fn outside(host: &TestHost) -> std::path::PathBuf {
    let outside = host.home.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("target"), "secret").unwrap();
    outside
}

fn untouched(outside: &Path) {
    assert_eq!(std::fs::read_to_string(outside.join("target")).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 1);
}

#[test]
fn no_spelling_of_a_path_leads_out() {
    let host = with_probe(Vec::new(), &everything());
    outside(&host);
    let (home, work) = (host.home.display().to_string(), host.workspace.display().to_string());
    let deep = format!("/workspace{}/etc/passwd", "/..".repeat(40));
    let paths = [
        "/etc/passwd",
        "//etc/passwd",
        "/workspace/../etc/passwd",
        "/workspace/../outside/target",
        "/workspace/./../outside/target",
        "/workspace/a/../../outside/target",
        &format!("{work}/../outside/target"),
        &format!("{work}x/../outside/target"),
        &format!("{home}/.config/ml-intern/cli_agent_config.json"),
        &format!("{home}/.config/ml-intern/grants.toml"),
        "/tmp/../etc/passwd",
        "/tmp/../../outside/target",
        "/data/../probe/../../grants.toml",
        &deep,
        "../outside/target",
        "/proc/self/environ",
        "/proc/1/root/etc/passwd",
        "/dev/zero",
        "C:\\Windows\\win.ini",
        "\\\\?\\C:\\Windows\\win.ini",
        "..\\outside\\target",
        "/workspace/%2e%2e/outside/target",
        "/workspace/．．/outside/target",
        "/workspace/a.txt\0/../../outside/target",
        "",
        "/",
    ];
    host.server.push(attack("read", "", &paths));
    host.server.push(Step::text("ok"));
    std::fs::create_dir(host.workspace.join("a")).unwrap();
    let ran = run(&host);
    all_refused(ran.outputs()[0]);
    assert_eq!(ran.outputs()[0].lines().count(), paths.len());
}

#[test]
fn links_lead_nowhere_with_a_slash_or_without() {
    let host = with_probe(Vec::new(), &everything());
    let outside = outside(&host);
    let link = |target: &Path, name: &str| symlink(target, host.workspace.join(name)).unwrap();
    link(&outside, "folder");
    link(Path::new("../outside"), "relative");
    link(Path::new("folder"), "chain");
    link(&outside.join("target"), "file");
    link(Path::new("/proc/self/root"), "root");
    link(Path::new("/proc/self/cwd/../outside"), "magic");
    let target = outside.join("target").display().to_string();
    let through_root = format!("root{target}");
    let names = [
        "folder/target",
        "folder//target",
        "relative/target",
        "chain/target",
        "file",
        "file/",
        "magic/target",
        &through_root,
    ];
    let read: Vec<String> = names.iter().map(|name| format!("/workspace/{name}")).collect();
    host.server.push(attack("read", "", &read.iter().map(String::as_str).collect::<Vec<_>>()));
    let folders = ["folder/new", "relative/new", "chain/new", "magic/new", "folder/", "folder", "chain/"];
    // Moving and removing take a link itself: after everything else.
    for changes in [["write", "write_directly"], ["rename", "remove"]] {
        let all = names.iter().chain(&folders).flat_map(|name| {
            changes
                .map(|trick| ("probe__probe", json!({"trick": trick, "with": format!("/workspace/{name}")})))
        });
        host.server.push(Step::calls(all.collect::<Vec<_>>()));
    }
    host.server.push(Step::text("ok"));
    let ran = run(&host);
    all_refused(ran.outputs()[0]);
    assert_eq!(ran.outputs().len(), 1 + 4 * (names.len() + folders.len()));
    untouched(&outside);
}

#[test]
fn a_folder_that_keeps_becoming_a_link_leads_nowhere() {
    let host = with_probe(vec![attack("race", "swap/target", &["2000"]), Step::text("ok")], &everything());
    let outside = outside(&host);
    let (swap, other) = (host.workspace.join("swap"), host.workspace.join("other"));
    std::fs::create_dir(&swap).unwrap();
    std::fs::write(swap.join("target"), "harmless").unwrap();
    symlink(&outside, &other).unwrap();
    let (stop, swaps) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
    let (ended, counted) = (stop.clone(), swaps.clone());
    let swapper = std::thread::spawn(move || {
        while !ended.load(Ordering::Relaxed) {
            renameat_with(CWD, &swap, CWD, &other, RenameFlags::EXCHANGE).unwrap();
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    let ran = run(&host);
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    let output = ran.outputs()[0];
    assert!(output.starts_with("written ") && output.ends_with(" leaked 0"), "{output}");
    assert!(swaps.load(Ordering::Relaxed) > 1_000);
    untouched(&outside);
}

#[test]
fn what_is_only_to_be_read_is_changed_in_no_way() {
    let host = with_probe(Vec::new(), &everything());
    std::fs::create_dir(host.workspace.join("kept")).unwrap();
    let file = host.file("kept/a.txt", "mine");
    host.server.push(attack("change", "/workspace/kept/a.txt", &[]));
    host.server.push(attack("change", file.to_str().unwrap(), &[]));
    host.server.push(Step::text("ok"));
    let before = std::fs::metadata(&file).unwrap().modified().unwrap();
    let ran = run(&host);
    for output in ran.outputs() {
        let (made, tried) = output.split_once('\n').unwrap();
        assert!(made.starts_with("done "), "{output}");
        all_refused(tried);
    }
    assert_eq!(
        (host.read("kept/a.txt").as_str(), std::fs::metadata(&file).unwrap().modified().unwrap()),
        ("mine", before)
    );
    assert_eq!(std::fs::read_dir(host.workspace.join("kept")).unwrap().count(), 1);
}

#[test]
fn pipes_sockets_and_devices_hold_nothing_up() {
    let host = with_probe(Vec::new(), &everything());
    let pipe = |path: &Path| {
        rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    };
    pipe(&host.workspace.join("pipe"));
    let _socket = std::os::unix::net::UnixListener::bind(host.workspace.join("socket")).unwrap();
    symlink("/dev/zero", host.workspace.join("device")).unwrap();
    for name in ["pipe", "socket", "device", "."] {
        host.server.push(call("probe__probe", json!({"trick": "write", "with": name})));
    }
    // Where plugins, instructions and settings of a project are looked for.
    let plugins = host.home.join("plugins");
    pipe(&plugins.join("pipe.wasm"));
    let _other = std::os::unix::net::UnixListener::bind(plugins.join("socket.wasm")).unwrap();
    symlink("/dev/zero", plugins.join("device.wasm")).unwrap();
    symlink("nowhere", plugins.join("dangling.wasm")).unwrap();
    std::fs::create_dir(plugins.join("folder.wasm")).unwrap();
    host.server.push(Step::text("ok"));
    let ran = run(&host);
    let outputs = ran.all("tool_output");
    assert_eq!((outputs.len(), ran.code.is_some()), (4, true), "{}", ran.stderr);
    assert!(outputs.iter().all(|output| output["success"] == false), "{outputs:?}");
    for name in ["pipe.wasm", "socket.wasm", "/dev/zero", "dangling.wasm", "folder.wasm"] {
        assert!(ran.stderr.contains(&format!("{name}: ")), "{name}: {}", ran.stderr);
    }
}

#[test]
fn our_own_folders_are_given_to_nobody() {
    let host = TestHost::outside_tmp([]);
    for folder in [
        ".config/ml-intern",
        ".local/share/ml-intern/plugins",
        ".local/state/ml-intern/audit",
        ".cache/ml-intern",
    ] {
        std::fs::create_dir_all(host.home.join(folder)).unwrap();
    }
    let home = host.home.display().to_string();
    for folder in [
        "",
        "/.config",
        "/.config/ml-intern",
        "/.local",
        "/.local/share/ml-intern/plugins",
        "/.local/state/ml-intern",
        "/.cache/ml-intern",
    ] {
        for mode in ["", ":rw"] {
            let given = format!("{home}{folder}{mode}");
            let ran = host.run(["tool", "read", "{\"path\": \"x\"}", "--add-dir", &given]);
            assert_eq!(ran.code, Some(2), "{given}: {} {}", ran.stdout, ran.stderr);
        }
    }
    assert_eq!(host.run(["tool", "read", "{\"path\": \"x\"}", "--add-dir", "/"]).code, Some(2));
}
