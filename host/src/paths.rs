//! Where the program keeps its things.

use std::path::{Path, PathBuf};

use crate::environment::Environment;
use crate::exit::Failure;

const NAME: &str = "ml-intern";

/// The program's folders, by the XDG rules.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) home: PathBuf,
    /// Settings: `cli_agent_config.json`, `.env`, `grants.toml`.
    pub(crate) config: PathBuf,
    /// Plugins and what belongs to them.
    pub(crate) data: PathBuf,
    /// Sessions, diagnostics, keys.
    pub(crate) state: PathBuf,
    /// Compiled plugins.
    pub(crate) cache: PathBuf,
}

/// Makes a folder and those above it, for this user alone.
pub(crate) fn make_private(folder: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

impl Paths {
    pub(crate) fn find(environment: &Environment) -> Result<Self, Failure> {
        let home = environment.text("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let home =
            home.ok_or_else(|| Failure::settings(anyhow::anyhow!("HOME is not set to an absolute path")))?;
        // The standard says that a relative path there is to be ignored.
        let base = |name: &str, default: &str| {
            let given = environment.text(name).map(PathBuf::from).filter(|path| path.is_absolute());
            given.unwrap_or_else(|| home.join(default)).join(NAME)
        };
        Ok(Self {
            config: base("XDG_CONFIG_HOME", ".config"),
            data: base("XDG_DATA_HOME", ".local/share"),
            state: base("XDG_STATE_HOME", ".local/state"),
            cache: base("XDG_CACHE_HOME", ".cache"),
            home,
        })
    }

    /// A path as a person writes it: `~/` is the home folder.
    pub(crate) fn expand(&self, text: &str) -> PathBuf {
        text.strip_prefix("~/").map_or_else(|| PathBuf::from(text), |rest| self.home.join(rest))
    }

    /// Folders that no plugin and no command may reach.
    pub(crate) fn private(&self) -> Vec<PathBuf> {
        [&self.config, &self.data, &self.state, &self.cache].map(Clone::clone).to_vec()
    }

    /// The user's settings file.
    pub(crate) fn settings(&self) -> PathBuf {
        self.config.join("cli_agent_config.json")
    }

    /// The user's grants.
    pub(crate) fn grants(&self) -> PathBuf {
        self.config.join("grants.toml")
    }

    /// Folders of plugins, first to last.
    pub(crate) fn plugin_folders(&self) -> Vec<PathBuf> {
        vec![Path::new("/usr/share").join(NAME).join("plugins"), self.user_plugins()]
    }

    /// Where the user's own plugins lie.
    pub(crate) fn user_plugins(&self) -> PathBuf {
        self.data.join("plugins")
    }

    /// What belongs to a workspace and lies outside it: its private home and caches.
    pub(crate) fn of_workspace(&self, workspace: &Path) -> PathBuf {
        let name = audit::digest(workspace.as_os_str().as_encoded_bytes());
        self.state.join("workspaces").join(&name[..16])
    }
}
