//! Files that an argument of a call names: read once, before anything is decided about the call, so that
//! what was decided about is what the tool gets.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use manifest::{Mount, ToolPolicy};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::io::Errno;
use serde_json::Value;

use crate::folders::{Folders, normal, open_root};
use crate::inspect::digest;

/// Bytes of a file that stands in an argument's place, and of a text that a person writes there.
pub const MAX_TEXT_BYTES: usize = 256 << 10;

/// Bytes of an argument that can be a path.
const MAX_PATH_BYTES: usize = 4_095;

/// Times a path is looked up again that was being renamed.
const TRIES: usize = 8;

/// A file whose text stands in an argument's place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamedFile {
    /// JSON pointer of the argument.
    pub argument: String,
    /// What the argument said.
    pub path: String,
    /// Where that really is, links followed.
    pub real: PathBuf,
    pub bytes: usize,
    pub sha256: String,
}

/// Why a file that an argument names is not read. Then the call is not made.
#[derive(Debug, thiserror::Error)]
pub enum NamedFileError {
    #[error("{0} leads outside the folders of this session")]
    Outside(String),
    #[error("{path} is not read: the rule `{rule}` denies {}", real.display())]
    Denied { path: String, real: PathBuf, rule: String },
    #[error("{0} is not a regular file; give the text itself, or the path of a file with it")]
    NotAFile(String),
    #[error("{0} has more than {max} KiB, which is too much for an argument", max = MAX_TEXT_BYTES >> 10)]
    TooLarge(String),
    #[error("{0} is not UTF-8 text")]
    NotText(String),
    #[error("{path} cannot be read: {source}")]
    Io { path: String, source: std::io::Error },
}

/// Puts the texts of files in the place of their paths, where the tool says that an argument may be one and
/// the plugin may read the folder. What names no file stays as it is.
pub(crate) fn read_named_files(
    folders: &Folders,
    policy: &ToolPolicy,
    paths: &[Mount],
    arguments: &mut Value,
) -> Result<Vec<NamedFile>, NamedFileError> {
    let mut files = Vec::new();
    for argument in policy.texts() {
        let Some(Value::String(value)) = arguments.pointer_mut(&argument) else { continue };
        let Some((file, real)) = open(folders, paths, value)? else { continue };
        let text = text(file, value)?;
        let (bytes, sha256) = (text.len(), digest(text.as_bytes()));
        let path = std::mem::replace(value, text);
        files.push(NamedFile { argument, path, real, bytes, sha256 });
    }
    Ok(files)
}

/// Texts that name files which the plugin may not read, as the arguments give them. Nothing of them is read here.
pub(crate) fn unread_files(
    folders: &Folders,
    policy: &ToolPolicy,
    paths: &[Mount],
    arguments: &Value,
) -> Vec<String> {
    const ALL: [Mount; 2] = [Mount::Workspace, Mount::Tmp];
    let texts =
        policy.texts().filter_map(|argument| arguments.pointer(&argument)?.as_str().map(str::to_owned));
    let is_unread = |text: &String| {
        matches!(open(folders, paths, text), Ok(None)) && matches!(open(folders, &ALL, text), Ok(Some(_)))
    };
    if ALL.iter().all(|mount| paths.contains(mount)) { Vec::new() } else { texts.filter(is_unread).collect() }
}

/// Opens what a text names, if that is a file of a folder that the plugin may read.
fn open(
    folders: &Folders,
    paths: &[Mount],
    text: &str,
) -> Result<Option<(OwnedFd, PathBuf)>, NamedFileError> {
    if text.trim().is_empty() || text.len() > MAX_PATH_BYTES || text.chars().any(char::is_control) {
        return Ok(None);
    }
    let io = |error: Errno| NamedFileError::Io { path: text.to_owned(), source: error.into() };
    let path = normal(&folders.workspace.join(text));
    let Some((root, relative)) = root_of(folders, paths, &path) else { return Ok(None) };
    let root_folder = open_root(root).map_err(io)?;
    match open_beneath(&root_folder, root, relative) {
        Ok(file) => {
            let named = format!("/proc/self/fd/{}", file.as_raw_fd());
            let real = std::fs::read_link(named).unwrap_or_else(|_| folders.real(text));
            // By where it really is, and by the name of a link that leads there.
            for place in [&real, &root.join(relative)] {
                if let Some(rule) = folders.denies(place).map(str::to_owned) {
                    let (path, real) = (text.to_owned(), place.clone());
                    return Err(NamedFileError::Denied { path, real, rule });
                }
            }
            match FileType::from_raw_mode(fstat(&file).map_err(io)?.st_mode) {
                FileType::RegularFile => Ok(Some((file, real))),
                FileType::Directory => Ok(None),
                _ => Err(NamedFileError::NotAFile(text.to_owned())),
            }
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::INVAL) => Ok(None),
        Err(Errno::XDEV) => Err(NamedFileError::Outside(text.to_owned())),
        Err(Errno::NXIO) => Err(NamedFileError::NotAFile(text.to_owned())),
        Err(error) => Err(io(error)),
    }
}

