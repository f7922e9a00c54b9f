//! Plugins: what there is, what each can reach.

mod change;
mod difference;
mod install;
mod remove;
mod secret_key;
mod sign;

use std::io::Read as _;
use std::path::Path;

use egress::NetworkGrant;
use manifest::{Capabilities, CredentialUse, Manifest, Mount, ToolPolicy};
use runtime::{
    Bundled, Candidate, Described, Inspection, LockIndex, Plugin, PluginError, PluginRuntime, Signed,
};
use serde_json::json;

use crate::assemble::Setup;
use crate::cli::{PlaceArgs, PluginCommand};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::{json as lines, line, say, shown};
use crate::trust::Word;

pub(super) async fn run(command: PluginCommand, environment: Environment) -> Result<Exit, Failure> {
    match command {
        PluginCommand::List { json, place } => list(environment, &place, json).await,
        PluginCommand::Info { plugin, json, place } => info(environment, &place, &plugin, json).await,
        PluginCommand::Install(args) => install::run(environment, &args).await,
        PluginCommand::Remove { plugin, place } => remove::run(environment, &place, &plugin),
        PluginCommand::Grant { plugin, credential, limit, place } => {
            if credential.is_empty() && limit.is_empty() {
                return change::grant(environment, &place, &plugin).await;
            }
            change::grant_parts(environment, &place, &plugin, &credential, &limit).await
        }
        PluginCommand::Grants { plugin, place } => grants(environment, &place, plugin.as_deref()).await,
        PluginCommand::Revoke { plugin, place } => change::revoke(environment, &place, &plugin).await,
        PluginCommand::Keygen { file, unencrypted } => sign::keygen(&file, unencrypted),
        PluginCommand::Sign { file, key } => sign::sign(&file, &key),
        PluginCommand::Verify { file, publisher, place } => {
            sign::verify(environment, &place, &file, publisher.as_deref())
        }
        PluginCommand::Export { directory } => export(&directory),
    }
}

async fn load(
    environment: Environment,
    place: &PlaceArgs,
) -> Result<(Setup, PluginRuntime, Vec<PluginError>), Failure> {
    let setup = Setup::in_place(environment, place, Word::of(place))?;
    let egress = setup.egress(true, "plugin", Vec::new())?;
    let (plugins, problems) = setup.plugins(place, egress, &mut note).await?;
    Ok((setup, plugins, problems))
}

async fn list(environment: Environment, place: &PlaceArgs, as_json: bool) -> Result<Exit, Failure> {
    let (_, plugins, problems) = load(environment, place).await?;
    for plugin in plugins.plugins() {
        let Described { manifest, digest, tools, .. } = &plugin.described;
        let names: Vec<String> = tools.iter().map(|tool| plugin.tool_name(&tool.name)).collect();
        if as_json {
            let value = json!({
                "id": manifest.id, "version": manifest.version, "source": plugin.source.to_string(), "digest": digest,
                "tools": names, "granted": plugin.granted(),
            });
            lines::line(&mut std::io::stdout(), &value)?;
        } else {
            say(&format!(
                "{:<12} {:<8} {:<40} {}",
                manifest.id,
                manifest.version,
                names.join(", "),
                plugin.source
            ));
        }
    }
    for problem in &problems {
        note(format!("left out: {problem}"));
    }
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Settings })
}

async fn info(
    environment: Environment,
    place: &PlaceArgs,
    name: &str,
    as_json: bool,
) -> Result<Exit, Failure> {
    let path = Path::new(name);
    if path.extension().is_some_and(|e| e == "wasm") || path.is_file() {
        let setup = Setup::read(environment, place.config.as_deref())?;
        let (index, _) = LockIndex::read(&setup.plugin_dirs(place)).map_err(Failure::settings)?;
        let candidate = Candidate::look(path, &index, &setup.policy, None).map_err(Failure::settings)?;
        return sheet(name, &candidate.inspection, &candidate.signed, None, as_json);
    }
    let (_, plugins, problems) = load(environment, place).await?;
    let found = plugins.plugins().iter().find(|plugin| plugin.described.manifest.id == name);
    let Some(plugin) = found else {
        let ids: Vec<&str> =
            plugins.plugins().iter().map(|plugin| plugin.described.manifest.id.as_str()).collect();
        problems.iter().for_each(|problem| note(format!("left out: {problem}")));
        return Err(Failure::usage(format!("there is no plugin `{name}`; there are {}", ids.join(", "))));
    };
    let Described { manifest, imports, digest, publisher, .. } = plugin.described.clone();
    let signed = publisher.map_or(Signed::No, Signed::Yes);
    let inspection = Inspection { manifest, imports, digest };
    sheet(&plugin.source.to_string(), &inspection, &signed, Some(plugin), as_json)
}

