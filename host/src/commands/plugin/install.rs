//! A plugin is let in: its sheet or what is new about it, a person's word, and a record.

use std::collections::BTreeMap;
use std::io::{BufRead as _, IsTerminal as _};
use std::path::{Path, PathBuf};

use audit::Act;
use manifest::Capabilities;
use runtime::{Candidate, Described, LockIndex, PluginDirs, signature_file};

use super::change::{follow, missing, named, record};
use super::difference::differences;
use super::sign::publisher_key;
use super::{known, load, sheet};
use crate::assemble::Setup;
use crate::cli::InstallArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::paths;
use crate::render::{say, shown, warn};
use crate::workspace::check_plugin_folders;

/// What only looks like a plugin.
const ARCHIVES: [&str; 8] = ["zip", "tar", "gz", "tgz", "xz", "zst", "bz2", "7z"];

pub(super) async fn run(environment: Environment, args: &InstallArgs) -> Result<Exit, Failure> {
    let files = components(&args.file)?;
    check_plugin_folders(&args.place.plugin_dir)?;
    let setup = Setup::read(environment.clone(), args.place.config.as_deref())?;
    let dirs = setup.plugin_dirs(&args.place);
    let person = Person::of(args)?;
    if let [file] = files.as_slice() {
        install(&environment, &setup, &dirs, args, person, file).await?;
        return Ok(Exit::Done);
    }
    // What is wrong with one does not keep the others out.
    let mut exit = Exit::Done;
    for file in &files {
        if let Err(failure) = install(&environment, &setup, &dirs, args, person, file).await {
            warn(&failure.to_string());
            exit = failure.exit;
        }
        say("");
    }
    Ok(exit)
}

async fn install(
    environment: &Environment,
    setup: &Setup,
    dirs: &PluginDirs,
    args: &InstallArgs,
    person: Person,
    file: &Path,
) -> Result<(), Failure> {
    let named = args.publisher.as_deref().map(publisher_key).transpose()?;
    let (index, distrusted) = LockIndex::read(dirs).map_err(Failure::settings)?;
    let mut candidate =
        Candidate::read(file, &index, &setup.policy, named.as_ref()).map_err(Failure::settings)?;
    let id = candidate.inspection.manifest.id.clone();
    if bundled::PLUGINS.iter().any(|bundled| bundled.id == id) {
        let message = format!("`{id}` is the id of a bundled plugin; give yours another");
        return Err(Failure::settings(anyhow::anyhow!(message)));
    }
    if let Some(older) = candidate.older.take() {
        if !args.allow_downgrade {
            return Err(Failure::settings(older));
        }
        warn(&format!("note: {older}"));
    }
    if let Some(distrusted) = distrusted {
        warn(&format!("{distrusted}\nThis install begins a new index."));
    }
    // Of one that is installed the person decides about what is different, its descriptions included: it is
    // asked for them, with every import refusing. Of another no code runs before there is a word.
    let described = match &candidate.installed {
        Some(before) => {
            let now = candidate.describe(dirs).await.map_err(Failure::settings)?;
            upgrade(setup, &candidate, before, &now);
            Some(now)
        }
        None => {
            sheet(&shown(file), &candidate.inspection, &candidate.signed, None, false)?;
            None
        }
    };
    if !person.agrees(&id)? {
        return Err(Failure::new(Exit::Denied, anyhow::anyhow!("`{id}` was not installed")));
    }
    let described = match described {
        Some(described) => described,
        None => candidate.describe(dirs).await.map_err(Failure::settings)?,
    };
    let target = target(setup, dirs, &candidate);
    record(setup, Act::Install { plugin: known(&described), path: target.display().to_string() })?;
    place(&candidate, &target)?;
    candidate.let_in(described.clone(), &target, dirs).map_err(Failure::settings)?;
    if let Some(before) = &candidate.installed {
        follow(setup, before, &described)?;
    }
    say(&format!("\ninstalled {id} {}", described.manifest.version));
    left_to_do(environment, args, &described).await
}

/// Shows what is different about a plugin that is installed.
fn upgrade(setup: &Setup, candidate: &Candidate, before: &Described, now: &Described) {
    let (old, new) = (&before.manifest, &now.manifest);
    let file = shown(&candidate.path);
    say(&format!("{} {} is installed; this is {} from {file}", old.id, old.version, new.version));
    say(&format!("digest    sha256:{}", now.digest));
    let lines = differences(before, now);
    lines.iter().for_each(|line| say(&format!("  {line}")));
    if lines.is_empty() {
        let code = if before.digest == now.digest { "it is the same file" } else { "its code is another" };
        say(&format!("  nothing that it says of itself, asks for or imports is different; {code}"));
    }
    if before.owner() != now.owner() && setup.paths.plugin_data().join(before.owner()).exists() {
        let id = &old.id;
        let whose = before.publisher.as_ref();
        let whose = whose
            .map_or_else(|| "the one without a signature".to_owned(), |by| format!("that of {}", by.key));
        say(&format!(
            "  what `{id}` stored stays with {whose}: this one has none of it, and `plugin remove {id}` deletes it too"
        ));
    }
}