/// The innermost folder that the plugin may read and a path lies in, and the rest of the path.
fn root_of<'a>(folders: &'a Folders, paths: &[Mount], path: &'a Path) -> Option<(&'a Path, &'a Path)> {
    let workspace = [Path::new("/workspace"), &folders.workspace].map(|seen| (seen, &*folders.workspace));
    let added = folders.read.iter().chain(&folders.write).map(|folder| (folder.as_path(), folder.as_path()));
    let all = workspace.into_iter().chain(added).filter(|_| paths.contains(&Mount::Workspace));
    let tmp = [(Path::new("/tmp"), folders.tmp.as_path())];
    all.chain(tmp.into_iter().filter(|_| paths.contains(&Mount::Tmp)))
        .filter_map(|(seen, real)| Some((seen.components().count(), real, path.strip_prefix(seen).ok()?)))
        .max_by_key(|(depth, ..)| *depth)
        .map(|(_, real, rest)| (real, rest))
}

/// Opens a path below a folder. Links are followed as long as they stay below it.
fn open_beneath(folder: &OwnedFd, root: &Path, relative: &Path) -> Result<OwnedFd, Errno> {
    // Neither a pipe that nobody writes to nor a terminal holds the host up.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(folder, relative, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            // A wall around this process refuses the call: then no link is followed.
            Err(Errno::NOSYS) => return wall::open_without_links(&root.join(relative), flags),
            opened => return opened,
        }
    }
    Err(Errno::AGAIN)
}

