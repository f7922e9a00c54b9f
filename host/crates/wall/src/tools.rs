//! Where interpreters and tools on `PATH` lie when they lie outside the system folders.
//!
//! A tool is more than its program: a virtual environment needs the interpreter it links to, a shim the
//! versions behind it. Each folder of `PATH` is followed to the prefixes it belongs to, and from there on,
//! but never into a home folder as a whole, a folder of credentials or one of ours. Where others than the
//! user may have put files no link is followed; an environment there gets the Python it was made from.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::WallConfig;
use crate::environment::user_variable;
use crate::ground::Ground;
use crate::links::links_on;
use crate::python::{base_of_virtual_environment, has_python_library, installation_of, interpreters_behind};
use crate::rights::{Rights, resolved};
use crate::secrets::secrets;
use crate::wire::Link;

/// Most folders of programs that are followed; usual are fewer than 20.
const MAX_FOLDERS: usize = 256;

/// Most links of one folder that are followed; a large conda environment has about 3000 entries.
const MAX_LINKS: usize = 4096;

/// Programs in system folders that may be links to a tool elsewhere.
const INTERPRETERS: [&str; 6] = ["python3", "python", "node", "conda", "uv", "git"];

/// Virtual environments that are used without being on `PATH`.
const WORKSPACE_ENVIRONMENTS: [&str; 3] = [".venv", "venv", "env"];

/// Parts of a prefix that programs need, where the prefix as a whole is too much.
const PREFIX_PARTS: [&str; 5] = ["lib", "lib64", "libexec", "share", "include"];

/// Further parts that an environment on foreign ground, or the installation behind it, gets one by one.
const ENVIRONMENT_PARTS: [&str; 3] = ["bin", "ssl", "pyvenv.cfg"];

pub(crate) struct Tools {
    /// Folders and files that commands may read and run.
    pub(crate) readable: Vec<PathBuf>,
    /// Variables by which tools find their prefix when `HOME` is another.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Links by which they are reached.
    pub(crate) links: Vec<Link>,
}

/// Finds the tools of the user's `PATH`, virtual environments and Hub cache.
pub(crate) fn find_tools(config: &WallConfig, rights: &Rights) -> Tools {
    let home = user_variable(config, "HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let mut search = Search::new(config, rights, home.as_deref());
    for folder in search_path(config) {
        search.add_folder(&folder);
    }
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(prefix) = user_variable(config, name) {
            search.add_folder(&Path::new(prefix).join("bin"));
        }
    }
    if let Some(conda) = user_variable(config, "CONDA_EXE") {
        search.add_program(Path::new(conda));
    }
    search.follow();
    for name in WORKSPACE_ENVIRONMENTS {
        search.add_python_behind(&config.workspace.join(name));
    }
    search.add_hub_cache(config);

    let mut env = Vec::new();
    if let Some(root) = search.pyenv_root.take() {
        env.push(("PYENV_ROOT".into(), root.into()));
    }
    if let Some(root) = search.add_rustup(config) {
        env.push(("RUSTUP_HOME".into(), root.into()));
    }
    let mut links = search.ground.links();
    links.append(&mut search.links);
    Tools { readable: search.readable, env, links }
}

/// A folder of the user's Hugging Face cache, `hub` or `datasets`. Never the cache's root: the token lies
/// there.
pub(crate) fn hub_folder(config: &WallConfig, name: &str) -> Option<PathBuf> {
    fs::canonicalize(hub_path(config, name)?).ok().filter(|folder| folder.is_dir())
}

fn hub_path(config: &WallConfig, name: &str) -> Option<PathBuf> {
    let variable = |name: &str| user_variable(config, name).map(PathBuf::from);
    let in_root = || {
        let root = variable("HF_HOME")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/huggingface")));
        root.map(|root| root.join(name))
    };
    let own_variable = if name == "hub" { "HF_HUB_CACHE" } else { "HF_DATASETS_CACHE" };
    variable(own_variable).or_else(in_root)
}

