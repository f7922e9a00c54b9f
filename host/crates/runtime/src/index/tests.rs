use proptest::prelude::*;

use super::*;

#[test]
fn versions_are_compared_as_versions() {
    assert!(is_older("1.9.0", "1.10.0") && is_older("1.0.0-rc.1", "1.0.0") && is_older("newest", "0.1.0"));
    assert!(!is_older("1.10.0", "1.9.0") && !is_older("1.0.0", "1.0.0") && !is_older("2", "1"));
}

fn described(id: &str, version: &str) -> Described {
    let manifest =
        format!("id = \"{id}\"\nversion = \"{version}\"\ndescription = \"d\"\n[tools.t]\ntier = \"write\"\n");
    Described {
        digest: "0123".to_owned(),
        manifest: manifest::Manifest::from_toml(&manifest).unwrap(),
        imports: Vec::new(),
        tools: Vec::new(),
        unseen: String::new(),
        publisher: None,
    }
}

fn stamp() -> Stamp {
    Stamp { size: 1, inode: 2, modified_ns: 3, changed_ns: 4 }
}

#[test]
fn an_index_that_was_changed_is_named_and_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let dirs = PluginDirs::below(folder.path());
    let mut index = Index::read(&dirs).unwrap();
    index.let_in(Path::new("/p.wasm"), stamp(), described("p", "1.0.0"));
    index.save().unwrap();
    let good = std::fs::read_to_string(&dirs.index).unwrap();
    assert!(Index::read(&dirs).unwrap().unchanged(Path::new("/p.wasm"), &stamp()).is_some());
    let entry = Index::read(&dirs).unwrap().of_id("p").unwrap().approval.clone();
    let refused = |text: &str| {
        assert_ne!(text, good);
        std::fs::write(&dirs.index, text).unwrap();
        let told = Index::read(&dirs).unwrap_err().to_string();
        assert!(
            told.contains("plugins.lock.json: ") && told.contains("`ml-intern plugin install FILE`"),
            "{told}"
        );
        // What is begun in its place holds nothing, and takes nothing in because it is new.
        let (begun, why) = Index::read_or_begin(&dirs).unwrap();
        assert!(begun.begun_anew() && begun.of_id("p").is_none() && why.is_some());
        told
    };
    for (from, to) in [
        ("\"write\"", "\"read\""),
        ("1.0.0", "0.0.1"),
        ("\"0123\"", "\"4567\""),
        (entry.as_str(), "0000"),
        ("/p.wasm", "/q.wasm"),
    ] {
        assert!(refused(&good.replace(from, to)).contains("or it was changed"), "{from}");
    }
    // One without a MAC, as older builds wrote it; what is no index; another format, vouched for.
    refused("{\"version\":1,\"plugins\":[]}");
    refused("{\"version\":1,\n\"plugins\":[]}");
    refused("");
    let key = key::existing(&dirs.key).unwrap().unwrap();
    let other = "{\"version\":4,\"plugins\":[],\"highest\":{}}";
    let told = refused(&format!("{other}\n{}\n", mac_of(&key, other.as_bytes()).to_hex()));
    assert!(told.contains("it has format 4"), "{told}");
    // Another key, none, and one of another length.
    std::fs::write(&dirs.index, &good).unwrap();
    std::fs::write(&dirs.key, [7; 32]).unwrap();
    assert!(Index::read(&dirs).unwrap_err().to_string().contains("or it was changed"));
    std::fs::write(&dirs.key, []).unwrap();
    assert!(Index::read(&dirs).unwrap_err().to_string().contains("is gone"));
    std::fs::remove_file(&dirs.key).unwrap();
    assert!(Index::read(&dirs).unwrap_err().to_string().contains("is gone"));
}

#[test]
fn the_highest_version_stays_when_a_plugin_goes() {
    let folder = tempfile::tempdir().unwrap();
    let dirs = PluginDirs::below(folder.path());
    let mut index = Index::read(&dirs).unwrap();
    for version in ["1.2.0", "1.10.0", "1.9.0"] {
        index.let_in(Path::new("/p.wasm"), stamp(), described("p", version));
    }
    index.forget("p");
    index.save().unwrap();
    let index = Index::read(&dirs).unwrap();
    assert_eq!((index.of_id("p").is_none(), index.highest("p")), (true, Some("1.10.0")));
}

