//! Which folder the work is done in, and which are added to it.

use std::path::{Path, PathBuf};

use crate::exit::Failure;
use crate::paths::{Paths, way};

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
/// no workspace. `settings` is the file that is obeyed: a run writes to no folder that leads to it, except to the
/// one that is worked in where a person named a file of it.
pub(crate) fn find(
    given: Option<&Path>,
    added: &[String],
    settings: Option<&Path>,
    paths: &Paths,
) -> Result<Place, Failure> {
    let (workspace, notice) = of(given, paths)?;
    let mut place = Place { workspace, notice, read: Vec::new(), write: Vec::new() };
    for text in added {
        let (text, writable) = match text.strip_suffix(":rw") {
            Some(text) => (text, true),
            None => (text.strip_suffix(":ro").unwrap_or(text), false),
        };
        let path = paths.expand(text);
        let folder = folder(&path, "--add-dir")?;
        speakable(&folder, "--add-dir")?;
        if let Some(Unfit { reason, .. }) = unfit(&folder, paths) {
            return Err(Failure::usage(format!("--add-dir {}: {reason}", path.display())));
        }
        if let Some(file) = settings.filter(|file| writable && leads_into(file, &folder)) {
            return Err(Failure::usage(format!(
                "--add-dir {}:rw: {}, which is obeyed as settings, leads into it, and a run could rewrite what the \
                 next one obeys; keep it elsewhere, or add the folder without :rw",
                path.display(),
                file.display()
            )));
        }
        if writable { place.write.push(folder) } else { place.read.push(folder) }
    }
    Ok(place)
}

