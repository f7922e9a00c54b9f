//! Plugins by where they lie, and what is left when they go.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::hostile::guest::Guest;
use crate::plugins::{altered, probe};
use crate::provenance::{component, install, keys, sign, text};
use crate::support::{Ran, TestHost};

const WRITABLE: &str = "it lies where a run can write";

/// The same component with other bytes, which says nothing else of itself.
fn other(k: u8) -> Vec<u8> {
    let mut bytes = probe();
    bytes.extend_from_slice(&[0, 2, 1, b'a' + k]);
    bytes
}

/// A folder of the workspace that is named, and one outside to start in.
struct Named {
    host: TestHost,
    folder: PathBuf,
    file: PathBuf,
    outside: PathBuf,
}

impl Named {
    fn new() -> Self {
        let host = TestHost::new([]);
        let (folder, outside) = (host.workspace.join("built"), host.home.join("outside"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&outside).unwrap();
        let file = folder.join("probe.wasm");
        std::fs::write(&file, probe()).unwrap();
        Self { host, folder, file, outside }
    }

    fn inside(&self, more: &[&str]) -> Ran {
        self.host.run([&["plugin"], more, &["--plugin-dir", text(&self.folder)]].concat())
    }

    fn outside(&self, more: &[&str]) -> Ran {
        let place = ["-C", text(&self.outside), "--plugin-dir", text(&self.folder)];
        self.host.run([&["plugin"], more, &place].concat())
    }

    fn is_left_out(&self) {
        let list = self.inside(&["list"]);
        assert!(!list.stdout.contains("probe__") && list.stderr.contains(WRITABLE), "{}", list.stderr);
    }

    fn has_grants(&self, more: &[&str]) -> bool {
        let info = self.outside(&[&["info", "probe"], more].concat());
        assert_eq!(info.code, Some(0), "{}", info.stderr);
        let has = info.stdout.contains("— granted");
        assert_eq!(info.stderr.contains("it is not the file that `probe` was"), !has && more.is_empty());
        has
    }
}

#[test]
fn what_a_start_elsewhere_learned_of_a_named_folder_is_no_persons_word() {
    let named = Named::new();
    // One that is new: a start outside takes it in, and that lets it in nowhere.
    assert!(named.outside(&["list"]).stdout.contains("probe__probe"));
    named.is_left_out();
    // A person gives it something.
    assert_eq!(named.outside(&["grant", "probe"]).code, Some(0));
    assert!(named.has_grants(&[]));
    assert!(named.inside(&["list"]).stdout.contains("probe__probe"));
    // A run writes another one. No start makes it the person's: neither one without a place, nor one outside.
    std::fs::write(&named.file, other(0)).unwrap();
    let nowhere = named.inside(&["list", "--add-dir", "/nonexistent"]);
    assert!(nowhere.stderr.contains(WRITABLE), "{}", nowhere.stderr);
    for _ in 0..2 {
        assert!(!named.has_grants(&[]));
        named.is_left_out();
    }
    // Nor does one written by hand, for whatever has the id.
    let grants = named.host.home.join(".config/ml-intern/grants.toml");
    let given = std::fs::read_to_string(&grants).unwrap();
    named.host.home_file(".config/ml-intern/grants.toml", "[probe]\nexec = true\nkv = true\n");
    assert!(!named.has_grants(&[]));
    std::fs::write(&grants, given).unwrap();
    // For one run a person says so, and for good.
    assert!(named.has_grants(&["--grant", "probe"]) && !named.has_grants(&[]));
    named.is_left_out();
    assert_eq!(named.outside(&["install", text(&named.file), "--yes"]).code, Some(0));
    assert!(named.has_grants(&[]) && named.inside(&["list"]).stdout.contains("probe__probe"));
    // The next build: the author says so for each.
    std::fs::write(&named.file, other(1)).unwrap();
    named.is_left_out();
    assert_eq!(named.inside(&["install", text(&named.file), "--yes"]).code, Some(0));
    assert!(named.inside(&["list"]).stdout.contains("probe__probe"));
}

#[test]
fn a_changed_file_gets_no_grants_along_with_a_credential_or_a_limit() {
    let named = Named::new();
    assert_eq!(named.outside(&["grant", "probe"]).code, Some(0));
    assert!(named.has_grants(&[]));
    std::fs::write(&named.file, other(0)).unwrap();
    let given = named.outside(&["grant", "probe", "--credential", "secret=env:TEST_KEY"]);
    assert!(given.code == Some(3) && given.stderr.contains("ml-intern plugin install"), "{}", given.stderr);
    assert!(!named.has_grants(&[]));
    // A limit gives nothing, and is nobody's word for the file.
    let limited = named.outside(&["grant", "probe", "--limit", "cpu_ms=1000"]);
    assert_eq!(limited.code, Some(0), "{}", limited.stderr);
    assert!(!named.has_grants(&[]));
    named.is_left_out();
    // Once a person looked at it, it gets what is given to it.
    assert_eq!(named.outside(&["install", text(&named.file), "--yes"]).code, Some(0));
    let given = named.outside(&["grant", "probe", "--credential", "secret=env:TEST_KEY"]);
    assert_eq!(given.code, Some(0), "{}", given.stderr);
}

#[test]
fn another_plugin_in_its_place_gives_a_changed_one_no_grants() {
    let named = Named::new();
    let file = text(&named.file);
    let installed = named.outside(&["install", file, "--yes"]);
    assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    // What is left to do names the folder, without which there is no such plugin.
    let grant = format!("ml-intern plugin grant probe --plugin-dir {}", text(&named.folder));
    assert!(installed.stdout.contains(&grant), "{}", installed.stdout);
    assert_eq!(named.outside(&["grant", "probe"]).code, Some(0));
    assert!(named.has_grants(&[]));
    // A run puts another plugin where it lay, and a changed one beside it.
    std::fs::copy(guests::component("orders"), &named.file).unwrap();
    std::fs::write(named.folder.join("z.wasm"), other(0)).unwrap();
    for _ in 0..3 {
        assert!(!named.has_grants(&[]));
    }
    // The one that was granted them is back.
    std::fs::write(&named.file, probe()).unwrap();
    std::fs::remove_file(named.folder.join("z.wasm")).unwrap();
    assert!(named.has_grants(&[]));
}

#[test]
fn another_plugin_in_its_place_makes_room_for_no_unsigned_one() {
    let named = Named::new();
    let (key, public) = keys(&named.host, "acme.key");
    sign(&named.host, &named.file, &key);
    let file = text(&named.file);
    let installed = named.outside(&["install", file, "--yes", "--publisher", text(&public)]);
    assert_eq!(installed.code, Some(0), "{}", installed.stderr);
    std::fs::copy(guests::component("orders"), &named.file).unwrap();
    std::fs::remove_file(named.folder.join("probe.wasm.minisig")).unwrap();
    std::fs::write(named.folder.join("z.wasm"), other(0)).unwrap();
    for _ in 0..3 {
        let list = named.outside(&["list"]);
        assert!(list.stdout.contains("orders__order"), "{}", list.stdout);
        assert!(list.stderr.contains("is installed and signed by RW"), "{}", list.stderr);
        assert!(!list.stdout.contains("probe__"), "{}", list.stdout);
    }
}

#[test]
fn what_lies_in_a_named_folder_is_left_there_when_its_plugin_is_removed() {
    let named = Named::new();
    assert_eq!(named.outside(&["install", text(&named.file), "--yes"]).code, Some(0));
    assert_eq!(named.outside(&["grant", "probe"]).code, Some(0));
    let own = component(&named.host, ".local/share/ml-intern/plugins/probe.wasm", &probe());
    let removed = named.outside(&["remove", "probe"]);
    assert_eq!(removed.code, Some(0), "{}", removed.stderr);
    let left = format!("left {}, which lies in a folder that you named", text(&named.file));
    assert!(removed.stdout.contains(&left) && removed.stdout.contains("revoked probe"), "{}", removed.stdout);
    assert_eq!(std::fs::read(&named.file).unwrap(), probe());
    assert!(!own.exists());
    // It is a stranger again.
    named.is_left_out();
    assert!(named.outside(&["info", "probe"]).stdout.contains("NOT granted"));
    // The folder of plugins stays that, also if it is named.
    let own = component(&named.host, ".local/share/ml-intern/plugins/probe.wasm", &probe());
    let folder = text(own.parent().unwrap());
    let removed = named.host.run(["plugin", "remove", "probe", "--plugin-dir", folder]);
    assert!(removed.code == Some(0) && !own.exists(), "{}", removed.stderr);
    assert!(!removed.stdout.contains("left "), "{}", removed.stdout);
}

#[test]
fn a_plugin_whose_file_cannot_be_deleted_keeps_all_it_has() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    let host = host.for_nobody();
    let done = |arguments: &[&str]| {
        let ran = host.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout
    };
    done(&["plugin", "install", text(&file), "--yes"]);
    done(&["plugin", "grant", "probe"]);
    let arguments = json!({"trick": "write_directly", "with": "/data/kept"});
    assert_eq!(host.tool("probe__probe", &arguments, &[])["output"], "written");
    let folder = host.home.join(".local/share/ml-intern/plugins");
    let mode = |mode: u32| {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    let refused = host.run(["plugin", "remove", "probe"]);
    assert_eq!(refused.code, Some(3), "{}", refused.stdout);
    assert!(
        refused.stderr.contains("you cannot delete it") && refused.stderr.contains("nothing was removed")
    );
    assert!(folder.join("probe.wasm").exists() && stored(&host) == ["probe"]);
    assert!(done(&["plugin", "info", "probe"]).contains("— granted"));
    assert!(!done(&["audit", "show"]).contains("remove    probe"));
    mode(0o700);
    done(&["plugin", "remove", "probe"]);
    assert!(!folder.join("probe.wasm").exists() && stored(&host).is_empty());
}

#[test]
fn a_link_among_the_users_plugins_counts_as_the_place_it_leads_to() {
    for is_hard in [false, true] {
        let host = TestHost::new([]);
        let outside = host.home.join("outside");
        std::fs::create_dir(&outside).unwrap();
        let file = host.workspace.join("probe.wasm");
        std::fs::write(&file, probe()).unwrap();
        let folder = host.home.join(".local/share/ml-intern/plugins");
        std::fs::create_dir_all(&folder).unwrap();
        let link = folder.join("probe.wasm");
        if is_hard {
            std::fs::hard_link(&file, &link).unwrap();
        } else {
            std::os::unix::fs::symlink(&file, &link).unwrap();
        }
        let at = |more: &[&str]| host.run([&["plugin"], more, &["-C", text(&outside)]].concat());
        assert_eq!(at(&["grant", "probe"]).code, Some(0));
        let granted = || at(&["info", "probe"]).stdout.contains("— granted");
        assert!(granted() && host.run(["plugin", "list"]).stdout.contains("probe__probe"));
        // A run changes the file.
        std::fs::write(&file, other(0)).unwrap();
        if !is_hard {
            let list = host.run(["plugin", "list"]);
            assert!(!list.stdout.contains("probe__") && list.stderr.contains(WRITABLE), "{}", list.stderr);
        }
        assert!(!granted());
        // The link goes; what it led to is not the program's.
        assert_eq!(at(&["remove", "probe"]).code, Some(0));
        assert!(file.exists() && !link.is_symlink() && !link.exists());
    }
}

fn stored(host: &TestHost) -> Vec<String> {
    let folder = host.home.join(".local/share/ml-intern/plugin-data");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_plugin_that_is_signed_later_leaves_nothing_behind_when_it_is_removed() {
    let host = TestHost::new([]);
    let file = component(&host, "new/probe.wasm", &probe());
    let keep = || {
        assert_eq!(host.run(["plugin", "grant", "probe"]).code, Some(0));
        let arguments = json!({"trick": "write_directly", "with": "/data/kept"});
        assert_eq!(host.tool("probe__probe", &arguments, &[])["output"], "written");
    };
    assert_eq!(install(&host, &file, &[]).code, Some(0));
    keep();
    let (key, public) = keys(&host, "acme.key");
    sign(&host, &file, &key);
    let signed = install(&host, &file, &["--publisher", text(&public)]);
    assert!(
        signed.stdout.contains("what `probe` stored stays with the one without a signature"),
        "{}",
        signed.stdout
    );
    keep();
    let data = host.home.join(".local/share/ml-intern/plugin-data");
    std::fs::write(data.join("probe.read"), "a place").unwrap();
    for of_others in ["probe.project-0123", "prober"] {
        std::fs::create_dir(data.join(of_others)).unwrap();
    }
    assert_eq!(stored(&host).len(), 5);
    assert_eq!(host.run(["plugin", "remove", "probe"]).code, Some(0));
    assert_eq!(stored(&host), ["probe.project-0123", "prober"]);
}

#[test]
fn what_cannot_be_used_is_removed_by_its_id_with_all_it_has() {
    let host = TestHost::new([]);
    let place = host.home.join(".local/share/ml-intern/plugins/probe.wasm");
    let file = component(&host, "new/probe.wasm", &probe());
    let leave_out: [(&str, &dyn Fn()); 4] = [
        ("changed", &|| std::fs::write(&place, altered("Misbehaves", "Is so nice")).unwrap()),
        ("broken", &|| std::fs::write(&place, "no component").unwrap()),
        ("deleted", &|| std::fs::remove_file(&place).unwrap()),
        ("doubled", &|| {
            std::fs::copy(&place, place.with_file_name("again.wasm")).unwrap();
        }),
    ];
    for (name, leave_out) in leave_out {
        assert_eq!(install(&host, &file, &[]).code, Some(0), "{name}");
        assert_eq!(host.run(["plugin", "grant", "probe"]).code, Some(0), "{name}");
        let arguments = json!({"trick": "write_directly", "with": "/data/kept"});
        assert_eq!(host.tool("probe__probe", &arguments, &[])["output"], "written");
        leave_out();
        let removed = host.run(["plugin", "remove", "probe"]);
        assert_eq!(removed.code, Some(0), "{name}: {}", removed.stderr);
        assert!(removed.stdout.contains("revoked probe: exec"), "{name}: {}", removed.stdout);
        assert!(stored(&host).is_empty() && !place.exists(), "{name}");
        assert_eq!(std::fs::read_dir(place.parent().unwrap()).unwrap().count(), 0, "{name}");
        assert!(host.run(["plugin", "remove", "probe"]).stderr.contains("there is no plugin"), "{name}");
    }
    for nobody in ["nobody", "../plugins", "", "PROBE"] {
        assert_eq!(host.run(["plugin", "remove", nobody]).code, Some(2), "{nobody}");
    }
}

fn code_of(host: &TestHost) -> Vec<u64> {
    let folder = host.home.join(".cache/ml-intern/compiled");
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<u64> = entries.map(|entry| entry.unwrap().metadata().unwrap().ino()).collect();
    files.sort_unstable();
    files
}

fn listed(host: &TestHost, folder: &Path) -> String {
    host.run(["plugin", "list", "--plugin-dir", text(folder)]).stderr
}

#[test]
fn what_cannot_be_used_is_compiled_once() {
    let host = TestHost::new([]);
    let mut guest = Guest::new("traps");
    guest.describe = "unreachable".to_owned();
    let file = component(&host, "plugins/traps.wasm", &guest.component());
    let folder = file.parent().unwrap();
    let first = listed(&host, folder);
    assert!(first.contains("compiling it once") && first.contains("its description failed"), "{first}");
    assert_eq!(code_of(&host).len(), 1);
    let again = listed(&host, folder);
    assert!(!again.contains("compiling it once") && again.contains("at an earlier start"), "{again}");
    std::fs::remove_file(&file).unwrap();
    // One that describes itself differently is described at each start, from the code that was kept.
    let probes = component(&host, "plugins/probe.wasm", &probe());
    listed(&host, folder);
    std::fs::write(&probes, altered("Misbehaves.", "Obey me now")).unwrap();
    let changed = listed(&host, folder);
    assert!(changed.contains("describes itself differently"), "{changed}");
    let code = code_of(&host);
    assert!(listed(&host, folder).contains("describes itself differently"));
    assert_eq!((code.len(), code_of(&host)), (3, code));
}

#[test]
fn what_met_a_limit_is_compiled_where_there_is_more() {
    let host = TestHost::new([]);
    let file = component(&host, "plugins/probe.wasm", &probe());
    let folder = file.parent().unwrap();
    let with = |bytes: u64| {
        host.settings(&json!({"limits": {"compile_memory_bytes": bytes}}));
        listed(&host, folder)
    };
    let refused = with(1 << 20);
    assert!(refused.contains("cannot be compiled: it took more than 1 MiB"), "{refused}");
    assert!(with(1 << 20).contains("at an earlier start"));
    let more = with(1 << 31);
    assert!(more.contains("compiling it once") && !more.contains("cannot be compiled"), "{more}");
}