#[test]
fn what_two_processes_let_in_is_both_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let dirs = PluginDirs::below(folder.path());
    // One that read the index long ago and is done only now, as a start that compiles.
    let _stale = Index::read(&dirs).unwrap();
    let put = |id: &str, version: &str| {
        Index::change(&dirs, |index| index.let_in(Path::new(id), stamp(), described(id, version))).unwrap();
    };
    put("q", "2.0.0");
    put("p", "1.0.0");
    let index = Index::read(&dirs).unwrap();
    assert!(index.of_id("p").is_some() && index.of_id("q").is_some());
    assert_eq!(index.highest("q"), Some("2.0.0"));
    let threads: Vec<_> = (0..8)
        .map(|k| {
            let dirs = dirs.clone();
            std::thread::spawn(move || {
                let id = format!("t{k}");
                Index::change(&dirs, |i| i.let_in(Path::new(&id), stamp(), described(&id, "1.0.0"))).unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let index = Index::read(&dirs).unwrap();
    assert!((0..8).all(|k| index.of_id(&format!("t{k}")).is_some()));
}

#[test]
fn what_did_not_compile_is_remembered_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let dirs = PluginDirs::below(folder.path());
    let put = |digest: String| {
        Index::change(&dirs, |index| index.put_broken(digest, "too much".to_owned(), None)).unwrap();
    };
    (0..=MAX_BROKEN).for_each(|k| put(k.to_string()));
    let index = Index::read(&dirs).unwrap();
    let limits = Limits::default();
    assert_eq!((index.broken("0", &limits), index.broken("1", &limits)), (None, Some("too much")));
    Index::change(&dirs, |index| index.forgive("1")).unwrap();
    assert_eq!(Index::read(&dirs).unwrap().broken("1", &limits), None);
}

#[test]
fn what_met_a_limit_is_tried_again_with_more() {
    let mut index = Index::default();
    let low = Limits { compile_s: 5, compile_memory_bytes: 1 << 20, ..Limits::default() };
    index.put_broken("slow".to_owned(), "it took long".to_owned(), Some(&low));
    index.put_broken("bad".to_owned(), "it is bad".to_owned(), None);
    let told = |index: &Index, digest: &str, limits: Limits| index.broken(digest, &limits).is_some();
    for (limits, is_told) in [
        (low, true),
        (Limits { compile_s: 4, ..low }, true),
        (Limits { compile_s: 6, ..low }, false),
        (Limits { compile_memory_bytes: 2 << 20, ..low }, false),
    ] {
        assert_eq!(told(&index, "slow", limits), is_told, "{limits:?}");
        assert!(told(&index, "bad", limits));
    }
}

#[test]
fn what_was_given_stays_with_what_it_was_given_to() {
    let with = |digest: &str| Described { digest: digest.to_owned(), ..described("p", "1.0.0") };
    let path = Path::new("/p.wasm");
    let mut index = Index::default();
    // A start that finds it because it is new is nobody's word.
    index.learn(path, stamp(), with("a"), true);
    let known = |index: &Index| {
        let entry = index.of_id("p").unwrap();
        (entry.given_to().to_owned(), entry.was_let_in(&entry.described.digest))
    };
    assert_eq!(known(&index), ("a".to_owned(), false));
    index.let_in(path, stamp(), with("a"));
    assert_eq!(known(&index), ("a".to_owned(), true));
    // Others write there: however often it is started, and wherever it moves.
    for (path, digest) in [("/p.wasm", "b"), ("/p.wasm", "c"), ("/q.wasm", "c")] {
        index.learn(Path::new(path), stamp(), with(digest), true);
        assert_eq!(known(&index), ("a".to_owned(), false));
        assert!(index.of_id("p").unwrap().was_let_in("a"));
    }
    // What it was given to is back.
    index.learn(path, stamp(), with("a"), true);
    assert_eq!(known(&index), ("a".to_owned(), true));
    index.learn(path, stamp(), with("b"), true);
    // A person vouches for what they saw, and for no other.
    index.vouch("p", "x");
    assert_eq!(known(&index), ("a".to_owned(), false));
    index.vouch("p", "b");
    assert_eq!(known(&index), ("b".to_owned(), true));
    // In a folder of plugins an update keeps its place, without a person's word for the bytes.
    index.learn(path, stamp(), with("c"), false);
    assert_eq!(known(&index), ("c".to_owned(), false));
}

#[test]
fn another_plugin_in_its_place_makes_nobody_forget_what_an_id_was_given() {
    let publisher = || crate::Publisher {
        key: "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".to_owned().try_into().unwrap(),
        comment: "c".to_owned(),
    };
    let with = |digest: &str| Described {
        digest: digest.to_owned(),
        publisher: Some(publisher()),
        ..described("p", "1.0.0")
    };
    let (path, elsewhere) = (Path::new("/p.wasm"), Path::new("/z.wasm"));
    let mut index = Index::default();
    index.let_in(path, stamp(), with("a"));
    // A start finds another plugin there, or a project's.
    index.learn(path, stamp(), described("q", "1.0.0"), true);
    assert!(index.of_id("q").is_some());
    index.put_project(path, stamp(), described("r", "1.0.0"));
    let known = index.of_id("p").unwrap();
    assert!(known.was_let_in("a") && known.described.publisher.is_some());
    assert!(index.entry(path).unwrap().project && index.unchanged(path, &stamp()).is_none());
    // The next one finds something of its id elsewhere, however often.
    for _ in 0..2 {
        index.learn(elsewhere, stamp(), with("b"), true);
        assert_eq!(index.of_id("p").unwrap().given_to(), "a");
    }
    // It comes back.
    index.learn(path, stamp(), with("a"), true);
    assert!(
        index.of_id("p").unwrap().was_let_in("a") && index.entry(path).unwrap().described.manifest.id == "p"
    );
    assert_eq!(index.lock.plugins.len(), 1);
    index.forget("p");
    assert!(index.of_id("p").is_none());
}

#[test]
fn a_file_that_nobody_let_in_takes_no_id_and_no_version_for_good() {
    let path = Path::new("/p.wasm");
    let mut index = Index::default();
    for id in ["p", "q", "r"] {
        index.learn(path, stamp(), described(id, "9.1.0"), true);
        assert_eq!((index.lock.plugins.len(), index.highest(id)), (1, None));
    }
    assert!(index.of_id("p").is_none() && index.agrees(&described("p", "0.1.0")));
    // A person's word counts, and so does what lies where the person alone writes.
    index.vouch("r", "0123");
    index.learn(Path::new("/own.wasm"), stamp(), described("s", "2.0.0"), false);
    assert_eq!((index.highest("r"), index.highest("s")), (Some("9.1.0"), Some("2.0.0")));
    index.learn(path, stamp(), described("t", "1.0.0"), true);
    assert!(index.of_id("r").is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_other_byte_is_noticed(
        at in any::<prop::sample::Index>(), flip in 1..=255_u8, junk in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let key = [3; 32];
        let entry = Entry::of(Path::new("/p.wasm"), stamp(), described("p", "1.0.0"));
        let lock = Lock { version: VERSION, plugins: vec![entry], ..Lock::default() };
        let json = serde_json::to_string(&lock).unwrap();
        let mut bytes = format!("{json}\n{}", mac_of(&key, json.as_bytes()).to_hex()).into_bytes();
        prop_assert!(parse(&bytes, Some(&key)).is_ok());
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(parse(&bytes, Some(&key)).is_err());
        prop_assert!(parse(&junk, Some(&key)).is_err());
        // Whatever is vouched for is read or refused as well.
        if let Ok(text) = std::str::from_utf8(&bytes[..json.len()]) {
            let vouched = format!("{text}\n{}", mac_of(&key, text.as_bytes()).to_hex());
            let _ = parse(vouched.as_bytes(), Some(&key));
        }
    }
}
