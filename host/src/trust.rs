//! What a run takes from its working folder, and the person's word that lets it.
//!
//! Before that word nothing of the folder is opened. The word holds for the bytes that the person was
//! shown: a file that changed or came since is nothing until it was seen.

mod dotenv;
mod files;
mod sheet;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use audit::Act;

use crate::assemble::Setup;
use crate::cli::PlaceArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::managed;
use crate::paths::Paths;
use crate::settings::{self, Layer};
use crate::workspace;

use files::{Kind, Listed, Seen};
pub(crate) use sheet::Sheet;
pub(crate) use store::{Entry, Store};

/// What a person trusted in the working folder, ready to be used.
#[derive(Debug, Default)]
pub(crate) struct Project {
    /// Instructions for the model, the outermost first.
    pub(crate) instructions: Vec<Instructions>,
    settings: Option<Layer>,
    /// Components, each with the digest at which it was trusted.
    pub(crate) plugins: Vec<(PathBuf, String)>,
    env: Vec<(String, String)>,
    /// What is to be said before work begins: what is there and is not loaded.
    pub(crate) notices: Vec<String>,
    /// For `doctor`: what the folder is, and what of it is loaded.
    pub(crate) standing: String,
    /// It has files that would tell this program what to do, and no person vouched for them: what is read in
    /// it may be meant to talk the model into something.
    pub(crate) untrusted: bool,
}

/// A file of instructions for the model.
#[derive(Clone, Debug)]
pub(crate) struct Instructions {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Whose word counts in a run.
pub(crate) enum Word<'a> {
    /// What was given before.
    Recorded,
    /// The command line's, for this run.
    Once,
    /// That of the person who is shown the sheet.
    Ask(&'a mut dyn FnMut(&Sheet) -> std::io::Result<bool>),
}

impl Word<'_> {
    /// The word of a run that asks nobody.
    pub(crate) fn of(place: &PlaceArgs) -> Self {
        if place.trust_once { Self::Once } else { Self::Recorded }
    }
}

impl Setup {
    /// Finds the folders, reads the settings, and takes from the working folder what a person trusted.
    pub(crate) fn in_place(
        mut environment: Environment,
        place: &PlaceArgs,
        word: Word<'_>,
    ) -> Result<Self, Failure> {
        let paths = Paths::find(&environment)?;
        let policy = Arc::new(managed::read()?);
        workspace::check_plugin_folders(&place.plugin_dir)?;
        let folder = workspace::of(place.directory.as_deref(), &paths)?.0;
        let mut layers =
            settings::layers(&paths, &mut environment, place.config.as_deref(), folder.as_deref())?;
        let names = settings::names_in_use(&layers);
        let mut project = match &folder {
            Some(folder) => match policy.project_files("taking anything from it") {
                Ok(()) => project(&paths, folder, &names, word)?,
                Err(forbidden) => Project {
                    standing: forbidden.to_string(),
                    untrusted: !files::list(folder, &paths.home).is_empty(),
                    ..Project::default()
                },
            },
            None => Project::default(),
        };
        let file = folder.as_deref().unwrap_or(Path::new("")).join(".env");
        environment.add_project(std::mem::take(&mut project.env), file);
        let own = project.settings.take().zip(folder);
        let refused =
            own.and_then(|(layer, folder)| settings::add_project(&mut layers, layer, &folder).err());
        project.notices.extend(refused.into_iter().flatten());
        let loaded = settings::complete(layers, &environment)?;
        managed::check_said(&policy, &environment, &loaded)?;
        Ok(Self::of(environment, paths, loaded, policy, project))
    }
}

/// Looks at a folder and takes from it what counts.
fn project(
    paths: &Paths,
    folder: &Path,
    names: &BTreeSet<String>,
    word: Word<'_>,
) -> Result<Project, Failure> {
    let listed = files::list(folder, &paths.home);
    if listed.is_empty() {
        return Ok(Project { standing: "there is nothing to trust in it".to_owned(), ..Project::default() });
    }
    let store = Store::new(&paths.state);
    let entry = store.entry(folder)?;
    if let (None, Word::Recorded) = (&entry, &word) {
        return Ok(untrusted(&listed));
    }
    let sheet = Sheet::of(folder, listed, entry, &store);
    let entry = match word {
        Word::Once => {
            record(paths, folder, "once", &sheet.digests())?;
            Some(sheet.as_shown()?)
        }
        Word::Ask(ask) if sheet.has_news() => {
            if ask(&sheet)? {
                Some(give(paths, &sheet)?)
            } else {
                sheet.entry.clone()
            }
        }
        Word::Ask(_) | Word::Recorded => sheet.entry.clone(),
    };
    match entry {
        Some(entry) => Ok(take(sheet.seen, &entry, names)),
        None => Ok(untrusted(&sheet.seen.into_iter().map(|seen| seen.listed).collect::<Vec<_>>())),
    }
}