/// What a component can reach, from its own import list and what was granted.
fn sheet(
    source: &str,
    Inspection { manifest, imports, digest }: &Inspection,
    signed: &Signed,
    installed: Option<&Plugin>,
    as_json: bool,
) -> Result<Exit, Failure> {
    let granted = installed.map(Plugin::granted);
    if as_json {
        let value = json!({ "source": source, "digest": digest, "manifest": manifest, "imports": imports, "publisher": signed.publisher(), "granted": granted });
        lines::line(&mut std::io::stdout(), &value)?;
        return Ok(Exit::Done);
    }
    say(&format!("{} {} — {}", manifest.id, manifest.version, manifest.description));
    say(&format!("from      {}", line(source)));
    say(&format!("digest    sha256:{digest}"));
    let says = manifest.publisher.as_deref().unwrap_or("unknown");
    say(&match signed {
        Signed::Yes(by) => format!("publisher {says}, signed by {}: {}", by.key, line(&by.comment)),
        Signed::Unknown => {
            format!("publisher {says}, signed by a key that is not known here: --publisher KEY names it")
        }
        Signed::No => format!("publisher {says} (not signed)"),
    });
    say("\ntools");
    for (tool, policy) in &manifest.tools {
        let name =
            installed.map_or_else(|| format!("{}__{tool}", manifest.id), |plugin| plugin.tool_name(tool));
        let longer = policy.timeout_argument.as_ref();
        let longer = longer.map_or_else(String::new, |name| format!(" or its argument `{name}`"));
        say(&format!("  {name:<24} tier {}, at most {} s{longer}", policy.tier, policy.wall_time_s));
        takes(policy).iter().for_each(|line| say(&format!("  {:<24} {line}", "")));
    }
    say("\ncan reach");
    let mut reach = reach(&manifest.capabilities, granted, imports);
    reach.extend(carries(manifest, granted));
    let limits = granted.map(|granted| &granted.limits).into_iter().flatten();
    reach.extend(limits.map(|(name, most)| format!("no more than {name} {most}")));
    reach.iter().for_each(|line| say(&format!("  {line}")));
    if reach.is_empty() {
        say("  nothing but its arguments");
    }
    say("\ncannot, because it does not import it");
    cannot(imports).iter().for_each(|line| say(&format!("  {line}")));
    Ok(Exit::Done)
}

/// What the host does for a tool's calls because the manifest says so.
fn takes(policy: &ToolPolicy) -> Vec<String> {
    let mut out = Vec::new();
    if !policy.text_or_file.is_empty() {
        out.push(format!("gets the text of a file that {} names", policy.text_or_file.join(", ")));
    }
    if policy.repository.is_some() {
        let said = "with `auto` makes private repositories of yours, and changes what it made, unasked";
        out.push(said.to_owned());
    }
    out
}

/// A plugin as the audit log names it.
pub(super) fn known(described: &Described) -> audit::Plugin {
    let Manifest { id, version, .. } = &described.manifest;
    let publisher = described.publisher.as_ref().map(|by| by.key.to_string());
    audit::Plugin { id: id.clone(), version: version.clone(), digest: described.digest.clone(), publisher }
}

