//! The folders a session works in, and which paths in them are sealed.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Mode, OFlags, mkdirat, openat, readlinkat};
use rustix::io::Errno;

/// Links followed before a path is given up as a loop; the kernel's own figure.
const MAX_LINKS: usize = 40;

/// Folders of agents and editors that take instructions or run code from files in them.
const SEALED_FOLDERS: [&str; 16] = [
    ".ml-intern",
    ".agents",
    ".aider",
    ".claude",
    ".clinerules",
    ".codex",
    ".continue",
    ".cursor",
    ".devcontainer",
    ".gemini",
    ".husky",
    ".idea",
    ".vscode",
    ".windsurf",
    ".zed",
    ".git",
];

/// Files that a program takes instructions, settings or secrets from.
const SEALED_FILES: [&str; 12] = [
    "agents.md",
    "agents.override.md",
    "claude.md",
    "claude.local.md",
    "gemini.md",
    "qwen.md",
    ".mcp.json",
    ".envrc",
    ".cursorrules",
    ".windsurfrules",
    ".goosehints",
    ".gitmodules",
];

/// What git obeys in a repository without a work tree, whose folder is called `NAME.git`.
const SEALED_IN_BARE: [&str; 3] = ["config", "config.worktree", "hooks"];

/// Whether a path (relative to its folder) is one that later runs or other programs obey.
///
/// Names are compared without case, because some file systems do so.
#[must_use]
pub fn is_sealed(relative: &Path) -> bool {
    let names: Vec<String> =
        relative.components().map(|c| c.as_os_str().to_string_lossy().to_lowercase()).collect();
    let Some((last, _)) = names.split_last() else {
        return false;
    };
    let is_sealed_pair = |pair: &[String]| match pair {
        [above, name] => {
            (above.ends_with(".git") && SEALED_IN_BARE.contains(&name.as_str()))
                || (above == ".github" && name == "copilot-instructions.md")
        }
        _ => false,
    };
    names.iter().any(|name| SEALED_FOLDERS.contains(&name.as_str()))
        || names.windows(2).any(is_sealed_pair)
        || SEALED_FILES.contains(&last.as_str())
        || last.starts_with(".env")
}

/// The folders of a session. All paths are absolute and free of links.
#[derive(Clone, Debug)]
pub struct Folders {
    /// Where the work is done.
    pub workspace: PathBuf,
    /// Whether the workspace may be changed.
    pub workspace_writable: bool,
    /// Folders added for reading.
    pub read: Vec<PathBuf>,
    /// Folders added for reading and writing.
    pub write: Vec<PathBuf>,
    /// The session's own `/tmp`.
    pub tmp: PathBuf,
    /// Mode bits that new files do not get.
    pub umask: u32,
    /// What no guest sees or changes.
    pub denied: Vec<DeniedPath>,
}

/// Paths that a rule denies: what fits, and all that lies below it.
#[derive(Clone, Debug)]
pub struct DeniedPath {
    pattern: glob::Pattern,
    rule: String,
}

impl DeniedPath {
    /// The pattern is of absolute paths.
    #[must_use]
    pub fn new(pattern: &glob::Pattern) -> Self {
        // What lies below is denied in any case, and so is the folder itself.
        let text = pattern.as_str().trim_end_matches("/**").to_lowercase();
        let text = if text.is_empty() { "/".to_owned() } else { text };
        Self { pattern: glob::Pattern::new(&text).unwrap_or_else(|_| pattern.clone()), rule: String::new() }
    }

    /// The same, with the rule as it was written, and where it stands.
    #[must_use]
    pub fn by(self, rule: String) -> Self {
        Self { rule, ..self }
    }

    /// Whether it denies a path, or a folder that it lies in. Case counts for nothing, because some file systems
    /// know no case.
    #[must_use]
    pub fn covers(&self, path: &Path) -> bool {
        path.ancestors().any(|path| self.fits(&path.to_string_lossy().to_lowercase()))
    }

    fn fits(&self, lower: &str) -> bool {
        let options = glob::MatchOptions {
            case_sensitive: false,
            require_literal_separator: true,
            ..glob::MatchOptions::default()
        };
        self.pattern.matches_with(lower, options)
    }
}

