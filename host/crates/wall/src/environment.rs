//! The environment of commands: a list, never the user's as a whole.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::config::{INSIDE, Mode, WallConfig};
use crate::error::WallError;
use crate::keys::names_a_credential;
use crate::tools::search_path;

type Variable = (OsString, OsString);

/// Names taken from the user's environment as they are.
const TAKEN: [&str; 4] = ["LANG", "TZ", "TERM", "VIRTUAL_ENV"];

/// First letters of names taken from the user's environment.
const TAKEN_FAMILIES: [&str; 11] =
    ["LC_", "CUDA_", "NVIDIA_", "HIP_", "ROCR_", "NCCL_", "TORCH", "OMP_", "MKL_", "SLURM_", "CONDA_"];

/// Names that the wall gives a value of its own.
const OWN: [&str; 4] = ["PATH", "HOME", "TMPDIR", INSIDE];

/// Caches and where below the caches folder they lie. The Hub's root is ours, so that no token of the
/// user's is found through it.
const CACHES: [(&str, &str); 9] = [
    ("XDG_CACHE_HOME", "xdg"),
    ("PIP_CACHE_DIR", "pip"),
    ("UV_CACHE_DIR", "uv"),
    ("HF_HOME", HUB_ROOT),
    ("TORCH_HOME", "torch"),
    ("TRITON_CACHE_DIR", "triton"),
    ("MPLCONFIGDIR", "matplotlib"),
    ("NUMBA_CACHE_DIR", "numba"),
    ("CARGO_HOME", "cargo"),
];

const HUB_ROOT: &str = "huggingface";

/// Where tools outside the system folders find themselves; set when such a tool is found.
const TOOL_ROOTS: [&str; 2] = ["PYENV_ROOT", "RUSTUP_HOME"];

/// First letters of names that point programs to sockets of the user's session.
const SOCKET_FAMILIES: [&str; 6] = ["SSH_", "DBUS_", "DOCKER_", "WAYLAND_", "PODMAN_", "GPG_"];

const SOCKETS: [&str; 5] = ["DISPLAY", "XAUTHORITY", "XDG_RUNTIME_DIR", "KUBECONFIG", "CONTAINER_HOST"];

/// First letters of names that make programs load or run something.
const LOADER_FAMILIES: [&str; 4] = ["LD_", "DYLD_", "BASH_FUNC_", "GIT_"];

/// Names that make programs load or run something.
const LOADER_NAMES: [&str; 24] = [
    "BASHOPTS",
    "BASH_ENV",
    "CLASSPATH",
    "ENV",
    "GCONV_PATH",
    "GLIBC_TUNABLES",
    "HOSTALIASES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "LOCPATH",
    "NLSPATH",
    "NODE_OPTIONS",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PROMPT_COMMAND",
    "PS4",
    "PYTHONHOME",
    "PYTHONINSPECT",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
    "SHELLOPTS",
    "_JAVA_OPTIONS",
];

/// Names of git's that only say who commits.
const HARMLESS_GIT_FAMILIES: [&str; 2] = ["GIT_AUTHOR_", "GIT_COMMITTER_"];

/// The value of a variable of the user's, unless it is empty.
pub(crate) fn user_variable<'a>(config: &'a WallConfig, name: &str) -> Option<&'a OsStr> {
    let (_, value) = config.user_env.iter().find(|(other, _)| other == name)?;
    Some(value.as_os_str()).filter(|value| !value.is_empty())
}

/// The environment of every command of the session. `tmp` is what the session's tmp is called behind the
/// wall, `tool_env` what tools need to be found.
pub(crate) fn base(config: &WallConfig, tool_env: &[Variable], tmp: &Path) -> Vec<Variable> {
    if config.mode == Mode::Off {
        let is_harmless = |variable: &&Variable| {
            let name = variable.0.to_string_lossy();
            !names_a_credential(&name) && !is_refused_by_name(config, &name)
        };
        let user = config.user_env.iter().filter(is_harmless).cloned();
        return user.chain([inside()]).collect();
    }
    let mut env: Vec<Variable> =
        config.user_env.iter().filter(|(name, _)| is_taken(config, name)).cloned().collect();
    let path = std::env::join_paths(search_path(config)).unwrap_or_default();
    env.push(("PATH".into(), path));
    env.push(("HOME".into(), config.home.clone().into()));
    env.push(("TMPDIR".into(), tmp.into()));
    for (name, folder) in CACHES {
        env.push((name.into(), config.caches.join(folder).into()));
    }
    env.extend_from_slice(tool_env);
    env.push(inside());
    env
}