/// Records that a person trusts a folder as the sheet shows it.
pub(crate) fn give(paths: &Paths, sheet: &Sheet) -> Result<Entry, Failure> {
    let store = Store::new(&paths.state);
    let entry = sheet.as_shown()?;
    record(paths, &sheet.folder, "given", &sheet.digests())?;
    store.put(entry.clone(), sheet.texts())?;
    Ok(entry)
}

/// Takes a person's trust back. Returns what had been given.
pub(crate) fn take_back(paths: &Paths, folder: &Path) -> Result<Option<Entry>, Failure> {
    let store = Store::new(&paths.state);
    if store.all()?.iter().all(|entry| entry.path != folder) {
        return Ok(None);
    }
    record(paths, folder, "revoked", &BTreeMap::new())?;
    store.remove(folder)
}

/// Shows what is in a folder, whether it is trusted or not.
pub(crate) fn look(paths: &Paths, folder: &Path) -> Result<Sheet, Failure> {
    let store = Store::new(&paths.state);
    let entry = store.entry(folder)?;
    Ok(Sheet::of(folder, files::list(folder, &paths.home), entry, &store))
}

fn record(
    paths: &Paths,
    folder: &Path,
    word: &str,
    files: &BTreeMap<String, Option<String>>,
) -> Result<(), Failure> {
    let folder = folder.display().to_string();
    let act = Act::Trust { folder, word: word.to_owned(), files: files.clone() };
    let log = managed::audit_log(&managed::read()?, &paths.state);
    log.user(act).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(())
}

fn untrusted(listed: &[Listed]) -> Project {
    let names: Vec<&str> = listed.iter().map(|listed| listed.name.as_str()).collect();
    let what = and(&names);
    let verb = if names.len() == 1 { "is" } else { "are" };
    Project {
        notices: vec![format!(
            "{what} {verb} not loaded: this folder is not trusted (ml-intern trust, or --trust-once)"
        )],
        standing: format!("not trusted: {what} {verb} not loaded (ml-intern trust)"),
        untrusted: true,
        ..Project::default()
    }
}

/// `a`, `a and b`, `a, b and c`.
fn and(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [most @ .., last] => format!("{} and {last}", most.join(", ")),
    }
}

/// Takes what is as it was when it was trusted, and says why the rest is not.
fn take(seen: Vec<Seen>, entry: &Entry, names: &BTreeSet<String>) -> Project {
    let mut project = Project::default();
    let mut loaded = Vec::new();
    for Seen { listed, content } in seen {
        let Listed { name, path, kind, .. } = listed;
        let content = content.and_then(|content| match entry.files.get(&name) {
            Some(digest) if *digest == content.digest => Ok(content),
            Some(_) => Err("it changed since it was trusted (ml-intern trust shows how)".to_owned()),
            None => Err("it came since the folder was trusted (ml-intern trust shows it)".to_owned()),
        });
        let content = match content {
            Ok(content) => content,
            Err(reason) => {
                project.notices.push(format!("{name} is not loaded: {reason}"));
                // It is there to be read all the same.
                project.untrusted = true;
                continue;
            }
        };
        loaded.push(name.clone());
        match kind {
            Kind::Instructions => {
                project.instructions.push(Instructions { path, text: content.text });
            }
            Kind::Plugin => project.plugins.push((path, content.digest)),
            Kind::Settings => match settings::layer(path.display().to_string(), content.text) {
                Ok(layer) => project.settings = Some(layer),
                Err(error) => project.notices.push(format!("{name} is not loaded: {error}")),
            },
            Kind::Env => {
                let taken = dotenv::take(&content.text, names);
                let meant: Vec<&str> =
                    taken.left_out.iter().map(String::as_str).filter(|name| dotenv::is_read(name)).collect();
                if !meant.is_empty() {
                    project.notices.push(format!(
                        "{name}: {} left out: of a project's file only credentials are taken",
                        and(&meant)
                    ));
                }
                project.env = taken.variables;
            }
        }
    }
    let loaded = if loaded.is_empty() { "nothing of it is loaded".to_owned() } else { loaded.join(", ") };
    project.standing = format!("trusted since {}: {loaded}", entry.since);
    project
}
