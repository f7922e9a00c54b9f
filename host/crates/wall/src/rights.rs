//! What commands may do with which path: the list of rules the supervisor enforces.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{Mode, WallConfig};
use crate::environment::user_variable;
use crate::error::WallError;
use crate::links::links_on;
use crate::secrets::secrets;
use crate::space::NEW;
use crate::tools::{Tools, find_tools};
use crate::wire::{Files, Kept, Link, Mounts};
use crate::{folders, git};

/// Folders of the system whose files everyone may read and run.
const SYSTEM_FOLDERS: [&str; 11] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/opt",
    "/nix",
    "/gnu",
    "/var/lib/ca-certificates",
];

/// What of `/sys` programs look at. Not all of it: root owns files of debugfs and tracefs.
const SYS_FOLDERS: [&str; 9] = [
    "/sys/block",
    "/sys/bus",
    "/sys/class",
    "/sys/dev",
    "/sys/devices",
    "/sys/fs/cgroup",
    "/sys/kernel/mm",
    "/sys/module",
    "/sys/kernel/iommu_groups",
];

/// Devices that every program may expect. `/dev/tty` opens nothing but a terminal that the command made.
const DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// First letters of device names that belong to accelerators.
const ACCELERATORS: [&str; 4] = ["nvidia", "dri", "kfd", "dxg"];

/// Folders that the private mounts replace by the session's tmp.
const TMP_FOLDERS: [&str; 2] = ["/tmp", "/var/tmp"];

/// Folders that the private mounts replace by empty ones: other programs' sockets and shared memory.
const EMPTIED_FOLDERS: [&str; 3] = ["/run", "/var/run", "/dev/shm"];

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Rule {
    pub(crate) path: PathBuf,
    pub(crate) access: Access,
}

/// What a rule allows with everything below its path.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Access {
    /// List folders.
    List,
    /// Read files and list folders.
    Read,
    /// Also run programs.
    Tool,
    /// Also make, change and remove files.
    Write,
    /// As `Write`, without running programs.
    Shared,
    /// Read, write and control devices.
    Device,
    /// Read, and write to files that are there: the names of threads below `/proc`.
    Names,
}

impl Access {
    pub(crate) fn reads(self) -> bool {
        self != Self::List
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::Shared | Self::Device | Self::Names)
    }
}

/// The rules of a session and what follows from them.
#[derive(Clone, Debug)]
pub(crate) struct Rights {
    pub(crate) rules: Vec<Rule>,
    /// The workspace and the added folders, resolved.
    pub(crate) granted: Vec<PathBuf>,
    /// Where tools outside the system folders find themselves, such as `PYENV_ROOT`.
    pub(crate) tool_env: Vec<(OsString, OsString)>,
    /// Links by which what the rules name is reached under other names.
    pub(crate) links: Vec<Link>,
    /// The session's tmp, resolved.
    pub(crate) tmp: PathBuf,
    user_home: Option<PathBuf>,
    /// What no sentence should propose to add: folders of credentials and ours.
    secrets: Vec<PathBuf>,
}

