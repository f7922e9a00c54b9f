//! The user's grants file: changed by one process at a time, in one step on the disk.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use agent::KeepGrant;
use audit::Act;
use manifest::Capabilities;
use runtime::Grants;
use rustix::fs::{FlockOperation, flock};

use crate::assemble::Setup;
use crate::exit::Failure;
use crate::managed;
use crate::paths::{make_private, read_own};

/// The tables of the file.
pub(crate) fn read(path: &Path) -> Result<BTreeMap<String, Capabilities>, Failure> {
    Ok(Grants::parse(path, &text_of(path)?).map_err(Failure::settings)?.into_tables())
}

fn text_of(path: &Path) -> Result<String, Failure> {
    Ok(read_own(path).map_err(Failure::settings)?.unwrap_or_default())
}

/// Changes the tables of the file.
pub(crate) fn change(
    path: &Path,
    edit: impl FnOnce(&mut BTreeMap<String, Capabilities>),
) -> Result<(), Failure> {
    let failed = |reason: String| Failure::settings(anyhow::anyhow!("{}: {reason}", path.display()));
    let io = |e: std::io::Error| failed(e.to_string());
    make_private(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
    let mut private = OpenOptions::new();
    private.write(true).create(true).mode(0o600);
    // What is taken back by one process is not written back by another.
    let lock = private.clone().truncate(false).open(path.with_extension("lock")).map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
    let text = text_of(path)?;
    let mut grants = Grants::parse(path, &text).map_err(Failure::settings)?.into_tables();
    let comments: String = text.lines().take_while(|l| l.starts_with('#')).flat_map(|l| [l, "\n"]).collect();
    edit(&mut grants);
    let tables = toml::to_string(&grants).map_err(|e| failed(e.to_string()))?;
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    let written = private.truncate(true).open(&temporary).and_then(|mut file| {
        std::io::Write::write_all(&mut file, format!("{comments}{tables}").as_bytes())?;
        std::fs::rename(&temporary, path)
    });
    written.map_err(io)
}

/// Keeps what a person granted for good while a call ran. On record before it is written.
pub(crate) fn keeper(setup: &Setup) -> KeepGrant {
    let (path, audit, policy) = (setup.paths.grants(), setup.audit(), setup.policy.clone());
    Arc::new(move |plugin, grant| {
        managed::may_grant(&policy).map_err(|e| e.to_string())?;
        let (name, approval) = (plugin.grants_name(), plugin.described.approval());
        let granted = vec![format!("network {grant}")];
        let act = Act::Grant { plugin: name.clone(), granted, revoked: Vec::new() };
        audit.user(act).map_err(|e| e.to_string())?;
        let kept = change(&path, |grants| {
            let table = table_for(grants, name, approval);
            if !table.network.iter().any(|known| known == grant) {
                table.network.push(grant.to_owned());
            }
        });
        kept.map_err(|failure| failure.to_string())
    })
}

/// The table of a plugin as it is now. What was given to one that is not here any more is no part of it.
pub(crate) fn table_for(
    grants: &mut BTreeMap<String, Capabilities>,
    name: String,
    approval: String,
) -> &mut Capabilities {
    let table = grants.entry(name).or_default();
    if table.approval.as_ref().is_some_and(|given_for| *given_for != approval) {
        *table = Capabilities::default();
    }
    // One that was written by hand stays for whatever has its name.
    if *table == Capabilities::default() {
        table.approval = Some(approval);
    }
    table
}
