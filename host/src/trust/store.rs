//! What was trusted, in one file outside of all that a run can reach.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::exit::Failure;
use crate::paths::{check_own, make_private, replace};

/// The format this program reads and writes.
const VERSION: u32 = 1;

/// Bytes of the file: some ten thousand folders.
const MAX_BYTES: u64 = 16 << 20;

/// A folder that a person trusted, and the bytes that were in it.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    /// Canonical.
    pub(crate) path: PathBuf,
    device: u64,
    inode: u64,
    /// Local time with offset.
    pub(crate) since: String,
    /// SHA-256 by the name relative to the folder.
    pub(crate) files: BTreeMap<String, String>,
}

impl Entry {
    /// What is written for a folder as it is now.
    pub(crate) fn new(folder: &Path, files: BTreeMap<String, String>) -> std::io::Result<Self> {
        let metadata = folder.metadata()?;
        let since = jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
        let (device, inode) = (metadata.dev(), metadata.ino());
        Ok(Self { path: folder.to_owned(), device, inode, since, files })
    }

    /// Whether the folder that has the path now is the one that was trusted.
    pub(crate) fn is_same(&self) -> bool {
        let same =
            |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode);
        self.path.symlink_metadata().is_ok_and(same)
    }
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: u32,
    folders: Vec<Entry>,
}

/// The file, and the texts that were seen, by their digests: a change is shown against them.
#[derive(Debug)]
pub(crate) struct Store {
    state: PathBuf,
    path: PathBuf,
    texts: PathBuf,
}

impl Store {
    pub(crate) fn new(state: &Path) -> Self {
        Self { state: state.to_owned(), path: state.join("trust.json"), texts: state.join("trusted") }
    }

    /// Every folder that was trusted.
    pub(crate) fn all(&self) -> Result<Vec<Entry>, Failure> {
        let failed = |reason: String| Failure::settings(anyhow::anyhow!("{}: {reason}", self.path.display()));
        let size = match self.path.symlink_metadata() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            metadata => metadata.map_err(|e| failed(e.to_string()))?.len(),
        };
        // Whoever could write here could trust a folder in the person's place.
        check_own(&self.state).and_then(|()| check_own(&self.path)).map_err(Failure::settings)?;
        if size > MAX_BYTES {
            return Err(failed(format!("{size} bytes are more than it may have; remove it and trust anew")));
        }
        let bytes = std::fs::read(&self.path).map_err(|e| failed(e.to_string()))?;
        let document: Document = serde_json::from_slice(&bytes)
            .map_err(|e| failed(format!("it is broken: {e}; remove it and trust anew")))?;
        if document.version != VERSION {
            return Err(failed(format!(
                "it is of version {}, this program knows {VERSION}",
                document.version
            )));
        }
        Ok(document.folders)
    }

    /// What was trusted in a folder, if it is still that folder.
    pub(crate) fn entry(&self, folder: &Path) -> Result<Option<Entry>, Failure> {
        let mut all = self.all()?.into_iter();
        Ok(all.find(|entry| entry.path == folder && entry.is_same()))
    }

    /// A text that was trusted.
    pub(crate) fn text(&self, digest: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.texts.join(digest)).ok()?;
        (audit::digest(text.as_bytes()) == digest).then_some(text)
    }

    /// Writes down what was trusted, in place of what was before.
    pub(crate) fn put<'a>(
        &self,
        entry: Entry,
        texts: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Failure> {
        let texts: Vec<(&str, &str)> = texts.into_iter().collect();
        self.change(&texts, |folders| {
            folders.retain(|other| other.path != entry.path);
            folders.push(entry);
        })
    }

    /// Forgets a folder. Returns what had been trusted in it.
    pub(crate) fn remove(&self, folder: &Path) -> Result<Option<Entry>, Failure> {
        let mut removed = None;
        self.change(&[], |folders| {
            let at = folders.iter().position(|entry| entry.path == folder);
            removed = at.map(|at| folders.remove(at));
        })?;
        Ok(removed)
    }

    /// Changes the file while no other process does, and forgets the texts that nothing names any more.
    fn change(&self, texts: &[(&str, &str)], edit: impl FnOnce(&mut Vec<Entry>)) -> Result<(), Failure> {
        make_private(&self.state)?;
        let lock = self.state.join("trust.lock");
        let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(lock)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(std::io::Error::from)?;
        let mut folders = self.all()?;
        edit(&mut folders);
        let document = Document { version: VERSION, folders };
        let json = serde_json::to_vec_pretty(&document).map_err(std::io::Error::from)?;
        replace(&self.path, &json)?;
        for (digest, text) in texts {
            replace(&self.texts.join(digest), text.as_bytes())?;
        }
        let named: BTreeSet<&String> =
            document.folders.iter().flat_map(|entry| entry.files.values()).collect();
        for text in std::fs::read_dir(&self.texts).into_iter().flatten().flatten() {
            if text.file_name().to_str().is_none_or(|name| !named.contains(&name.to_owned())) {
                std::fs::remove_file(text.path())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn trust_is_of_one_folder_and_not_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let work = root.join("work");
        std::fs::create_dir(&work).unwrap();
        let store = Store::new(&root.join("state"));
        let files: BTreeMap<String, String> = [("AGENTS.md".to_owned(), audit::digest(b"be kind"))].into();
        let digest = &files["AGENTS.md"].clone();
        store.put(Entry::new(&work, files).unwrap(), [(digest.as_str(), "be kind")]).unwrap();
        assert!(store.entry(&work).unwrap().is_some());
        assert_eq!(store.text(digest).as_deref(), Some("be kind"));
        assert!(store.entry(&root).unwrap().is_none());
        std::fs::rename(&work, root.join("other")).unwrap();
        std::fs::create_dir(&work).unwrap();
        assert!(store.entry(&work).unwrap().is_none());
        // A text that was changed is not what was seen; one that nothing names is gone.
        std::fs::write(store.texts.join(digest), "be evil").unwrap();
        assert_eq!(store.text(digest), None);
        assert!(store.remove(&work).unwrap().is_some());
        assert_eq!(std::fs::read_dir(&store.texts).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_others_could_write_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let store = Store::new(&state);
        store.put(Entry::new(dir.path(), BTreeMap::new()).unwrap(), []).unwrap();
        let metadata = store.path.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        let refused = |part: &str| {
            let failure = store.all().unwrap_err();
            assert_eq!(failure.exit.code(), 3);
            assert!(failure.to_string().contains(part), "{failure}");
        };
        mode(&store.path, 0o602);
        refused("trust.json: others can write to it");
        mode(&store.path, 0o600);
        mode(&state, 0o707);
        refused("state: others can write to it");
        mode(&state, 0o700);
        assert_eq!(store.all().unwrap().len(), 1);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&store.path, Some(65_534), None).unwrap();
            refused("trust.json: it belongs to another user");
            std::os::unix::fs::chown(&store.path, Some(0), None).unwrap();
        }
        std::fs::write(&store.path, "{\"version\": 1, \"folders\": 3}").unwrap();
        refused("it is broken");
        std::fs::remove_file(&store.path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &store.path).unwrap();
        refused("trust.json: it is not a regular file");
    }
}
