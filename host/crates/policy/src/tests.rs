use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use proptest::prelude::*;

use super::*;
use manifest::Tier;

const FILE: &str = "/etc/ml-intern/policy.toml";
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

fn parse(text: &str) -> Result<Policy, String> {
    Policy::parse(Path::new(FILE), text).map_err(|error| error.to_string())
}

fn policy(text: &str) -> Policy {
    parse(&format!("version = 1\n{text}")).unwrap()
}

fn facts<'a>(id: &'a str, version: &'a str, digest: &'a str) -> PluginFacts<'a> {
    PluginFacts { id, version, digest, publisher: None, bundled: false }
}

#[test]
fn what_is_wrong_is_told_with_line_and_column() {
    let error = |text: &str| parse(text).unwrap_err();
    assert_eq!(
        error("version = 2"),
        format!("{FILE}:1:11: version 2 of policies is not known to this program; it reads 1")
    );
    assert!(error("").contains("`version = 1` is missing"));
    assert!(error("version = 1\nmod = \"ask\"").starts_with(&format!("{FILE}:2:1: unknown field `mod`")));
    assert!(
        error("version = 1\n[wall]\nforbid = [\"none\"]")
            .starts_with(&format!("{FILE}:3:11: unknown variant `none`"))
    );
    assert!(
        error("version = 1\n[network]\n  allow = [\"https://a.b\", \"a.b\"]")
            .starts_with(&format!("{FILE}:3:"))
    );
    assert!(error("version = 1\n[network]\ndeny = [\"https://a.b\"]").contains("names no host"));
    assert!(error("version = 1\n[budget]\nmax_usd = nan").starts_with(&format!("{FILE}:3:11: `max_usd`")));
    assert!(error("version = 1\n[budget]\nmax_usd = -1.0").contains("`max_usd`"));
    assert!(error("version = 1\n[flags]\nforbid = [\"yolo\"]").contains("write the long form"));
    assert!(error("version = 1\n[audit]\nfolder = \"logs\"").contains("a path from `/` on"));
    assert!(error("version = 1\nmode = \"ask\"\nforbid_modes = [\"ask\"]").contains("also among"));
    assert!(error("version = 1\n[rules]\ndeny = [\" \"]").contains("a rule is empty"));
    let digest = error("version = 1\n[plugins]\nrevoked = [\"abc\"]");
    assert!(digest.starts_with(&format!("{FILE}:3:")) && digest.contains("`abc` is no digest"), "{digest}");
    assert!(
        error("version = 1\n[plugins]\nrevoked_publishers = [\"RWabc\"]").contains("is no publisher key")
    );
    assert!(error("version = 1\n[plugins]\nallow = [{id = \"x\"}]").contains("by its name alone"));
    assert!(error("version = 1\n[plugins]\nallow = [{id = \"X\", publisher = \"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"}]").contains("no plugin id"));
}

#[test]
fn a_plugin_has_to_be_the_one_that_is_listed() {
    let (digest, revoked) = ("a".repeat(64), format!("RWQ{}", "A".repeat(53)));
    let text = format!(
        "[plugins]\nonly_listed = true\nrevoked = [\"sha256:{}\"]\nrevoked_publishers = [\"{revoked}\"]\nbundled = {{shell = false}}\nallow = [\n  {{id = \"signed\", publisher = \"{KEY}\", min_version = \"1.10.0\"}},\n  {{id = \"pinned\", digests = [\"sha256:{digest}\"]}},\n]\n",
        "b".repeat(64)
    );
    let policy = policy(&text);
    let why = |facts: PluginFacts<'_>| policy.plugin(facts).err().map(|e| e.to_string());
    assert_eq!(why(facts("pinned", "0.1.0", &digest)), None);
    assert!(why(facts("pinned", "0.1.0", &"c".repeat(64))).unwrap().contains("its digest is sha256:ccc"));
    assert_eq!(
        why(facts("other", "0.1.0", &digest)).unwrap(),
        format!("plugin `other` (it is not listed there) is forbidden by {FILE}:3")
    );
    assert!(why(facts("pinned", "0.1.0", &"b".repeat(64))).unwrap().contains("is revoked"));
    let signed = PluginFacts { publisher: Some(KEY), ..facts("signed", "1.10.0", &digest) };
    assert_eq!(why(signed), None);
    assert!(why(PluginFacts { publisher: None, ..signed }).unwrap().contains("is not signed by RWQf"));
    for older in ["1.9.9", "1.10.0-rc.1", "next"] {
        assert!(
            why(PluginFacts { version: older, ..signed }).unwrap().contains("older than 1.10.0"),
            "{older}"
        );
    }
    assert!(
        why(PluginFacts { publisher: Some(&revoked), ..signed })
            .unwrap()
            .contains("publisher's key is revoked")
    );
    let bundled = |id| PluginFacts { bundled: true, ..facts(id, "0.1.0", &digest) };
    assert!(why(bundled("shell")).unwrap().contains("it is left out"));
    assert_eq!(why(bundled("plan")), None);
}

