//! The lock index: all that start-up has to know of plugins that are not bundled, in one file. What stands
//! in it was let in by a person, so it ends with a MAC under a key that lies elsewhere.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use manifest::Manifest;
use policy::PublisherKey;
use rustix::fs::{FlockOperation, flock};
use semver::Version;
use serde::{Deserialize, Serialize};

use crate::catalog::PluginDirs;
use crate::describe::Described;
use crate::{Limits, PluginError, key};

/// The format this host reads and writes.
const VERSION: u32 = 3;

/// Tells this MAC from others under the same key.
const CONTEXT: &str = "ml-intern plugin lock index";

/// Components that are remembered as not usable.
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
    /// Components that cannot be used, oldest first: each would cost its time again at every start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    broken: Vec<Broken>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Broken {
    digest: String,
    /// The program that could not use it; another one tries again.
    host: String,
    reason: String,
    /// Where it met one of them: seconds and bytes of memory that it could have. With more it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limits: Option<(u32, u64)>,
}

/// A component file as it was when it was described.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    /// Empty: another plugin lies there now, and this one nowhere.
    pub(crate) path: PathBuf,
    stamp: Stamp,
    /// Digest of the manifest and descriptions that a person let in.
    pub(crate) approval: String,
    /// A person let in what its id was given things for. Otherwise a start took it in because it was new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    by_person: bool,
    /// Digest of the component that its id was given things for, if this is another: one that came in its place
    /// where others than the person write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    given_to: Option<String>,
    /// Of a project: let in by its digest alone, and not under its id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) project: bool,
    pub(crate) described: Described,
}

impl Entry {
    fn of(path: &Path, stamp: Stamp, described: Described) -> Self {
        let (path, approval) = (path.to_owned(), described.approval());
        Self { path, stamp, approval, by_person: false, given_to: None, project: false, described }
    }

    /// A person let it in, another one of its id was, or it is somebody's.
    fn is_held(&self) -> bool {
        self.by_person || self.given_to.is_some() || self.described.publisher.is_some()
    }

    /// Digest of the component that its id was given things for.
    pub(crate) fn given_to(&self) -> &str {
        self.given_to.as_ref().unwrap_or(&self.described.digest)
    }

    /// Whether a person let in the component with this digest.
    pub(crate) fn was_let_in(&self, digest: &str) -> bool {
        self.by_person && self.given_to() == digest
    }
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

    /// Why a component could not be used the last time, if this program tried and had no less for it.
    pub(crate) fn broken(&self, digest: &str, limits: &Limits) -> Option<&str> {
        let more = |&(seconds, bytes): &(u32, u64)| {
            limits.compile_s > seconds || limits.compile_memory_bytes > bytes
        };
        let broken = self.lock.broken.iter().find(|broken| broken.digest == digest && broken.host == host());
        broken.filter(|broken| !broken.limits.as_ref().is_some_and(more)).map(|broken| broken.reason.as_str())
    }

    /// Remembers that a component could not be used. `limits` are those that it met.
    pub(crate) fn put_broken(&mut self, digest: String, reason: String, limits: Option<&Limits>) {
        self.forgive(&digest);
        let excess = (self.lock.broken.len() + 1).saturating_sub(MAX_BROKEN);
        self.lock.broken.drain(..excess);
        let limits = limits.map(|limits| (limits.compile_s, limits.compile_memory_bytes));
        self.lock.broken.push(Broken { digest, host: host(), reason, limits });
        self.changed = true;
    }

    /// Forgets that a component could not be used.
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

