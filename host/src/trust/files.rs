//! The files of a folder that say something to this program, and how they are read: by no link that leads
//! out, nothing but regular files, never more than a cap.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Bytes of instructions, settings or a `.env`.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// Bytes of a plugin: what the runtime takes.
const MAX_PLUGIN_BYTES: u64 = 32 << 20;

/// Plugins of a folder that are looked at.
const MAX_PLUGINS: usize = 32;

/// What a file is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Instructions,
    Settings,
    Plugin,
    Env,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// Relative to the folder, for people and for the record.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// The folder it must lie in, links followed.
    base: PathBuf,
    pub(crate) kind: Kind,
}

/// A file that was read, or why it was not.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) listed: Listed,
    pub(crate) content: Result<Content, String>,
}

/// The bytes of a file, as they were hashed.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) digest: String,
    pub(crate) bytes: u64,
    /// Empty for a plugin.
    pub(crate) text: String,
}

/// What there is, by its names alone: nothing is opened.
pub(crate) fn list(folder: &Path, home: &Path) -> Vec<Listed> {
    let mut listed = Vec::new();
    let mut add = |base: &Path, name: String, path: PathBuf, kind: Kind| {
        if path.symlink_metadata().is_ok() {
            listed.push(Listed { name, path, base: base.to_owned(), kind });
        }
    };
    if let Some((top, up)) = repository(folder, home) {
        add(&top, format!("{up}AGENTS.md"), top.join("AGENTS.md"), Kind::Instructions);
    }
    add(folder, "AGENTS.md".to_owned(), folder.join("AGENTS.md"), Kind::Instructions);
    let own = folder.join(".ml-intern");
    if own.symlink_metadata().is_ok() {
        add(folder, ".ml-intern/settings.json".to_owned(), own.join("settings.json"), Kind::Settings);
        for path in components(&own.join("plugins")) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            add(folder, format!(".ml-intern/plugins/{name}"), path, Kind::Plugin);
        }
    }
    add(folder, ".env".to_owned(), folder.join(".env"), Kind::Env);
    listed
}

/// The top of the repository above a folder, and the way there. One that belongs to somebody else, or that
/// holds the home folder, is none.
fn repository(folder: &Path, home: &Path) -> Option<(PathBuf, String)> {
    let is_top = |path: &Path| path.join(".git").symlink_metadata().is_ok();
    if is_top(folder) {
        return None;
    }
    let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
    let above = folder.ancestors().skip(1).take_while(|above| !home.starts_with(above));
    let (up, top) = above.enumerate().find(|(_, above)| is_top(above))?;
    let owner = top.symlink_metadata().ok()?.uid();
    let is_ours = owner == 0 || owner == rustix::process::geteuid().as_raw();
    is_ours.then(|| (top.to_owned(), "../".repeat(up + 1)))
}

fn components(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_component = |path: &PathBuf| path.extension().is_some_and(|e| e == "wasm");
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_component).collect();
    found.sort();
    found.truncate(MAX_PLUGINS);
    found
}

/// Reads a file once.
pub(crate) fn read(listed: Listed) -> Seen {
    let content = content(&listed);
    Seen { listed, content }
}