/// What is left to do for it to work.
async fn left_to_do(
    environment: &Environment,
    args: &InstallArgs,
    described: &Described,
) -> Result<(), Failure> {
    let (_, plugins, _) = load(environment.clone(), &args.place).await?;
    let manifest = &described.manifest;
    let Some(plugin) = plugins.plugins().iter().find(|plugin| plugin.described.manifest.id == manifest.id)
    else {
        return Ok(());
    };
    missing(plugin, plugin.granted(), &args.place).iter().for_each(|line| say(line));
    let granted = plugin.granted().clone();
    let granted =
        Capabilities { credentials: BTreeMap::new(), limits: BTreeMap::new(), approval: None, ..granted };
    if granted != manifest.capabilities {
        let (id, named) = (&manifest.id, named(plugin, &args.place));
        say(&format!("it has not been granted all it asks for: ml-intern plugin grant {id}{named}"));
    }
    Ok(())
}

/// Who says that a plugin may be let in.
#[derive(Clone, Copy)]
enum Person {
    AtTerminal,
    /// Said in advance.
    Yes,
}

impl Person {
    fn of(args: &InstallArgs) -> Result<Self, Failure> {
        let terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
        match (args.yes, terminal) {
            (true, _) => Ok(Self::Yes),
            (false, true) => Ok(Self::AtTerminal),
            (false, false) => Err(Failure::usage(
                "there is no terminal to ask at; look at it with `ml-intern plugin info FILE`, then say --yes",
            )),
        }
    }

    fn agrees(self, id: &str) -> Result<bool, Failure> {
        if let Self::Yes = self {
            return Ok(true);
        }
        // What was typed before the question was no answer to it.
        let _ = rustix::termios::tcflush(std::io::stdin(), rustix::termios::QueueSelector::IFlush);
        warn(&format!("\nInstall `{id}`? Type y and Enter; anything else is no."));
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }
}

/// The component files that are meant.
fn components(given: &Path) -> Result<Vec<PathBuf>, Failure> {
    let extension = given.extension().and_then(|e| e.to_str()).unwrap_or_default().to_lowercase();
    let is_folder = given.is_dir();
    if ARCHIVES.contains(&extension.as_str()) && !is_folder {
        return Err(Failure::usage(format!(
            "{}: archives are not installed; unpack it, look at what it holds, and install the .wasm file or the folder",
            shown(given)
        )));
    }
    if !is_folder {
        return Ok(vec![given.to_owned()]);
    }
    let failed = |e: std::io::Error| Failure::usage(format!("{}: {e}", shown(given)));
    let mut files = Vec::new();
    for entry in std::fs::read_dir(given).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|e| e == "wasm") {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(Failure::usage(format!("{}: there is no .wasm file in it", shown(given))));
    }
    Ok(files)
}

/// Where a component will lie: where it lies, if that is a folder of plugins.
fn target(setup: &Setup, dirs: &PluginDirs, candidate: &Candidate) -> PathBuf {
    let in_folder = candidate.path.canonicalize().ok().and_then(|f| f.parent().map(Path::to_owned));
    let mut folders = dirs.folders.iter().chain(&dirs.named).filter_map(|d| d.canonicalize().ok());
    if folders.any(|folder| Some(folder) == in_folder) {
        return candidate.path.clone();
    }
    setup.paths.user_plugins().join(format!("{}.wasm", candidate.inspection.manifest.id))
}

/// Puts the very bytes that were looked at there, with their signature.
fn place(candidate: &Candidate, target: &Path) -> Result<(), Failure> {
    if candidate.path == target {
        return Ok(());
    }
    let put = |path: &Path, bytes: &[u8]| {
        paths::replace(path, bytes).map_err(|e| Failure::settings(anyhow::anyhow!("{}: {e}", shown(path))))
    };
    let signature = signature_file(target);
    match &candidate.signature {
        Some(text) => put(&signature, text.as_bytes())?,
        None if signature.symlink_metadata().is_ok() => std::fs::remove_file(&signature)?,
        None => {}
    }
    put(target, &candidate.bytes)
}
