//! A plugin goes: by its id, whether it can be used or not, and with all that waits for one of that id.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use audit::Act;
use runtime::{LockIndex, inspect, read_component, signature_file};

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
    let files = dirs.files_of(id);
    let stored = stored(&setup.paths.plugin_data(), id)?;
    let is_granted = read(&setup.paths.grants())?.contains_key(id);
    if files.is_empty() && stored.is_empty() && !is_granted && !index.knows(id) {
        return Err(of_the_project(&setup, id).unwrap_or_else(|| unknown(id)));
    }
    let names: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let path = if names.is_empty() { "(no file)".to_owned() } else { names.join(", ") };
    record(&setup, Act::Remove { plugin: id.to_owned(), path })?;
    // Another plugin may come with the same id: nothing of this one is for it.
    take_back(&setup, id)?;
    for path in &stored {
        if gone(path)? && path.extension().is_none_or(|extension| extension != "read") {
            say(&format!("removed {}, what it stored", shown(path)));
        }
    }
    for path in &files {
        gone(path)?;
        gone(&signature_file(path))?;
        say(&format!("removed {}", shown(path)));
    }
    if distrusted.is_none() {
        dirs.forget(id).map_err(Failure::settings)?;
    }
    if files.is_empty() {
        say(&format!("removed `{id}`, of which there was no file in the plugin folders"));
    }
    Ok(Exit::Done)
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