/// Tells this program, started by a command, that no person typed its command line. A courtesy to whoever
/// reads the answer: what keeps a command from the program's folders is the wall.
fn inside() -> Variable {
    (INSIDE.into(), "1".into())
}

/// Where commands find and keep what comes from the Hub: `HF_HOME` and the folder that its libraries add.
pub(crate) fn hub_cache(config: &WallConfig) -> PathBuf {
    config.caches.join(HUB_ROOT).join("hub")
}

/// Adds a command's own variables, each of which must be one that a guest can set.
pub(crate) fn extend(
    env: &mut Vec<Variable>,
    config: &WallConfig,
    additions: &[(String, String)],
) -> Result<(), WallError> {
    for (name, value) in additions {
        if let Some(reason) = why_not(config, name, value) {
            return Err(WallError::Environment { name: name.clone(), reason });
        }
        env.retain(|(other, _)| other != name.as_str());
        env.push((name.into(), value.into()));
    }
    Ok(())
}

fn is_taken(config: &WallConfig, name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let listed = TAKEN.contains(&name)
        || TAKEN_FAMILIES.iter().any(|family| name.starts_with(family))
        || config.extra_env_names.iter().any(|extra| extra == name);
    listed && !is_own(name) && refused_kind(name).is_none() && !is_refused_by_name(config, name)
}

fn is_refused_by_name(config: &WallConfig, name: &str) -> bool {
    config.refused_env_names.iter().any(|refused| name.eq_ignore_ascii_case(refused))
}

/// Whether the wall gives `name` a value.
fn is_own(name: &str) -> bool {
    OWN.contains(&name) || TOOL_ROOTS.contains(&name) || CACHES.iter().any(|(cache, _)| *cache == name)
}

fn why_not(config: &WallConfig, name: &str, value: &str) -> Option<&'static str> {
    if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
        return Some("it is empty, or holds a zero byte or an equals sign");
    }
    let is_listed = TAKEN.contains(&name)
        || TAKEN_FAMILIES.iter().any(|family| name.starts_with(family))
        || config.extra_env_names.iter().any(|extra| extra == name);
    if is_own(name) || is_listed {
        return Some("the host sets it; set it inside the command");
    }
    if is_refused_by_name(config, name) {
        return Some("it holds a credential of the host's");
    }
    refused_kind(name)
}

fn refused_kind(name: &str) -> Option<&'static str> {
    let is_one_of = |names: &[&str]| names.iter().any(|other| name.eq_ignore_ascii_case(other));
    let is_of = |families: &[&str]| families.iter().any(|family| starts_with_ignoring_case(name, family));
    if names_a_credential(name) {
        Some("it looks like a credential")
    } else if is_one_of(&SOCKETS) || is_of(&SOCKET_FAMILIES) || looks_like_socket(name) {
        Some("it looks like a socket of the user's session")
    } else if is_one_of(&LOADER_NAMES) || (is_of(&LOADER_FAMILIES) && !is_of(&HARMLESS_GIT_FAMILIES)) {
        Some("it makes programs load or run something")
    } else {
        None
    }
}

fn looks_like_socket(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.ends_with("_SOCK") || name.ends_with("_SOCKET")
}

