//! The components of the plugin folders: found, and described once.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use policy::Policy;
use protocol::text::path as shown;

use crate::PluginError;
use crate::cache::CodeCache;
use crate::candidate::{Candidate, admit};
use crate::catalog::{PluginDirs, Source};
use crate::compile::compile_and_keep;
use crate::describe::{Described, describe};
use crate::engine::{Shared, Target};
use crate::error::Lasts;
use crate::index::{Entry, Index, Stamp};
use crate::inspect::{Inspection, digest, inspect};
use crate::open::read_component;

/// Why a file is not taken in although nothing is wrong with it.
const WRITABLE: &str = "it lies where a run can write and was not let in as it is now";
const BEGUN_ANEW: &str = "it was not let in since the plugin index was begun anew";

/// A plugin that can be used.
pub(crate) struct Found {
    pub(crate) source: Source,
    pub(crate) described: Described,
    /// What its id was granted is for this file.
    pub(crate) has_grants: bool,
}

/// A file of a plugin folder.
struct Listed {
    path: PathBuf,
    /// Others than the person may write where it lies: its folder was named for this run, or it is a link. A run
    /// in another folder may have put it there, so that it does not matter what this run can write to.
    elsewhere: bool,
}

/// A look at the folders.
struct Search<'a> {
    dirs: &'a PluginDirs,
    policy: &'a Policy,
    index: Index,
    /// Which file has an id already.
    ids: HashMap<String, PathBuf>,
    /// Why the index could not be written.
    unwritten: Option<PluginError>,
    notice: &'a mut (dyn FnMut(String) + Send),
}

/// Finds the components of the plugin folders. What is new is compiled and described, with a line that
/// says so; what is wrong with one plugin does not keep the others out.
pub(crate) async fn discover(
    dirs: &PluginDirs,
    policy: &Policy,
    notice: &mut (dyn FnMut(String) + Send),
) -> (Vec<Found>, Vec<PluginError>) {
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
    let mut search = Search { dirs, policy, index, ids: HashMap::new(), unwritten: None, notice };
    let mut found = Vec::new();
    for file in files {
        match search.file(&file).await {
            Ok(one) => {
                search.ids.insert(one.described.manifest.id.clone(), file.path);
                found.push(one);
            }
            Err(error) => problems.push(error),
        }
    }
    for (path, digest) in &dirs.trusted {
        match search.trusted(path, digest).await {
            Ok(described) => {
                found.push(Found { source: Source::Project(path.clone()), described, has_grants: true });
            }
            Err(error) => problems.push(error),
        }
    }
    problems.extend(search.unwritten);
    (found, problems)
}

fn component_files(dirs: &PluginDirs, problems: &mut Vec<PluginError>) -> Vec<Listed> {
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
        let elsewhere = is_named || folder.is_symlink();
        files.extend(here.into_iter().map(|path| Listed { elsewhere: elsewhere || path.is_symlink(), path }));
    }
    files
}

impl PluginDirs {
    /// The files of the folders that have an id, whether they can be used or not: those of the folders that are
    /// always looked at, and those of folders that were named. What is no plugin has no id: its name counts, in the
    /// folders that are always looked at.
    #[must_use]
    pub fn files_of(&self, id: &str) -> (Vec<PathBuf>, Vec<PathBuf>) {
        let real = |folder: &Path| folder.canonicalize().ok();
        let always: Vec<PathBuf> = self.folders.iter().filter_map(|folder| real(folder)).collect();
        let is_always =
            |path: &Path| path.parent().and_then(real).is_some_and(|folder| always.contains(&folder));
        let has_id = |path: &PathBuf| {
            let inspected = read_component(path).and_then(|bytes| inspect(&shown(path), &bytes));
            inspected.map_or_else(
                |_| path.file_stem().is_some_and(|stem| stem == id) && is_always(path),
                |inspection| inspection.manifest.id == id,
            )
        };
        let files = component_files(self, &mut Vec::new()).into_iter().map(|file| file.path).filter(has_id);
        let (mut own, named): (Vec<PathBuf>, Vec<PathBuf>) = files.partition(|path| is_always(path));
        // A folder that is always looked at can be named as well.
        let mut seen = std::collections::HashSet::new();
        own.retain(|path| {
            seen.insert((path.parent().and_then(real), path.file_name().map(ToOwned::to_owned)))
        });
        (own, named)
    }

