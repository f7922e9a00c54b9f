//! Plugins: installed, removed, granted and revoked. Each change stands in the audit log.

use std::collections::BTreeMap;

use audit::Act;
use manifest::{Capabilities, CredentialUse, Manifest};
use runtime::{CredentialSource, Plugin, PluginRuntime, Source, SourceError};

use super::load;
use crate::assemble::Setup;
use crate::cli::PlaceArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::grants_file::change;
use crate::render::say;

pub(super) async fn remove(environment: Environment, place: &PlaceArgs, id: &str) -> Result<Exit, Failure> {
    let (setup, plugins, _) = load(environment, place).await?;
    let path = match &find(&plugins, id)?.source {
        Source::File(path) => path.clone(),
        Source::Bundled(_) => return Err(Failure::usage(format!("`{id}` is bundled and cannot be removed"))),
    };
    std::fs::remove_file(&path).map_err(|e| Failure::settings(anyhow::anyhow!("{}: {e}", path.display())))?;
    record(&setup, Act::Remove { plugin: id.to_owned(), path: path.display().to_string() })?;
    say(&format!("removed {}", path.display()));
    PluginRuntime::forget(id, &setup.plugin_dirs(&place.plugin_dir)).map_err(Failure::settings)?;
    // Another plugin may come with the same id.
    take_back(&setup, id)?;
    Ok(Exit::Done)
}

pub(super) async fn grant(environment: Environment, place: &PlaceArgs, id: &str) -> Result<Exit, Failure> {
    let (setup, plugins, _) = load(environment.clone(), place).await?;
    let manifest = stranger(&plugins, id)?;
    let given = manifest.capabilities.clone();
    let granted = told(&given);
    if granted.is_empty() && manifest.credentials.is_empty() {
        say(&format!("`{id}` asks for nothing"));
        return Ok(Exit::Done);
    }
    // A credential is handed out by name only; those that were stay.
    let credentials = find(&plugins, id)?.granted().credentials.clone();
    let given = Capabilities { credentials, ..given };
    let lacks = missing(manifest, &given);
    change(&setup.paths.grants(), |grants| {
        grants.insert(id.to_owned(), given);
    })?;
    record(&setup, Act::Grant { plugin: id.to_owned(), granted: granted.clone(), revoked: Vec::new() })?;
    granted.iter().for_each(|line| say(&format!("granted {id}: {line}")));
    lacks.iter().for_each(|line| say(line));
    Ok(Exit::Done)
}

/// Gives a plugin credentials, each written `NAME=SOURCE`, and nothing else.
pub(super) async fn grant_credentials(
    environment: Environment,
    place: &PlaceArgs,
    id: &str,
    given: &[String],
) -> Result<Exit, Failure> {
    let (setup, plugins, _) = load(environment, place).await?;
    let declared = &find(&plugins, id)?.described.manifest.credentials;
    let names = || declared.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
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
    change(&setup.paths.grants(), |grants| {
        grants.entry(id.to_owned()).or_default().credentials.extend(sources.clone());
    })?;
    let granted = told(&Capabilities { credentials: sources, ..Capabilities::default() });
    record(&setup, Act::Grant { plugin: id.to_owned(), granted: granted.clone(), revoked: Vec::new() })?;
    granted.iter().for_each(|line| say(&format!("granted {id}: {line}")));
    Ok(Exit::Done)
}

/// Credentials that a plugin declares and does not have, each with what would give it.
pub(super) fn missing(manifest: &Manifest, granted: &Capabilities) -> Vec<String> {
    let lacks = manifest.credentials.iter().filter(|(name, _)| !granted.credentials.contains_key(*name));
    let line = |(name, declared): (&String, &CredentialUse)| {
        let id = &manifest.id;
        let source = if declared.audience.iter().any(|origin| egress::may_have_hub_token(origin)) {
            "hf".to_owned()
        } else {
            format!("env:{}_TOKEN", name.to_ascii_uppercase().replace('-', "_"))
        };
        format!(
            "credential {name} is not granted ({}): ml-intern plugin grant {id} --credential {name}={source}, or \
             ml-intern login {name} and then --credential {name}=stored:{name}",
            declared.description
        )
    };
    lacks.map(line).collect()
}

pub(super) fn unknown(id: &str) -> Failure {
    Failure::usage(format!("there is no plugin `{id}`; `ml-intern plugin list` names those there are"))
}

pub(super) async fn revoke(environment: Environment, place: &PlaceArgs, id: &str) -> Result<Exit, Failure> {
    let setup = Setup::read(environment, place.config.as_deref())?;
    if !take_back(&setup, id)? {
        say(&format!("`{id}` was granted nothing by you"));
    }
    Ok(Exit::Done)
}

/// Takes a plugin's grants back and says which. Returns whether there were any.
fn take_back(setup: &Setup, id: &str) -> Result<bool, Failure> {
    let mut taken = None;
    change(&setup.paths.grants(), |grants| taken = grants.remove(id))?;
    let revoked = taken.as_ref().map(told).unwrap_or_default();
    if revoked.is_empty() {
        return Ok(false);
    }
    record(setup, Act::Grant { plugin: id.to_owned(), granted: Vec::new(), revoked: revoked.clone() })?;
    revoked.iter().for_each(|line| say(&format!("revoked {id}: {line}")));
    Ok(true)
}

fn find<'a>(plugins: &'a PluginRuntime, id: &str) -> Result<&'a Plugin, Failure> {
    let found = plugins.plugins().iter().find(|plugin| plugin.described.manifest.id == id);
    found.map(AsRef::as_ref).ok_or_else(|| unknown(id))
}

/// The manifest of a plugin whose grants are the user's.
fn stranger<'a>(plugins: &'a PluginRuntime, id: &str) -> Result<&'a Manifest, Failure> {
    let plugin = find(plugins, id)?;
    match plugin.source {
        Source::File(_) => Ok(&plugin.described.manifest),
        Source::Bundled(_) => {
            Err(Failure::usage(format!("`{id}` is bundled: its grants are those of configs/grants.toml")))
        }
    }
}

/// Capabilities, one line each, as they stand in a grants file.
pub(super) fn told(capabilities: &Capabilities) -> Vec<String> {
    let Capabilities { exec, files, kv, paths, network, credentials } = capabilities;
    let flags = [(*exec, "exec"), (*files, "files"), (*kv, "kv")];
    let flags = flags.into_iter().filter(|(given, _)| *given).map(|(_, name)| name.to_owned());
    let name = |mount| serde_json::to_value(mount).ok().and_then(|name| name.as_str().map(str::to_owned));
    let paths = paths.iter().filter_map(name).map(|name| format!("paths {name}"));
    let network = network.iter().map(|origin| format!("network {origin}"));
    let credentials = credentials.iter().map(|(name, source)| format!("credential {name} from {source}"));
    flags.chain(paths).chain(network).chain(credentials).collect()
}

pub(super) fn record(setup: &Setup, act: Act) -> Result<(), Failure> {
    setup.audit().user(act).map_err(|error| Failure::new(Exit::Failed, error))
}
