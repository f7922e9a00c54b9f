//! Which files commands reach.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;

use ml_intern_wall::{Mode, WallError};

use crate::roles::Test;
use crate::session::{Session, Text as _, Variant, env, fails, ok, sh as script};

pub(crate) const TESTS: &[Test] = &[
    ("files_outside_are_neither_read_nor_written", files_outside),
    ("attributes_of_files_outside_are_not_changed", attributes_outside),
    ("secrets_of_the_system_are_not_readable", system_secrets),
    ("a_refusal_is_explained", a_refusal_is_explained),
    ("the_workspace_is_read_only_in_read_only_mode", read_only),
    ("our_settings_and_state_are_never_given", private_dirs),
    ("credentials_beside_tools_stay_closed", credentials_beside_tools),
    ("a_hostile_workspace_widens_nothing", hostile_workspace),
    ("a_hostile_environment_opens_nothing_else", hostile_environment),
    ("what_a_command_left_in_its_home_opens_nothing", hostile_home),
    ("a_folder_of_the_path_that_became_a_link_opens_nothing", hostile_path),
    ("credentials_behind_links_stay_closed", credentials_behind_links),
    ("endless_files_of_a_workspace_hold_nothing_up", endless_files),
    ("links_in_tmp_lead_nowhere_after_a_restart", links_in_tmp),
];

fn files_outside(variant: &Variant) {
    let session = Session::new(variant);
    let outside = session.root.join("outside/.ssh");
    fs::create_dir_all(&outside).unwrap();
    fs::write(outside.join("id"), "the secret").unwrap();
    let id = outside.join("id").display().to_string();
    for script in [
        format!("cat {id}"),
        format!("ls {}", outside.display()),
        format!("cp {id} ."),
        format!("ln {id} here && cat here"),
        format!("ln -s {id} there; cat there"),
        format!("cat /proc/self/root{id}"),
        format!("mv {id} ."),
        "cat ../outside/.ssh/id".into(),
    ] {
        let exit = session.sh(&script);
        fails(&exit);
        assert!(!exit.stdout.text().contains("secret"), "{script}");
    }
    for target in [format!("{}/new", outside.display()), id, "/etc/wall-test".into(), "/usr/wall-test".into()]
    {
        fails(&session.sh(&format!("echo changed > {target}")));
        assert!(
            !Path::new(&target).exists() || fs::read_to_string(&target).unwrap() == "the secret",
            "{target}"
        );
    }
    fails(&session.sh("ls /"));
    fails(&session.sh("ls /root"));
    fails(&session.sh("ls /home"));
}

fn attributes_outside(variant: &Variant) {
    if !variant.mounts {
        return; // A residual, and said: Landlock guards what files hold.
    }
    let session = Session::with(variant, |config, root| {
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/file"), "x").unwrap();
        config.read_dirs = vec![root.join("data")];
    });
    let own = tempfile::tempdir_in("/var/tmp").unwrap();
    let elsewhere =
        if rustix::process::geteuid().is_root() { "/usr/bin/env".into() } else { own.path().to_path_buf() };
    for path in [session.root.join("data/file"), session.root.clone(), elsewhere] {
        let path = path.display();
        for script in [format!("chmod 777 {path}"), format!("touch {path}"), format!("chown $(id -u) {path}")]
        {
            let before = fs::metadata(path.to_string()).unwrap();
            session.sh(&script);
            let after = fs::metadata(path.to_string()).unwrap();
            let of = |metadata: &fs::Metadata| (metadata.mode(), metadata.ctime(), metadata.ctime_nsec());
            assert_eq!(of(&before), of(&after), "{script}");
        }
    }
}

fn system_secrets(variant: &Variant) {
    let session = Session::new(variant);
    for file in
        ["/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssl/private/x"]
    {
        fails(&session.sh(&format!("cat {file}")));
    }
    fails(&session.sh("ls /etc/ssl/private"));
    ok(&session.sh("grep -q root /etc/passwd && cat /etc/hosts /etc/resolv.conf > /dev/null"));
}

