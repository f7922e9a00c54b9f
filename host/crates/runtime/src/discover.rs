//! The components of the plugin folders: found, and described once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use policy::Policy;

use crate::PluginError;
use crate::cache::CodeCache;
use crate::candidate::{Candidate, admit};
use crate::catalog::{PluginDirs, Source};
use crate::compile::compile;
use crate::describe::Described;
use crate::engine::{Shared, Target};
use crate::index::{Index, Stamp};
use crate::inspect::{Inspection, digest, inspect};
use crate::open::read_component;

/// What a start learns about components and writes into the index when it has looked at all of them.
enum Learned {
    Described { path: PathBuf, stamp: Stamp, described: Described },
    Project { path: PathBuf, stamp: Stamp, described: Described },
    Broken { digest: String, reason: String },
}

/// Why a file is not taken in although nothing is wrong with it.
const WRITABLE: &str = "it lies where a run can write and was not let in as it is now";
const BEGUN_ANEW: &str = "it was not let in since the plugin index was begun anew";

/// A look at the folders.
struct Search<'a> {
    dirs: &'a PluginDirs,
    policy: &'a Policy,
    index: Index,
    /// Which file has an id already.
    ids: HashMap<String, PathBuf>,
    learned: Vec<Learned>,
    notice: &'a mut (dyn FnMut(String) + Send),
}

/// Finds the components of the plugin folders. What is new is compiled and described, with a line that
/// says so; what is wrong with one plugin does not keep the others out.
pub(crate) async fn discover(
    dirs: &PluginDirs,
    policy: &Policy,
    notice: &mut (dyn FnMut(String) + Send),
) -> (Vec<(Source, Described)>, Vec<PluginError>) {
    let mut problems = Vec::new();
    let files = component_files(dirs, &mut problems);
    if files.is_empty() && dirs.trusted.is_empty() {
        return (Vec::new(), problems);
    }
    let index = match Index::read(dirs) {
        Ok(index) => index,
        // What a person let in cannot be told from what somebody wrote: nothing of it is used.
        Err(error) => {
            problems.push(error);
            return (Vec::new(), problems);
        }
    };
    let mut search = Search { dirs, policy, index, ids: HashMap::new(), learned: Vec::new(), notice };
    let mut found = Vec::new();
    for path in files {
        match search.file(&path).await {
            Ok(described) => {
                search.ids.insert(described.manifest.id.clone(), path.clone());
                found.push((Source::File(path), described));
            }
            Err(error) => problems.push(error),
        }
    }
    for (path, digest) in &dirs.trusted {
        match search.trusted(path, digest).await {
            Ok(described) => found.push((Source::Project(path.clone()), described)),
            Err(error) => problems.push(error),
        }
    }
    problems.extend(write_down(dirs, search.learned).err());
    (found, problems)
}

/// Writes down what was learned, into the index as it is by now: it was read before all that compiling.
fn write_down(dirs: &PluginDirs, learned: Vec<Learned>) -> Result<(), PluginError> {
    if learned.is_empty() {
        return Ok(());
    }
    Index::change(dirs, |index| {
        for one in learned {
            match one {
                Learned::Described { path, stamp, described } if index.agrees(&described) => {
                    index.put(&path, stamp, described);
                }
                // A person let in another one meanwhile.
                Learned::Described { .. } => {}
                Learned::Project { path, stamp, described } => index.put_project(&path, stamp, described),
                Learned::Broken { digest, reason } => index.put_broken(digest, reason),
            }
        }
    })
}

fn component_files(dirs: &PluginDirs, problems: &mut Vec<PluginError>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let named = dirs.named.iter().map(|folder| (folder, true));
    for (folder, is_named) in dirs.folders.iter().map(|folder| (folder, false)).chain(named) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_named => continue,
            Err(error) => {
                problems.push(PluginError::unreadable(folder, error));
                continue;
            }
        };
        let mut here: Vec<PathBuf> = entries
            .filter_map(Result::ok)
            .map(|e| e.path())
            .filter(|p| p.extension().is_some_and(|e| e == "wasm"))
            .collect();
        here.sort();
        files.extend(here);
    }
    files
}

