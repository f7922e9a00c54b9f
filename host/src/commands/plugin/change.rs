//! Plugins: granted and revoked. Each change stands in the audit log.

use std::collections::BTreeMap;

use audit::Act;
use manifest::{Capabilities, CredentialUse};
use runtime::{CredentialSource, Described, Limits, LockIndex, Plugin, PluginRuntime, Source, SourceError};

use super::load;
use crate::assemble::Setup;
use crate::cli::PlaceArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::grants_file::{change, read, table_for};
use crate::managed;
use crate::render::{line, say, shown};

pub(super) async fn grant(environment: Environment, place: &PlaceArgs, id: &str) -> Result<Exit, Failure> {
    let (setup, plugins, _) = load(environment.clone(), place).await?;
    managed::may_grant(&setup.policy)?;
    let plugin = stranger(&plugins, id)?;
    let manifest = &plugin.described.manifest;
    let given = manifest.capabilities.clone();
    let granted = told(&given);
    if granted.is_empty() && manifest.credentials.is_empty() {
        say(&format!("`{id}` asks for nothing"));
        return Ok(Exit::Done);
    }
    // A credential is handed out by name only; those that were stay, and what bounds it.
    let Capabilities { credentials, limits, .. } = plugin.granted().clone();
    let given = Capabilities { credentials, limits, approval: Some(plugin.described.approval()), ..given };
    let lacks = missing(plugin, &given, place);
    let name = plugin.grants_name();
    record(&setup, Act::Grant { plugin: name.clone(), granted: granted.clone(), revoked: Vec::new() })?;
    change(&setup.paths.grants(), |grants| {
        grants.insert(name, given);
    })?;
    vouch(&setup, place, plugin)?;
    granted.iter().for_each(|line| say(&format!("granted {id}: {line}")));
    lacks.iter().for_each(|line| say(line));
    Ok(Exit::Done)
}

/// What a person gives something to is let in as it is.
fn vouch(setup: &Setup, place: &PlaceArgs, plugin: &Plugin) -> Result<(), Failure> {
    match plugin.source {
        Source::File(_) => setup.plugin_dirs(place).vouch(&plugin.described).map_err(Failure::settings),
        Source::Bundled(_) | Source::Project(_) => Ok(()),
    }
}

/// Gives a plugin credentials, each written `NAME=SOURCE`, and limits, each written `NAME=NUMBER`, and nothing else.
pub(super) async fn grant_parts(
    environment: Environment,
    place: &PlaceArgs,
    id: &str,
    given: &[String],
    limits: &[String],
) -> Result<Exit, Failure> {
    let (setup, plugins, _) = load(environment, place).await?;
    managed::may_grant(&setup.policy)?;
    let plugin = find(&plugins, id)?;
    let declared = &plugin.described.manifest.credentials;
    let names = || declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let limits = limits_of(limits)?;
    let mut sources = BTreeMap::new();
    for text in given {
        // What stands there is not repeated: it may be the value itself.
        let (name, source) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--credential NAME=SOURCE: {SourceError}")))?;
        let source: CredentialSource =
            source.parse().map_err(|e| Failure::usage(format!("--credential NAME=SOURCE: {e}")))?;
        let Some(declared) = declared.get(name) else {
            let names = if declared.is_empty() { "none".to_owned() } else { names() };
            return Err(Failure::usage(format!("`{id}` declares no such credential; it declares {names}")));
        };
        let hub_only = source == CredentialSource::HuggingFace
            && !declared.audience.iter().any(|origin| egress::may_have_hub_token(origin));
        if hub_only {
            return Err(Failure::usage(format!(
                "the Hugging Face token goes to Hugging Face's own hosts only, and `{name}` is for {}",
                declared.audience.join(", ")
            )));
        }
        sources.insert(name.to_owned(), source.to_string());
    }
    let (name, approval) = (plugin.grants_name(), plugin.described.approval());
    // What another file was granted would come along.
    let is_another = !plugin.has_grants && read(&setup.paths.grants())?.contains_key(&name);
    if is_another && !sources.is_empty() {
        let (file, named) = (&plugin.source, named(plugin, place));
        return Err(Failure::settings(anyhow::anyhow!(
            "{file} is not the file that `{id}` was when it was let in: `ml-intern plugin install {file}{named}` looks at it first"
        )));
    }
    // A limit gives nothing, and is nobody's word for the file.
    let vouches = !sources.is_empty();
    let granted = told(&Capabilities {
        credentials: sources.clone(),
        limits: limits.clone(),
        ..Capabilities::default()
    });
    record(&setup, Act::Grant { plugin: name.clone(), granted: granted.clone(), revoked: Vec::new() })?;
    change(&setup.paths.grants(), |grants| {
        // What a bundled plugin may do is fixed: its table has where its credentials come from and its limits, no more.
        let table = match plugin.source {
            Source::Bundled(_) => grants.entry(name).or_default(),
            _ => table_for(grants, name, approval),
        };
        table.credentials.extend(sources);
        table.limits.extend(limits);
    })?;
    if vouches {
        vouch(&setup, place, plugin)?;
    }
    granted.iter().for_each(|line| say(&format!("granted {id}: {line}")));
    Ok(Exit::Done)
}

