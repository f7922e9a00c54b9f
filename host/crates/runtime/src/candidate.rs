//! A component that may become a plugin: read once, looked at, and let in by a person.

use std::path::{Path, PathBuf};

use manifest::Manifest;
use policy::Policy;

use crate::catalog::{PluginDirs, admit, compile_and_keep};
use crate::index::{Index, Stamp, is_older};
use crate::inspect::{Inspection, inspect};
use crate::open::read_component;
use crate::{Described, PluginError};

/// A component that may become a plugin. All that is said about it is said about these bytes.
#[derive(Debug)]
pub struct Candidate {
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    pub inspection: Inspection,
    /// What is let in under its id now.
    pub installed: Option<Described>,
    /// Says that a higher version was let in before, if one was.
    pub older: Option<PluginError>,
    /// Says why the index is not believed, if it is not: letting this in begins a new one.
    pub distrusted: Option<PluginError>,
}

impl Candidate {
    /// Reads a component and what is known of it. Nothing of it is run.
    ///
    /// # Errors
    /// When it cannot be used, or the machine's policy forbids it.
    pub fn read(path: &Path, dirs: &PluginDirs, policy: &Policy) -> Result<Self, PluginError> {
        let bytes = read_component(path)?;
        let what = path.display().to_string();
        let inspection = inspect(&what, &bytes)?;
        admit(policy, &what, &inspection.manifest, &inspection.digest, false)?;
        let (index, distrusted) = Index::read_or_begin(dirs)?;
        let installed = index.of_id(&inspection.manifest.id).map(|entry| entry.described.clone());
        let older = older(&inspection.manifest, &index, path);
        Ok(Self { path: path.to_owned(), bytes, inspection, installed, older, distrusted })
    }

    /// Compiles it and asks it for its tools, with every import refusing.
    ///
    /// # Errors
    /// When it does not compile or its description is not valid.
    pub async fn describe(&self, dirs: &PluginDirs) -> Result<Described, PluginError> {
        compile_and_keep(&self.path, &self.bytes, dirs).await
    }

    /// Lets it in, as the file that its bytes were written to.
    ///
    /// # Errors
    /// When the file cannot be looked at, or the index not written.
    pub fn let_in(&self, described: Described, file: &Path, dirs: &PluginDirs) -> Result<(), PluginError> {
        let file = &file.canonicalize().map_err(|e| PluginError::unreadable(file, e))?;
        let metadata = std::fs::metadata(file).map_err(|e| PluginError::unreadable(file, e))?;
        let (mut index, _) = Index::read_or_begin(dirs)?;
        index.put(file, Stamp::of(&metadata), described);
        index.save()
    }
}

/// Says that a higher version of a plugin was let in before, if one was.
pub(crate) fn older(manifest: &Manifest, index: &Index, path: &Path) -> Option<PluginError> {
    let Manifest { id, version, .. } = manifest;
    let highest = index.highest(id).filter(|highest| is_older(version, highest))?.to_owned();
    Some(PluginError::Older { id: id.clone(), version: version.clone(), highest, path: path.to_owned() })
}