impl Search<'_> {
    async fn file(&mut self, path: &Path) -> Result<Described, PluginError> {
        let path = &path.canonicalize().map_err(|e| PluginError::unreadable(path, e))?;
        let metadata = std::fs::metadata(path).map_err(|e| PluginError::unreadable(path, e))?;
        let stamp = Stamp::of(&metadata);
        let is_writable = self.dirs.writable.iter().any(|folder| path.starts_with(folder));
        let unchanged = self.index.unchanged(path, &stamp).filter(|_| !is_writable);
        if let Some(described) = unchanged.filter(|described| self.is_signed_enough(described)) {
            return Ok(described.clone());
        }
        let bytes = read_component(path)?;
        let same = self.index.entry(path).filter(|e| !e.project && e.described.digest == digest(&bytes));
        if let Some(entry) = same.filter(|entry| self.is_signed_enough(&entry.described)) {
            let described = entry.described.clone();
            self.learned.push(Learned::Described { path: path.clone(), stamp, described: described.clone() });
            return Ok(described);
        }
        // What may not be used is not even asked what it is.
        let mut candidate = Candidate::of(path, bytes, &self.index, self.policy, None)?;
        candidate.admit(self.policy)?;
        let older = candidate.older.take();
        let Inspection { manifest, digest, .. } = &candidate.inspection;
        let id = &manifest.id;
        if let Some(other) = self.ids.get(id) {
            let (id, path, other) = (id.clone(), path.clone(), other.clone());
            return Err(PluginError::DuplicateId { id, path, other });
        }
        // By its id, not by its place: grants follow the id, and a file is easily renamed.
        let known = self.index.of_id(id).map(|entry| (entry.approval.clone(), &entry.described.digest));
        let is_known = known.as_ref().is_some_and(|(_, before)| *before == digest);
        if let Some(error) = older.filter(|_| !is_known) {
            return Err(error);
        }
        let approval = known.map(|(approval, _)| approval);
        // Where a run can write, a file that nobody looked at may be the work of the last one.
        let new = approval.is_none() && self.index.begun_anew();
        if let Some(reason) = is_writable.then_some(WRITABLE).or(new.then_some(BEGUN_ANEW)) {
            return Err(PluginError::NotLetIn { id: id.clone(), path: path.clone(), reason });
        }
        self.is_not_broken(path, digest)?;
        (self.notice)(format!("{}: new or changed, compiling it once", path.display()));
        let described = self.tried(digest.clone(), candidate.describe(self.dirs).await)?;
        if approval.is_some_and(|known| known != described.approval()) {
            return Err(PluginError::Changed { id: described.manifest.id, path: path.clone() });
        }
        self.learned.push(Learned::Described { path: path.clone(), stamp, described: described.clone() });
        Ok(described)
    }

    /// Whether what was verified when a plugin was let in is what the policy wants now.
    fn is_signed_enough(&self, described: &Described) -> bool {
        let wanted = self.policy.publisher_of(&described.manifest.id);
        wanted.is_none_or(|key| described.publisher.as_ref().is_some_and(|by| by.key == *key))
    }

    /// Describes a component of a project. Its digest is all that lets it in; an id or a description that was
    /// let in elsewhere counts for nothing here, and this one for nothing elsewhere.
    async fn trusted(&mut self, path: &Path, trusted: &str) -> Result<Described, PluginError> {
        let bytes = read_component(path)?;
        if digest(&bytes) != trusted {
            return Err(PluginError::NotTrusted { path: path.to_owned() });
        }
        let metadata = std::fs::metadata(path).map_err(|e| PluginError::unreadable(path, e))?;
        let same = |e: &&crate::index::Entry| e.project && e.described.digest == trusted;
        if let Some(entry) = self.index.entry(path).filter(same) {
            return Ok(entry.described.clone());
        }
        let what = path.display().to_string();
        let Inspection { manifest, digest, .. } = inspect(&what, &bytes)?;
        admit(self.policy, &what, &manifest, &digest, None)?;
        self.is_not_broken(path, &digest)?;
        (self.notice)(format!("{}: trusted and new, compiling it once", path.display()));
        let described = compile_and_keep(path, &bytes, self.dirs).await;
        let described = self.tried(digest, described)?;
        let (path, stamp) = (path.to_owned(), Stamp::of(&metadata));
        self.learned.push(Learned::Project { path, stamp, described: described.clone() });
        Ok(described)
    }

    /// A component that could not be compiled costs its time once.
    fn is_not_broken(&self, path: &Path, digest: &str) -> Result<(), PluginError> {
        let told = |reason: &str| PluginError::Compile {
            what: path.display().to_string(),
            reason: format!("{reason} (at an earlier start; `ml-intern plugin install` tries it again)"),
        };
        self.index.broken(digest).map_or(Ok(()), |reason| Err(told(reason)))
    }

    fn tried(
        &mut self,
        digest: String,
        described: Result<Described, PluginError>,
    ) -> Result<Described, PluginError> {
        if let Err(PluginError::Compile { reason, .. }) = &described {
            self.learned.push(Learned::Broken { digest, reason: reason.clone() });
        }
        described
    }
}

pub(crate) async fn compile_and_keep(
    path: &Path,
    bytes: &[u8],
    dirs: &PluginDirs,
) -> Result<Described, PluginError> {
    let shared = Shared::new(Target::Host)?;
    let (compiled, _) = compile(&shared, Some(&dirs.compiler), &path.display().to_string(), bytes).await?;
    let cache = CodeCache::new(dirs.cache.clone(), dirs.key.clone());
    if let Err(reason) = cache.store(&shared, &compiled.described.digest, &compiled.code) {
        tracing::warn!("compiled code is not kept: {reason}");
    }
    Ok(compiled.described)
}

/// Forgets that a plugin was approved.
pub(crate) fn forget(id: &str, dirs: &PluginDirs) -> Result<(), PluginError> {
    Index::change(dirs, |index| index.forget(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_of_a_project_is_looked_at_only_as_it_was_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.wasm");
        std::fs::write(&path, b"no component").unwrap();
        let problem = |digest: String| {
            let dirs = PluginDirs { trusted: vec![(path.clone(), digest)], ..PluginDirs::below(dir.path()) };
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (found, mut problems) = runtime.block_on(discover(&dirs, &Policy::default(), &mut |_| {}));
            assert!(found.is_empty());
            problems.remove(0)
        };
        let other = problem(crate::inspect::digest(b"another component"));
        assert!(matches!(other, PluginError::NotTrusted { .. }), "{other}");
        let same = problem(crate::inspect::digest(b"no component"));
        assert!(matches!(same, PluginError::NotComponent { .. }), "{same}");
    }
}
