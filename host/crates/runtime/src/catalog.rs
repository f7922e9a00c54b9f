//! Which plugins there are and which names their tools have.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use egress::NetworkGrant;
use manifest::{Manifest, Tier, ToolPolicy};
use policy::{PluginFacts, Policy};
use protocol::ToolSpec;
use tokio::sync::Semaphore;

use crate::cache::CodeCache;
use crate::candidate::older;
use crate::compile::{Compiler, compile};
use crate::describe::Described;
use crate::engine::{Shared, Target};
use crate::grants::Effective;
use crate::index::{Index, Stamp};
use crate::inspect::{Inspection, inspect};
use crate::limits::MAX_CALLS_OF_PLUGIN;
use crate::open::{Opened, read_component};
use crate::{Grants, PluginError, Secrets};

/// A plugin that the build compiled, described and embedded.
#[derive(Debug)]
pub struct Bundled {
    pub id: &'static str,
    /// The component, as zlib compressed it.
    pub component: &'static [u8],
    /// Machine code for the baseline processor of the host's target.
    pub code: &'static [u8],
    /// A [`Described`], as JSON.
    pub described: &'static str,
}

/// Where a plugin comes from.
#[derive(Clone, Debug)]
pub enum Source {
    Bundled(&'static Bundled),
    File(PathBuf),
}

impl Source {
    fn path(&self) -> PathBuf {
        match self {
            Self::Bundled(bundled) => PathBuf::from(format!("(bundled) {}", bundled.id)),
            Self::File(path) => path.clone(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

/// Where plugins and what belongs to them lie.
#[derive(Clone, Debug)]
pub struct PluginDirs {
    /// Folders with components, first to last.
    pub folders: Vec<PathBuf>,
    /// Folders that were named for this run: one that cannot be read is an error, not an absence.
    pub named: Vec<PathBuf>,
    /// Components of a project, each with the digest at which a person trusted it: with another one it is
    /// left out.
    pub trusted: Vec<(PathBuf, String)>,
    /// The lock index.
    pub index: PathBuf,
    /// Compiled code.
    pub cache: PathBuf,
    /// The key of the compiled code.
    pub key: PathBuf,
    /// What compiles the components of the folders.
    pub compiler: Compiler,
}

/// A plugin that can be called, opened or not.
pub struct Plugin {
    pub source: Source,
    pub described: Described,
    pub(crate) granted: Effective,
    pub(crate) opened: Mutex<Option<Arc<Opened>>>,
    pub(crate) slots: Semaphore,
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("source", &self.source)
            .field("granted", &self.granted)
            .finish_non_exhaustive()
    }
}

impl Plugin {
    /// What it declares and was granted.
    #[must_use]
    pub fn granted(&self) -> &manifest::Capabilities {
        &self.granted.capabilities
    }

    /// The name the model uses for one of its tools.
    #[must_use]
    pub fn tool_name(&self, tool: &str) -> String {
        match self.source {
            Source::Bundled(_) => tool.to_owned(),
            Source::File(_) => format!("{}__{tool}", self.described.manifest.id),
        }
    }

    /// What a call of one tool may do. A tool that says that it looks only changes nothing, whatever the
    /// plugin as a whole was granted: its calls are not asked for.
    pub(crate) fn capabilities_of(&self, tool: &str) -> manifest::Capabilities {
        let mut capabilities = self.granted.capabilities.clone();
        if self.policy(tool).is_none_or(|policy| policy.tier == Tier::Read) {
            capabilities.files = false;
        }
        capabilities
    }

    /// Whether a call can send more than an address to another machine.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.granted.network.iter().any(NetworkGrant::sends)
    }

    pub(crate) fn policy(&self, tool: &str) -> Option<&ToolPolicy> {
        self.described.manifest.tools.get(tool)
    }
}

/// All plugins, and their tools by the names the model uses.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) plugins: Vec<Arc<Plugin>>,
    pub(crate) specs: Vec<ToolSpec>,
    /// Plugin and bare tool name.
    pub(crate) tools: HashMap<String, (Arc<Plugin>, String)>,
}

impl Catalog {
    /// Adds a plugin, or says which other one has its id or a tool of its.
    pub(crate) fn add(
        &mut self,
        source: Source,
        described: Described,
        grants: &Grants,
        secrets: &Secrets,
        policy: &Policy,
    ) -> Result<(), PluginError> {
        let id = described.manifest.id.clone();
        let is_bundled = matches!(source, Source::Bundled(_));
        admit(policy, &source.to_string(), &described.manifest, &described.digest, is_bundled)?;
        if let Some(other) = self.plugins.iter().find(|p| p.described.manifest.id == id) {
            return Err(PluginError::DuplicateId { id, path: source.path(), other: other.source.path() });
        }
        let granted = grants.effective(&described.manifest, secrets, policy);
        let plugin = Arc::new(Plugin {
            source,
            described,
            granted,
            opened: Mutex::new(None),
            slots: Semaphore::new(MAX_CALLS_OF_PLUGIN),
        });
        for tool in &plugin.described.tools {
            let name = plugin.tool_name(&tool.name);
            if let Some((other, _)) = self.tools.get(&name) {
                return Err(PluginError::DuplicateTool {
                    tool: name,
                    path: plugin.source.path(),
                    other: other.source.path(),
                });
            }
        }
        for tool in &plugin.described.tools {
            let name = plugin.tool_name(&tool.name);
            self.specs.push(ToolSpec { name: name.clone(), ..tool.clone() });
            self.tools.insert(name, (plugin.clone(), tool.name.clone()));
        }
        self.plugins.push(plugin);
        Ok(())
    }
}

/// Whether the machine's policy lets a plugin in.
pub(crate) fn admit(
    policy: &Policy,
    what: &str,
    manifest: &Manifest,
    digest: &str,
    bundled: bool,
) -> Result<(), PluginError> {
    let Manifest { id, version, .. } = manifest;
    let facts = PluginFacts { id, version, digest, publisher: None, bundled };
    policy.plugin(facts).map_err(|by| PluginError::Forbidden { what: what.to_owned(), by })
}

/// Finds the components of the plugin folders. What is new is compiled and described, with a line that
/// says so; what is wrong with one plugin does not keep the others out.
pub(crate) async fn discover(
    dirs: &PluginDirs,
    policy: &Policy,
    notice: &mut (dyn FnMut(String) + Send),
) -> (Vec<(PathBuf, Described)>, Vec<PluginError>) {
    let mut problems = Vec::new();
    let files = component_files(dirs, &mut problems);
    if files.is_empty() && dirs.trusted.is_empty() {
        return (Vec::new(), problems);
    }
    let mut index = match Index::read(dirs) {
        Ok(index) => index,
        // What a person let in cannot be told from what somebody wrote: nothing of it is used.
        Err(error) => {
            problems.push(error);
            return (Vec::new(), problems);
        }
    };
    let mut found = Vec::new();
    for path in files {
        match describe_file(&path, dirs, policy, &mut index, notice).await {
            Ok(described) => found.push((path, described)),
            Err(error) => problems.push(error),
        }
    }
    for (path, digest) in &dirs.trusted {
        match describe_trusted(path, digest, dirs, policy, &mut index, notice).await {
            Ok(described) => found.push((path.clone(), described)),
            Err(error) => problems.push(error),
        }
    }
    problems.extend(index.save().err());
    (found, problems)
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

async fn describe_file(
    path: &Path,
    dirs: &PluginDirs,
    policy: &Policy,
    index: &mut Index,
    notice: &mut (dyn FnMut(String) + Send),
) -> Result<Described, PluginError> {
    let path = &path.canonicalize().map_err(|e| PluginError::unreadable(path, e))?;
    let metadata = std::fs::metadata(path).map_err(|e| PluginError::unreadable(path, e))?;
    let stamp = Stamp::of(&metadata);
    if let Some(described) = index.unchanged(path, &stamp) {
        return Ok(described.clone());
    }
    let bytes = read_component(path)?;
    if let Some(entry) =
        index.entry(path).filter(|e| !e.project && e.described.digest == crate::inspect::digest(&bytes))
    {
        let described = entry.described.clone();
        index.put(path, stamp, described.clone());
        return Ok(described);
    }
    // What may not be used is not even asked what it is.
    let what = path.display().to_string();
    let Inspection { manifest, digest, .. } = inspect(&what, &bytes)?;
    admit(policy, &what, &manifest, &digest, false)?;
    // By its id, not by its place: grants follow the id, and a file is easily renamed.
    let known = index.of_id(&manifest.id).map(|entry| (entry.approval.clone(), &entry.described.digest));
    let is_known = known.as_ref().is_some_and(|(_, before)| **before == digest);
    if let Some(error) = older(&manifest, index, path).filter(|_| !is_known) {
        return Err(error);
    }
    let approval = known.map(|(approval, _)| approval);
    if approval.is_none() && index.begun_anew() {
        return Err(PluginError::NotLetIn { id: manifest.id, path: path.clone() });
    }
    notice(format!("{}: new or changed, compiling it once", path.display()));
    let described = compile_and_keep(path, &bytes, dirs).await?;
    if approval.is_some_and(|known| known != described.approval()) {
        return Err(PluginError::Changed { id: described.manifest.id, path: path.clone() });
    }
    index.put(path, stamp, described.clone());
    Ok(described)
}

/// Describes a component of a project. Its digest is all that lets it in; an id or a description that was let
/// in elsewhere counts for nothing here, and this one for nothing elsewhere.
async fn describe_trusted(
    path: &Path,
    digest: &str,
    dirs: &PluginDirs,
    policy: &Policy,
    index: &mut Index,
    notice: &mut (dyn FnMut(String) + Send),
) -> Result<Described, PluginError> {
    let bytes = read_component(path)?;
    if crate::inspect::digest(&bytes) != digest {
        return Err(PluginError::NotTrusted { path: path.to_owned() });
    }
    let metadata = std::fs::metadata(path).map_err(|e| PluginError::unreadable(path, e))?;
    if let Some(entry) = index.entry(path).filter(|entry| entry.project && entry.described.digest == digest) {
        return Ok(entry.described.clone());
    }
    let what = path.display().to_string();
    let Inspection { manifest, digest, .. } = inspect(&what, &bytes)?;
    admit(policy, &what, &manifest, &digest, false)?;
    notice(format!("{}: trusted and new, compiling it once", path.display()));
    let described = compile_and_keep(path, &bytes, dirs).await?;
    index.put_project(path, Stamp::of(&metadata), described.clone());
    Ok(described)
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
    let mut index = Index::read(dirs)?;
    index.forget(id);
    index.save()
}
#[cfg(test)]
impl PluginDirs {
    /// Without plugins, all in one folder, with a compiler that cannot be started.
    pub(crate) fn below(folder: &Path) -> Self {
        let command = wall::SupervisorCommand { program: "/nonexistent".into(), args: Vec::new() };
        Self {
            folders: Vec::new(),
            named: Vec::new(),
            trusted: Vec::new(),
            index: folder.join("plugins.lock.json"),
            cache: folder.join("cache"),
            key: folder.join("state/compiled.key"),
            compiler: Compiler { command, limits: crate::Limits::default() },
        }
    }
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