/// Limits, each written `NAME=NUMBER`.
fn limits_of(given: &[String]) -> Result<BTreeMap<String, u64>, Failure> {
    let wrong = |reason: &str| Failure::usage(format!("--limit NAME=NUMBER, such as cpu_ms=10000: {reason}"));
    let one = |text: &String| {
        let (name, number) = text.split_once('=')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let read = |text| one(text).ok_or_else(|| wrong(&format!("not {}", line(text))));
    let limits: BTreeMap<String, u64> = given.iter().map(read).collect::<Result<_, _>>()?;
    Limits::of_grant(&limits).map_err(|reason| wrong(&reason))?;
    Ok(limits)
}

/// Credentials that a plugin declares and does not have, each with what would give it.
pub(super) fn missing(plugin: &Plugin, granted: &Capabilities, place: &PlaceArgs) -> Vec<String> {
    let (manifest, named) = (&plugin.described.manifest, named(plugin, place));
    let lacks = manifest.credentials.iter().filter(|(name, _)| !granted.credentials.contains_key(*name));
    let line = |(name, declared): (&String, &CredentialUse)| {
        let id = &manifest.id;
        let source = if declared.audience.iter().any(|origin| egress::may_have_hub_token(origin)) {
            "hf".to_owned()
        } else {
            format!("env:{}_TOKEN", name.to_ascii_uppercase().replace('-', "_"))
        };
        format!(
            "credential {name} is not granted ({}): ml-intern plugin grant {id}{named} --credential {name}={source}, or \
             ml-intern login {name} and then --credential {name}=stored:{name}",
            declared.description
        )
    };
    lacks.map(line).collect()
}

/// What a command line about a plugin needs besides its id, where it lies in a folder that was named.
pub(super) fn named(plugin: &Plugin, place: &PlaceArgs) -> String {
    let folder = plugin.named_in(&place.plugin_dir);
    folder.map(|folder| format!(" --plugin-dir {}", shown(folder))).unwrap_or_default()
}

pub(super) fn unknown(id: &str) -> Failure {
    let id = line(id);
    Failure::usage(format!("there is no plugin `{id}`; `ml-intern plugin list` names those there are"))
}

pub(super) async fn revoke(environment: Environment, place: &PlaceArgs, id: &str) -> Result<Exit, Failure> {
    let (setup, plugins, _) = load(environment, place).await?;
    // Also of one that is not there any more, or cannot be used.
    let found = find(&plugins, id);
    let name = found.as_ref().map_or_else(|_| id.to_owned(), |plugin| plugin.grants_name());
    if !take_back(&setup, &name)? {
        let dirs = setup.plugin_dirs(place);
        let is_known = || {
            let (index, _) = LockIndex::read(&dirs).map_err(Failure::settings)?;
            Ok::<bool, Failure>(index.knows(id) || dirs.files_of(id) != (Vec::new(), Vec::new()))
        };
        if found.is_err() && !is_known()? {
            return Err(unknown(id));
        }
        say(&format!("`{id}` was granted nothing by you"));
    }
    Ok(Exit::Done)
}

/// Takes a plugin's grants back and says which. Returns whether there were any.
pub(super) fn take_back(setup: &Setup, id: &str) -> Result<bool, Failure> {
    let taken = read(&setup.paths.grants())?.remove(id);
    let revoked = taken.as_ref().map(told).unwrap_or_default();
    if taken.is_none() {
        return Ok(false);
    }
    record(setup, Act::Grant { plugin: id.to_owned(), granted: Vec::new(), revoked: revoked.clone() })?;
    change(&setup.paths.grants(), |grants| {
        grants.remove(id);
    })?;
    let id = line(id);
    revoked.iter().for_each(|line| say(&format!("revoked {id}: {line}")));
    Ok(true)
}

fn find<'a>(plugins: &'a PluginRuntime, id: &str) -> Result<&'a Plugin, Failure> {
    let found = plugins.plugins().iter().find(|plugin| plugin.described.manifest.id == id);
    found.map(AsRef::as_ref).ok_or_else(|| unknown(id))
}

/// A plugin whose grants are the user's.
fn stranger<'a>(plugins: &'a PluginRuntime, id: &str) -> Result<&'a Plugin, Failure> {
    let plugin = find(plugins, id)?;
    match plugin.source {
        Source::File(_) | Source::Project(_) => Ok(plugin),
        Source::Bundled(_) => {
            Err(Failure::usage(format!("`{id}` is bundled: its grants are those of configs/grants.toml")))
        }
    }
}

/// What was given to a plugin stays with it when a person lets in another version of it: as far as that still
/// asks for it.
pub(super) fn follow(setup: &Setup, before: &Described, now: &Described) -> Result<(), Failure> {
    let (id, path) = (&now.manifest.id, setup.paths.grants());
    let is_for = |given: &Capabilities| given.approval.as_ref() == Some(&before.approval());
    if !read(&path)?.get(id).is_some_and(is_for) {
        return Ok(());
    }
    change(&path, |grants| {
        if let Some(given) = grants.get_mut(id).filter(|given| is_for(given)) {
            given.approval = Some(now.approval());
        }
    })
}

/// Capabilities, one line each, as they stand in a grants file.
pub(super) fn told(capabilities: &Capabilities) -> Vec<String> {
    let Capabilities { exec, files, kv, paths, network, credentials, limits, approval: _ } = capabilities;
    let flags = [(*exec, "exec"), (*files, "files"), (*kv, "kv")];
    let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, name)| name.to_owned());
    let name = |mount| serde_json::to_value(mount).ok().and_then(|name| name.as_str().map(str::to_owned));
    let paths = paths.iter().filter_map(name).map(|name| format!("paths {name}"));
    let network = network.iter().map(|origin| format!("network {origin}"));
    let credentials = credentials.iter().map(|(name, source)| format!("credential {name} from {source}"));
    let limits = limits.iter().map(|(name, most)| format!("limit {name} {most}"));
    flags.chain(paths).chain(network).chain(credentials).chain(limits).collect()
}

pub(super) fn record(setup: &Setup, act: Act) -> Result<(), Failure> {
    setup.audit().user(act).map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(())
}