fn a_refusal_is_explained(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/file"), "x").unwrap();
        config.read_dirs = vec![root.join("data")];
    });
    let data = session.root.join("data");
    let write = session.sh(&format!("echo x > {}/new", data.display()));
    fails(&write);
    assert!(write.wall_refusals == 1 && write.notes[0].contains("--add-dir"), "{write:?}");

    // Its own loopback is no refusal.
    let address = if variant.full { "192.0.2.1" } else { "127.0.0.1" };
    let network = format!("import socket; socket.create_connection(('{address}', 9), 1)");
    let network = session.python(&network);
    fails(&network);
    assert!(network.wall_refusals > 0 && network.notes[0].contains("--network open"), "{network:?}");

    let own_fault = session.sh("cat nowhere; echo 'a: Permission denied (publickey)' >&2; exit 1");
    assert_eq!((own_fault.wall_refusals, own_fault.notes), (0, Vec::new()));
    let piped = session.sh(&format!("echo x 2>&1 > {}/new | tail -2", data.display()));
    assert_eq!(ok(&piped).lines().count(), 1);
    assert!(piped.wall_refusals == 1 && piped.notes[0].contains("--add-dir"), "{piped:?}");
    let unresolved = "python3 -c 'import socket; socket.getaddrinfo(\"a.example\", 80)' 2>&1 | tail -2";
    let unresolved = session.sh(unresolved);
    ok(&unresolved);
    assert!(unresolved.notes.len() == 1 && unresolved.notes[0].contains("--network open"), "{unresolved:?}");
    let well = session.sh("echo 'cat: nowhere: Permission denied'; echo '\"Could not resolve host\"' >&2");
    assert_eq!((well.wall_refusals, well.notes), (0, Vec::new()));
}

fn read_only(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        config.mode = Mode::ReadOnly;
        fs::create_dir(root.join("added")).unwrap();
        config.write_dirs = vec![root.join("added")];
        fs::write(root.join("work/file"), "text").unwrap();
    });
    assert_eq!(ok(&session.sh("cat file")), "text");
    fails(&session.sh("echo x > file"));
    fails(&session.sh("rm file"));
    fails(&session.sh("echo x > ../added/new"));
    ok(&session
        .sh("echo x > $HOME/a && echo x > $TMPDIR/b && mkdir -p $PIP_CACHE_DIR && cat $HOME/a $TMPDIR/b"));
    assert_eq!(fs::read_to_string(session.work().join("file")).unwrap(), "text");
}

fn private_dirs(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        fs::create_dir_all(root.join("work/.settings")).unwrap();
        config.private_dirs = vec![root.join("work/.settings")];
    });
    assert!(matches!(session.run(script("true")), Err(WallError::Folder { .. })));
}

fn credentials_beside_tools(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let home = root.join("user");
        for (file, text) in [
            (".local/bin/tool", "#!/bin/sh\ncat \"$(dirname \"$0\")/../lib/tool/data\"\n"),
            (".local/lib/tool/data", "tool data"),
            (".local/share/keyrings/login", "secret"),
            (".ssh/id", "secret"),
            (".cache/huggingface/token", "secret"),
            (".cache/huggingface/hub/models--a/file", "weights"),
            ("bin/mine", "#!/bin/sh\necho mine\n"),
            ("notes", "secret"),
        ] {
            write(&home.join(file), text);
        }
        let path = format!("{0}/.local/bin:{0}/bin:{0}:/usr/bin:/bin", home.display());
        config.user_env = env(&[("PATH", &path), ("HOME", home.to_str().unwrap())]);
    });
    assert_eq!(ok(&session.sh("tool && mine")), "tool datamine");
    let home = session.root.join("user");
    let home = home.display();
    for secret in [".local/share/keyrings/login", ".ssh/id", ".cache/huggingface/token", "notes"] {
        fails(&session.sh(&format!("cat {home}/{secret}")));
    }
    assert_eq!(ok(&session.sh(&format!("cat {home}/.cache/huggingface/hub/models--a/file"))), "weights");
    fails(&session.sh(&format!("echo x > {home}/.local/bin/tool")));
}

