//! The lock index: all that start-up has to know of plugins that are not bundled, in one file. What stands
//! in it was let in by a person, so it ends with a MAC under a key that lies elsewhere.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use policy::PublisherKey;
use rustix::fs::{FlockOperation, flock};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::catalog::PluginDirs;
use crate::describe::Described;
use crate::{PluginError, key};

/// The format this host reads and writes.
const VERSION: u32 = 3;

/// Tells this MAC from others under the same key.
const CONTEXT: &str = "ml-intern plugin lock index";

/// Components that are remembered as not compiling.
const MAX_BROKEN: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Index {
    path: PathBuf,
    key: PathBuf,
    lock: Lock,
    changed: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Lock {
    version: u32,
    plugins: Vec<Entry>,
    /// The highest version of each plugin that was ever let in, also after it was removed.
    highest: BTreeMap<String, String>,
    /// The one before this could not be believed: nothing is let in because it is new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    begun_anew: bool,
    /// Components that could not be compiled, oldest first: each would cost its time again at every start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    broken: Vec<Broken>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Broken {
    digest: String,
    /// The program that could not compile it; another one tries again.
    host: String,
    reason: String,
}

/// A component file as it was when it was described.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    stamp: Stamp,
    /// Digest of the manifest and descriptions that a person let in.
    pub(crate) approval: String,
    /// Of a project: let in by its digest alone, and not under its id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) project: bool,
    pub(crate) described: Described,
}

/// What changes when a file is written or replaced.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Stamp {
    size: u64,
    inode: u64,
    modified_ns: i128,
    changed_ns: i128,
}

