//! Which plugins there are and which names their tools have.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use egress::NetworkGrant;
use manifest::{Tier, ToolPolicy};
use policy::{PluginFacts, Policy};
use protocol::{ToolSpec, text};
use tokio::sync::Semaphore;

use crate::compile::Compiler;
use crate::describe::{Described, mark_of};
use crate::grants::Effective;
use crate::limits::MAX_CALLS_OF_PLUGIN;
use crate::open::Opened;
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
    /// Of the project that is worked in.
    Project(PathBuf),
}

impl Source {
    fn path(&self) -> PathBuf {
        match self {
            Self::Bundled(bundled) => PathBuf::from(format!("(bundled) {}", bundled.id)),
            Self::File(path) | Self::Project(path) => path.clone(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::line(&self.path().to_string_lossy()))
    }
}

/// Where plugins and what belongs to them lie.
#[derive(Clone, Debug)]
pub struct PluginDirs {
    /// Folders with components, first to last.
    pub folders: Vec<PathBuf>,
    /// Folders that were named for this run: one that cannot be read is an error, not an absence.
    pub named: Vec<PathBuf>,
    /// Folders that commands and tools of this run write to: what lies below them is let in by its digest. None:
    /// nobody knows, and every file that lies elsewhere than in `folders` counts as lying there.
    pub writable: Option<Vec<PathBuf>>,
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
    /// What its id was granted is for this very file. Of another one in its place nothing can be kept.
    pub has_grants: bool,
    pub(crate) granted: Effective,
    pub(crate) opened: Mutex<Option<Arc<Opened>>>,
    pub(crate) slots: Arc<Semaphore>,
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
            _ => format!("{}__{tool}", self.described.manifest.id),
        }
    }

    /// Whom its data and values belong to.
    #[must_use]
    pub fn owner(&self) -> String {
        match &self.source {
            Source::Project(path) => {
                format!("{}.project-{}", self.described.manifest.id, mark_of(&path.to_string_lossy()))
            }
            Source::Bundled(_) | Source::File(_) => self.described.owner(),
        }
    }

    /// The name of its table in a grants file.
    #[must_use]
    pub fn grants_name(&self) -> String {
        grants_name(&self.source, &self.described.manifest.id)
    }

    /// What a call of one tool may do. A tool that says that it looks only changes nothing, whatever the
    /// plugin as a whole was granted: its calls are not asked for. A call that looks for an order starts nothing
    /// either.
    pub(crate) fn capabilities_of(&self, tool: &str, looks: bool) -> manifest::Capabilities {
        let mut capabilities = self.granted.capabilities.clone();
        if looks || self.policy(tool).is_none_or(|policy| policy.tier == Tier::Read) {
            capabilities.files = false;
        }
        capabilities.exec &= !looks;
        capabilities
    }

    /// Which of these folders it lies in, as it is written there: whoever speaks of it has to name that one too.
    #[must_use]
    pub fn named_in<'a>(&self, folders: &'a [PathBuf]) -> Option<&'a Path> {
        let Source::File(path) = &self.source else { return None };
        let holds = |folder: &&PathBuf| folder.canonicalize().is_ok_and(|f| path.parent() == Some(&f));
        folders.iter().find(holds).map(PathBuf::as_path)
    }

    /// Says what a plugin of somebody else's declares and was not granted, for a call that failed: the plugin itself
    /// knows only that there is nothing.
    pub(crate) fn ungranted(&self, named: &[PathBuf]) -> Option<String> {
        if self.granted.lacking.is_empty() || matches!(self.source, Source::Bundled(_)) {
            return None;
        }
        let (id, lacking) = (&self.described.manifest.id, self.granted.lacking.join(", "));
        let named = self.named_in(named).map(|folder| format!(" --plugin-dir {}", text::path(folder)));
        let named = named.unwrap_or_default();
        Some(format!(
            "[plugin `{id}` was not granted {lacking}, which it declares: ml-intern plugin grant {id}{named}]"
        ))
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
        has_grants: bool,
        grants: &Grants,
        secrets: &Secrets,
        policy: &Policy,
    ) -> Result<(), PluginError> {
        let id = described.manifest.id.clone();
        let facts = PluginFacts {
            id: &id,
            version: &described.manifest.version,
            digest: &described.digest,
            publisher: described.publisher.as_ref().map(|by| by.key.as_str()),
            bundled: matches!(source, Source::Bundled(_)),
        };
        policy.plugin(facts).map_err(|by| PluginError::Forbidden { what: source.to_string(), by })?;
        if let Some(other) = self.plugins.iter().find(|p| p.described.manifest.id == id) {
            return Err(PluginError::DuplicateId { id, path: source.path(), other: other.source.path() });
        }
        let granted = grants.effective(&grants_name(&source, &id), &described, secrets, policy);
        let plugin = Arc::new(Plugin {
            source,
            described,
            has_grants,
            granted,
            opened: Mutex::new(None),
            slots: Arc::new(Semaphore::new(MAX_CALLS_OF_PLUGIN)),
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

/// A project's plugin has no part in what a person gave to another one of its id.
fn grants_name(source: &Source, id: &str) -> String {
    match source {
        Source::Project(path) => format!("{id}@{}", path.display()),
        _ => id.to_owned(),
    }
}

#[cfg(test)]
impl PluginDirs {
    /// Without plugins, all in one folder, with a compiler that cannot be started.
    pub(crate) fn below(folder: &std::path::Path) -> Self {
        let command = wall::SupervisorCommand { program: "/nonexistent".into(), args: Vec::new() };
        Self {
            folders: Vec::new(),
            named: Vec::new(),
            trusted: Vec::new(),
            writable: Some(Vec::new()),
            index: folder.join("plugins.lock.json"),
            cache: folder.join("cache"),
            key: folder.join("state/compiled.key"),
            compiler: Compiler { command, limits: crate::Limits::default() },
        }
    }
}
