//! Plugins that are good, broken, foreign, doubled or changed.

use std::path::PathBuf;

use serde_json::json;
use testkit::Step;

use crate::support::{TestHost, call};

fn plugin_folder(host: &TestHost) -> PathBuf {
    let folder = host.home.join("plugins");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

pub(crate) fn probe() -> Vec<u8> {
    std::fs::read(guests::component("probe")).unwrap()
}

/// The same component with a piece of its manifest replaced by one of the same length.
pub(crate) fn altered(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = probe();
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, w)| *w == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty(), "{from}");
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[test]
fn what_is_wrong_with_one_plugin_is_told_and_the_others_work() {
    let host = TestHost::new([call("bash", json!({"command": "echo works"})), Step::text("ok")]);
    let folder = plugin_folder(&host);
    let module = b"\0asm\x01\0\0\0".to_vec();
    let component = b"\0asm\x0d\0\x01\0".to_vec();
    let cases: [(&str, Vec<u8>, &str); 10] = [
        ("garbage", b"not wasm at all".to_vec(), "not a WebAssembly component"),
        ("truncated", probe()[..10_000].to_vec(), "not a WebAssembly component"),
        ("module", module, "it is a core module"),
        ("empty", component, "does not export `ml-intern:plugin/tools`"),
        ("nomanifest", altered("ml-intern:manifest", "ml-intern:manifesd"), "it has no manifest"),
        ("unknownkey", altered("\"exec\":true", "\"exek\":true"), "unknown field `exek`"),
        (
            "future",
            altered("ml-intern:plugin/tools@0.1.0", "ml-intern:plugin/tools@9.1.0"),
            "built for plugin interface 9.1.0, this host has 0.1; update ml-intern",
        ),
        (
            "undeclared",
            altered("\"exec\":true,\"files\":true,", "\"exec\":false,            "),
            "which its manifest does not declare",
        ),
        (
            "noversion",
            altered("\"version\":\"0.1.0\"", "\"version\":\"newer\""),
            "`version` is `newer`; it must be three numbers, as in `1.0.0`",
        ),
        ("huge", vec![0; (32 << 20) + 1], "more than a plugin may have (32 MiB)"),
    ];
    for (name, bytes, message) in cases {
        let file = folder.join(format!("{name}.wasm"));
        std::fs::write(&file, bytes).unwrap();
        let list = host.run(["plugin", "list", "--plugin-dir", folder.to_str().unwrap()]);
        assert_eq!(list.code, Some(3), "{name}: {}", list.stderr);
        assert!(
            list.stderr.contains(message) && list.stderr.contains(&format!("{name}.wasm")),
            "{name}: {}",
            list.stderr
        );
        assert!(list.stdout.contains("shell"), "{}", list.stdout);
        let info = host.run(["plugin", "info", file.to_str().unwrap()]);
        assert_eq!(info.code, Some(3), "{name}: {}", info.stdout);
        std::fs::remove_file(&file).unwrap();
    }
    std::fs::write(folder.join("garbage.wasm"), "x").unwrap();
    let ran = host.stream(&["--plugin-dir", folder.to_str().unwrap()]);
    assert_eq!((ran.code, ran.outputs()), (Some(0), vec!["works\n"]), "{}", ran.stderr);
    assert!(ran.stderr.contains("plugin left out: "), "{}", ran.stderr);
}

#[test]
fn doubled_names_and_unreadable_folders_are_named() {
    let host = TestHost::new([]);
    let folder = plugin_folder(&host);
    std::fs::write(folder.join("one.wasm"), probe()).unwrap();
    // Whether they are the same file or not, at the first start and at the next.
    for second in [probe(), altered("Misbehaves", "Is so nice")] {
        std::fs::write(folder.join("two.wasm"), second).unwrap();
        for _ in 0..2 {
            let list = host.run(["plugin", "list", "--plugin-dir", folder.to_str().unwrap()]);
            assert_eq!(list.code, Some(3));
            assert!(
                list.stderr.contains("its id `probe` is also that of")
                    && list.stderr.contains("one.wasm")
                    && list.stderr.contains("two.wasm"),
                "{}",
                list.stderr
            );
            assert!(list.stdout.contains("probe__probe"), "{}", list.stdout);
        }
    }
    let one = folder.join("one.wasm");
    let install = ["plugin", "install", one.to_str().unwrap(), "--yes"];
    for arguments in [&["plugin", "list"][..], &["tool", "plan_tool"], &install] {
        for (folder, why) in [("none", "No such file"), (one.to_str().unwrap(), "not a directory")] {
            let ran = host.run([arguments, &["--plugin-dir", folder]].concat());
            assert_eq!(ran.code, Some(2), "{arguments:?}");
            let told = format!("--plugin-dir {folder}: ");
            assert!(ran.stderr.contains(&told) && ran.stderr.contains(why), "{}", ran.stderr);
        }
    }
}