impl Stamp {
    pub(crate) fn of(metadata: &std::fs::Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Self {
            size: metadata.size(),
            inode: metadata.ino(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Index {
    /// Reads the index; one that is not there is empty.
    ///
    /// # Errors
    /// When it cannot be read, or was not written by this user's host.
    pub(crate) fn read(dirs: &PluginDirs) -> Result<Self, PluginError> {
        let path = dirs.index.clone();
        let failed = |reason: String| PluginError::Index { path: path.clone(), action: "read", reason };
        let lock = match std::fs::read(&path) {
            Ok(bytes) => {
                let key = key::existing(&dirs.key).map_err(failed)?;
                let changed = |reason| PluginError::IndexChanged { path: path.clone(), reason };
                parse(&bytes, key.as_ref()).map_err(changed)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Lock::default(),
            Err(error) => return Err(failed(error.to_string())),
        };
        Ok(Self { path, key: dirs.key.clone(), lock, changed: false })
    }

    /// Reads the index, or begins a new one in the place of one that cannot be believed, and says why.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn read_or_begin(dirs: &PluginDirs) -> Result<(Self, Option<PluginError>), PluginError> {
        match Self::read(dirs) {
            Err(error @ PluginError::IndexChanged { .. }) => {
                let lock = Lock { begun_anew: true, ..Lock::default() };
                let (path, key) = (dirs.index.clone(), dirs.key.clone());
                Ok((Self { path, key, lock, changed: false }, Some(error)))
            }
            read => Ok((read?, None)),
        }
    }

    /// Changes the index as it is now, while no other process does.
    ///
    /// # Errors
    /// When it cannot be read, locked or written.
    pub(crate) fn change(dirs: &PluginDirs, edit: impl FnOnce(&mut Self)) -> Result<(), PluginError> {
        let folder = dirs.index.parent().unwrap_or(Path::new("."));
        let lock = || {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            let mut options = OpenOptions::new();
            let path = dirs.index.with_extension("lock");
            let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok::<File, std::io::Error>(file)
        };
        let failed = |e: std::io::Error| PluginError::Index {
            path: dirs.index.clone(),
            action: "locked",
            reason: e.to_string(),
        };
        let _alone = lock().map_err(failed)?;
        let (mut index, _) = Self::read_or_begin(dirs)?;
        edit(&mut index);
        index.save()
    }

    /// Why a component could not be compiled the last time, if this program tried.
    pub(crate) fn broken(&self, digest: &str) -> Option<&str> {
        let broken = self.lock.broken.iter().find(|broken| broken.digest == digest && broken.host == host());
        broken.map(|broken| broken.reason.as_str())
    }

    /// Remembers that a component could not be compiled.
    pub(crate) fn put_broken(&mut self, digest: String, reason: String) {
        self.forgive(&digest);
        let excess = (self.lock.broken.len() + 1).saturating_sub(MAX_BROKEN);
        self.lock.broken.drain(..excess);
        self.lock.broken.push(Broken { digest, host: host(), reason });
        self.changed = true;
    }

    /// Forgets that a component could not be compiled.
    pub(crate) fn forgive(&mut self, digest: &str) {
        let before = self.lock.broken.len();
        self.lock.broken.retain(|broken| broken.digest != digest);
        self.changed |= self.lock.broken.len() != before;
    }

    /// The keys of the publishers whose plugins were let in.
    pub(crate) fn publishers(&self) -> impl Iterator<Item = &PublisherKey> {
        self.lock.plugins.iter().filter_map(|e| Some(&e.described.publisher.as_ref()?.key))
    }

    /// Whether nothing is let in any more because it is new.
    pub(crate) fn begun_anew(&self) -> bool {
        self.lock.begun_anew
    }

    /// The description of a file that is as it was.
    pub(crate) fn unchanged(&self, path: &Path, stamp: &Stamp) -> Option<&Described> {
        self.entry(path).filter(|e| !e.project && e.stamp == *stamp).map(|e| &e.described)
    }

    pub(crate) fn entry(&self, path: &Path) -> Option<&Entry> {
        self.lock.plugins.iter().find(|e| e.path == path)
    }

    /// What a person let in under an id, wherever it lay.
    pub(crate) fn of_id(&self, id: &str) -> Option<&Entry> {
        self.lock.plugins.iter().find(|e| !e.project && e.described.manifest.id == id)
    }

    /// The highest version of a plugin that was ever let in.
    pub(crate) fn highest(&self, id: &str) -> Option<&str> {
        self.lock.highest.get(id).map(String::as_str)
    }

    /// Whether a plugin that was described at a start may be put in by it: unless a person let in another one.
    pub(crate) fn agrees(&self, described: &Described) -> bool {
        let manifest::Manifest { id, version, .. } = &described.manifest;
        match self.of_id(id) {
            Some(known) => known.approval == described.approval(),
            None => !self.begun_anew() && self.highest(id).is_none_or(|highest| !is_older(version, highest)),
        }
    }

    /// Lets a file in as it is.
    pub(crate) fn put(&mut self, path: &Path, stamp: Stamp, described: Described) {
        let (id, version) = (&described.manifest.id, &described.manifest.version);
        self.lock.plugins.retain(|e| e.project || e.described.manifest.id != *id);
        if self.highest(id).is_none_or(|highest| !is_older(version, highest)) {
            self.lock.highest.insert(id.clone(), version.clone());
        }
        self.add(path, stamp, described, false);
    }

    /// Lets a file of a project in as it is. Its id says nothing about others.
    pub(crate) fn put_project(&mut self, path: &Path, stamp: Stamp, described: Described) {
        self.add(path, stamp, described, true);
    }

    fn add(&mut self, path: &Path, stamp: Stamp, described: Described, project: bool) {
        self.lock.plugins.retain(|e| e.path != path);
        let approval = described.approval();
        self.lock.plugins.push(Entry { path: path.to_owned(), stamp, approval, project, described });
        self.changed = true;
    }

    /// Forgets what was let in under an id; not which version it had.
    pub(crate) fn forget(&mut self, id: &str) {
        let before = self.lock.plugins.len();
        self.lock.plugins.retain(|e| e.project || e.described.manifest.id != id);
        self.changed |= self.lock.plugins.len() != before;
    }

    /// Writes what changed.
    pub(crate) fn save(&mut self) -> Result<(), PluginError> {
        if !std::mem::take(&mut self.changed) {
            return Ok(());
        }
        let failed =
            |reason: String| PluginError::Index { path: self.path.clone(), action: "written", reason };
        self.lock.version = VERSION;
        let json = serde_json::to_string(&self.lock).map_err(|e| failed(e.to_string()))?;
        let key = key::existing_or_new(&self.key).map_err(failed)?;
        let text = format!("{json}\n{}\n", mac_of(&key, json.as_bytes()).to_hex());
        let temporary = self.path.with_extension(format!("{}.tmp", std::process::id()));
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let written = DirBuilder::new().recursive(true).mode(0o700).create(folder).and_then(|()| {
            let mut options = OpenOptions::new();
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            std::io::Write::write_all(&mut file, text.as_bytes())?;
            std::fs::rename(&temporary, &self.path)
        });
        written.map_err(|e| failed(e.to_string()))
    }
}

/// Takes an index apart whose MAC is right.
fn parse(bytes: &[u8], key: Option<&[u8; 32]>) -> Result<Lock, String> {
    let changed = || "it was not written by this program, or it was changed".to_owned();
    let text = std::str::from_utf8(bytes).map_err(|_| changed())?;
    let (json, mac) = text.trim_end().rsplit_once('\n').ok_or_else(changed)?;
    let key = key.ok_or("the key that vouches for it is gone")?;
    // In one way of writing it only.
    let mac = blake3::Hash::from_hex(mac).ok().filter(|hash| *hash.to_hex() == *mac).ok_or_else(changed)?;
    // Hashes are compared in constant time.
    if mac_of(key, json.as_bytes()) != mac {
        return Err(changed());
    }
    let lock: Lock = serde_json::from_str(json).map_err(|e| e.to_string())?;
    if lock.version == VERSION { Ok(lock) } else { Err(format!("it has format {}", lock.version)) }
}

/// This program, as far as it decides what compiles.
fn host() -> String {
    format!("{} on {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

fn mac_of(key: &[u8; 32], json: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(&blake3::derive_key(CONTEXT, key), json)
}

/// Whether a version is lower than another. One that is no version is lower than one that is.
pub(crate) fn is_older(version: &str, than: &str) -> bool {
    match (Version::parse(version), Version::parse(than)) {
        (Ok(version), Ok(than)) => version.cmp_precedence(&than).is_lt(),
        (Err(_), Ok(_)) => true,
        (_, Err(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions_are_compared_as_versions() {
        assert!(
            is_older("1.9.0", "1.10.0") && is_older("1.0.0-rc.1", "1.0.0") && is_older("newest", "0.1.0")
        );
        assert!(!is_older("1.10.0", "1.9.0") && !is_older("1.0.0", "1.0.0") && !is_older("2", "1"));
    }

    fn described(id: &str, version: &str) -> Described {
        let manifest = format!(
            "id = \"{id}\"\nversion = \"{version}\"\ndescription = \"d\"\n[tools.t]\ntier = \"write\"\n"
        );
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
        index.put(Path::new("/p.wasm"), stamp(), described("p", "1.0.0"));
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
            index.put(Path::new("/p.wasm"), stamp(), described("p", version));
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
            Index::change(&dirs, |index| index.put(Path::new(id), stamp(), described(id, version))).unwrap();
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
                    Index::change(&dirs, |i| i.put(Path::new(&id), stamp(), described(&id, "1.0.0")))
                        .unwrap();
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
            Index::change(&dirs, |index| index.put_broken(digest, "too much".to_owned())).unwrap();
        };
        (0..=MAX_BROKEN).for_each(|k| put(k.to_string()));
        let index = Index::read(&dirs).unwrap();
        assert_eq!((index.broken("0"), index.broken("1")), (None, Some("too much")));
        Index::change(&dirs, |index| index.forgive("1")).unwrap();
        assert_eq!(Index::read(&dirs).unwrap().broken("1"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_other_byte_is_noticed(
            at in any::<prop::sample::Index>(), flip in 1..=255_u8, junk in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let key = [3; 32];
            let entry = Entry {
                path: "/p.wasm".into(), stamp: stamp(), approval: "a".to_owned(), project: false, described: described("p", "1.0.0"),
            };
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
}