    /// Forgets that a plugin was let in: one with its id is a stranger again.
    ///
    /// # Errors
    /// When the index cannot be read or written.
    pub fn forget(&self, id: &str) -> Result<(), PluginError> {
        Index::change(self, |index| index.forget(id))
    }

    /// Lets a file in as it was described, where no person had done so yet: one just gave it something.
    ///
    /// # Errors
    /// When the index cannot be read or written.
    pub fn vouch(&self, described: &Described) -> Result<(), PluginError> {
        Index::change(self, |index| index.vouch(&described.manifest.id, &described.digest))
    }
}

/// Whether nobody but this user and root can exchange it. A group that is the user's own counts as the user; in
/// a folder such as `/tmp` others cannot.
fn is_own(metadata: &std::fs::Metadata) -> bool {
    let (uid, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let own_group = metadata.gid() == group && group == uid;
    let others = if own_group { 0o002 } else { 0o022 };
    let sticky = metadata.is_dir() && metadata.mode() & 0o1000 != 0;
    matches!(metadata.uid(), owner if owner == uid || owner == 0) && (sticky || metadata.mode() & others == 0)
}

/// Whether a file has other names, under which a run may write to it. Root's own are a package manager's doing.
fn has_other_names(metadata: &std::fs::Metadata) -> bool {
    metadata.nlink() > 1 && metadata.uid() == rustix::process::geteuid().as_raw()
}

impl Search<'_> {
    async fn file(&mut self, listed: &Listed) -> Result<Found, PluginError> {
        let path = &listed.path;
        let path = &path.canonicalize().map_err(|e| PluginError::unreadable(path, e))?;
        let metadata = std::fs::metadata(path).map_err(|e| PluginError::unreadable(path, e))?;
        let folder = path.parent().and_then(|folder| std::fs::metadata(folder).ok());
        if !is_own(&metadata) || !folder.as_ref().is_some_and(is_own) {
            return Err(PluginError::NotOwn { path: path.clone() });
        }
        let stamp = Stamp::of(&metadata);
        let elsewhere = listed.elsewhere || has_other_names(&metadata);
        let is_writable = match &self.dirs.writable {
            Some(folders) => folders.iter().any(|folder| path.starts_with(folder)),
            None => elsewhere,
        };
        let found = |described: &Described, given_to: &str| Found {
            source: Source::File(path.clone()),
            described: described.clone(),
            has_grants: !elsewhere || described.digest == given_to,
        };
        let unchanged = self.index.unchanged(path, &stamp).filter(|_| !is_writable);
        if let Some(entry) = unchanged.filter(|entry| self.is_signed_enough(&entry.described)) {
            return Ok(found(&entry.described, entry.given_to()));
        }
        let bytes = read_component(path)?;
        let may_be_used = |entry: &&Entry| {
            let Described { digest, .. } = &entry.described;
            (!is_writable || entry.was_let_in(digest)) && self.is_signed_enough(&entry.described)
        };
        let same = self.index.entry(path).filter(|e| !e.project && e.described.digest == digest(&bytes));
        if let Some(entry) = same.filter(may_be_used) {
            let (described, found) = (entry.described.clone(), found(&entry.described, entry.given_to()));
            self.keep(|index| index.learn_if_agreed(path, stamp, described, elsewhere));
            return Ok(found);
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
        let known = self.index.of_id(id).cloned();
        let is_known =
            known.as_ref().is_some_and(|e| e.described.digest == *digest || e.given_to() == digest);
        if let Some(error) = older.filter(|_| !is_known) {
            return Err(error);
        }
        // Where a run can write, a file that nobody looked at may be the work of the last one.
        let let_in = known.as_ref().is_some_and(|known| known.was_let_in(digest));
        let new = known.is_none() && self.index.begun_anew();
        if let Some(reason) = (is_writable && !let_in).then_some(WRITABLE).or(new.then_some(BEGUN_ANEW)) {
            return Err(PluginError::NotLetIn { id: id.clone(), path: path.clone(), reason });
        }
        self.is_not_broken(path, digest)?;
        (self.notice)(format!("{}: new or changed, compiling it once", shown(path)));
        let described = self.tried(digest, candidate.describe(self.dirs).await)?;
        if known.as_ref().is_some_and(|known| known.approval != described.approval()) {
            return Err(PluginError::Changed { id: described.manifest.id, path: path.clone() });
        }
        let found = found(&described, known.as_ref().map_or(&described.digest, |known| known.given_to()));
        self.keep(|index| index.learn_if_agreed(path, stamp, described, elsewhere));
        Ok(found)
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
        let same = |e: &&Entry| e.project && e.described.digest == trusted;
        if let Some(entry) = self.index.entry(path).filter(same) {
            return Ok(entry.described.clone());
        }
        let what = shown(path);
        let Inspection { manifest, digest, .. } = inspect(&what, &bytes)?;
        admit(self.policy, &what, &manifest, &digest, None)?;
        self.is_not_broken(path, &digest)?;
        (self.notice)(format!("{what}: trusted and new, compiling it once"));
        let described = describe_file(path, &bytes, self.dirs).await;
        let described = self.tried(&digest, described)?;
        let (stamp, learned) = (Stamp::of(&metadata), described.clone());
        self.keep(|index| index.put_project(path, stamp, learned));
        Ok(described)
    }

    /// A component that cannot be used costs its time once.
    fn is_not_broken(&self, path: &Path, digest: &str) -> Result<(), PluginError> {
        let told = |reason: &str| PluginError::Remembered { what: shown(path), reason: reason.to_owned() };
        let broken = self.index.broken(digest, &self.dirs.compiler.limits);
        broken.map_or(Ok(()), |reason| Err(told(reason)))
    }

    fn tried(
        &mut self,
        digest: &str,
        described: Result<Described, PluginError>,
    ) -> Result<Described, PluginError> {
        let (reason, lasts) = match &described {
            Err(PluginError::Compile { reason, lasts, .. }) => {
                (format!("it cannot be compiled: {reason}"), *lasts)
            }
            Err(PluginError::Description { reason, lasts, .. }) => (reason.clone(), *lasts),
            _ => return described,
        };
        let limits = self.dirs.compiler.limits;
        let limits = match lasts {
            Lasts::Always => None,
            Lasts::UnderLimits => Some(&limits),
            Lasts::Unknown => return described,
        };
        self.keep(|index| index.put_broken(digest.to_owned(), reason, limits));
        described
    }

    /// Writes down what was learned, at once: what comes next may take long, or be given up. Into the index as it
    /// is by now: it was read before all that compiling.
    fn keep(&mut self, learned: impl FnOnce(&mut Index)) {
        if let Err(error) = Index::change(self.dirs, learned) {
            self.unwritten.get_or_insert(error);
        }
    }
}

/// Compiles a component, or finds the code that was kept, and asks it for its tools.
pub(crate) async fn describe_file(
    path: &Path,
    bytes: &[u8],
    dirs: &PluginDirs,
) -> Result<Described, PluginError> {
    let what = shown(path);
    let inspection = inspect(&what, bytes)?;
    let shared = Shared::new(Target::Host)?;
    let cache = CodeCache::new(dirs.cache.clone(), dirs.key.clone());
    let component = compile_and_keep(&shared, &cache, &dirs.compiler, &what, bytes).await?;
    describe(&what, &shared, &component, inspection).await
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

    #[test]
    fn what_says_nothing_of_a_component_is_not_remembered_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("plugins");
        std::fs::create_dir(&folder).unwrap();
        let bytes = std::fs::read(guests::component("probe")).unwrap();
        std::fs::write(folder.join("probe.wasm"), &bytes).unwrap();
        // Its compiler cannot be started.
        let dirs = PluginDirs { folders: vec![folder], ..PluginDirs::below(dir.path()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            let (found, problems) = runtime.block_on(discover(&dirs, &Policy::default(), &mut |_| {}));
            assert!(found.is_empty() && problems.len() == 1, "{problems:?}");
            assert!(
                matches!(problems[0], PluginError::Compile { lasts: Lasts::Unknown, .. }),
                "{problems:?}"
            );
        }
        let limits = crate::Limits::default();
        assert_eq!(Index::read(&dirs).unwrap().broken(&digest(&bytes), &limits), None);
    }
}
