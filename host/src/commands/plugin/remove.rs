//! A plugin goes: by its id, whether it can be used or not, and with all that waits for one of that id.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use audit::Act;
use runtime::{LockIndex, inspect, read_component, signature_file};
use rustix::fs::Access;

use super::change::{record, take_back, unknown};
use crate::assemble::Setup;
use crate::cli::PlaceArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::grants_file::read;
use crate::render::{say, shown};
use crate::trust::Word;

pub(super) fn run(environment: Environment, place: &PlaceArgs, id: &str) -> Result<Exit, Failure> {
    let setup = Setup::in_place(environment, place, Word::of(place))?;
    if !manifest::is_plugin_id(id) {
        return Err(unknown(id));
    }
    if bundled::PLUGINS.iter().any(|bundled| bundled.id == id) {
        return Err(Failure::usage(format!("`{id}` is bundled and cannot be removed")));
    }
    let dirs = setup.plugin_dirs(place);
    let (index, distrusted) = LockIndex::read(&dirs).map_err(Failure::settings)?;
    let (files, named) = dirs.files_of(id);
    let stored = stored(&setup.paths.plugin_data(), id)?;
    let is_granted = read(&setup.paths.grants())?.contains_key(id);
    if files.is_empty() && named.is_empty() && stored.is_empty() && !is_granted && !index.knows(id) {
        return Err(of_the_project(&setup, id).unwrap_or_else(|| unknown(id)));
    }
    files.iter().chain(&stored).try_for_each(|path| can_go(path, id))?;
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let path = if names.is_empty() { "(no file)".to_owned() } else { names.join(", ") };
    record(&setup, Act::Remove { plugin: id.to_owned(), path })?;
    // Another plugin may come with the same id: nothing of this one is for it. What fails is told, and keeps nothing
    // else of it here.
    let mut steps = Vec::new();
    for path in &files {
        steps.push(gone(path).and_then(|_| gone(&signature_file(path))).map(|_| {
            say(&format!("removed {}", shown(path)));
        }));
    }
    if distrusted.is_none() {
        steps.push(dirs.forget(id).map_err(Failure::settings));
    }
    steps.push(take_back(&setup, id).map(drop));
    for path in &stored {
        steps.push(gone(path).map(|was_there| {
            if was_there && path.extension().is_none_or(|extension| extension != "read") {
                say(&format!("removed {}, what it stored", shown(path)));
            }
        }));
    }
    for path in &named {
        say(&format!("left {}, which lies in a folder that you named", shown(path)));
    }
    steps.into_iter().collect::<Result<(), Failure>>()?;
    if files.is_empty() {
        say(&format!("removed `{id}`, of which there was no file in the plugin folders"));
    }
    Ok(Exit::Done)
}

/// Refuses to begin where a file would stay.
fn can_go(path: &Path, id: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|_| {
        Failure::settings(anyhow::anyhow!(
            "{}: you cannot delete it, as you cannot write to {}; nothing was removed (`ml-intern plugin revoke {id}` \
             takes back what it was granted)",
            shown(path),
            shown(folder)
        ))
    })
}

/// What plugins of an id stored, whoever signed them, and the marks beside it. A project's plugin is another one.
fn stored(folder: &Path, id: &str) -> Result<Vec<PathBuf>, Failure> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| failed(folder, &e))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| failed(folder, &e))?;
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(id));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.') && !rest.starts_with(".project-"))
        {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Deletes a file, a link or a folder; whether it was there.
fn gone(path: &Path) -> Result<bool, Failure> {
    let removed = match path.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true).map_err(|e| failed(path, &e)),
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Failure {
    Failure::settings(anyhow::anyhow!("{}: {error}", shown(path)))
}

/// Says that a plugin is the project's, if it is.
fn of_the_project(setup: &Setup, id: &str) -> Option<Failure> {
    let has_id = |path: &Path| {
        let inspected = read_component(path).and_then(|bytes| inspect(&shown(path), &bytes));
        inspected.is_ok_and(|inspection| inspection.manifest.id == id)
    };
    let (path, _) = setup.project.plugins.iter().find(|(path, _)| has_id(path))?;
    Some(Failure::usage(format!("`{id}` belongs to the project: delete {}", shown(path))))
}
