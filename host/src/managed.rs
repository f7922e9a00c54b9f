//! The machine's policy: where it lies, and what it says about a command line and settings.

use std::path::Path;

use agent::Mode;
use clap::CommandFactory as _;
use policy::{Commands, Forbidden, Owner, Policy, PolicyError, WallMode};
use wall::{Grade, Network};

use crate::cli::{Cli, PlaceArgs, SandboxArg, SessionArgs};
use crate::environment::Environment;
use crate::exit::Failure;
use crate::settings::Settings;

/// Where the policy lies. Said while the program is built, and nowhere else.
const FILE: &str = match option_env!("ML_INTERN_POLICY_PATH") {
    Some(path) => path,
    None => "/etc/ml-intern/policy.toml",
};

/// Whether the program was built to work under a policy only.
const REQUIRED: bool = match option_env!("ML_INTERN_POLICY_REQUIRED") {
    Some(value) => matches!(value.as_bytes(), b"1"),
    None => false,
};

/// Where the policy lies.
pub(crate) fn file() -> &'static Path {
    Path::new(FILE)
}

/// Reads the machine's policy; one that forbids nothing if there is none.
pub(crate) fn read() -> Result<Policy, Failure> {
    let found = Policy::read(file(), Owner::root()).and_then(|found| match found {
        None if REQUIRED => Err(PolicyError::Missing(file().to_owned())),
        found => Ok(found.unwrap_or_default()),
    });
    let policy = found.map_err(Failure::settings)?;
    known_flags(&policy)?;
    Ok(policy)
}

/// A flag that is misspelt would forbid nothing.
pub(crate) fn known_flags(policy: &Policy) -> Result<(), Failure> {
    if policy.rules().flags.forbid.is_empty() {
        return Ok(());
    }
    let known = crate::cli::flags(&Cli::command());
    match policy.rules().flags.forbid.iter().find(|flag| !known.contains(flag.get_ref())) {
        Some(flag) => Err(Failure::settings(anyhow::anyhow!(
            "{}: `{}` is no flag of this program",
            policy.place(flag),
            flag.get_ref()
        ))),
        None => Ok(()),
    }
}

impl From<Forbidden> for Failure {
    fn from(forbidden: Forbidden) -> Self {
        Self::settings(forbidden)
    }
}

/// Refuses what was said on the command line, or by a setting that says the same.
pub(crate) fn check_said(
    policy: &Policy,
    environment: &Environment,
    settings: &Settings,
) -> Result<(), Forbidden> {
    for flag in &environment.flags {
        policy.flag(flag, flag)?;
    }
    let also = [
        ("--add-dir", !settings.dirs.is_empty(), "`dirs` in the settings"),
        ("--yolo", settings.yolo_mode, "`yolo_mode` in the settings"),
        ("--config", environment.text("ML_INTERN_CLI_CONFIG").is_some(), "ML_INTERN_CLI_CONFIG"),
    ];
    also.into_iter().filter(|(_, is_set, _)| *is_set).try_for_each(|(flag, _, said)| policy.flag(flag, said))
}

/// The permission mode of a run.
pub(crate) fn mode(
    policy: &Policy,
    args: &SessionArgs,
    settings: &Settings,
    interactive: bool,
) -> Result<Mode, Forbidden> {
    use crate::cli::ModeArg;
    let said = match args.permission_mode {
        Some(ModeArg::Default) => Some((policy::Mode::Default, "--permission-mode default")),
        Some(ModeArg::Plan) => Some((policy::Mode::Plan, "--permission-mode plan")),
        Some(ModeArg::Ask) => Some((policy::Mode::Ask, "--permission-mode ask")),
        Some(ModeArg::Auto) => Some((policy::Mode::Auto, "--permission-mode auto")),
        Some(ModeArg::Yolo) => Some((policy::Mode::Yolo, "--permission-mode yolo")),
        None if args.yolo => Some((policy::Mode::Yolo, "--yolo")),
        None if settings.yolo_mode => Some((policy::Mode::Yolo, "`yolo_mode` in the settings")),
        None => None,
    };
    let usual = if interactive { policy::Mode::Default } else { policy::Mode::Auto };
    Ok(match policy.mode(said, usual)? {
        policy::Mode::Default => Mode::Default,
        policy::Mode::Plan => Mode::Plan,
        policy::Mode::Ask => Mode::Ask,
        policy::Mode::Auto => Mode::Auto,
        policy::Mode::Yolo => Mode::Yolo,
    })
}

/// Whether commands may be enclosed like that, whatever the machine can do.
pub(crate) fn check_enclosure(
    policy: &Policy,
    args: &PlaceArgs,
    mode: wall::Mode,
    network: Network,
) -> Result<(), Forbidden> {
    let said = |plain: &'static str| match args.sandbox {
        Some(SandboxArg::DangerFullAccess) => "--sandbox danger-full-access",
        _ => plain,
    };
    match mode {
        wall::Mode::Off => policy.wall(WallMode::Off, said("--wall off"))?,
        wall::Mode::External => policy.wall(WallMode::External, said("--wall external"))?,
        wall::Mode::Workspace | wall::Mode::ReadOnly => {}
    }
    let network = if network == Network::Open { Commands::Open } else { Commands::Off };
    policy.commands(network, said("--network open"))
}

/// Whether what really encloses commands is enough.
pub(crate) fn check_grade(policy: &Policy, grade: Grade) -> Result<(), Forbidden> {
    policy.grade((grade == Grade::Partial).then_some(policy::Grade::Partial))?;
    if grade == Grade::Partial {
        return Ok(());
    }
    policy.commands(Commands::Open, "working where no wall of this program keeps commands off the network")
}

/// The policy as records name it.
pub(crate) fn mark(policy: &Policy) -> Option<audit::PolicyMark> {
    policy.is_managed().then(|| audit::PolicyMark {
        path: policy.path().display().to_string(),
        digest: policy.digest().to_owned(),
        revision: policy.rules().revision.clone(),
    })
}

/// For banner, header and `doctor`.
pub(crate) fn notice(policy: &Policy) -> Option<String> {
    let revision = policy.rules().revision.as_ref().map(|name| format!(", revision {name}"));
    policy.is_managed().then(|| {
        format!(
            "managed by {}{} (`ml-intern policy check` prints it)",
            policy.path().display(),
            revision.unwrap_or_default()
        )
    })
}

/// The records of a machine's users, as its policy wants them kept.
pub(crate) fn audit_log(policy: &Policy, state: &Path) -> audit::AuditLog {
    let rules = &policy.rules().audit;
    let log = match &rules.folder {
        Some(folder) => {
            let uid = rustix::process::geteuid().as_raw();
            audit::AuditLog::of(folder.get_ref().join(format!("uid-{uid}")))
        }
        None => audit::AuditLog::new(state),
    };
    log.with_sync(rules.fsync)
}