/// One line per thing it asks for, with whether it was given.
fn reach(declared: &Capabilities, granted: Option<&Capabilities>, imports: &[String]) -> Vec<String> {
    let given = |has: &dyn Fn(&Capabilities) -> bool| match granted {
        None => "asked for, not installed",
        Some(granted) if has(granted) => "granted",
        Some(_) => "asked for, NOT granted",
    };
    let imports_it =
        |interface: &str| imports.iter().any(|i| i.starts_with(&format!("ml-intern:plugin/{interface}@")));
    let mut out = Vec::new();
    if declared.exec && imports_it("exec") {
        out.push(format!(
            "start native commands: what they reach is the wall's (ml-intern doctor) — {}",
            given(&|c| c.exec)
        ));
    }
    if declared.files && imports_it("files") {
        out.push(format!(
            "change files of the workspace and of directories added with :rw, undoably — {}",
            given(&|c| c.files)
        ));
    }
    for mount in &declared.paths {
        let what = match mount {
            Mount::Workspace => "read the workspace and added directories",
            Mount::Tmp => "read and write the session's own /tmp",
            Mount::Data => "read and write a folder of its own",
        };
        out.push(format!("{what} — {}", given(&|c| c.paths.contains(mount))));
    }
    if declared.kv && imports_it("kv") {
        out.push(format!("keep small values for the session — {}", given(&|c| c.kv)));
    }
    for origin in &declared.network {
        let wanted = NetworkGrant::parse(origin).ok();
        let meets = |given: &String| {
            let given = NetworkGrant::parse(given).ok();
            wanted.as_ref().zip(given).is_some_and(|(wanted, given)| wanted.intersection(&given).is_some())
        };
        out.push(format!("connect to {origin} — {}", given(&|c| c.network.iter().any(meets))));
    }
    for (has, what) in [(declared.exec, "exec"), (declared.files, "files"), (declared.kv, "kv")] {
        if has && !imports_it(what) {
            out.push(format!(
                "(asks for `{what}` and does not import it: a version that does is asked for anew)"
            ));
        }
    }
    let reads = granted.unwrap_or(declared).paths.contains(&Mount::Workspace);
    let hosts = &granted.unwrap_or(declared).network;
    if reads && !hosts.is_empty() {
        out.push(format!("so: it can read your files AND send to {}", hosts.join(", ")));
    }
    out
}

/// One line per credential that its requests can carry.
fn carries(manifest: &Manifest, granted: Option<&Capabilities>) -> Vec<String> {
    let one = |(name, declared): (&String, &CredentialUse)| {
        let given = match granted.map(|granted| granted.credentials.get(name)) {
            None => "asked for, not installed".to_owned(),
            Some(None) => "asked for, NOT granted".to_owned(),
            Some(Some(source)) => format!("granted from {source}"),
        };
        let (audience, place) = (declared.audience.join(", "), declared.place());
        let description = &declared.description;
        format!(
            "send your {} credential to {audience} in {place} – the plugin never sees it ({description}) — {given}",
            name.to_ascii_uppercase()
        )
    };
    manifest.credentials.iter().map(one).collect()
}

/// What plugins were granted, line by line.
async fn grants(environment: Environment, place: &PlaceArgs, id: Option<&str>) -> Result<Exit, Failure> {
    let (_, plugins, _) = load(environment, place).await?;
    let mut shown = plugins
        .plugins()
        .iter()
        .filter(|plugin| id.is_none_or(|id| plugin.described.manifest.id == id))
        .peekable();
    if let (Some(id), None) = (id, shown.peek()) {
        return Err(change::unknown(id));
    }
    for plugin in shown {
        let manifest = &plugin.described.manifest;
        let granted = change::told(plugin.granted());
        granted.iter().for_each(|line| say(&format!("{}: {line}", manifest.id)));
        change::missing(plugin, plugin.granted(), place)
            .iter()
            .for_each(|line| say(&format!("{}: {line}", manifest.id)));
        if granted.is_empty() {
            say(&format!("{}: nothing", manifest.id));
        }
    }
    Ok(Exit::Done)
}

fn cannot(imports: &[String]) -> Vec<&'static str> {
    const WHAT: [(&str, &str); 4] = [
        ("ml-intern:plugin/exec@", "start commands"),
        ("ml-intern:plugin/files@", "change files"),
        ("ml-intern:plugin/http@", "connect to anything"),
        ("wasi:filesystem/", "see any file"),
    ];
    WHAT.into_iter()
        .filter(|(import, _)| !imports.iter().any(|i| i.starts_with(import)))
        .map(|(_, what)| what)
        .collect()
}

fn export(directory: &Path) -> Result<Exit, Failure> {
    let failed = |e: std::io::Error| Failure::usage(format!("{}: {e}", shown(directory)));
    std::fs::create_dir_all(directory).map_err(failed)?;
    for Bundled { id, component, .. } in bundled::PLUGINS {
        let mut bytes = Vec::new();
        flate2::read::ZlibDecoder::new(*component).read_to_end(&mut bytes).map_err(failed)?;
        let path = directory.join(format!("{id}.wasm"));
        std::fs::write(&path, bytes).map_err(failed)?;
        say(&shown(&path));
    }
    Ok(Exit::Done)
}

fn note(line: String) {
    crate::render::warn(&line);
}
