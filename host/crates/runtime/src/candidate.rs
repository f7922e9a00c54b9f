//! A component that may become a plugin: read once, looked at, and let in by a person.

use std::path::{Path, PathBuf};

use manifest::Manifest;
use policy::{PluginFacts, Policy, PublisherKey};
use protocol::text::path as shown;

use crate::catalog::PluginDirs;
use crate::discover::describe_file;
use crate::index::{Index, Stamp, is_older};
use crate::inspect::{Inspection, inspect};
use crate::open::read_component;
use crate::signature::{Publisher, Signed, read_signature, verify_signature};
use crate::{Described, PluginError};

/// A component that may become a plugin. All that is said about it is said about these bytes.
#[derive(Debug)]
pub struct Candidate {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// The text of the signature beside it.
    pub signature: Option<String>,
    pub signed: Signed,
    pub inspection: Inspection,
    /// What is let in under its id now.
    pub installed: Option<Described>,
    /// Says that a higher version was let in before, if one was.
    pub older: Option<PluginError>,
}

impl Candidate {
    /// Reads a component and what is known of it. Nothing of it is run. `named` is the key that a person says
    /// it is signed by.
    ///
    /// # Errors
    /// When it cannot be used, its signature does not hold, or it may not take the place of what is there.
    pub fn read(
        path: &Path,
        index: &LockIndex,
        policy: &Policy,
        named: Option<&PublisherKey>,
    ) -> Result<Self, PluginError> {
        let candidate = Self::look(path, index, policy, named)?;
        candidate.admit(policy)?;
        Ok(candidate)
    }

    /// Reads a component to look at it only: it may be one that may not be used.
    ///
    /// # Errors
    /// When it is no plugin, or its signature does not hold.
    pub fn look(
        path: &Path,
        index: &LockIndex,
        policy: &Policy,
        named: Option<&PublisherKey>,
    ) -> Result<Self, PluginError> {
        Self::of(path, read_component(path)?, &index.0, policy, named)
    }

    pub(crate) fn of(
        path: &Path,
        bytes: Vec<u8>,
        index: &Index,
        policy: &Policy,
        named: Option<&PublisherKey>,
    ) -> Result<Self, PluginError> {
        let inspection = inspect(&shown(path), &bytes)?;
        let id = &inspection.manifest.id;
        let installed = index.of_id(id).map(|entry| entry.described.clone());
        let before = installed.as_ref().and_then(|described| described.publisher.as_ref());
        let known = named.into_iter().chain(policy.publisher_of(id)).chain(before.map(|by| &by.key));
        let keys: Vec<PublisherKey> = known.cloned().collect();
        let signature = read_signature(path)?;
        let signed = match &signature {
            Some(text) => verify_signature(path, &bytes, &inspection.manifest, text, &keys)?,
            None => Signed::No,
        };
        if let Some(key) = named.filter(|key| signed.key() != Some(*key)) {
            return Err(PluginError::NotSigned { path: path.to_owned(), key: key.to_string() });
        }
        let older = older(&inspection.manifest, index, path);
        Ok(Self { path: path.to_owned(), bytes, signature, signed, inspection, installed, older })
    }

    /// Whether it may be let in: by the machine's policy, and in the place of what is installed.
    pub(crate) fn admit(&self, policy: &Policy) -> Result<(), PluginError> {
        let Inspection { manifest, digest, .. } = &self.inspection;
        admit(policy, &shown(&self.path), manifest, digest, self.signed.key())?;
        // What one publisher was given is not for the next who takes the name.
        let before = self.installed.as_ref().and_then(|described| described.publisher.as_ref());
        match before.filter(|before| self.signed.key() != Some(&before.key)) {
            Some(Publisher { key, .. }) => {
                let (id, key) = (manifest.id.clone(), key.to_string());
                Err(PluginError::Publisher { path: self.path.clone(), id, key })
            }
            None => Ok(()),
        }
    }

    /// Compiles it and asks it for its tools, with every import refusing.
    ///
    /// # Errors
    /// When it does not compile or its description is not valid.
    pub async fn describe(&self, dirs: &PluginDirs) -> Result<Described, PluginError> {
        let described = describe_file(&self.path, &self.bytes, dirs).await?;
        Ok(Described { publisher: self.signed.publisher().cloned(), ..described })
    }

    /// Lets it in, as the file that its bytes were written to.
    ///
    /// # Errors
    /// When the file cannot be looked at, or the index not written.
    pub fn let_in(&self, described: Described, file: &Path, dirs: &PluginDirs) -> Result<(), PluginError> {
        let file = &file.canonicalize().map_err(|e| PluginError::unreadable(file, e))?;
        let metadata = std::fs::metadata(file).map_err(|e| PluginError::unreadable(file, e))?;
        Index::change(dirs, |index| {
            index.forgive(&described.digest);
            index.let_in(file, Stamp::of(&metadata), described);
        })
    }
}

/// What was let in, as it is read to look at another component.
#[derive(Debug, Default)]
pub struct LockIndex(Index);

impl LockIndex {
    /// Reads it; of one that cannot be believed it is as if it were empty, and says why.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(dirs: &PluginDirs) -> Result<(Self, Option<PluginError>), PluginError> {
        let (index, distrusted) = Index::read_or_begin(dirs)?;
        Ok((Self(index), distrusted))
    }

    /// The keys of the publishers whose plugins were let in.
    pub fn publishers(&self) -> impl Iterator<Item = &PublisherKey> {
        self.0.publishers()
    }

    /// Whether something was let in under an id.
    #[must_use]
    pub fn knows(&self, id: &str) -> bool {
        self.0.of_id(id).is_some()
    }
}

/// Whether the machine's policy lets a plugin of a folder in.
pub(crate) fn admit(
    policy: &Policy,
    what: &str,
    manifest: &Manifest,
    digest: &str,
    publisher: Option<&PublisherKey>,
) -> Result<(), PluginError> {
    let Manifest { id, version, .. } = manifest;
    let publisher = publisher.map(PublisherKey::as_str);
    let facts = PluginFacts { id, version, digest, publisher, bundled: false };
    policy.plugin(facts).map_err(|by| PluginError::Forbidden { what: what.to_owned(), by })
}

/// Says that a higher version of a plugin was let in before, if one was.
fn older(manifest: &Manifest, index: &Index, path: &Path) -> Option<PluginError> {
    let Manifest { id, version, .. } = manifest;
    let highest = index.highest(id).filter(|highest| is_older(version, highest))?.to_owned();
    Some(PluginError::Older { id: id.clone(), version: version.clone(), highest, path: path.to_owned() })
}