/// Why a path cannot be changed.
#[derive(Debug)]
pub(crate) enum PathError {
    /// Where the path leads, links followed, is in no folder that may be changed.
    Outside(PathBuf),
    NotAFolder(PathBuf),
    TooManyLinks,
    Io(std::io::Error),
}

impl From<Errno> for PathError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// A place for a file: the way to it is open as far as it exists, so that nothing can move it elsewhere.
pub(crate) struct Place {
    /// The folder it lies in, or the last one on the way there that exists.
    pub(crate) folder: OwnedFd,
    /// Folders to be made between that one and the file.
    missing: Vec<OsString>,
    pub(crate) name: OsString,
    /// The whole path, free of links.
    pub(crate) path: PathBuf,
    /// The part below the writable folder it lies in.
    pub(crate) relative: PathBuf,
}

impl Place {
    /// Whether the folder it lies in exists. Without it there is no file either.
    pub(crate) fn has_folder(&self) -> bool {
        self.missing.is_empty()
    }

    /// Where a link of this name leads.
    pub(crate) fn link(&self) -> Option<PathBuf> {
        if self.has_folder() { link_target(&self.folder, &self.name) } else { None }
    }

    /// Makes the folders that are missing: only after all that could refuse the change was asked.
    pub(crate) fn make_folders(&mut self, umask: u32) -> Result<(), Errno> {
        for part in std::mem::take(&mut self.missing) {
            match mkdirat(&self.folder, &part, Mode::from_raw_mode(0o777 & !umask)) {
                Ok(()) | Err(Errno::EXIST) => self.folder = open_folder(&self.folder, &part)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Folders {
    /// Where guests see each folder: guest path, real path.
    pub(crate) fn readable(&self) -> Vec<(String, &Path)> {
        let mut mounts = vec![("/workspace".to_owned(), self.workspace.as_path())];
        for folder in std::iter::once(&self.workspace).chain(&self.read).chain(&self.write) {
            mounts.push((folder.to_string_lossy().into_owned(), folder));
        }
        mounts
    }

    /// The rule that denies a path.
    pub(crate) fn denies(&self, path: &Path) -> Option<&str> {
        if self.denied.is_empty() {
            return None;
        }
        let spelt: Vec<String> = path.ancestors().map(|path| path.to_string_lossy().to_lowercase()).collect();
        let fits = |denied: &&DeniedPath| spelt.iter().any(|path| denied.fits(path));
        self.denied.iter().find(fits).map(|denied| denied.rule.as_str())
    }

    /// A path that a call names, as it really is: from the root, links of what exists followed.
    #[must_use]
    pub fn real(&self, path: &str) -> PathBuf {
        let path = Path::new(path);
        let seen = [("/workspace", &self.workspace), ("/tmp", &self.tmp)];
        let inside = seen.iter().find_map(|(guest, real)| Some(real.join(path.strip_prefix(guest).ok()?)));
        let path = normal(&inside.unwrap_or_else(|| self.workspace.join(path)));
        let existing = path.ancestors().find_map(|above| Some((above.canonicalize().ok()?, above)));
        match existing {
            Some((real, above)) => path.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest)),
            None => path,
        }
    }

    /// Finds the place that a path names, following links as long as they stay in writable folders: also
    /// one at the end of the path, unless the place of that link itself is meant. Nothing is made.
    pub(crate) fn place(&self, path: &Path, last: LastLink) -> Result<Place, PathError> {
        let mut path = normal(path);
        for _ in 0..MAX_LINKS {
            match self.walk(&path, last)? {
                Walk::Arrived(place) => return Ok(place),
                Walk::Link(target) => path = normal(&target),
            }
        }
        Err(PathError::TooManyLinks)
    }

    fn walk(&self, path: &Path, last: LastLink) -> Result<Walk, PathError> {
        let (root, relative) = self.writable_root(path).ok_or_else(|| PathError::Outside(path.to_owned()))?;
        let Some(name) = relative.file_name().map(ToOwned::to_owned) else {
            return Err(PathError::NotAFolder(path.to_owned()));
        };
        let mut at = root.to_owned();
        let mut folder = open_root(root)?;
        let mut missing = Vec::new();
        let above: Vec<_> = relative.parent().into_iter().flat_map(Path::components).collect();
        for (k, part) in above.iter().enumerate() {
            let part = part.as_os_str();
            match open_folder(&folder, part) {
                Ok(inner) => folder = inner,
                Err(Errno::LOOP | Errno::NOTDIR) => {
                    let Some(target) = link_target(&folder, part) else {
                        return Err(PathError::NotAFolder(at.join(part)));
                    };
                    let rest: PathBuf = above[k + 1..].iter().map(|part| part.as_os_str()).collect();
                    return Ok(Walk::Link(at.join(target).join(rest).join(name)));
                }
                Err(Errno::NOENT) => {
                    missing.extend(above[k..].iter().map(|part| part.as_os_str().to_owned()));
                    break;
                }
                Err(error) => return Err(error.into()),
            }
            at.push(part);
        }
        at.extend(&missing);
        let place = Place { folder, missing, path: at.join(&name), name, relative: relative.to_owned() };
        match place.link() {
            Some(target) if last == LastLink::Followed => Ok(Walk::Link(at.join(target))),
            _ => Ok(Walk::Arrived(place)),
        }
    }

    /// The writable folder a path lies in, and the rest of the path. The innermost folder counts.
    fn writable_root<'a>(&'a self, path: &'a Path) -> Option<(&'a Path, &'a Path)> {
        let workspace =
            [Path::new("/workspace"), &self.workspace].map(|seen| (seen, self.workspace.as_path()));
        let tmp = [Path::new("/tmp"), &self.tmp].map(|seen| (seen, self.tmp.as_path()));
        let added = self.write.iter().map(|folder| (folder.as_path(), folder.as_path()));
        let workspace = workspace.into_iter().filter(|_| self.workspace_writable);
        let read_only =
            std::iter::once(&self.workspace).filter(|_| !self.workspace_writable).chain(&self.read);
        let deepest = workspace
            .chain(tmp)
            .chain(added)
            .filter_map(|(seen, real)| Some((seen, real, path.strip_prefix(seen).ok()?)))
            .max_by_key(|(seen, ..)| seen.components().count())?;
        let depth = deepest.0.components().count();
        let shadowed = read_only.into_iter().any(|f| path.starts_with(f) && f.components().count() > depth);
        (!shadowed).then_some((deepest.1, deepest.2))
    }
}

/// What a link at the end of a path stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LastLink {
    /// The file that it leads to.
    Followed,
    /// Itself.
    Kept,
}

