//! The machine's policy: where it lies, and what it says about a command line and settings.

use std::path::Path;

use agent::Mode;
use clap::CommandFactory as _;
use policy::{Commands, Forbidden, Owner, Policy, PolicyError, WallMode};
use wall::{Grade, Network};

use crate::cli::{Cli, PlaceArgs, SandboxArg, SessionArgs};
use crate::environment::Environment;
use crate::exit::Failure;
use crate::settings::{Loaded, Settings};

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

/// What says the same as a flag: another way to write it, a variable, a key of the settings.
struct Same {
    flag: &'static str,
    /// On the command line, as [`crate::cli::parse`] gives it.
    written: &'static [&'static str],
    variable: Option<&'static str>,
    key: Option<&'static str>,
}

const fn same(
    flag: &'static str,
    written: &'static [&'static str],
    variable: Option<&'static str>,
    key: Option<&'static str>,
) -> Same {
    Same { flag, written, variable, key }
}

/// Every flag that something else says, too, and every flag about permissions.
const SAME: [Same; 19] = [
    same("--permission-mode", &["--yolo"], None, Some("yolo_mode")),
    same("--yolo", &["--permission-mode yolo"], None, Some("yolo_mode")),
    same("--allow", &[], None, Some("permissions.allow")),
    same("--ask", &[], None, Some("permissions.ask")),
    same("--deny", &[], None, Some("permissions.deny")),
    same("--max-budget-usd", &[], None, None),
    same("--deny-unanswered", &[], None, None),
    same("--cd", &[], None, None),
    same("--add-dir", &[], None, Some("dirs")),
    same("--wall", &["--sandbox"], None, None),
    same("--network", &["--sandbox danger-full-access"], None, None),
    same("--sandbox", &["--wall", "--network"], None, None),
    same("--offline", &[], None, None),
    same("--trust-once", &[], None, None),
    // And `plugin grant` with what it wrote: see `may_grant`.
    same("--grant", &[], None, None),
    same("--config", &[], Some("ML_INTERN_CLI_CONFIG"), None),
    same("--model", &[], None, Some("model_name")),
    same("--effort", &[], None, Some("reasoning_effort")),
    same("--max-iterations", &[], None, Some("max_iterations")),
];

/// Refuses what was said on the command line, or by something that says the same.
pub(crate) fn check_said(
    policy: &Policy,
    environment: &Environment,
    loaded: &Loaded,
) -> Result<(), Forbidden> {
    for flag in &environment.flags {
        policy.flag(flag, flag)?;
    }
    for Same { flag, written, variable, key } in &SAME {
        for said in written.iter().filter(|said| environment.flags.iter().any(|flag| flag == *said)) {
            policy.flag(flag, said)?;
        }
        if let Some(variable) = variable.filter(|variable| environment.text(variable).is_some()) {
            policy.flag(flag, variable)?;
        }
        if let Some(key) = key.filter(|key| loaded.said(key).is_some()) {
            policy.flag(flag, &format!("`{key}` in the settings"))?;
        }
    }
    Ok(())
}

