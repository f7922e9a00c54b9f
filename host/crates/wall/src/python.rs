//! Installations of Python, and the virtual environments that were made from them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::small_file;

/// Most entries of a `lib` folder that are looked at; one of conda has about 3000.
const MAX_ENTRIES: usize = 4096;

/// The interpreters that a virtual environment was made from: what its own is a link to, and what its
/// settings name. Both may be hostile.
pub(crate) fn interpreters_behind(environment: &Path) -> Vec<PathBuf> {
    let base = base_of_virtual_environment(environment);
    let named = base.iter().flat_map(|base| ["python3", "python"].map(|name| base.join(name)));
    let linked = environment.join("bin/python");
    std::iter::once(linked).chain(named).filter_map(|path| fs::canonicalize(path).ok()).collect()
}

/// The prefix of the installation that `interpreter`, a path without links, belongs to.
///
/// It counts only as one that the user or root made, with a standard library beside it, each part a file or
/// folder of its own: a link in it would lead anywhere.
pub(crate) fn installation_of(interpreter: &Path) -> Option<PathBuf> {
    let is_named = interpreter.file_name()?.as_encoded_bytes().starts_with(b"python");
    let folder = interpreter.parent().filter(|folder| folder.ends_with("bin"))?;
    let prefix = folder.parent()?;
    let library = prefix.join("lib");
    let is_installation = is_named
        && is_own_file(interpreter)
        && [prefix, folder, &library].iter().all(|folder| is_own_folder(folder))
        && libraries(prefix).any(|library| is_own_folder(&library) && is_own_file(&library.join("os.py")));
    is_installation.then(|| prefix.to_path_buf())
}

/// Whether a folder holds the standard library of a Python.
pub(crate) fn has_python_library(prefix: &Path) -> bool {
    libraries(prefix).any(|library| library.join("os.py").is_file())
}

/// The folder of programs that a virtual environment says it was made from.
pub(crate) fn base_of_virtual_environment(prefix: &Path) -> Option<PathBuf> {
    let config = small_file::read(&prefix.join("pyvenv.cfg"))?;
    let home = config.lines().find_map(|line| line.strip_prefix("home")?.trim_start().strip_prefix('='))?;
    Some(PathBuf::from(home.trim())).filter(|base| base.is_absolute())
}

fn libraries(prefix: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(prefix.join("lib")).into_iter().flatten().flatten().take(MAX_ENTRIES);
    entries
        .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"python3"))
        .map(|entry| entry.path())
}

fn is_own_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && is_owned(&metadata))
}

fn is_own_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() && is_owned(&metadata))
}

fn is_owned(metadata: &fs::Metadata) -> bool {
    metadata.uid() == 0 || metadata.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn an_installation_has_its_parts_and_no_links_for_them() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let write = |path: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "").unwrap();
        };
        for path in ["real/bin/python3.12", "real/bin/diary", "real/lib/python3.12/os.py", "bare/bin/python3"]
        {
            write(path);
        }
        for path in ["linked-lib/bin/python3", "linked-library/bin/python3", "linked-library/lib/other"] {
            write(path);
        }
        symlink("../real/lib", root.join("linked-lib/lib")).unwrap();
        symlink("../../real/lib/python3.12", root.join("linked-library/lib/python3.12")).unwrap();

        assert_eq!(installation_of(&root.join("real/bin/python3.12")), Some(root.join("real")));
        for other in
            ["real/bin/diary", "bare/bin/python3", "linked-lib/bin/python3", "linked-library/bin/python3"]
        {
            assert_eq!(installation_of(&root.join(other)), None, "{other}");
        }
    }
}