#[test]
fn a_call_that_fails_says_what_its_plugin_was_not_granted() {
    let host = TestHost::new([]);
    let folder = plugin_folder(&host);
    std::fs::write(folder.join("probe.wasm"), probe()).unwrap();
    let place = ["--plugin-dir", folder.to_str().unwrap()];
    let probes = |trick: &str, more: &[&str]| {
        let arguments = json!({"trick": trick, "with": "true"});
        let result = host.tool("probe__probe", &arguments, &[&place[..], more].concat());
        (result["success"].as_bool().unwrap(), result["output"].as_str().unwrap().to_owned())
    };
    let (success, told) = probes("exec", &[]);
    let last = format!(
        "\n[plugin `probe` was not granted exec, files, kv, paths workspace, paths tmp, paths data, which it declares: \
         ml-intern plugin grant probe --plugin-dir {}]",
        folder.display()
    );
    assert!(!success && told.ends_with(&last), "{told}");
    // Not where it has all that it declares, or does what it was asked to.
    let (success, told) = probes("fail", &["--grant", "probe"]);
    assert!(!success && !told.contains("was not granted"), "{told}");
    assert_eq!(probes("echo", &[]), (true, "true".to_owned()));
    // What a bundled one may do is fixed.
    let bundled = host.tool("read", &json!({"path": "none.txt"}), &place);
    assert!(bundled["success"] == false && !bundled.to_string().contains("was not granted"), "{bundled}");
}

#[test]
fn only_what_is_known_is_revoked() {
    let host = TestHost::new([]);
    let unknown = host.run(["plugin", "revoke", "nobody"]);
    assert_eq!(unknown.code, Some(2), "{}", unknown.stdout);
    assert!(unknown.stderr.contains("there is no plugin `nobody`"), "{}", unknown.stderr);
    let component = guests::component("probe");
    assert_eq!(host.run(["plugin", "install", "--yes", component.to_str().unwrap()]).code, Some(0));
    let nothing = || {
        let ran = host.run(["plugin", "revoke", "probe"]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains("`probe` was granted nothing by you"), "{}", ran.stdout);
    };
    nothing();
    // It cannot be used, and then it is not even there; what is given to somebody who never was is taken back.
    let file = host.home.join(".local/share/ml-intern/plugins/probe.wasm");
    std::fs::write(&file, altered("Misbehaves.", "Obey me now")).unwrap();
    nothing();
    std::fs::remove_file(&file).unwrap();
    nothing();
    host.home_file(".config/ml-intern/grants.toml", "[nobody]\nkv = true\n");
    let gone = host.run(["plugin", "revoke", "nobody"]);
    assert!(gone.code == Some(0) && gone.stdout.contains("revoked nobody: kv"), "{}", gone.stderr);
    assert_eq!(host.run(["plugin", "revoke", "nobody"]).code, Some(2));
}

#[test]
fn a_plugin_put_there_by_hand_is_compiled_once() {
    let host = TestHost::new([]);
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("probe.wasm"), probe()).unwrap();
    let echo = || host.tool("probe__probe", &json!({"trick": "echo", "with": "hi"}), &[]);
    let first = host.run(["plugin", "list"]);
    assert!(first.stderr.contains("new or changed, compiling it once"), "{}", first.stderr);
    let again = host.run(["plugin", "list"]);
    assert!(again.stderr.is_empty() && again.stdout.contains("probe__probe"), "{}", again.stderr);
    assert_eq!(echo()["output"], "hi");
    // Its compiled code is authentic or not used: a changed byte costs time, nothing else.
    let cache = host.home.join(".cache/ml-intern/compiled");
    let code = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&code).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&code, bytes).unwrap();
    assert_eq!(echo()["output"], "hi");
    std::fs::remove_dir_all(&cache).unwrap();
    assert_eq!(echo()["output"], "hi");
}

#[test]
fn a_plugin_that_describes_itself_differently_waits_for_a_person() {
    let host = TestHost::new([]);
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("probe.wasm");
    std::fs::write(&file, probe()).unwrap();
    host.run(["plugin", "list"]);
    std::fs::write(&file, altered("Misbehaves.", "Obey me now")).unwrap();
    let list = host.run(["plugin", "list"]);
    assert_eq!(list.code, Some(3));
    assert!(
        list.stderr.contains("describes itself differently than when it was approved"),
        "{}",
        list.stderr
    );
    assert!(!list.stdout.contains("probe__probe"));
    // Again, and still not: only a person lets it in.
    assert_eq!(host.run(["plugin", "list"]).code, Some(3));
    let install = host.run(["plugin", "install", "--yes", file.to_str().unwrap()]);
    assert_eq!(install.code, Some(0), "{}", install.stderr);
    assert!(host.run(["plugin", "list"]).stdout.contains("probe__probe"));
}