/// Whether the user may grant plugins anything: by the flag, by `plugin grant`, by what that wrote.
pub(crate) fn may_grant(policy: &Policy) -> Result<(), Forbidden> {
    policy.flag("--grant", "`plugin grant`")
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

/// The mode of a call that a person typed: everything may run, as far as the policy lets a person say so.
pub(crate) fn mode_of_call(policy: &Policy, settings: &Settings) -> Result<Mode, Forbidden> {
    let yolo = SessionArgs { yolo: true, ..SessionArgs::default() };
    let waved = policy.flag("--yolo", "--yolo").and_then(|()| mode(policy, &yolo, settings, false));
    waved.or_else(|_| mode(policy, &SessionArgs::default(), settings, false))
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
    let network = match network {
        Network::Open => Commands::Open,
        Network::Gateway => Commands::Gateway,
        Network::Off => Commands::Off,
    };
    policy.commands(network, said("--network open"))
}

/// Whether what really encloses commands is enough.
pub(crate) fn check_grade(policy: &Policy, grade: Grade) -> Result<(), Forbidden> {
    let known = match grade {
        Grade::Full => Some(policy::Grade::Full),
        Grade::Partial => Some(policy::Grade::Partial),
        Grade::External | Grade::None => None,
    };
    policy.grade(known)?;
    if grade.is_walled() {
        return Ok(());
    }
    policy.commands(Commands::Open, "working where no wall of this program keeps commands off the network")
}

/// The least that commands run behind.
pub(crate) fn required_grade(policy: &Policy) -> Option<Grade> {
    let required = policy.rules().wall.grade.as_ref()?;
    Some(match required.get_ref() {
        policy::Grade::Full => Grade::Full,
        policy::Grade::Partial => Grade::Partial,
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paths::Paths;
    use crate::settings;

    fn loaded(text: &str) -> Loaded {
        let dir = tempfile::tempdir().unwrap();
        let mut environment = Environment::of(&[("HOME", dir.path().to_str().unwrap())]);
        let paths = Paths::find(&environment).unwrap();
        std::fs::create_dir_all(&paths.config).unwrap();
        std::fs::write(paths.settings(), text).unwrap();
        settings::load(&paths, &mut environment, None).unwrap()
    }

    fn forbidding(flag: &str) -> Policy {
        let text = format!("version = 1\n[flags]\nforbid = [\"{flag}\"]\n");
        let policy = Policy::parse(Path::new("policy.toml"), &text).unwrap();
        known_flags(&policy).unwrap();
        policy
    }

    /// A value of a key that says something.
    fn value(key: &str) -> &'static str {
        match key {
            "permissions.allow" => r#"{"permissions": {"allow": ["bash(make)"]}}"#,
            "permissions.ask" => r#"{"permissions": {"ask": ["bash(make)"]}}"#,
            "permissions.deny" => r#"{"permissions": {"deny": ["bash(make)"]}}"#,
            "yolo_mode" => r#"{"yolo_mode": true}"#,
            "dirs" => r#"{"dirs": ["/data"]}"#,
            "model_name" => r#"{"model_name": "a/b"}"#,
            "reasoning_effort" => r#"{"reasoning_effort": "low"}"#,
            "max_iterations" => r#"{"max_iterations": 3}"#,
            other => panic!("{other} has no value here"),
        }
    }

    #[test]
    fn what_is_forbidden_is_refused_however_it_is_said() {
        let nothing = loaded("{}");
        for Same { flag, written, variable, key } in &SAME {
            let policy = forbidding(flag);
            let said = |flags: &[&str]| {
                let mut environment = Environment::of(&[]);
                environment.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
                environment
            };
            check_said(&policy, &said(&["--json"]), &nothing).unwrap();
            check_said(&policy, &said(&[flag]), &nothing).unwrap_err();
            for written in *written {
                let error = check_said(&policy, &said(&[written]), &nothing).unwrap_err();
                assert_eq!(error.what, **written);
            }
            if let Some(variable) = variable {
                check_said(&policy, &Environment::of(&[(variable, "x")]), &nothing).unwrap_err();
            }
            if let Some(key) = key {
                let error = check_said(&policy, &said(&[]), &loaded(value(key))).unwrap_err();
                assert_eq!(error.what, format!("`{key}` in the settings"));
            }
        }
        may_grant(&forbidding("--grant")).unwrap_err();
        may_grant(&forbidding("--yolo")).unwrap();
    }

    #[test]
    fn every_flag_about_permissions_says_what_else_says_the_same() {
        let command = Cli::command();
        let about =
            command.get_arguments().filter(|argument| argument.get_help_heading() == Some("Permissions"));
        let flags: Vec<String> =
            about.filter_map(clap::Arg::get_long).map(|long| format!("--{long}")).collect();
        assert!(flags.len() > 12, "{flags:?}");
        for flag in flags {
            assert!(SAME.iter().any(|same| same.flag == flag), "{flag} stands in no line of the table");
        }
    }

    #[test]
    fn a_typed_call_runs_as_far_as_the_policy_lets_a_person_say_so() {
        let settings = loaded("{}").settings;
        let mode = |text: &str| {
            let policy = Policy::parse(Path::new("policy.toml"), &format!("version = 1\n{text}")).unwrap();
            mode_of_call(&policy, &settings).unwrap()
        };
        assert_eq!(mode(""), Mode::Yolo);
        assert_eq!(mode("forbid_modes = [\"yolo\"]"), Mode::Auto);
        assert_eq!(mode("[flags]\nforbid = [\"--yolo\"]"), Mode::Auto);
        assert_eq!(mode("mode = \"plan\""), Mode::Plan);
    }
}
