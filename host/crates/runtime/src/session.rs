use std::collections::HashMap;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use manifest::{Capabilities, Mount};
use protocol::SessionId;
use protocol::text::path;
use wall::{Wall, WallConfig};

use crate::changes::Undo;
use crate::faults::Faults;
use crate::folders::DeniedPath;
use crate::kv::Kv;
use crate::quota::{Amount, Quota, Share};
use crate::{Folders, Limits};

/// Characters of a mark that say where a text came from.
const MARK_CHARACTERS: usize = 400;

/// Where sessions work: what they have in common before any of them is opened.
#[derive(Clone, Debug)]
pub struct Workplace {
    /// The folder to work in; none: an empty one of the session.
    pub workspace: Option<PathBuf>,
    /// Folders added for reading.
    pub read: Vec<PathBuf>,
    /// Folders added for reading and writing.
    pub write: Vec<PathBuf>,
    /// Mode bits that new files do not get.
    pub umask: u32,
    /// What no guest sees or changes.
    pub denied: Vec<DeniedPath>,
    /// Plugins' own folders, one below another by id.
    pub plugin_data: PathBuf,
    /// What lies in the folder is text that nobody vouches for.
    pub untrusted: bool,
    /// The wall of each session; its folders are filled in for each.
    pub wall: WallConfig,
}

impl Workplace {
    /// What a session is filed under.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        self.workspace.as_deref().unwrap_or(Path::new("(none)"))
    }

    /// Makes the folders of a session below its own folder, which must exist. Nothing is started.
    ///
    /// # Errors
    /// When a folder cannot be made.
    pub fn open(&self, id: SessionId, dir: &Path) -> std::io::Result<SessionContext> {
        let private = |name: &str| {
            let folder = dir.join(name);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            folder.canonicalize()
        };
        let tmp = private("tmp")?;
        let workspace = match &self.workspace {
            Some(folder) => folder.clone(),
            None => private("workspace")?,
        };
        let wall = WallConfig {
            workspace: workspace.clone(),
            read_dirs: self.read.clone(),
            write_dirs: self.write.clone(),
            tmp: tmp.clone(),
            ..self.wall.clone()
        };
        let folders = Folders {
            workspace,
            workspace_writable: wall.mode != wall::Mode::ReadOnly,
            read: self.read.clone(),
            write: if wall.mode == wall::Mode::ReadOnly { Vec::new() } else { self.write.clone() },
            tmp,
            umask: self.umask,
            denied: self.denied.clone(),
        };
        Ok(SessionContext {
            id,
            folders,
            wall: Wall::new(wall),
            undo: Undo::new(dir.join("undo")),
            plugin_data: self.plugin_data.clone(),
            untrusted: self.untrusted && self.workspace.is_some(),
            changing: Mutex::default(),
            kv: Mutex::new(Kv::new(dir.join("kv.jsonl"))),
            faults: Arc::default(),
            tmp_quota: OnceLock::new(),
            data_quotas: Mutex::default(),
        })
    }
}

/// What the calls of one session share.
#[derive(Debug)]
pub struct SessionContext {
    pub(crate) id: SessionId,
    pub(crate) folders: Folders,
    pub(crate) wall: Wall,
    pub(crate) undo: Undo,
    pub(crate) plugin_data: PathBuf,
    untrusted: bool,
    /// Held while a file is changed: what a call expects of it is true at that moment.
    changing: Mutex<()>,
    kv: Mutex<Kv>,
    pub(crate) faults: Arc<Faults>,
    tmp_quota: OnceLock<Arc<Quota>>,
    data_quotas: Mutex<HashMap<String, Arc<Quota>>>,
}

impl SessionContext {
    /// Keeps other changes of files away until it is dropped.
    pub(crate) fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call's share of what guests may write to `/tmp`, all together.
    pub(crate) fn tmp_share(&self, limits: &Limits) -> Share {
        let limit = Amount { bytes: limits.tmp_bytes, files: limits.tmp_files };
        self.tmp_quota.get_or_init(|| Arc::new(Quota::shared(self.folders.tmp.clone(), limit))).share()
    }

    /// A call's share of what its plugin may have in its `/data`.
    pub(crate) fn data_share(&self, plugin: &str, data: &Path, limits: &Limits) -> Share {
        let mut quotas = self.data_quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = Amount { bytes: limits.data_bytes, files: limits.data_files };
        let fresh = || Arc::new(Quota::lasting(data.to_owned(), limit));
        quotas.entry(plugin.to_owned()).or_insert_with(fresh).clone().share()
    }

    /// Where text comes from that a call can read with these capabilities before it asks for anything, if nobody
    /// vouches for it: the files of a folder that no person trusted, and what the plugin kept of earlier sessions.
    pub(crate) fn unvouched(&self, owner: &str, capabilities: &Capabilities) -> Option<String> {
        let reads_files = capabilities.exec || capabilities.paths.contains(&Mount::Workspace);
        if self.untrusted && reads_files {
            return Some(format!(
                "files of {}, a folder that is not trusted",
                self.folders.workspace.display()
            ));
        }
        if !capabilities.paths.contains(&Mount::Data) {
            return None;
        }
        let source = match std::fs::read(self.mark(owner)) {
            // It stays as long as the plugin: whoever finds the folder empty does not know who writes to it next.
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(_) => "a place that cannot be read any more".to_owned(),
        };
        let plugin = owner.split('.').next().unwrap_or(owner);
        Some(format!("what `{plugin}` kept from an earlier session, of {source}"))
    }

    /// Marks what a plugin keeps for other sessions: it may hold text from there. Or says why that cannot be
    /// done: then it gets no such text.
    pub(crate) fn mark_data(&self, owner: &str, source: &str) -> Result<(), String> {
        let mark = self.mark(owner);
        if mark.exists() {
            return Ok(());
        }
        let source: String = source.chars().take(MARK_CHARACTERS).collect();
        let made = std::fs::create_dir_all(&self.plugin_data).and_then(|()| std::fs::write(&mark, source));
        made.map_err(|error| {
            format!(
                "it keeps things for later sessions, and where they come from cannot be written down: {}: {error}",
                path(&mark)
            )
        })
    }

    /// Beside the plugin's folder, out of its reach. No folder of another one is called so: what follows the dot in
    /// the name of an owner is a digest, or begins with `project-`.
    fn mark(&self, owner: &str) -> PathBuf {
        self.plugin_data.join(format!("{owner}.read"))
    }

    /// The wall that the session's commands run behind.
    #[must_use]
    pub fn wall(&self) -> &Wall {
        &self.wall
    }

    /// The folders it works in.
    #[must_use]
    pub fn folders(&self) -> &Folders {
        &self.folders
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn kv(&self) -> std::sync::MutexGuard<'_, Kv> {
        self.kv.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