/// Whether a folder may be added: it is none of the program's own, and not one that holds them.
pub(crate) fn can_be_added(folder: &Path, paths: &Paths) -> bool {
    folder.to_str().is_some() && unfit(folder, paths).is_none()
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

/// The folder that is worked in, or why there is none.
pub(crate) fn of(given: Option<&Path>, paths: &Paths) -> Result<(Option<PathBuf>, Option<String>), Failure> {
    let path = match given {
        Some(path) => path.to_owned(),
        None => std::env::current_dir()
            .map_err(|e| Failure::usage(format!("the current directory cannot be used: {e}; use -C DIR")))?,
    };
    at(&path, given.is_some(), paths)
}

/// The same of a folder that a person named, or happens to be in.
fn at(path: &Path, is_named: bool, paths: &Paths) -> Result<(Option<PathBuf>, Option<String>), Failure> {
    let folder = folder(path, "-C")?;
    speakable(&folder, "-C")?;
    let unfit = unfit(&folder, paths);
    if unfit.as_ref().is_some_and(|unfit| unfit.ours) {
        // What lies in a project is the project's, and these are obeyed: a variable that put them there
        // may well be the project's too.
        let inside = paths.put_elsewhere().find(|(_, ours)| real(ours).starts_with(&folder));
        if let Some((variable, ours)) = inside {
            return Err(Failure::settings(anyhow::anyhow!(
                "{variable} puts {} inside the folder that is worked in, {}; set it to a place outside, or use -C DIR",
                ours.display(),
                folder.display()
            )));
        }
    }
    Ok(match unfit {
        None => (Some(folder), None),
        // Who names a folder means it.
        Some(Unfit { reason, .. }) if is_named => {
            return Err(Failure::usage(format!("-C {}: {reason}", path.display())));
        }
        Some(Unfit { reason, .. }) => {
            let notice = format!(
                "{} is not used as the workspace: {reason}; working in an empty one, use -C DIR",
                folder.display()
            );
            (None, Some(notice))
        }
    })
}

/// Whether a file lies in a folder, or a link on the way to it does.
fn leads_into(file: &Path, folder: &Path) -> bool {
    way(file).iter().any(|step| step.starts_with(folder))
}

/// Refuses folders of plugins that are none: what a person names is there.
pub(crate) fn check_plugin_folders(named: &[PathBuf]) -> Result<(), Failure> {
    named.iter().try_for_each(|path| folder(path, "--plugin-dir").map(drop))
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
struct Unfit {
    reason: String,
    /// Because the program keeps its own things there.
    ours: bool,
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

fn unfit(folder: &Path, paths: &Paths) -> Option<Unfit> {
    let as_it_is = |reason: &str| Some(Unfit { reason: reason.to_owned(), ours: false });
    if folder.parent().is_none() {
        return as_it_is("it is the root of the file system");
    }
    let home = real(&paths.home);
    if home.starts_with(folder) {
        return as_it_is(if home == folder { "it is your home" } else { "it holds your home" });
    }
    let ours = paths.private();
    let mut ours = ours.iter().map(|path| real(path));
    if let Some(ours) = ours.find(|ours| ours.starts_with(folder) || folder.starts_with(ours)) {
        let reason = format!("ml-intern keeps its own things in {}", ours.display());
        return Some(Unfit { reason, ours: true });
    }
    let files = paths.obeyed();
    let leads_here = |file: &&PathBuf| leads_into(file, folder);
    let file = files.iter().chain(&paths.private()).find(leads_here)?.display().to_string();
    as_it_is(&format!("{file}, which is obeyed, leads into it"))
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
        let found = |path: &Path| find(Some(path), &[], None, &paths).unwrap();
        assert_eq!(found(&work).workspace.as_deref(), Some(work.as_path()));
        for unfit in
            [Path::new("/"), &home, home.parent().unwrap(), &paths.state, paths.state.parent().unwrap()]
        {
            // Whoever happens to be there works in an empty folder; whoever names it is told.
            let (workspace, notice) = at(unfit, false, &paths).unwrap();
            assert_eq!(workspace, None, "{}", unfit.display());
            assert!(notice.unwrap().contains("use -C DIR"));
            let failure = find(Some(unfit), &[], None, &paths).unwrap_err();
            assert_eq!(failure.exit.code(), 2, "{failure}");
        }
        assert!(find(Some(&work.join("none")), &[], None, &paths).is_err());
    }

    #[test]
    fn folders_that_are_obeyed_are_not_put_into_the_one_that_is_worked_in() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (home, work) = (root.join("ada"), root.join("work"));
        for folder in [&home, &work] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let inside = work.join("hidden");
        std::fs::create_dir_all(&inside).unwrap();
        for variable in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"] {
            let variables = [("HOME", home.to_str().unwrap()), (variable, inside.to_str().unwrap())];
            let paths = Paths::find(&Environment::of(&variables)).unwrap();
            std::fs::create_dir_all(inside.join("ml-intern")).unwrap();
            let failure = of(Some(&work), &paths).unwrap_err();
            assert_eq!(failure.exit.code(), 3);
            assert!(failure.to_string().starts_with(&format!("{variable} puts ")), "{failure}");
        }
    }

    #[test]
    fn a_folder_that_holds_what_is_obeyed_is_no_workspace() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap().join("ada");
        let (dotfiles, elsewhere) = (home.join("dotfiles"), home.join("elsewhere"));
        for folder in [&dotfiles, &elsewhere] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let paths = paths(&home);
        std::fs::create_dir_all(&paths.config).unwrap();
        for file in paths.obeyed() {
            // To a file that is there, to one that a run could make, and through a link to one outside.
            let inside = dotfiles.join("sub/file");
            let link = dotfiles.join("link");
            std::fs::create_dir_all(inside.parent().unwrap()).unwrap();
            symlink(elsewhere.join("file"), &link).unwrap();
            for target in [&inside, &dotfiles.join("none"), &link] {
                std::fs::write(&inside, "").unwrap();
                symlink(target, &file).unwrap();
                let (workspace, notice) = at(&dotfiles, false, &paths).unwrap();
                assert_eq!(workspace, None, "{} to {}", file.display(), target.display());
                assert!(notice.unwrap().contains("which is obeyed, leads into it"));
                let added = [format!("{}:rw", dotfiles.display())];
                assert!(find(Some(&home.join("dotfiles/sub")), &added, None, &paths).is_err());
                std::fs::remove_file(&file).unwrap();
            }
            std::fs::remove_file(&link).unwrap();
        }
        // A folder on the way counts as well.
        assert!(find(Some(&dotfiles), &[], None, &paths).unwrap().workspace.is_some());
        std::fs::remove_dir(&paths.config).unwrap();
        std::fs::create_dir_all(elsewhere.join("config")).unwrap();
        symlink(elsewhere.join("config"), dotfiles.join("config")).unwrap();
        symlink(dotfiles.join("config"), &paths.config).unwrap();
        assert_eq!(at(&dotfiles, false, &paths).unwrap().0, None);
    }

    #[test]
    fn a_run_writes_to_no_added_folder_that_leads_to_the_settings() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        for name in ["work", "shared/sub", "links", "other"] {
            std::fs::create_dir_all(home.join(name)).unwrap();
        }
        let file = home.join("shared/sub/cfg.json");
        std::fs::write(&file, "{}").unwrap();
        let link = home.join("links/cfg.json");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let add = |folder: &str, file: &Path| {
            let added = [format!("{}/{folder}", home.display())];
            find(Some(&home.join("work")), &added, Some(file), &paths(&home)).map_err(|e| e.to_string())
        };
        for (folder, file) in
            [("shared:rw", &file), ("shared/sub:rw", &file), ("shared:rw", &link), ("links:rw", &link)]
        {
            let refused = add(folder, file).unwrap_err();
            assert!(refused.contains("which is obeyed as settings, leads into it"), "{refused}");
        }
        for (folder, file) in
            [("shared", &file), ("shared:ro", &link), ("links:rw", &file), ("other:rw", &link)]
        {
            assert!(add(folder, file).is_ok(), "{folder}");
        }
    }

    #[test]
    fn folders_are_added_for_reading_or_writing() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        for name in ["work", "data", "out"] {
            std::fs::create_dir(home.join(name)).unwrap();
        }
        let added = ["~/data".to_owned(), format!("{}/out:rw", home.display())];
        let place = find(Some(&home.join("work")), &added, None, &paths(&home)).unwrap();
        assert_eq!((place.read, place.write), (vec![home.join("data")], vec![home.join("out")]));
        let error = find(Some(&home.join("work")), &["~/".to_owned()], None, &paths(&home)).unwrap_err();
        assert!(error.to_string().contains("it is your home"), "{error}");
    }
}