fn hostile_workspace(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let secret = root.join("other/bin/python");
        write(&secret, "secret");
        write(&root.join("other/HEAD"), "secret");
        for folder in ["other/objects", "other/refs", "work/.venv/bin", "work/bin"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink(&secret, root.join("work/.venv/bin/python")).unwrap();
        symlink(&secret, root.join("work/bin/python3")).unwrap();
        write(&root.join("work/.git"), &format!("gitdir: {}/other\n", root.display()));
        let path = format!("{}/work/bin:/usr/bin:/bin", root.display());
        config.user_env = env(&[("PATH", &path)]);
    });
    for file in ["other/bin/python", "other/HEAD"] {
        fails(&session.sh(&format!("cat {}/{file}", session.root.display())));
    }
}

fn endless_files(variant: &Variant) {
    for kind in ["pipe", "/dev/zero"] {
        let session = Session::with(variant, |_, root| {
            let work = root.join("work");
            fs::create_dir_all(work.join("git/own")).unwrap();
            fs::create_dir(work.join(".venv")).unwrap();
            write(&work.join(".git"), "gitdir: git/own\n");
            for name in [".venv/pyvenv.cfg", "git/own/config", "git/own/gitdir"] {
                if kind == "pipe" {
                    let file = rustix::fs::FileType::Fifo;
                    rustix::fs::mknodat(rustix::fs::CWD, work.join(name), file, 0o600.into(), 0).unwrap();
                } else {
                    symlink(kind, work.join(name)).unwrap();
                }
            }
        });
        ok(&session.sh("true"));
    }
}

/// A folder of a hostile repository, whose environments lead to its siblings and from there outside.
fn hostile_environment(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let tools = root.join("repo/tools");
        write(&root.join("private/diary"), "secret");
        write(&root.join("repo/.git/HEAD"), "");
        write(&tools.join("bin/python"), "");
        write(&tools.join("lib/python3.9/os.py"), "");
        write(&tools.join("untracked"), "secret");
        write(&tools.join("pyvenv.cfg"), &format!("home = {}\n", root.join("private").display()));
        symlink(root.join("private/diary"), tools.join("bin/a")).unwrap();
        symlink(root.join("private"), tools.join("share")).unwrap();
        fs::create_dir_all(root.join("repo/pkg/.venv/bin")).unwrap();
        symlink("../../../tools/bin/python", root.join("repo/pkg/.venv/bin/python")).unwrap();
        write(&root.join("repo/pkg/venv/pyvenv.cfg"), &format!("home = {}/bin\n", tools.display()));
        write(&root.join("repo/pkg/env/pyvenv.cfg"), &format!("home = {}/private\n", root.display()));
        // The user switched on an environment of the repository, which is hostile too.
        write(&root.join("repo/.venv/pyvenv.cfg"), &format!("home = {}/private\n", root.display()));
        write(&root.join("repo/.venv/bin/tool"), "#!/bin/sh\necho tool\n");
        symlink(root.join("private/diary"), root.join("repo/.venv/bin/a")).unwrap();
        symlink(root.join("private"), root.join("repo/.venv/lib")).unwrap();
        config.workspace = root.join("repo/pkg");
        let path = format!("{}/repo/.venv/bin:/usr/bin:/bin", root.display());
        config.user_env = env(&[("PATH", &path), ("HOME", root.join("user").to_str().unwrap())]);
    });
    for file in ["private/diary", "repo/tools/untracked", "repo/tools/bin/a", "repo/.venv/bin/a"] {
        fails(&session.sh(&format!("cat {}/{file}", session.root.display())));
    }
    fails(&session.sh(&format!("ls {}/private", session.root.display())));
    assert_eq!(ok(&session.sh("tool")), "tool");
}