#[test]
fn modes_are_forced_forbidden_and_never_loosened() {
    let forced = policy("mode = \"ask\"");
    assert_eq!(forced.mode(None, Mode::Auto), Ok(Mode::Ask));
    assert_eq!(forced.mode(Some((Mode::Ask, "--permission-mode ask")), Mode::Auto), Ok(Mode::Ask));
    assert_eq!(
        forced.mode(Some((Mode::Yolo, "--yolo")), Mode::Auto).unwrap_err().to_string(),
        format!("--yolo is forbidden by {FILE}:2")
    );
    let some = policy("forbid_modes = [\"yolo\", \"auto\"]");
    assert_eq!(some.mode(None, Mode::Auto), Ok(Mode::Ask));
    assert_eq!(some.mode(None, Mode::Default), Ok(Mode::Default));
    assert!(some.mode(Some((Mode::Auto, "--permission-mode auto")), Mode::Auto).is_err());
    let all = policy("forbid_modes = [\"yolo\", \"auto\", \"default\", \"ask\", \"plan\"]");
    assert!(all.mode(None, Mode::Auto).is_err());
    assert_eq!(Policy::default().mode(Some((Mode::Yolo, "")), Mode::Auto), Ok(Mode::Yolo));
}

#[test]
fn commands_models_tiers_and_walls_have_bounds() {
    let origin = |url: &str| {
        let policy = policy(&format!("[models]\norigins = [\"{url}\"]"));
        let rule = &policy.rules().models.origins.as_ref().unwrap().get_ref()[0];
        rule.0.to_string()
    };
    assert!(origin("https://router.huggingface.co").starts_with("https://router.huggingface.co"));
    // Completions are asked for by POST, and the rule names a place.
    let posted = policy("[models]\norigins = [\"https://a.example POST\"]");
    let place = |url: &str| egress::Origin::of(&url.parse().unwrap()).unwrap();
    assert!(posted.model("a/b", &place("https://a.example")).is_ok());
    assert!(posted.model("a/b", &place("https://b.example")).is_err());
    let bounds = policy(
        "[network]\nallow = []\nmirrors = [\"https://m\"]\n[models]\norigins = [\"https://a.example\"]",
    );
    let ceiling = bounds.ceiling();
    assert_eq!((ceiling.allow.map(|all| all.len()), ceiling.models.map(|all| all.len())), (Some(0), Some(1)));
    assert_eq!(ceiling.mirrors[0].to_string(), "https://m GET HEAD");
    assert!(
        bounds
            .sentences()
            .contains(&"Network: users may have an allowed origin mirrored at https://m.".to_owned())
    );
    let bound = policy(
        "[network]\ncommands = \"gateway\"\n[tiers]\ndeny = [\"spend\"]\n[wall]\ngrade = \"partial\"\nforbid = [\"off\"]",
    );
    assert!(bound.commands(Commands::Open, "--network open").is_err());
    assert_eq!(bound.commands(Commands::Gateway, ""), Ok(()));
    assert!(bound.tier(Tier::Spend).is_err() && bound.tier(Tier::Remote).is_ok());
    assert!(bound.wall(WallMode::Off, "--wall off").is_err() && bound.wall(WallMode::External, "").is_ok());
    assert!(bound.grade(None).is_err() && bound.grade(Some(Grade::Partial)).is_ok());
    assert!(policy("[wall]\ngrade = \"full\"").grade(Some(Grade::Partial)).is_err());
    let offline = policy("[network]\noffline = true");
    assert!(offline.is_offline() && offline.commands(Commands::Open, "x").is_err());
    assert_eq!(offline.commands(Commands::Off, "x"), Ok(()));
}