enum Walk {
    Arrived(Place),
    Link(PathBuf),
}

/// Opens a folder of the session by the name it had when the session began. A command may have put a link
/// in its place since, or in the place of a folder above it.
pub(crate) fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    wall::open_without_links(root, OFlags::DIRECTORY | OFlags::RDONLY)
}

fn open_folder(at: impl std::os::fd::AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
}

fn link_target(folder: &OwnedFd, name: &std::ffi::OsStr) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt as _;
    let target = readlinkat(folder, name, Vec::new()).ok()?;
    Some(OsString::from_vec(target.into_bytes()).into())
}

/// The path without `.` and `..`, resolved by name.
pub(crate) fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn folders(root: &Path) -> Folders {
        let root = root.canonicalize().unwrap();
        for name in ["work", "tmp", "shared", "outside"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        Folders {
            workspace: root.join("work"),
            workspace_writable: true,
            read: vec![root.join("work/vendor")],
            write: vec![root.join("shared")],
            tmp: root.join("tmp"),
            umask: 0o022,
            denied: Vec::new(),
        }
    }

    fn placed(folders: &Folders, path: impl AsRef<Path>) -> Option<PathBuf> {
        folders.place(path.as_ref(), LastLink::Followed).ok().map(|place| place.path)
    }

    #[test]
    fn a_rule_on_everything_denies_everything() {
        let dir = tempfile::tempdir().unwrap();
        for rule in ["/**", "/*", "/"] {
            let pattern = glob::Pattern::new(rule).unwrap();
            let denied = vec![DeniedPath::new(&pattern).by(rule.to_owned())];
            let folders = Folders {
                workspace: dir.path().into(),
                workspace_writable: true,
                read: Vec::new(),
                write: Vec::new(),
                tmp: dir.path().into(),
                umask: 0o022,
                denied,
            };
            assert_eq!(folders.denies(Path::new("/work/a.txt")), Some(rule));
        }
    }

    #[test]
    fn paths_are_placed_in_writable_folders_only() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let folders = folders(dir.path());
        let work = folders.workspace.clone();
        let base = work.parent().unwrap();
        assert_eq!(placed(&folders, work.join("a/b.txt")), Some(work.join("a/b.txt")));
        assert_eq!(placed(&folders, "/workspace/c.txt"), Some(work.join("c.txt")));
        assert_eq!(placed(&folders, "/tmp/d.txt"), Some(folders.tmp.join("d.txt")));
        assert_eq!(placed(&folders, base.join("shared/e")), Some(base.join("shared/e")));
        for outside in [
            base.join("outside/x"),
            work.join("../outside/x"),
            work.join("vendor/x"),
            "/etc/x".into(),
            "/workspace/../etc/x".into(),
        ] {
            assert_eq!(placed(&folders, &outside), None, "{}", outside.display());
        }
        assert_eq!(placed(&folders, &work), None);
        assert!(!work.join("a").exists(), "nothing was made");
        let mut place = folders.place(&work.join("a/b/c.txt"), LastLink::Followed).unwrap();
        assert!(!place.has_folder());
        place.make_folders(0o022).unwrap();
        assert!(place.has_folder() && work.join("a/b").is_dir());
    }

    #[test]
    fn links_are_followed_inside_and_refused_outside() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let folders = folders(dir.path());
        let work = folders.workspace.clone();
        let base = work.parent().unwrap();
        std::fs::create_dir(work.join("real")).unwrap();
        symlink("real", work.join("inside")).unwrap();
        symlink(base.join("shared"), work.join("added")).unwrap();
        symlink("../outside", work.join("escape")).unwrap();
        symlink(base.join("outside/secret"), work.join("file")).unwrap();
        symlink("loop", work.join("loop")).unwrap();
        assert_eq!(placed(&folders, work.join("inside/x")), Some(work.join("real/x")));
        assert_eq!(placed(&folders, work.join("added/x")), Some(base.join("shared/x")));
        for refused in ["escape/x", "file", "loop", "escape"] {
            assert_eq!(placed(&folders, work.join(refused)), None, "{refused}");
        }
        let leads_to = |name: &str| match folders.place(&work.join(name), LastLink::Followed) {
            Err(PathError::Outside(target)) => target,
            other => panic!("{:?}", other.map(|place| place.path)),
        };
        assert_eq!(leads_to("file"), base.join("outside/secret"));
        assert_eq!(leads_to("escape/x"), base.join("outside/x"));
        let itself = folders.place(&work.join("file"), LastLink::Kept).unwrap();
        assert_eq!(itself.path, work.join("file"));
    }

    #[test]
    fn a_read_only_workspace_takes_no_changes() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let folders = Folders { workspace_writable: false, ..folders(dir.path()) };
        assert_eq!(placed(&folders, folders.workspace.join("a")), None);
        assert_eq!(placed(&folders, "/workspace/a"), None);
        assert!(placed(&folders, "/tmp/a").is_some());
    }

    #[test]
    fn sealed_names() {
        for path in [
            ".git/config",
            "sub/.git/hooks/pre-commit",
            ".git",
            ".ml-intern/x",
            "AGENTS.md",
            "a/claude.MD",
            ".mcp.json",
            ".envrc",
            ".env",
            ".env.local",
            "b/.vscode/settings.json",
            ".windsurfrules",
            ".clinerules",
            ".clinerules/style.md",
            ".github/copilot-instructions.md",
            ".goosehints",
            "QWEN.md",
            "GEMINI.md",
            ".husky/pre-commit",
            "mirror.git/hooks/post-receive",
            "mirror.git/config",
        ] {
            assert!(is_sealed(Path::new(path)), "{path}");
        }
        for path in [
            "agents.py",
            "env.py",
            ".gitignore",
            ".github/workflows/ci.yml",
            "src/git/config",
            "mirror.git/HEAD",
            "README.md",
        ] {
            assert!(!is_sealed(Path::new(path)), "{path}");
        }
    }
}
