//! Where others than the user may have put files, and which links count in spite of it.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::git;
use crate::links::walk;
use crate::rights::Rights;
use crate::wire::Link;

/// The folders whose contents are not the user's word: what the session was given, the repository around
/// the workspace, and everything that commands write to, such as their home, which outlives a session.
pub(crate) struct Ground {
    foreign: Vec<PathBuf>,
    /// Every link that was followed.
    links: RefCell<BTreeMap<PathBuf, PathBuf>>,
}

/// Where a path leads.
pub(crate) struct Followed {
    /// The folders of the links that its last name went through, and of the target. Not its own folder.
    pub(crate) folders: Vec<PathBuf>,
    /// What it is without links. None if it is not there, or if a link on the way lies on foreign ground.
    pub(crate) target: Option<PathBuf>,
}

impl Ground {
    pub(crate) fn new(rights: &Rights, workspace: &Path, home: Option<&Path>) -> Self {
        let written = rights.rules.iter().filter(|rule| rule.access.writes()).map(|rule| rule.path.clone());
        let repository = git::repository_around(workspace, home);
        let foreign = rights.granted.iter().cloned().chain(written).chain(repository).collect();
        Self { foreign, links: RefCell::default() }
    }

    /// The links that were followed so far.
    pub(crate) fn links(&self) -> Vec<Link> {
        let link = |(path, target): (&PathBuf, &PathBuf)| Link { path: path.clone(), target: target.clone() };
        self.links.borrow().iter().map(link).collect()
    }

    /// Whether `path`, which must be without links, lies where others may write.
    pub(crate) fn is_foreign(&self, path: &Path) -> bool {
        self.foreign.iter().any(|folder| path.starts_with(folder))
    }

    /// What `path` is without links, if no link on the way lies on foreign ground.
    pub(crate) fn resolve(&self, path: &Path) -> Option<PathBuf> {
        self.follow(path).target
    }

    /// Goes the way that the kernel would, one name after the other, up to a link on foreign ground.
    pub(crate) fn follow(&self, path: &Path) -> Followed {
        let mut folders = Vec::new();
        let target = walk(
            path,
            |folder| folders.push(folder.to_owned()),
            |path, target| {
                let follows = !self.is_foreign(path);
                if follows {
                    self.links.borrow_mut().insert(path.to_owned(), target.to_owned());
                }
                follows
            },
        );
        Followed { folders: folders.into_iter().skip(1).collect(), target }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::rights::{Access, Rule};

    #[test]
    fn links_count_only_where_nobody_else_writes() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        for folder in ["user/bin", "tool/bin", "work/bin", "home"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("tool/bin/tool"), "").unwrap();
        for (target, link) in [
            ("../../tool/bin/name", "user/bin/tool"),
            ("./../bin/tool", "tool/bin/name"),
            ("../../work/bin/tool", "user/bin/through-work"),
            ("../../tool/bin/tool", "work/bin/tool"),
            ("../tool", "home/tool"),
            ("loop", "user/bin/loop"),
        ] {
            symlink(target, root.join(link)).unwrap();
        }
        let rules = vec![Rule { path: root.join("home"), access: Access::Write }];
        let ground =
            Ground::new(&Rights::for_tests(rules, vec![root.join("work")]), &root.join("work"), None);

        let followed = ground.follow(&root.join("user/bin/tool"));
        assert_eq!(followed.target, Some(root.join("tool/bin/tool")));
        assert_eq!(followed.folders, [root.join("tool/bin"), root.join("tool/bin")]);
        for refused in ["user/bin/through-work", "work/bin/tool", "home/tool/bin/tool", "user/bin/loop", "no"]
        {
            assert_eq!(ground.resolve(&root.join(refused)), None, "{refused}");
        }
        assert_eq!(ground.follow(&root.join("user/bin/through-work")).folders, [root.join("work/bin")]);
        assert_eq!(ground.resolve(&root.join("work/../work/bin")), Some(root.join("work/bin")));
    }
}