fn starts_with_ignoring_case(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(mode: Mode, user_env: &[(&str, &str)]) -> WallConfig {
        WallConfig {
            mode,
            user_env: user_env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            extra_env_names: ["WANDB_MODE", "WANDB_API_KEY", "LD_LIBRARY_PATH"].map(String::from).into(),
            ..WallConfig::for_tests()
        }
    }

    fn names(env: &[Variable]) -> Vec<&str> {
        env.iter().map(|(name, _)| name.to_str().unwrap()).collect()
    }

    #[test]
    fn only_listed_names_come_from_the_user() {
        let user = [
            ("HOME", "/home/u"),
            ("LANG", "C"),
            ("LC_ALL", "C"),
            ("CUDA_VISIBLE_DEVICES", "0"),
            ("TORCH_HOME", "/home/u/torch"),
            ("NCCL_SECRET", "x"),
            ("HF_TOKEN", "x"),
            ("SSH_AUTH_SOCK", "x"),
            ("WANDB_MODE", "offline"),
            ("WANDB_API_KEY", "x"),
            ("LD_LIBRARY_PATH", "x"),
            ("EDITOR", "vi"),
        ];
        let env = base(&config(Mode::Workspace, &user), &[], Path::new("/tmp"));
        let own: Vec<&str> = CACHES.iter().map(|(name, _)| *name).collect();
        let expected = ["LANG", "LC_ALL", "CUDA_VISIBLE_DEVICES", "WANDB_MODE", "PATH", "HOME", "TMPDIR"];
        assert_eq!(names(&env), [&expected[..], &own[..], &[INSIDE]].concat());
        assert!(env.contains(&("HOME".into(), "/state/home".into())));
    }

    #[test]
    fn without_a_wall_only_credentials_are_taken_away() {
        let user = [("HOME", "/home/u"), ("EDITOR", "vi"), ("HF_TOKEN", "x"), ("aws_secret_access_key", "x")];
        assert_eq!(
            names(&base(&config(Mode::Off, &user), &[], Path::new("/tmp"))),
            ["HOME", "EDITOR", INSIDE]
        );
    }

    #[test]
    fn configured_names_are_refused_in_every_mode() {
        let user = [("MODEL_ACCESS", "x"), ("CUDA_ACCESS", "x"), ("LANG", "C")];
        for mode in [Mode::Workspace, Mode::ReadOnly, Mode::External, Mode::Off] {
            let refused_env_names = ["MODEL_ACCESS", "CUDA_ACCESS"].map(String::from).into();
            let extra_env_names = vec!["MODEL_ACCESS".into()];
            let config = WallConfig { refused_env_names, extra_env_names, ..config(mode, &user) };
            let env = base(&config, &[], Path::new("/tmp"));
            assert!(names(&env).contains(&"LANG"), "{mode:?}");
            assert!(!names(&env).iter().any(|name| name.ends_with("ACCESS")), "{mode:?}: {env:?}");
            let addition = [("model_access".to_owned(), "x".to_owned())];
            assert!(extend(&mut Vec::new(), &config, &addition).is_err(), "{mode:?}");
        }
    }

    #[test]
    fn relative_folders_leave_the_path() {
        let env = base(
            &config(Mode::Workspace, &[("PATH", "/bin:.::node_modules/.bin:/usr/bin")]),
            &[],
            Path::new("/tmp"),
        );
        assert!(env.contains(&("PATH".into(), "/bin:/usr/bin".into())));
    }

    #[test]
    fn a_command_sets_only_names_of_its_own() {
        let config = config(Mode::Workspace, &[]);
        let may_set = |name: &str| extend(&mut Vec::new(), &config, &[(name.into(), "x".into())]).is_ok();
        for name in
            ["PYTHONPATH", "TOKENIZERS_PARALLELISM", "PYTHONUNBUFFERED", "MAX_STEPS", "GIT_AUTHOR_NAME"]
        {
            assert!(may_set(name), "{name}");
        }
        for name in [
            "",
            "A=B",
            "A\0",
            "PATH",
            "HOME",
            "TMPDIR",
            "LC_CTYPE",
            "CUDA_HOME",
            "HF_HOME",
            "WANDB_MODE",
            "HF_TOKEN",
            "hf_token",
            "OPENAI_API_KEY",
            "DB_PASSWORD",
            "LD_PRELOAD",
            "BASH_ENV",
            "GIT_SSH_COMMAND",
            "GIT_CONFIG_COUNT",
            "PYTHONSTARTUP",
            "NODE_OPTIONS",
            "PERL5OPT",
            "RUBYOPT",
            "SSH_AUTH_SOCK",
            "DBUS_SESSION_BUS_ADDRESS",
            "DOCKER_HOST",
            "DISPLAY",
            "WAYLAND_DISPLAY",
        ] {
            assert!(!may_set(name), "{name}");
        }
    }

    #[test]
    fn a_commands_value_replaces_the_one_before() {
        let mut env = vec![("A".into(), "1".into())];
        extend(&mut env, &config(Mode::Workspace, &[]), &[("A".into(), "2".into())]).unwrap();
        assert_eq!(env, [("A".into(), "2".into())]);
    }
}