#[test]
fn patterns_cover_what_they_say() {
    for (pattern, text) in
        [("*", ""), ("a/*", "a/b:c"), ("*:novita", "a/b:novita"), ("a*b*c", "aXbYbc"), ("ab", "ab")]
    {
        assert!(matches(pattern, text), "{pattern} {text}");
    }
    for (pattern, text) in
        [("a/*", "b/a/x"), ("ab", "abc"), ("*:novita", "a:novita2"), ("a*a", "a"), ("", "a")]
    {
        assert!(!matches(pattern, text), "{pattern} {text}");
    }
}

/// A folder that belongs to us alone, and the rule that says so.
fn trusted(dir: &Path) -> Owner<'_> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    Owner::Only { uid: rustix::process::geteuid().as_raw(), below: dir }
}

#[test]
fn only_a_file_that_nobody_else_could_write_counts() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let folder = dir.join("ml-intern");
    let path = folder.join("policy.toml");
    let read = || Policy::read(&path, trusted(&dir)).map(|found| found.is_some()).map_err(|e| e.to_string());
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(read(), Ok(false));
    fs::create_dir(&folder).unwrap();
    mode(&folder, 0o777);
    assert_eq!(read(), Ok(false), "no policy: nothing to trust");
    fs::write(&path, "version = 1\n").unwrap();
    mode(&path, 0o644);
    assert!(read().unwrap_err().contains("ml-intern can be written by others (mode 777)"), "{:?}", read());
    mode(&folder, 0o755);
    assert_eq!(read(), Ok(true));
    for bad in [0o664, 0o646, 0o666] {
        mode(&path, bad);
        assert!(read().unwrap_err().contains("policy.toml can be written by others"), "{bad:o}");
    }
    mode(&path, 0o600);
    assert_eq!(read(), Ok(true));
    let me = rustix::process::geteuid().as_raw();
    let stranger = Policy::read(&path, Owner::Only { uid: me + 1, below: &dir }).unwrap_err().to_string();
    assert!(stranger.contains("belongs to user") && stranger.contains("and not to"), "{stranger}");
    // A link is refused wherever it stands.
    fs::rename(&path, folder.join("real.toml")).unwrap();
    symlink("real.toml", &path).unwrap();
    assert!(read().unwrap_err().contains("policy.toml is a link"), "{:?}", read());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(read().unwrap_err().contains("is not a regular file"));
    fs::rename(&folder, dir.join("elsewhere")).unwrap();
    symlink("elsewhere", &folder).unwrap();
    assert!(read().unwrap_err().contains("ml-intern is a link"), "{:?}", read());
}

#[test]
fn pipes_large_files_and_foreign_bytes_end_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let path = dir.join("policy.toml");
    let read = || Policy::read(&path, trusted(&dir)).unwrap_err().to_string();
    let flags = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, flags, 0).unwrap();
    assert!(read().contains("is not a regular file"));
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert!(read().contains("more than 1048576 bytes"));
    fs::write(&path, b"version = 1\n# \xff").unwrap();
    assert!(read().contains("is not UTF-8"));
    assert!(Policy::read(&dir.join("../policy.toml"), trusted(&dir)).is_err());
    assert!(Policy::read(Path::new("policy.toml"), Owner::root()).is_err());
}

/// One of everything, as a start for what breaks it.
const ALL: &str = include_str!("../../../../configs/policy.example.toml");

#[test]
fn the_example_is_a_policy_and_says_what_it_does() {
    let policy = parse(ALL).unwrap();
    let said = policy.sentences().join("\n");
    for sentence in [
        "Mode: nobody may use permission mode yolo.",
        "Plugins: only bundled ones and those listed here.",
        "Calls: none of tier spend, destructive runs.",
        "Network: plugins reach at most",
        "Network: commands reach nothing.",
        "Wall: without one of grade partial or better nothing starts.",
        "Audit: each record is on the disk before what it allows happens.",
        "Traces: none are shared.",
    ] {
        assert!(said.contains(sentence), "{sentence}\n{said}");
    }
    assert_eq!(Policy::parse(Path::new(FILE), "version = 1").unwrap().sentences(), ["It forbids nothing."]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_changed_example_is_read_or_refused(
        at in 0..ALL.len(), cut in 0..40_usize, put in "[a-z\"\\[\\]{}=.#\n0-9é-]{0,12}",
    ) {
        let mut bytes = ALL.as_bytes().to_vec();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, put.bytes());
        if let Ok(policy) = parse(&String::from_utf8_lossy(&bytes)) {
            prop_assert!(!policy.sentences().is_empty());
            drop(policy.ceiling());
        }
    }
}