/// The folders of the user's `PATH`, or the usual ones. Relative ones would depend on what lies in a working
/// folder.
pub(crate) fn search_path(config: &WallConfig) -> Vec<PathBuf> {
    let path = user_variable(config, "PATH").unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(path).filter(|folder| folder.is_absolute()).collect()
}

struct Search<'a> {
    rights: &'a Rights,
    ground: Ground,
    home: Option<&'a Path>,
    /// No prefix may contain one of these: the home, folders of credentials, ours.
    not_above: Vec<PathBuf>,
    /// Nor lie in one of these: the same without the home.
    not_inside: Vec<PathBuf>,
    queue: VecDeque<PathBuf>,
    seen: Vec<PathBuf>,
    readable: Vec<PathBuf>,
    /// Links that environments on foreign ground lead through.
    links: Vec<Link>,
    pyenv_root: Option<PathBuf>,
    rustup_found: bool,
}

impl<'a> Search<'a> {
    fn new(config: &WallConfig, rights: &'a Rights, home: Option<&'a Path>) -> Self {
        let not_inside = secrets(config, home);
        let not_above = not_inside.iter().cloned().chain(home.map(resolved)).collect();
        Self {
            rights,
            ground: Ground::new(rights, &config.workspace, home),
            home,
            not_above,
            not_inside,
            queue: VecDeque::new(),
            seen: Vec::new(),
            readable: Vec::new(),
            links: Vec::new(),
            pyenv_root: None,
            rustup_found: false,
        }
    }

    fn follow(&mut self) {
        while let Some(folder) = self.queue.pop_front() {
            self.follow_folder(&folder);
        }
    }

    /// Notes a folder of programs. What it resolves to is looked at once.
    fn add_folder(&mut self, folder: &Path) {
        let Some(folder) = self.ground.resolve(folder) else {
            return;
        };
        if folder.is_dir() && self.seen.len() < MAX_FOLDERS && !self.seen.contains(&folder) {
            self.seen.push(folder.clone());
            self.queue.push_back(folder);
        }
    }

    /// Makes a program readable, and notes the folders of all links on the way to it: a virtual environment
    /// lies beside its link, not beside the interpreter.
    fn add_program(&mut self, program: &Path) {
        let followed = self.ground.follow(program);
        for folder in
            followed.folders.iter().filter(|folder| !self.is_covered(folder)).cloned().collect::<Vec<_>>()
        {
            self.add_folder(&folder);
        }
        let Some(program) = followed.target else {
            return;
        };
        if !self.is_covered(&program) && program.is_file() && self.may_read(&program) {
            self.readable.push(program);
        }
    }

