//! Folders outside of the workspace that a person's message names: what to type so that tools see them.

use std::path::{Path, PathBuf};

use runtime::Folders;

use crate::paths::Paths;
use crate::render::line;
use crate::workspace;

/// Lines for one message.
const MAX: usize = 3;

/// What every command sees, or what is none of a run's business.
const OF_THE_SYSTEM: [&str; 14] = [
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/run", "/sbin", "/sys", "/tmp",
    "/usr", "/var",
];

/// One line per folder that the message names and tools do not see.
pub(crate) fn offers(message: &str, folders: &Folders, paths: &Paths) -> Vec<String> {
    offers_beside(message, folders, paths, &OF_THE_SYSTEM)
}

fn offers_beside(message: &str, folders: &Folders, paths: &Paths, system: &[&str]) -> Vec<String> {
    let mut named: Vec<PathBuf> = Vec::new();
    for word in message.split(|c: char| c.is_whitespace() || "\"'`,;()<>[]{}".contains(c)) {
        let Some(folder) = folder(word, paths, system) else { continue };
        let seen = [&folders.workspace, &folders.tmp].into_iter().chain(&folders.read).chain(&folders.write);
        let is_new = !seen.chain(&named).any(|seen| folder.starts_with(seen));
        if is_new && named.len() < MAX && workspace::can_be_added(&folder, paths) {
            named.push(folder);
        }
    }
    named.iter().map(|folder| offer(folder)).collect()
}

fn offer(folder: &Path) -> String {
    let shown = line(&folder.to_string_lossy()).into_owned();
    format!(
        "{shown} is outside of the workspace: with --add-dir {shown} tools can read it, with --add-dir {shown}:rw change it"
    )
}

/// The folder that a word names, by itself or by a file in it.
fn folder(word: &str, paths: &Paths, system: &[&str]) -> Option<PathBuf> {
    let word = word.trim_end_matches(['.', ':', '!', '?']);
    if !(word.starts_with('/') || word.starts_with("~/")) {
        return None;
    }
    let real = paths.expand(word).canonicalize().ok()?;
    let folder = if real.is_dir() { real } else { real.parent()?.to_owned() };
    let of_the_system = system.iter().any(|system| folder.starts_with(system));
    (!of_the_system && folder.parent().is_some()).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Environment;

    #[test]
    fn what_is_named_and_not_seen_is_offered_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        for name in ["home", "work/deep", "data/raw", "read"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        std::fs::write(root.join("data/raw/a.csv"), "").unwrap();
        let paths = Paths::find(&Environment::of(&[("HOME", root.join("home").to_str().unwrap())])).unwrap();
        let folders = Folders {
            workspace: root.join("work"),
            workspace_writable: true,
            read: vec![root.join("read")],
            write: Vec::new(),
            tmp: root.join("tmp"),
            umask: 0o022,
            denied: Vec::new(),
        };
        let at = |name: &str| root.join(name).display().to_string();
        let message = format!(
            "look at `{}` and {}, then {}. Not {}, {}, {}/none, /usr/share, /, ~ or ~/x",
            at("data/raw/a.csv"),
            at("data/raw"),
            at("data"),
            at("work/deep"),
            at("read"),
            at("data")
        );
        let offers = offers_beside(&message, &folders, &paths, &["/usr"]);
        assert_eq!(offers.len(), 2, "{offers:?}");
        assert!(offers[0].starts_with(&format!("{} is outside", at("data/raw"))), "{offers:?}");
        assert!(offers[1].contains(&format!("--add-dir {}:rw change it", at("data"))), "{offers:?}");
    }
}