impl Rights {
    /// Looks at the machine and lists what the configuration allows. Makes our own folders.
    pub(crate) fn new(config: &WallConfig) -> Result<Self, WallError> {
        let [home, tmp, caches] =
            [&config.home, &config.tmp, &config.caches].map(|path| folders::make_private(path));
        let (home, tmp, caches) = (home?, tmp?, caches?);
        let user_home = user_variable(config, "HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let dir_access = if config.mode == Mode::ReadOnly { Access::Tool } else { Access::Write };

        let secrets = secrets(config, user_home.as_deref());
        let mut rights = Self {
            rules: Vec::new(),
            granted: Vec::new(),
            tool_env: Vec::new(),
            links: Vec::new(),
            tmp,
            user_home,
            secrets,
        };
        rights.grant(config, &config.workspace, dir_access)?;
        for dir in &config.write_dirs {
            rights.grant(config, dir, dir_access)?;
        }
        for dir in &config.read_dirs {
            rights.grant(config, dir, Access::Tool)?;
        }
        if !config.mode.is_confined() {
            return Ok(rights);
        }
        for own in [&config.home, &config.tmp, &config.caches] {
            rights.links.extend(links_on(own));
        }
        for own in [home, rights.tmp.clone(), caches] {
            rights.allow(own, Access::Write);
        }
        rights.allow_system(&config.private_dirs);
        rights.allow_devices();
        for folder in git::common_folders(&config.workspace, rights.user_home.as_deref()) {
            rights.allow(folder, Access::Read);
        }
        let tools = find_tools(config, &rights);
        rights.allow_tools(tools);
        Ok(rights)
    }

    /// The most that a rule allows with `path`, which must be absolute and without `..`.
    pub(crate) fn access(&self, path: &Path) -> Option<Access> {
        let covering = self.rules.iter().filter(|rule| path.starts_with(&rule.path)).map(|rule| rule.access);
        covering.max_by_key(|access| (access.writes(), access.reads()))
    }

    /// Whether `path` lies where credentials or our settings and state do.
    pub(crate) fn is_secret(&self, path: &Path) -> bool {
        self.secrets.iter().any(|secret| path.starts_with(secret))
    }

    /// The folders of the session that commands may write to.
    pub(crate) fn written(&self) -> Vec<PathBuf> {
        let writes = |dir: &&PathBuf| self.access(dir).is_some_and(Access::writes);
        self.granted.iter().filter(writes).cloned().collect()
    }

    /// The private mounts that fit these rules.
    pub(crate) fn mounts(&self, sealed: Vec<Kept>) -> Mounts {
        let over_tmp = self.replaceable(&TMP_FOLDERS);
        let empty = self.replaceable(&EMPTIED_FOLDERS);
        let is_hidden =
            |path: &Path| over_tmp.iter().chain(&empty).any(|root| path.starts_with(root) && path != root);
        let has_tmp = over_tmp.iter().any(|root| root == Path::new("/tmp"));
        let mut rules: Vec<&Rule> = self
            .rules
            .iter()
            .filter(|rule| is_hidden(&rule.path) || rule.access == Access::Write)
            // The session's tmp is there already, as `/tmp`.
            .filter(|rule| !(has_tmp && rule.path == self.tmp))
            .collect();
        rules.sort_by_key(|rule| (&rule.path, !rule.access.writes()));
        let mut keep: Vec<Kept> = Vec::new();
        for rule in rules {
            let is_writable = rule.access.writes();
            let around = keep.iter().rev().find(|kept| rule.path.starts_with(&kept.path));
            if !around.is_some_and(|kept| kept.is_writable || !is_writable) {
                let path = rule.path.clone();
                keep.push(Kept { path, is_writable });
            }
        }
        let terminals = Path::new("/dev/pts").is_dir();
        Mounts { tmp: self.tmp.clone(), over_tmp, empty, terminals, keep, sealed }
    }

    /// Existing folders that commands must neither read nor write, for trying it.
    pub(crate) fn outside(&self, files: &Files) -> Vec<PathBuf> {
        let replaced = |path: &Path| match files {
            Files::Own(_) => NEW.iter().any(|new| path.starts_with(new)),
            Files::Mounts(mounts) => {
                mounts.over_tmp.iter().chain(&mounts.empty).any(|root| path.starts_with(root))
            }
            Files::Machine => false,
        };
        let parents = self.granted.iter().filter_map(|dir| dir.parent());
        let candidates =
            self.user_home.as_deref().into_iter().chain(parents).chain(["/", "/var", "/root"].map(Path::new));
        let mut outside: Vec<PathBuf> = candidates
            // By its real name: a link to a folder that was given is no hole.
            .filter_map(|path| fs::canonicalize(path).ok())
            .filter(|path| self.access(path).is_none() && !replaced(path) && path.is_dir())
            .collect();
        outside.sort();
        outside.dedup();
        outside
    }

    #[cfg(test)]
    pub(crate) fn for_tests(rules: Vec<Rule>, granted: Vec<PathBuf>) -> Self {
        let (tool_env, links, secrets) = (Vec::new(), Vec::new(), Vec::new());
        Self { rules, granted, tool_env, links, tmp: PathBuf::new(), user_home: None, secrets }
    }

    /// Adds a folder that the session was given.
    fn grant(&mut self, config: &WallConfig, dir: &Path, access: Access) -> Result<(), WallError> {
        let bad = |reason: String| WallError::Folder { path: dir.to_path_buf(), reason };
        let path = fs::canonicalize(dir).map_err(|error| bad(error.to_string()))?;
        if !path.is_dir() {
            return Err(bad("it is not a folder".into()));
        }
        if path.to_str().is_none() {
            return Err(bad("its name is not UTF-8".into()));
        }
        let private = config.private_dirs.iter().find(|private| resolved(private).starts_with(&path));
        if let Some(private) = private.filter(|_| config.mode.is_confined()) {
            return Err(bad(format!(
                "it contains settings or state of this program in `{}`",
                private.display()
            )));
        }
        self.links.extend(links_on(dir));
        self.granted.push(path.clone());
        self.allow(path, access);
        Ok(())
    }

    fn allow_system(&mut self, private_dirs: &[PathBuf]) {
        for folder in SYSTEM_FOLDERS {
            self.allow(folder, Access::Tool);
        }
        for path in folders::readable_by_everyone(Path::new("/etc"), private_dirs) {
            self.allow(path, Access::Read);
        }
        // Often a link into /run, which is not readable otherwise.
        self.allow("/etc/resolv.conf", Access::Read);
        self.allow("/proc", Access::Read);
        for folder in SYS_FOLDERS {
            self.allow(folder, Access::Read);
        }
    }

    fn allow_devices(&mut self) {
        self.allow("/dev", Access::List);
        for device in DEVICES {
            self.allow(device, Access::Device);
        }
        self.allow("/dev/shm", Access::Shared);
        for entry in fs::read_dir("/dev").into_iter().flatten().flatten() {
            let name = entry.file_name();
            if ACCELERATORS.iter().any(|prefix| name.as_encoded_bytes().starts_with(prefix.as_bytes())) {
                self.allow(entry.path(), Access::Device);
            }
        }
    }

    fn allow_tools(&mut self, tools: Tools) {
        for path in tools.readable {
            self.allow(path, Access::Tool);
        }
        self.tool_env = tools.env;
        self.links.extend(tools.links);
    }

    /// Adds a rule for what `path` resolves to. A path that is not there, or that JSON cannot carry, gets
    /// none.
    fn allow(&mut self, path: impl AsRef<Path>, access: Access) {
        let Ok(real) = fs::canonicalize(path.as_ref()) else { return };
        if real != path.as_ref() {
            self.links.extend(links_on(path.as_ref()));
        }
        let rule = Rule { path: real, access };
        if rule.path.to_str().is_some() && !self.rules.contains(&rule) {
            self.rules.push(rule);
        }
    }

    /// Those of `folders` that are folders themselves, and not inside one that the session was given.
    fn replaceable(&self, folders: &[&str]) -> Vec<PathBuf> {
        let stands_alone = |path: &Path| {
            fs::canonicalize(path).is_ok_and(|real| real == path && path.is_dir())
                && !self.granted.iter().any(|granted| path.starts_with(granted))
        };
        folders.iter().map(PathBuf::from).filter(|path| stands_alone(path)).collect()
    }
}

/// `path` with links followed, as far as it exists.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|above| Some((above, fs::canonicalize(above).ok()?)));
    match found.map(|(above, real)| (real, path.strip_prefix(above))) {
        Some((real, Ok(rest))) if !rest.as_os_str().is_empty() => real.join(rest),
        Some((real, Ok(_))) => real,
        _ => path.to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(rules: &[(&str, Access)]) -> Rights {
        let rules = rules.iter().map(|(path, access)| Rule { path: path.into(), access: *access }).collect();
        Rights { tmp: "/tmp/s/tmp".into(), ..Rights::for_tests(rules, Vec::new()) }
    }

    #[test]
    fn the_widest_rule_counts() {
        let rights = rights(&[("/data", Access::Tool), ("/data/out", Access::Write), ("/dev", Access::List)]);
        assert_eq!(rights.access(Path::new("/data/in")), Some(Access::Tool));
        assert_eq!(rights.access(Path::new("/data/out/a")), Some(Access::Write));
        assert_eq!(rights.access(Path::new("/dev/sda")), Some(Access::List));
        assert_eq!(rights.access(Path::new("/database")), None);
    }

    #[test]
    fn what_the_mounts_hide_or_make_read_only_is_kept_once() {
        let rights = rights(&[
            ("/tmp/work/sub", Access::Write),
            ("/tmp/work", Access::Write),
            ("/tmp/s/tmp", Access::Write),
            ("/home/data", Access::Write),
            ("/usr", Access::Tool),
        ]);
        let kept = |path: &str, is_writable| Kept { path: path.into(), is_writable };
        assert_eq!(rights.mounts(Vec::new()).keep, [kept("/home/data", true), kept("/tmp/work", true)]);
    }

    #[test]
    fn what_is_writable_inside_what_is_not_is_kept_on_its_own() {
        let rights = rights(&[
            ("/tmp/a/work/data", Access::Tool),
            ("/tmp/a/work", Access::Write),
            ("/tmp/a/lib", Access::Tool),
            ("/tmp/a", Access::Tool),
        ]);
        let kept = |path: &str, is_writable| Kept { path: path.into(), is_writable };
        assert_eq!(rights.mounts(Vec::new()).keep, [kept("/tmp/a", false), kept("/tmp/a/work", true)]);
    }
}