    fn follow_folder(&mut self, folder: &Path) {
        if self.ground.is_foreign(folder) {
            self.allow_foreign(folder);
            return;
        }
        if self.is_system(folder) {
            for name in INTERPRETERS {
                self.add_program(&folder.join(name));
            }
            if folder != Path::new("/usr/local/bin") {
                return;
            }
        } else {
            self.allow(folder);
            self.allow_prefix(folder);
        }
        for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(MAX_LINKS) {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                self.add_program(&entry.path());
            }
            self.rustup_found |= entry.file_name() == "rustup";
        }
    }

    /// Allows a folder of `PATH` that others may have filled, such as that of an environment in the
    /// repository around the workspace: the folder itself and what belongs to it, by no link of theirs.
    fn allow_foreign(&mut self, folder: &Path) {
        self.allow(folder);
        let Some(prefix) = self.prefix_of(folder) else { return };
        self.allow_parts(&prefix);
        self.add_python_behind(&prefix);
    }

    /// Allows what belongs to a folder of programs: the prefix above it, or the usual parts of it.
    fn allow_prefix(&mut self, folder: &Path) {
        let Some(prefix) = self.prefix_of(folder) else { return };
        // The settings of an environment are text that anything may have written.
        let base = base_of_virtual_environment(&prefix).and_then(|base| self.ground.resolve(&base));
        if let Some(base) = base.filter(|base| base.parent().is_some_and(has_python_library)) {
            self.add_folder(&base);
        }
        if is_pyenv(&prefix) {
            self.pyenv_root.get_or_insert_with(|| prefix.clone());
        }
        if is_prefix(&prefix) && self.allow(&prefix) {
            return;
        }
        for part in PREFIX_PARTS {
            let part = prefix.join(part);
            if part.is_dir() {
                self.allow(&part);
            }
        }
    }

    /// The prefix that a folder belongs to, if its name is one of those for programs.
    fn prefix_of(&self, folder: &Path) -> Option<PathBuf> {
        let prefix = folder.parent()?;
        let is_programs_folder = folder.file_name().is_some_and(|name| {
            ["bin", "sbin", "shims", "condabin", "Scripts"].iter().any(|known| name == *known)
        });
        let is_home = self.home.is_some_and(|home| resolved(home) == prefix);
        (is_programs_folder && !is_home).then(|| prefix.to_path_buf())
    }

    /// Allows the parts of a prefix that are no links.
    fn allow_parts(&mut self, prefix: &Path) {
        for part in PREFIX_PARTS.iter().chain(&ENVIRONMENT_PARTS) {
            let part = prefix.join(part);
            if part.symlink_metadata().is_ok_and(|metadata| !metadata.is_symlink()) {
                self.allow(&part);
            }
        }
    }

    /// Allows the Python that a virtual environment on foreign ground was made from. What the environment
    /// says may be hostile, so it counts only if it leads to an installation of Python on other ground; of
    /// that no folder is listed and no link followed.
    fn add_python_behind(&mut self, environment: &Path) {
        for interpreter in interpreters_behind(environment) {
            if self.is_covered(&interpreter) || self.ground.is_foreign(&interpreter) {
                continue;
            }
            if let Some(prefix) = installation_of(&interpreter).filter(|_| self.may_read(&interpreter)) {
                self.allow(&interpreter);
                self.allow_parts(&prefix);
                self.links.extend(links_on(&environment.join("bin/python")));
                let base = base_of_virtual_environment(environment);
                self.links.extend(base.iter().flat_map(|base| links_on(base)));
            }
        }
    }

    /// Models and data sets that the user downloaded before.
    fn add_hub_cache(&mut self, config: &WallConfig) {
        for name in ["hub", "datasets"] {
            let folder = hub_path(config, name).and_then(|path| self.ground.resolve(&path));
            if let Some(folder) = folder.filter(|folder| folder.is_dir()) {
                self.allow(&folder);
            }
        }
    }

    /// The toolchains behind rustup's proxies.
    fn add_rustup(&mut self, config: &WallConfig) -> Option<PathBuf> {
        let root = user_variable(config, "RUSTUP_HOME").map(PathBuf::from);
        let root = root.or_else(|| self.home.map(|home| home.join(".rustup")))?;
        let root = self.ground.resolve(&root)?;
        (self.rustup_found && root.join("toolchains").is_dir() && self.allow(&root)).then_some(root)
    }

    /// Adds a folder to what is readable, unless it holds or lies in what must not be.
    fn allow(&mut self, folder: &Path) -> bool {
        let allowed = self.may_read(folder);
        if allowed && !self.is_covered(folder) {
            self.readable.push(folder.to_path_buf());
        }
        allowed
    }

    fn may_read(&self, path: &Path) -> bool {
        !self.not_above.iter().any(|secret| secret.starts_with(path))
            && !self.not_inside.iter().any(|secret| path.starts_with(secret))
    }

    fn is_covered(&self, path: &Path) -> bool {
        self.readable.iter().any(|dir| path.starts_with(dir))
            || self.rights.access(path).is_some_and(|access| access.reads())
    }

    /// Whether a rule of the system's already makes `path` readable.
    fn is_system(&self, path: &Path) -> bool {
        self.rights.access(path).is_some_and(|access| access.reads())
    }
}

/// Whether a folder was made to hold one installation, so that all of it belongs to its programs.
fn is_prefix(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    has("pyvenv.cfg")
        || has("conda-meta")
        || has("Cellar")
        || has("lib/node_modules")
        || has("lib/rustlib")
        || is_pyenv(folder)
        || has_python_library(folder)
}

fn is_pyenv(folder: &Path) -> bool {
    folder.join("shims").is_dir() && folder.join("versions").is_dir()
}
