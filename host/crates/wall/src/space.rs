//! What of the machine's files commands find where they have a root of their own.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::rights::{Access, Rights, Rule};
use crate::wire::{Kept, Link, Root};

/// Folders that are taken over as a whole, although rules name parts of them: Landlock knows which.
const WHOLE: [&str; 2] = ["/etc", "/sys"];

/// What is made anew there.
pub(crate) const NEW: [&str; 7] = ["/proc", "/dev/pts", "/dev/ptmx", "/dev/shm", "/run", "/tmp", "/var/tmp"];

/// The root that fits these rules.
pub(crate) fn root(rights: &Rights, sealed: Vec<Kept>) -> Root {
    let mut wanted: Vec<Kept> = rights.rules.iter().filter_map(|rule| kept(rule, &rights.tmp)).collect();
    wanted.sort_by(|a, b| (&a.path, b.is_writable).cmp(&(&b.path, a.is_writable)));
    let mut trees: Vec<Kept> = Vec::new();
    for kept in wanted {
        let around = trees.iter().rev().find(|tree| kept.path.starts_with(&tree.path));
        if !around.is_some_and(|tree| tree.is_writable || !kept.is_writable) {
            trees.push(kept);
        }
    }
    let mut names = BTreeSet::new();
    let lies_in_one = |path: &Path| trees.iter().any(|tree| path.starts_with(&tree.path));
    let links: Vec<Link> = rights
        .links
        .iter()
        .filter(|link| !lies_in_one(&link.path) && !is_new(&link.path) && names.insert(&link.path))
        .cloned()
        .collect();
    Root { tmp: rights.tmp.clone(), trees, links, sealed }
}

fn is_new(path: &Path) -> bool {
    // What lies in the machine's `/tmp` and was given is mounted in the session's.
    NEW.iter().any(|new| path == Path::new(new)) || path.starts_with("/proc") || path.starts_with("/dev/pts")
}

fn kept(rule: &Rule, tmp: &Path) -> Option<Kept> {
    let is_shown = rule.access != Access::List && !is_new(&rule.path) && rule.path != tmp;
    let whole = WHOLE.iter().find(|whole| rule.path.starts_with(whole) && !rule.access.writes());
    let path = whole.map_or_else(|| rule.path.clone(), PathBuf::from);
    is_shown.then(|| Kept { path, is_writable: rule.access.writes() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_has_each_tree_once_and_links_that_lie_in_none() {
        let rules = [
            ("/usr", Access::Tool),
            ("/etc/hosts", Access::Read),
            ("/etc/ssl", Access::Read),
            ("/proc", Access::Read),
            ("/dev", Access::List),
            ("/dev/null", Access::Device),
            ("/home/u/work", Access::Write),
            ("/home/u/work/data", Access::Tool),
            ("/opt/tool/out", Access::Write),
            ("/opt/tool", Access::Tool),
            ("/s/tmp", Access::Write),
            ("/tmp/given", Access::Write),
        ];
        let rules = rules.map(|(path, access)| Rule { path: path.into(), access }).into();
        let link = |path: &str, target: &str| Link { path: path.into(), target: target.into() };
        let links = vec![
            link("/bin", "usr/bin"),
            link("/usr/bin/x", "y"),
            link("/bin", "usr/bin"),
            link("/tmp", "t"),
        ];
        let mut rights = Rights::for_tests(rules, Vec::new());
        (rights.tmp, rights.links) = ("/s/tmp".into(), links);
        let root = root(&rights, Vec::new());
        let trees: Vec<(&str, bool)> =
            root.trees.iter().map(|tree| (tree.path.to_str().unwrap(), tree.is_writable)).collect();
        assert_eq!(
            trees,
            [
                ("/dev/null", true),
                ("/etc", false),
                ("/home/u/work", true),
                ("/opt/tool", false),
                ("/opt/tool/out", true),
                ("/tmp/given", true),
                ("/usr", false),
            ]
        );
        assert_eq!(root.links, [link("/bin", "usr/bin")]);
    }
}