fn content(listed: &Listed) -> Result<Content, String> {
    let cap = if listed.kind == Kind::Plugin { MAX_PLUGIN_BYTES } else { MAX_TEXT_BYTES };
    let file = open(listed)?;
    let size = file.metadata().map_err(|e| e.to_string())?.len();
    let mut bytes = Vec::new();
    if size <= cap {
        // It may grow while it is read.
        file.take(cap + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    }
    let size = size.max(bytes.len() as u64);
    if size > cap {
        return Err(format!("{size} bytes are more than the {} KiB it may have", cap >> 10));
    }
    let digest = audit::digest(&bytes);
    let text = match listed.kind {
        Kind::Plugin => String::new(),
        _ => String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text".to_owned())?,
    };
    Ok(Content { digest, bytes: size, text })
}

/// Opens a regular file that lies where its name says, or where a link leads that stays in the folder and
/// goes to a file of the same kind: a link to a key beside it is none.
fn open(listed: &Listed) -> Result<File, String> {
    let Listed { path, base, kind, .. } = listed;
    if path.to_str().is_none() {
        return Err("its name is not UTF-8".to_owned());
    }
    let real = path.canonicalize().map_err(|e| e.to_string())?;
    let base = base.canonicalize().map_err(|e| e.to_string())?;
    if !real.starts_with(&base) {
        return Err(format!("it is a link out of the folder, to {}", real.display()));
    }
    let name = real.file_name().unwrap_or_default().to_string_lossy();
    let fits = match kind {
        Kind::Env => name.starts_with(".env"),
        _ => real.extension() == path.extension(),
    };
    if !fits {
        return Err(format!("it is a link to another kind of file, {}", real.display()));
    }
    let special = || "it is not a regular file".to_owned();
    if !real.symlink_metadata().map_err(|e| e.to_string())?.is_file() {
        return Err(special());
    }
    // What stands there now may be another file: a pipe must not keep us, a terminal not take us over.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = wall::open_without_links(&real, flags).map(File::from).map_err(|e| e.to_string())?;
    if file.metadata().map_err(|e| e.to_string())?.is_file() { Ok(file) } else { Err(special()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn seen(folder: &Path) -> Vec<(String, Result<Content, String>)> {
        let listed = list(folder, Path::new("/nonexistent"));
        listed.into_iter().map(read).map(|seen| (seen.listed.name, seen.content)).collect()
    }

    #[test]
    fn only_regular_files_that_lie_in_the_folder_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let work = root.join("work");
        std::fs::create_dir_all(work.join("docs")).unwrap();
        std::fs::write(root.join("id_rsa"), "PRIVATE").unwrap();
        std::fs::write(root.join("outside.md"), "outside").unwrap();
        std::fs::write(work.join("docs/guide.md"), "guide").unwrap();
        std::fs::write(work.join("key"), "PRIVATE").unwrap();
        let agents = work.join("AGENTS.md");
        let tell = |make: &dyn Fn(&Path)| {
            let _ = std::fs::remove_file(&agents);
            make(&agents);
            let (name, content) = seen(&work).remove(0);
            assert_eq!(name, "AGENTS.md");
            content.map(|content| content.text)
        };
        let refused = |answer: Result<String, String>, part: &str| {
            let error = answer.unwrap_err();
            assert!(error.contains(part), "{error}");
        };
        refused(tell(&|at| symlink("../id_rsa", at).unwrap()), "link out of the folder");
        refused(tell(&|at| symlink("../outside.md", at).unwrap()), "link out of the folder");
        refused(tell(&|at| symlink("/dev/zero", at).unwrap()), "link out of the folder");
        refused(tell(&|at| symlink("key", at).unwrap()), "another kind of file");
        refused(tell(&|at| symlink("AGENTS.md", at).unwrap()), "");
        refused(tell(&|at| std::fs::create_dir(at).unwrap()), "not a regular file");
        std::fs::remove_dir(&agents).unwrap();
        let fifo = |at: &Path| {
            rustix::fs::mkfifoat(rustix::fs::CWD, at, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
        };
        refused(tell(&fifo), "not a regular file");
        let sparse = |at: &Path| File::create(at).unwrap().set_len(10 << 30).unwrap();
        refused(tell(&sparse), "more than the 64 KiB");
        refused(tell(&|at| std::fs::write(at, [0xff, 0xfe]).unwrap()), "not UTF-8");
        assert_eq!(tell(&|at| symlink("docs/guide.md", at).unwrap()).as_deref(), Ok("guide"));
        assert_eq!(tell(&|at| std::fs::write(at, "own").unwrap()).as_deref(), Ok("own"));
    }

    #[test]
    fn the_instructions_at_the_top_of_the_repository_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let inner = top.join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(top.join("AGENTS.md"), "top").unwrap();
        std::fs::write(inner.join("AGENTS.md"), "inner").unwrap();
        let names = |home: &Path| list(&inner, home).into_iter().map(|l| l.name).collect::<Vec<_>>();
        assert_eq!(names(Path::new("/nonexistent")), ["AGENTS.md"]);
        std::fs::create_dir(top.join(".git")).unwrap();
        assert_eq!(names(Path::new("/nonexistent")), ["../../AGENTS.md", "AGENTS.md"]);
        // A home folder under version control is not a project.
        assert_eq!(names(&top), ["AGENTS.md"]);
        std::fs::create_dir(inner.join(".git")).unwrap();
        assert_eq!(names(Path::new("/nonexistent")), ["AGENTS.md"]);
    }
}
