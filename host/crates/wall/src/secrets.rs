//! Folders and files that no search for tools ever makes readable.

use std::path::{Path, PathBuf};

use crate::config::WallConfig;
use crate::environment::user_variable;
use crate::rights::resolved;

/// What in a home folder is never made readable for the sake of a tool.
const CREDENTIALS: [&str; 32] = [
    ".aws",
    ".azure",
    ".bash_history",
    ".cache/huggingface/stored_tokens",
    ".cache/huggingface/token",
    ".cargo/credentials",
    ".cargo/credentials.toml",
    ".config",
    ".docker",
    ".git-credentials",
    ".gitconfig",
    ".gnupg",
    ".huggingface",
    ".ipython",
    ".jupyter",
    ".kaggle",
    ".kube",
    ".local/share/keyrings",
    ".local/share/uv/credentials",
    ".local/state",
    ".mozilla",
    ".netrc",
    ".npmrc",
    ".password-store",
    ".pki",
    ".pypirc",
    ".python_history",
    ".ssh",
    ".terraform.d",
    ".thunderbird",
    ".vault-token",
    ".zsh_history",
];

/// What the Hub's libraries keep beside their caches.
const HUB_TOKENS: [&str; 2] = ["token", "stored_tokens"];

/// Folders and files of credentials, and of our settings and state.
///
/// Each by the name it is known by and by what that resolves to: a home is often put together from links.
pub(crate) fn secrets(config: &WallConfig, home: Option<&Path>) -> Vec<PathBuf> {
    let mut secrets = config.private_dirs.clone();
    if let Some(home) = home.map(resolved) {
        secrets.extend(CREDENTIALS.iter().map(|name| home.join(name)));
    }
    let variable = |name: &str| user_variable(config, name).map(PathBuf::from);
    secrets.extend(variable("XDG_CONFIG_HOME"));
    let hub = [variable("HF_HOME"), variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface"))];
    for hub in hub.into_iter().flatten() {
        secrets.extend(HUB_TOKENS.map(|name| resolved(&hub).join(name)));
    }
    secrets.extend(variable("HF_TOKEN_PATH"));

    let mut both: Vec<PathBuf> = secrets.iter().map(|path| resolved(path)).collect();
    both.append(&mut secrets);
    both.sort();
    both.dedup();
    both
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::WallConfig;

    #[test]
    fn secrets_behind_links_are_known_by_both_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for folder in ["user", "dots/ssh", "scratch/cache", "scratch/tokens", "hub"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for (target, link) in [
            ("../dots/ssh", "user/.ssh"),
            ("../scratch/cache", "user/.cache"),
            ("../scratch/tokens/own", "hub/token"),
            ("scratch/tokens/path", "token-path"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        fs::write(root.join("scratch/tokens/own"), "").unwrap();
        fs::write(root.join("scratch/tokens/path"), "").unwrap();
        let variables = [("HF_HOME", "hub"), ("HF_TOKEN_PATH", "token-path")];
        let user_env = variables.map(|(name, path)| (name.into(), root.join(path).into())).into();
        let secrets = secrets(&WallConfig { user_env, ..WallConfig::for_tests() }, Some(&root.join("user")));
        for path in [
            "user/.ssh",
            "dots/ssh",
            "user/.cache/huggingface/token",
            // Not there yet, and known all the same.
            "scratch/cache/huggingface/token",
            "hub/token",
            "scratch/tokens/own",
            "scratch/tokens/path",
        ] {
            assert!(secrets.contains(&root.join(path)), "{path}: {secrets:?}");
        }
    }
}