    /// What is known of a file that is as it was.
    pub(crate) fn unchanged(&self, path: &Path, stamp: &Stamp) -> Option<&Entry> {
        self.entry(path).filter(|e| !e.project && e.stamp == *stamp)
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
    fn agrees(&self, described: &Described) -> bool {
        let Manifest { id, version, .. } = &described.manifest;
        match self.of_id(id) {
            Some(known) => known.approval == described.approval(),
            None => !self.begun_anew() && self.highest(id).is_none_or(|highest| !is_older(version, highest)),
        }
    }

    /// Lets a file in as it is, by a person's word.
    pub(crate) fn let_in(&mut self, path: &Path, stamp: Stamp, described: Described) {
        raise(&mut self.lock.highest, &described.manifest);
        self.put(path, stamp, described, true, None);
    }

    /// Keeps what a start learned about a file, unless a person let in another one meanwhile.
    pub(crate) fn learn_if_agreed(
        &mut self,
        path: &Path,
        stamp: Stamp,
        described: Described,
        elsewhere: bool,
    ) {
        if self.agrees(&described) {
            self.learn(path, stamp, described, elsewhere);
        }
    }

    /// `elsewhere`: others than the person may write where it lies, so that what its id was given stays with the
    /// component that it was given to.
    fn learn(&mut self, path: &Path, stamp: Stamp, described: Described, elsewhere: bool) {
        let known = self.of_id(&described.manifest.id);
        let stays = known.filter(|known| elsewhere || known.given_to() == described.digest);
        let (by_person, given_to) =
            stays.map_or((false, None), |known| (known.by_person, Some(known.given_to().to_owned())));
        let given_to = given_to.filter(|digest| *digest != described.digest);
        // A file that others can put there keeps no version of the person's out.
        if !elsewhere {
            raise(&mut self.lock.highest, &described.manifest);
        }
        self.put(path, stamp, described, by_person, given_to);
    }

    /// A person gave something to a component that is known as it is.
    pub(crate) fn vouch(&mut self, id: &str, digest: &str) {
        let known =
            |e: &&mut Entry| !e.project && e.described.manifest.id == id && e.described.digest == digest;
        if let Some(entry) = self.lock.plugins.iter_mut().find(known) {
            self.changed |=
                raise(&mut self.lock.highest, &entry.described.manifest) || !entry.was_let_in(digest);
            (entry.by_person, entry.given_to) = (true, None);
        }
    }

    fn put(
        &mut self,
        path: &Path,
        stamp: Stamp,
        described: Described,
        by_person: bool,
        given_to: Option<String>,
    ) {
        let id = &described.manifest.id;
        self.lock.plugins.retain(|e| e.project || e.described.manifest.id != *id);
        let entry = Entry { by_person, given_to, ..Entry::of(path, stamp, described) };
        self.add(entry);
    }

    /// Lets a file of a project in as it is. Its id says nothing about others.
    pub(crate) fn put_project(&mut self, path: &Path, stamp: Stamp, described: Described) {
        self.add(Entry { project: true, ..Entry::of(path, stamp, described) });
    }

    /// What lay at its path under another id stays known, without a place: whoever can write there would else make
    /// this program forget what that id was given, and by whom it was signed. One that nobody let in has nothing to
    /// be forgotten, and takes no id for good.
    fn add(&mut self, entry: Entry) {
        self.lock.plugins.retain(|e| e.path != entry.path || !e.project && e.is_held());
        let displaced = self.lock.plugins.iter_mut().filter(|e| e.path == entry.path);
        displaced.for_each(|displaced| displaced.path = PathBuf::new());
        self.lock.plugins.push(entry);
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

/// This program, as far as it decides what can be used.
fn host() -> String {
    format!("{} on {}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH)
}

fn mac_of(key: &[u8; 32], json: &[u8]) -> blake3::Hash {
    blake3::keyed_hash(&blake3::derive_key(CONTEXT, key), json)
}

/// Takes note of a version, if it is none that is lower than one before. Returns whether that is new.
fn raise(highest: &mut BTreeMap<String, String>, Manifest { id, version, .. }: &Manifest) -> bool {
    let is_higher = highest.get(id).is_none_or(|known| known != version && !is_older(version, known));
    if is_higher {
        highest.insert(id.clone(), version.clone());
    }
    is_higher
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
mod tests;