fn text(file: OwnedFd, path: &str) -> Result<String, NamedFileError> {
    let mut bytes = Vec::new();
    let read = File::from(file).take(MAX_TEXT_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| NamedFileError::Io { path: path.to_owned(), source })?;
    if bytes.len() > MAX_TEXT_BYTES {
        return Err(NamedFileError::TooLarge(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| NamedFileError::NotText(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use manifest::Manifest;
    use serde_json::json;

    use super::*;

    const BOTH: [Mount; 2] = [Mount::Workspace, Mount::Tmp];

    fn policy() -> ToolPolicy {
        let text = "id = \"jobs\"\nversion = \"1.0.0\"\ndescription = \"Runs.\"\n[capabilities]\npaths = [\"workspace\"]\n\
                    [tools.run]\ntier = \"read\"\ntext_or_file = [\"script\", \"/job/args\"]\n";
        Manifest::from_toml(text).unwrap().tools["run"].clone()
    }

    fn folders(root: &Path) -> Folders {
        let root = root.canonicalize().unwrap();
        for name in ["work/sub", "tmp", "added", "outside"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        Folders {
            workspace: root.join("work"),
            workspace_writable: true,
            read: vec![root.join("added")],
            write: Vec::new(),
            tmp: root.join("tmp"),
            umask: 0o022,
            denied: Vec::new(),
        }
    }

    fn read(folders: &Folders, paths: &[Mount], script: &str) -> Result<(String, usize), NamedFileError> {
        let mut arguments = json!({"script": script, "job": {"args": ["work"]}});
        let files = read_named_files(folders, &policy(), paths, &mut arguments)?;
        Ok((arguments["script"].as_str().unwrap().to_owned(), files.len()))
    }

    #[test]
    fn a_file_of_the_sessions_folders_is_read_and_other_texts_stay() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let folders = folders(dir.path());
        let work = folders.workspace.clone();
        std::fs::write(work.join("sub/train.py"), "print(1)\n").unwrap();
        std::fs::write(folders.tmp.join("t.py"), "tmp").unwrap();
        std::fs::write(folders.read[0].join("a.py"), "added").unwrap();
        std::fs::write(work.join("../outside/o.py"), "outside").unwrap();
        symlink("sub/train.py", work.join("link.py")).unwrap();
        let is = |script: &str, text: &str| {
            assert_eq!(read(&folders, &BOTH, script).unwrap(), (text.to_owned(), 1), "{script}");
        };
        is("sub/train.py", "print(1)\n");
        is("./sub/../link.py", "print(1)\n");
        is("/workspace/link.py", "print(1)\n");
        is(&work.join("sub/train.py").display().to_string(), "print(1)\n");
        is("/tmp/t.py", "tmp");
        is(&folders.read[0].join("a.py").display().to_string(), "added");
        for stays in [
            "print(1)",
            "sub",
            ".",
            "",
            "no.py",
            "sub/train.py\n",
            "sub/train.py/x",
            "/etc/passwd",
            "../outside/o.py",
        ] {
            assert_eq!(read(&folders, &BOTH, stays).unwrap(), (stays.to_owned(), 0), "{stays}");
        }
        // What the plugin may not read is not read for it, and told.
        let unread = |paths: &[Mount], script: &str| {
            unread_files(&folders, &policy(), paths, &json!({"script": script, "job": {"args": ["work"]}}))
        };
        assert_eq!(unread(&[Mount::Tmp], "sub/train.py"), ["sub/train.py"]);
        for (paths, script) in
            [(&BOTH[..], "sub/train.py"), (&BOTH[..0], "print(1)"), (&BOTH[..0], "../outside/o.py")]
        {
            assert_eq!(unread(paths, script), Vec::<String>::new(), "{script}");
        }
        assert_eq!(read(&folders, &[Mount::Tmp], "sub/train.py").unwrap().1, 0);
        assert_eq!(read(&folders, &[Mount::Workspace, Mount::Data], "/tmp/t.py").unwrap().1, 0);
    }

    #[test]
    fn what_a_rule_denies_is_not_read_by_any_name() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut folders = folders(dir.path());
        let work = folders.workspace.clone();
        std::fs::create_dir(work.join("secrets")).unwrap();
        std::fs::write(work.join("secrets/x.txt"), "secret").unwrap();
        std::fs::write(work.join("fine.txt"), "fine").unwrap();
        symlink("secrets", work.join("folder")).unwrap();
        symlink("secrets/x.txt", work.join("link")).unwrap();
        symlink("fine.txt", work.join("named")).unwrap();
        let rule = |path: &str| {
            let pattern = glob::Pattern::new(&work.join(path).display().to_string()).unwrap();
            crate::folders::DeniedPath::new(&pattern).by(format!("path({path})"))
        };
        folders.denied = vec![rule("SECRETS"), rule("named")];
        let absolute = work.join("secrets/x.txt").display().to_string();
        for denied in
            ["secrets/x.txt", "./folder/../secrets/x.txt", "folder/x.txt", "link", "named", &absolute]
        {
            let refusal = read(&folders, &BOTH, denied).unwrap_err();
            assert!(matches!(refusal, NamedFileError::Denied { .. }), "{denied}: {refusal}");
        }
        assert_eq!(read(&folders, &BOTH, "fine.txt").unwrap(), ("fine".to_owned(), 1));
    }

    #[test]
    fn what_leads_outside_or_is_no_text_is_refused() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let folders = folders(dir.path());
        let work = folders.workspace.clone();
        std::fs::write(work.join("../outside/o.py"), "outside").unwrap();
        symlink("../outside/o.py", work.join("away.py")).unwrap();
        symlink("/etc", work.join("etc")).unwrap();
        symlink("loop", work.join("loop")).unwrap();
        std::fs::write(work.join("long"), vec![b' '; MAX_TEXT_BYTES + 1]).unwrap();
        std::fs::write(work.join("most"), vec![b' '; MAX_TEXT_BYTES]).unwrap();
        std::fs::write(work.join("bytes"), [0xff, 0xfe]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, work.join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let refused = |script: &str| read(&folders, &BOTH, script).unwrap_err();
        assert!(matches!(refused("away.py"), NamedFileError::Outside(_)));
        assert!(matches!(refused("etc/passwd"), NamedFileError::Outside(_)));
        assert!(matches!(refused("loop"), NamedFileError::Io { .. }));
        assert!(matches!(refused("long"), NamedFileError::TooLarge(_)));
        assert!(matches!(refused("bytes"), NamedFileError::NotText(_)));
        assert!(matches!(refused("pipe"), NamedFileError::NotAFile(_)));
        assert_eq!(read(&folders, &BOTH, "most").unwrap().1, 1);
    }
}
