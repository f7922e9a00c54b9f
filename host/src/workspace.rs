//! Which folder the work is done in, and which are added to it.

use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::paths::Paths;

/// The folders of a run, absolute and free of links.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// None: an empty folder of the session.
    pub(crate) workspace: Option<PathBuf>,
    /// Why there is none.
    pub(crate) notice: Option<String>,
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
}

/// Finds the folders of a run. A folder that holds the user's whole home or the program's own things is
/// no workspace.
pub(crate) fn find(given: Option<&Path>, added: &[String], paths: &Paths) -> Result<Place, Failure> {
    let (workspace, notice) = workspace(given, paths)?;
    let mut place = Place { workspace, notice, read: Vec::new(), write: Vec::new() };
    for text in added {
        let (text, writable) = match text.strip_suffix(":rw") {
            Some(text) => (text, true),
            None => (text.strip_suffix(":ro").unwrap_or(text), false),
        };
        let path = paths.expand(text);
        let folder = folder(&path, "--add-dir")?;
        speakable(&folder, "--add-dir")?;
        if let Some(reason) = unfit(&folder, paths) {
            return Err(Failure::usage(format!("--add-dir {}: {reason}", path.display())));
        }
        if writable { place.write.push(folder) } else { place.read.push(folder) }
    }
    Ok(place)
}

/// Tools and commands are told their folders as text.
fn speakable(folder: &Path, flag: &str) -> Result<(), Failure> {
    match folder.to_str() {
        Some(_) => Ok(()),
        None => Err(Failure::usage(format!(
            "{flag} {}: its name is not UTF-8, which tools could not be told; rename it",
            folder.display()
        ))),
    }
}

fn workspace(given: Option<&Path>, paths: &Paths) -> Result<(Option<PathBuf>, Option<String>), Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_dir()
            .map_err(|e| Failure::usage(format!("the current directory cannot be used: {e}; use -C DIR")))?,
    };
    let folder = folder(&path, "-C")?;
    speakable(&folder, "-C")?;
    Ok(match unfit(&folder, paths) {
        None => (Some(folder), None),
        Some(reason) => {
            let notice = format!(
                "{} is not used as the workspace: {reason}; working in an empty one, use -C DIR",
                folder.display()
            );
            (None, Some(notice))
        }
    })
}

fn folder(path: &Path, flag: &str) -> Result<PathBuf, Failure> {
    let folder =
        path.canonicalize().map_err(|e| Failure::usage(format!("{flag} {}: {e}", path.display())))?;
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Failure::usage(format!("{flag} {}: not a directory", path.display())))
    }
}

/// Why a folder cannot be worked in.
fn unfit(folder: &Path, paths: &Paths) -> Option<String> {
    let real = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    if folder.parent().is_none() {
        return Some("it is the root of the file system".to_owned());
    }
    let home = real(&paths.home);
    if home.starts_with(folder) {
        let what = if home == folder { "it is your home" } else { "it holds your home" };
        return Some(what.to_owned());
    }
    let ours = paths.private();
    let ours = ours.iter().map(real).find(|ours| ours.starts_with(folder) || folder.starts_with(ours));
    ours.map(|ours| format!("ml-intern keeps its own things in {}", ours.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    fn paths(home: &Path) -> Paths {
        Paths::find(&Environment::of(&[("HOME", home.to_str().unwrap())])).unwrap()
    }

    #[test]
    fn the_home_the_root_and_our_own_folders_are_no_workspace() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap().join("ada");
        let work = home.join("work");
        std::fs::create_dir_all(&work).unwrap();
        let paths = paths(&home);
        std::fs::create_dir_all(&paths.state).unwrap();
        let found = |path: &Path| find(Some(path), &[], &paths).unwrap();
        assert_eq!(found(&work).workspace.as_deref(), Some(work.as_path()));
        for unfit in
            [Path::new("/"), &home, home.parent().unwrap(), &paths.state, paths.state.parent().unwrap()]
        {
            let place = found(unfit);
            assert_eq!(place.workspace, None, "{}", unfit.display());
            assert!(place.notice.unwrap().contains("use -C DIR"));
        }
        assert!(find(Some(&work.join("none")), &[], &paths).is_err());
    }

    #[test]
    fn folders_are_added_for_reading_or_writing() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        for name in ["work", "data", "out"] {
            std::fs::create_dir(home.join(name)).unwrap();
        }
        let added = ["~/data".to_owned(), format!("{}/out:rw", home.display())];
        let place = find(Some(&home.join("work")), &added, &paths(&home)).unwrap();
        assert_eq!((place.read, place.write), (vec![home.join("data")], vec![home.join("out")]));
        let error = find(Some(&home.join("work")), &["~/".to_owned()], &paths(&home)).unwrap_err();
        assert!(error.to_string().contains("it is your home"), "{error}");
    }
}
