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

/// Replaces a file that is this user's alone, in one step on the disk.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    make_private(path.parent().unwrap_or(Path::new(".")))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.sync_data()?;
    std::fs::rename(&temporary, path)
}

/// Refuses a file or folder that another user owns or could write to: what stands there is obeyed.
///
/// A group that is the user's own, as many systems make one per user, counts as the user.
pub(crate) fn check_own(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let refuse = |reason: &str| anyhow::anyhow!("{}: {reason}", path.display());
    let metadata = path.symlink_metadata().map_err(|e| refuse(&e.to_string()))?;
    if !metadata.is_file() && !metadata.is_dir() {
        return Err(refuse("it is not a regular file"));
    }
    let (uid, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if metadata.uid() != uid && metadata.uid() != 0 {
        return Err(refuse("it belongs to another user, and it is obeyed; make it your own with chown"));
    }
    let own_group = metadata.gid() == group && group == uid;
    let forbidden = if own_group { 0o002 } else { 0o022 };
    if metadata.mode() & forbidden != 0 {
        return Err(refuse("others can write to it, and it is obeyed; take that back with chmod go-w"));
    }
    Ok(())
}

/// Reads a file that is obeyed, if nobody else could have written it. Links are the person's own way to keep it
/// elsewhere: what they lead to is looked at. None: there is none.
pub(crate) fn read_own(path: &Path) -> anyhow::Result<Option<String>> {
    let refuse = |e: std::io::Error| anyhow::anyhow!("{}: {e}", path.display());
    let real = match path.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        real => real.map_err(refuse)?,
    };
    check_own(&real)?;
    std::fs::read_to_string(&real).map(Some).map_err(refuse)
}

/// Links of a path that are followed.
const MAX_LINKS: usize = 40;

/// Where a path leads, in the order in which it leads there: each link on the way, by its own place, and the end,
/// which need not exist. Whoever can write in one of these places decides what stands at the end.
pub(crate) fn way(path: &Path) -> Vec<PathBuf> {
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let owned = |path: &Path| path.iter().rev().map(std::ffi::OsStr::to_owned).collect::<Vec<_>>();
    let (mut left, mut at, mut passed) = (owned(path), PathBuf::new(), Vec::new());
    while let Some(part) = left.pop() {
        if part == ".." {
            at.pop();
        }
        if part == ".." || part == "." {
            continue;
        }
        at.push(&part);
        match std::fs::read_link(&at) {
            Ok(target) if passed.len() < MAX_LINKS => {
                passed.push(at.clone());
                at.pop();
                left.extend(owned(&target));
            }
            _ => {}
        }
    }
    passed.push(at);
    passed
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

    /// Folders that are obeyed and that a variable put elsewhere than in the home folder.
    pub(crate) fn put_elsewhere(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let usual = [
            ("XDG_CONFIG_HOME", ".config", &self.config),
            ("XDG_DATA_HOME", ".local/share", &self.data),
            ("XDG_STATE_HOME", ".local/state", &self.state),
        ];
        usual
            .into_iter()
            .filter(|(_, default, path)| **path != self.home.join(default).join(NAME))
            .map(|(variable, _, path)| (variable, path.as_path()))
    }

    /// Files that are obeyed and that a link may put elsewhere than in their folders.
    pub(crate) fn obeyed(&self) -> [PathBuf; 3] {
        [self.settings(), self.grants(), self.dotenv()]
    }

    /// Variables of the user's.
    pub(crate) fn dotenv(&self) -> PathBuf {
        self.config.join(".env")
    }

    /// The user's settings file.
    pub(crate) fn settings(&self) -> PathBuf {
        self.config.join("cli_agent_config.json")
    }

    /// What plugins keep in their `/data`.
    pub(crate) fn plugin_data(&self) -> PathBuf {
        self.data.join("plugin-data")
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_way_has_every_link_and_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for name in ["a", "b/c", "d"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("d/end"), "").unwrap();
        assert_eq!(way(&at("d/end")), [at("d/end")]);
        symlink("../b/dir/file", at("a/first")).unwrap();
        symlink("c", at("b/dir")).unwrap();
        symlink(at("d/end"), at("b/c/file")).unwrap();
        assert_eq!(way(&at("a/first")), [at("a/first"), at("b/dir"), at("b/c/file"), at("d/end")]);
        // What it leads to may come later.
        std::fs::remove_file(at("d/end")).unwrap();
        assert_eq!(way(&at("a/first")).last(), Some(&at("d/end")));
        symlink("round", at("round")).unwrap();
        assert_eq!(way(&at("round")).len(), MAX_LINKS + 1);
    }
}
