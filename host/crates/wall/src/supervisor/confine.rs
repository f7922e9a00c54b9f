use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath,
    RestrictionStatus, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus, Scope,
};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

use super::filter;
use crate::config::Network;
use crate::no_links::open_without_links;
use crate::rights::{Access, Rule};
use crate::wire::{Enforced, Files};

/// The Landlock version that is asked for: the first that keeps signals and abstract sockets inside.
const LANDLOCK: ABI = ABI::V6;

/// The same, as the kernel counts.
pub(crate) const LANDLOCK_ABI: i64 = 6;

/// Highest capability number that is taken from the bounding set; the kernel has 41 and refuses more.
const CAPABILITIES: u32 = 64;

/// Gives up every capability and confines this process for good.
pub(super) fn enforce(enforced: &Enforced) -> io::Result<()> {
    drop_capabilities()?;
    rustix::thread::set_no_new_privs(true)?;
    restrict(enforced)?;
    filter::install(enforced.network, enforced.files.is_own())
}

/// Confines this process to what it has: no file, no network, no other process.
pub(crate) fn shut_out() -> io::Result<()> {
    let (rules, outside) = (Vec::new(), Vec::new());
    let ports = Vec::new();
    enforce(&Enforced { network: Network::Off, ports, rules, files: Files::Machine, outside })
}

/// Enters a domain below the guard's, from which the guard cannot be signalled.
pub(super) fn enter_commands_domain() -> io::Result<()> {
    check(commands_domain().map_err(io::Error::other)?)
}

/// A domain denies to move files between folders unless it says otherwise, whatever else it is about. Where that
/// may be done is the guard's domain to say.
fn commands_domain() -> Result<RestrictionStatus, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .scope(Scope::Signal)?
        .create()?;
    match open_without_links(Path::new("/"), OFlags::PATH) {
        Ok(root) => ruleset.add_rule(PathBeneath::new(root, AccessFs::Refer))?.restrict_self(),
        Err(_) => ruleset.restrict_self(),
    }
}

fn drop_capabilities() -> io::Result<()> {
    for number in 0..CAPABILITIES {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability) {
            // An ordinary user may not empty the bounding set, and gains nothing from it without new
            // privileges. Numbers beyond the last capability are invalid.
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    clear_ambient_capability_set()?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })?;
    Ok(())
}

fn restrict(enforced: &Enforced) -> io::Result<()> {
    let status = ruleset(enforced).map_err(io::Error::other)?;
    check(status)
}

fn ruleset(enforced: &Enforced) -> Result<RestrictionStatus, landlock::RulesetError> {
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?;
    // In a network of their own they may have all of it.
    if enforced.network != Network::Open && !enforced.files.is_own() {
        ruleset = ruleset.handle_access(AccessNet::from_all(LANDLOCK))?;
    }
    let mut created = ruleset.create()?;
    let write = |path: &Path| Rule { path: path.to_owned(), access: Access::Write };
    let own = match &enforced.files {
        Files::Own(_) => own_rules(),
        Files::Mounts(mounts) => mounts.over_tmp.iter().map(|path| write(path)).collect(),
        Files::Machine => Vec::new(),
    };
    for rule in enforced.rules.iter().cloned().chain(own) {
        // What is gone by now, or reached through a link that was made since, gives no right.
        let Ok(path) = open_without_links(&rule.path, OFlags::PATH) else {
            continue;
        };
        let Ok(stat) = rustix::fs::fstat(&path) else {
            continue;
        };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mut allowed = allowed(rule.access);
        if !kind.is_dir() {
            allowed &= AccessFs::from_file(LANDLOCK);
        }
        if !kind.is_symlink() && !allowed.is_empty() {
            created = created.add_rule(PathBeneath::new(path, allowed))?;
        }
    }
    created.restrict_self()
}

/// What of a root of their own is commands' besides what they were given. Of `/proc` what is the machine's is
/// mounted read-only there; the rest are their own processes.
fn own_rules() -> Vec<Rule> {
    let rules = [("/tmp", Access::Write), ("/var/tmp", Access::Write), ("/proc", Access::Names)];
    rules.map(|(path, access)| Rule { path: path.into(), access }).into()
}

fn allowed(access: Access) -> BitFlags<AccessFs> {
    let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
    let write = AccessFs::from_all(LANDLOCK) & !devices;
    match access {
        Access::List => AccessFs::ReadDir.into(),
        Access::Read => AccessFs::ReadFile | AccessFs::ReadDir,
        Access::Names => AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::Truncate,
        Access::Tool => AccessFs::from_read(LANDLOCK),
        Access::Write => write,
        Access::Shared => write & !AccessFs::Execute,
        Access::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::ReadDir | AccessFs::IoctlDev,
    }
}

fn check(status: RestrictionStatus) -> io::Result<()> {
    if status.ruleset == RulesetStatus::FullyEnforced && status.no_new_privs {
        Ok(())
    } else {
        Err(io::Error::other(format!("landlock is not fully enforced: {status:?}")))
    }
}