#[test]
fn a_changed_plugin_is_not_let_in_under_another_file_name() {
    let host = TestHost::new([]);
    let folder = plugin_folder(&host);
    let list = || host.run(["plugin", "list", "--plugin-dir", folder.to_str().unwrap()]);
    std::fs::write(folder.join("x.wasm"), probe()).unwrap();
    assert_eq!(list().code, Some(0));
    std::fs::remove_file(folder.join("x.wasm")).unwrap();
    std::fs::write(folder.join("y.wasm"), altered("Misbehaves", "Is so nice")).unwrap();
    for _ in 0..2 {
        let renamed = list();
        assert_eq!(renamed.code, Some(3), "{}", renamed.stdout);
        assert!(
            renamed.stderr.contains("y.wasm") && renamed.stderr.contains("changed"),
            "{}",
            renamed.stderr
        );
    }
    // The same component may move.
    std::fs::remove_file(folder.join("y.wasm")).unwrap();
    std::fs::write(folder.join("z.wasm"), probe()).unwrap();
    assert_eq!(list().code, Some(0));
}

#[test]
fn grants_are_given_and_taken_back_and_all_of_it_is_on_record() {
    let host = TestHost::new([]);
    let component = guests::component("probe");
    let done = |arguments: &[&str]| {
        let ran = host.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout
    };
    done(&["plugin", "install", "--yes", component.to_str().unwrap()]);
    host.file("a.txt", "one\n");
    let reads = || {
        let result = host.tool("probe__look", &json!({"trick": "read", "with": "a.txt"}), &[]);
        result["output"].as_str().is_some_and(|output| output.contains("one"))
    };
    assert!(!reads());
    assert!(done(&["plugin", "grant", "probe"]).contains("granted probe: paths workspace"));
    assert!(reads());
    assert!(done(&["plugin", "revoke", "probe"]).contains("revoked probe: exec"));
    assert!(!reads());
    done(&["plugin", "grant", "probe"]);
    let removed = done(&["plugin", "remove", "probe"]);
    assert!(removed.contains("removed ") && removed.contains("revoked probe: files"), "{removed}");
    assert!(!done(&["plugin", "list"]).contains("probe"));
    let acts: Vec<String> = done(&["audit", "show"]).lines().map(|line| line[31..40].to_owned()).collect();
    let acts: Vec<&str> =
        acts.iter().map(|act| act.trim()).filter(|act| !matches!(*act, "start" | "end")).collect();
    assert_eq!(acts, ["install", "grant", "grant", "grant", "remove", "grant"]);
    assert_eq!(host.run(["audit", "verify"]).code, Some(0));
    assert_eq!(host.run(["plugin", "remove", "shell"]).code, Some(2));
    assert_eq!(host.run(["plugin", "grant", "nobody"]).code, Some(2));
}

#[test]
fn installing_shows_the_sheet_and_refuses_what_is_bundled() {
    let host = TestHost::new([]);
    let install = host.run(["plugin", "install", "--yes", guests::component("probe").to_str().unwrap()]);
    assert_eq!(install.code, Some(0), "{}", install.stderr);
    for line in [
        "installed probe 0.1.0",
        "start native commands",
        "asked for, not installed",
        "connect to http://127.0.0.1:1 GET",
        "it has not been granted all it asks for: ml-intern plugin grant probe",
    ] {
        assert!(install.stdout.contains(line), "{line}: {}", install.stdout);
    }
    assert_eq!(host.tool("probe__probe", &json!({"trick": "echo", "with": "hi"}), &[])["output"], "hi");
    let install = host.run(["plugin", "install", "--yes", guests::component("shell").to_str().unwrap()]);
    assert_eq!(install.code, Some(3));
    assert!(install.stderr.contains("is the id of a bundled plugin"), "{}", install.stderr);
}

#[test]
fn the_sheet_says_what_a_plugin_can_reach_and_what_it_cannot() {
    let host = TestHost::new([]);
    let plan = host.run(["plugin", "info", "plan"]).stdout;
    assert!(plan.contains("nothing but its arguments"), "{plan}");
    for cannot in ["start commands", "change files", "connect to anything", "see any file"] {
        assert!(plan.contains(cannot), "{plan}");
    }
    let shell = host.run(["plugin", "info", "shell"]).stdout;
    assert!(
        shell.contains("start native commands")
            && shell.contains("— granted")
            && shell.contains("connect to anything"),
        "{shell}"
    );
    assert_eq!(host.run(["plugin", "info", "nothing"]).code, Some(2));
}

#[test]
fn exported_plugins_are_the_components_that_were_compiled() {
    let host = TestHost::new([]);
    assert_eq!(host.run(["plugin", "export", "out"]).code, Some(0));
    for name in guests::SHIPPED {
        let exported = std::fs::read(host.workspace.join(format!("out/{name}.wasm"))).unwrap();
        assert_eq!(exported, std::fs::read(guests::component(name)).unwrap(), "{name}");
    }
}

#[test]
fn components_tell_nothing_of_the_machine_they_were_built_on() {
    let home = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().display().to_string();
    for name in guests::SHIPPED {
        let bytes = std::fs::read(guests::component(name)).unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        assert!(!has(&home) && !has("/.cargo/registry"), "{name}");
    }
}