/// The home of commands outlives a session, and so does what a command left in it.
fn hostile_home(variant: &Variant) {
    let session = Session::with(variant, |_, root| {
        write(&root.join("private/diary"), "secret");
        let home = root.join("home");
        write(&home.join("x/lib/python3.9/os.py"), "");
        write(&home.join("y/lib/python3.9/os.py"), "");
        write(&home.join("y/bin/python"), "");
        fs::create_dir_all(home.join("x/bin")).unwrap();
        symlink(root.join("private/diary"), home.join("x/bin/python3")).unwrap();
        symlink(root.join("private/diary"), home.join("x/bin/python")).unwrap();
        symlink(root.join("private/diary"), home.join("y/bin/python3")).unwrap();
        for (folder, target) in [(".venv", "x"), ("venv", "y")] {
            fs::create_dir_all(root.join("work").join(folder).join("bin")).unwrap();
            let python = home.join(target).join("bin/python");
            symlink(python, root.join("work").join(folder).join("bin/python")).unwrap();
        }
    });
    fails(&session.sh(&format!("cat {}/private/diary", session.root.display())));
}

/// Folders that the user's variables name, replaced by links when they lie where commands write.
fn hostile_path(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        write(&root.join("private/diary"), "secret");
        write(&root.join("private/bin/diary"), "secret");
        fs::create_dir_all(root.join("user/bin")).unwrap();
        symlink("../../work/tool", root.join("user/bin/tool")).unwrap();
        symlink("../private/diary", root.join("work/tool")).unwrap();
        for link in ["programs", "env", "hub"] {
            symlink("../private", root.join("work").join(link)).unwrap();
        }
        let at = |folder: &str| root.join(folder).display().to_string();
        let path = format!("{}:{}:/usr/bin:/bin", at("work/programs"), at("user/bin"));
        let (environment, hub) = (at("work/env"), at("work/hub"));
        config.user_env = env(&[("PATH", &path), ("VIRTUAL_ENV", &environment), ("HF_HUB_CACHE", &hub)]);
    });
    for file in ["diary", "bin/diary"] {
        fails(&session.sh(&format!("cat {}/private/{file}", session.root.display())));
    }
}

/// A home whose folders are links to folders that tools lie in.
fn credentials_behind_links(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        for file in ["dots/ssh/bin/id", "dots/ssh/id", "scratch/cache/huggingface/token", "hub/token-file"] {
            write(&root.join(file), "secret");
        }
        write(&root.join("scratch/pyvenv.cfg"), "");
        write(&root.join("scratch/bin/tool"), "#!/bin/sh\necho tool\n");
        write(&root.join("hub/bin/tool"), "");
        write(&root.join("hub/pyvenv.cfg"), "");
        fs::create_dir(root.join("user")).unwrap();
        symlink("../dots/ssh", root.join("user/.ssh")).unwrap();
        symlink("../scratch/cache", root.join("user/.cache")).unwrap();
        symlink("token-file", root.join("hub/token")).unwrap();
        let at = |folder: &str| root.join(folder).display().to_string();
        let path = format!("{}:{}:{}:/usr/bin:/bin", at("dots/ssh/bin"), at("scratch/bin"), at("hub/bin"));
        config.user_env = env(&[("PATH", &path), ("HOME", &at("user")), ("HF_HOME", &at("hub"))]);
    });
    for file in ["dots/ssh/bin/id", "dots/ssh/id", "scratch/cache/huggingface/token", "hub/token-file"] {
        fails(&session.sh(&format!("cat {}/{file}", session.root.display())));
    }
    assert_eq!(ok(&session.sh("tool")), "tool");
}

fn links_in_tmp(variant: &Variant) {
    if !variant.mounts {
        return;
    }
    let session = Session::new(variant);
    let target = tempfile::tempdir_in(session.work()).unwrap();
    let Ok(own) = session.root.strip_prefix("/tmp") else { return };
    session.sh("kill -9 $PPID");
    // What a background process could have done to the session's tmp while nothing was mounted there.
    let stub = session.root.join("tmp").join(own);
    fs::remove_dir_all(&stub).unwrap();
    symlink(target.path(), &stub).unwrap();
    ok(&session.sh("true"));
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0, "a mount point was made through a link");
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}
