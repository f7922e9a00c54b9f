//! What must work as if there were no wall.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Command as HostCommand;

use ml_intern_wall::{Command, Grade, Mode, Network, WallError};

use crate::roles::Test;
use crate::session::{Session, Text as _, Variant, env, fails, ok, sh};

pub(crate) const TESTS: &[Test] = &[
    ("files_and_folders_are_moved_between_folders", moves),
    ("shells_and_their_tools", shells),
    ("exit_codes_and_signals_are_told", exits),
    ("standard_input_and_the_working_folder", stdin_and_cwd),
    ("what_is_missing_is_said", missing),
    ("python_with_its_own_environment", python_environment),
    ("python_processes_locks_and_databases", python_processes),
    ("git_in_the_workspace", git_in_the_workspace),
    ("git_in_a_worktree_of_a_repository_outside", git_in_a_worktree),
    ("git_in_a_folder_of_a_repository", git_in_a_sub_folder),
    ("files_are_opened_without_openat2", files_are_opened),
    ("terminals", terminals),
    ("tmp_is_the_sessions", tmp),
    ("files_get_the_users_mask", files),
    ("devices_and_shared_memory", devices),
    ("added_folders", added_folders),
    ("tools_behind_links_and_shims", tools_behind_links),
    ("environments_of_the_workspace_have_their_python", environments_of_the_workspace),
    ("models_the_user_has_are_found", models),
    ("the_network_when_it_is_open", network_open),
    ("without_a_wall_nothing_is_confined", off),
    ("an_external_wall_confines_nothing", external),
];

fn shells(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session
        .sh("printf 'a 1\\nb 2\\n' > f && mkdir -p x/y && mv f x/y/g && cp x/y/g h && ln h i && ln -s i j"));
    assert_eq!(
        ok(&session.sh("awk '{ s += $2 } END { print s }' j && grep -c a h && sed -n 2p i | tr b c")),
        "3\n1\nc 2"
    );
    assert_eq!(
        ok(&session
            .sh("echo one | tee /dev/stderr > /dev/stdout; find . -type f | sort | xargs ls > /dev/null")),
        "one"
    );
    assert_eq!(ok(&session.sh("sh -c 'exit 3' || echo $?; (exec 3>&1; echo deep >&3)")), "3\ndeep");
    ok(&session.sh("printf '#!/bin/sh\\necho ran\\n' > s && chmod +x s && ./s && tar cf a.tar x && rm -r x && tar xf a.tar"));
    ok(&session
        .sh("cat /proc/self/status /proc/meminfo /proc/cpuinfo > /dev/null; nproc; ls /usr/bin > /dev/null"));
}

fn exits(variant: &Variant) {
    let session = Session::new(variant);
    assert_eq!(session.sh("exit 7").code, Some(7));
    let killed = session.sh("kill -SEGV $$");
    assert_eq!((killed.code, killed.signal.as_deref()), (None, Some("SIGSEGV")));
    assert_eq!(session.sh("kill -9 $$").signal.as_deref(), Some("SIGKILL"));
    assert_eq!(session.sh("echo out; echo err >&2; exit 3").stderr.text(), "err\n");
}

fn stdin_and_cwd(variant: &Variant) {
    let session = Session::new(variant);
    let input: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    let command = Command { stdin: Some(input.clone()), max_output: 1 << 20, ..sh("wc -c; cat") };
    assert_eq!(ok(&session.run(command).unwrap()), input.len().to_string());
    let unread = Command { stdin: Some(input), ..sh("true") };
    ok(&session.run(unread).unwrap());
    assert_eq!(ok(&session.sh("cat; echo end")), "end");

    fs::create_dir(session.work().join("sub")).unwrap();
    for cwd in ["sub", session.work().join("sub").to_str().unwrap()] {
        let command = Command { cwd: Some(cwd.into()), ..sh("pwd") };
        assert_eq!(Path::new(&ok(&session.run(command).unwrap())), session.work().join("sub"));
    }
    assert_eq!(Path::new(&ok(&session.sh("pwd"))), session.work());
}

fn missing(variant: &Variant) {
    let session = Session::new(variant);
    let run = |command| session.run(command).unwrap_err();
    let program = run(Command { program: "no-such-program".into(), ..sh("") });
    assert!(
        matches!(&program, WallError::ProgramMissing { searched: Some(path), .. } if path.contains("/usr/bin"))
    );
    assert!(program.to_string().starts_with("program `no-such-program` not found in `/"), "{program}");
    let path = run(Command { program: "./no-such-program".into(), ..sh("") });
    assert!(matches!(path, WallError::ProgramMissing { searched: None, .. }), "{path}");
    for (cwd, reason) in [("nowhere", "not exist"), ("file", "not a folder"), ("/root/x/..", "")] {
        fs::write(session.work().join("file"), "").unwrap();
        let error = run(Command { cwd: Some(cwd.into()), ..sh("true") });
        assert!(
            matches!(&error, WallError::WorkingFolder { .. }) && error.to_string().contains(reason),
            "{error}"
        );
    }
    let outside = run(Command { cwd: Some("/var".into()), ..sh("true") });
    assert!(outside.to_string().contains("--add-dir"), "{outside}");
    let not_executable = run(Command { program: "./file".into(), ..sh("") });
    assert!(matches!(not_executable, WallError::Start { .. }), "{not_executable}");
}

fn python_environment(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session.sh("python3 -m venv .venv"));
    assert_eq!(ok(&session.sh(". .venv/bin/activate && python -c 'print(6 * 7)'")), "42");
    let prefix = ok(&session.sh(".venv/bin/python -c 'import sys; print(sys.prefix)'"));
    assert_eq!(Path::new(&prefix), session.work().join(".venv"));
}

fn python_processes(variant: &Variant) {
    let session = Session::new(variant);
    let program = "
import multiprocessing as mp, sqlite3, subprocess, sys, tempfile, threading
def work(x):
    return x * x
if __name__ == '__main__':
    for method in 'fork', 'spawn', 'forkserver':
        context = mp.get_context(method)
        lock, semaphore, queue = context.Lock(), context.Semaphore(2), context.Queue()
        with lock, semaphore:
            queue.put(1)
        assert queue.get() == 1
        with context.Pool(3) as pool:
            assert sum(pool.map(work, range(10))) == 285, method
    memory = mp.shared_memory.SharedMemory(create=True, size=1 << 20) if hasattr(mp, 'shared_memory') else None
    if memory:
        memory.close(); memory.unlink()
    assert subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout == b'1\\n'
    db = sqlite3.connect('a.db')
    db.execute('create table t (x)'); db.execute('insert into t values (7)'); db.commit()
    assert sqlite3.connect('a.db').execute('select x from t').fetchall() == [(7,)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(b'x')
    thread = threading.Thread(target=print, args=('done',)); thread.start(); thread.join()
";
    fs::write(session.work().join("program.py"), format!("import multiprocessing.shared_memory{program}"))
        .unwrap();
    assert_eq!(ok(&session.sh("python3 program.py")), "done");
}

const GIT: &str = "git -c user.name=a -c user.email=a@b -c init.defaultBranch=main -c safe.directory='*'";

fn git_in_the_workspace(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session.sh(&format!(
        "{GIT} init -q && echo x > f && {GIT} add f && {GIT} commit -qm first && {GIT} checkout -qb b"
    )));
    assert_eq!(ok(&session.sh(&format!("{GIT} log --format=%s && {GIT} status --short"))), "first");
}

fn host_git(at: &Path, arguments: &str) {
    fs::create_dir_all(at).unwrap();
    let script = format!("{GIT} {arguments}");
    let status =
        HostCommand::new("sh").args(["-c", &script]).current_dir(at).env("HOME", at).status().unwrap();
    assert!(status.success(), "{script}");
}

fn git_in_a_worktree(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let main = root.join("main");
        host_git(&main, "init -q");
        fs::write(main.join("f"), "x\n").unwrap();
        host_git(&main, "add f");
        host_git(&main, "commit -qm first");
        host_git(&main, "worktree add -q ../tree -b side");
        config.workspace = root.join("tree");
    });
    assert_eq!(
        ok(&session.sh(&format!("{GIT} log --format=%s && {GIT} branch --show-current"))),
        "first\nside"
    );
    assert_eq!(
        ok(&session.sh(&format!("echo y >> f; {GIT} status --short && {GIT} diff | grep -c '^+y'"))),
        "M f\n1"
    );
    fails(&session.sh(&format!("cat {}/f", session.root.join("main").display())));
    fails(&session.sh(&format!("echo x > {}/hooks/post-commit", session.root.join("main/.git").display())));
}

fn git_in_a_sub_folder(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let repository = root.join("repository");
        host_git(&repository, "init -q");
        fs::create_dir(repository.join("sub")).unwrap();
        fs::write(repository.join("sub/f"), "x\n").unwrap();
        host_git(&repository, "add .");
        host_git(&repository, "commit -qm first");
        config.workspace = repository.join("sub");
    });
    assert_eq!(ok(&session.sh(&format!("{GIT} log --format=%s -- . && {GIT} ls-files"))), "first\nf");
}

/// With programs that open files in other ways than libc.
fn files_are_opened(variant: &Variant) {
    let session = Session::new(variant);
    let program =
        "require('fs').writeFileSync('n', 'x'); console.log(require('fs').readFileSync('n', 'utf8'))";
    let script = format!("command -v node > /dev/null || {{ echo x; exit; }}; node -e \"{program}\"");
    assert_eq!(ok(&session.sh(&script)), "x");
    ok(&session.python(
        "import os, shutil, tarfile, pathlib\n\
         os.makedirs('a/b'); pathlib.Path('a/b/c').write_text('x')\n\
         shutil.copytree('a', 'd'); tarfile.open('a.tar', 'w').add('a')\n\
         tarfile.open('a.tar').extractall('e'); assert os.path.exists('d/b/c')",
    ));
    ok(&session.sh(
        "tar cf b.tar a && mkdir g && tar xf b.tar -C g && cp -a a h && test -f g/a/b/c && test -f h/b/c",
    ));
}

fn terminals(variant: &Variant) {
    let session = Session::new(variant);
    let program =
        "import os, pty; pty.spawn(['sh', '-c', 'test -t 1 && tty > /dev/null && echo terminal > /dev/tty'])";
    assert_eq!(ok(&session.python(program)), "terminal");
    assert_eq!(ok(&session.sh("script -qec 'stty size > /dev/null; echo typed' /dev/null")), "typed");
    fails(&session.sh("test -t 0 || test -t 1 || test -t 2"));
}

fn tmp(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session.sh("echo x > $TMPDIR/a && mktemp && mkdir $TMPDIR/d && mv $TMPDIR/a $TMPDIR/d/b"));
    assert_eq!(fs::read_to_string(session.root.join("tmp/d/b")).unwrap(), "x\n");
    if variant.mounts {
        assert_eq!(
            ok(&session.sh("echo y > /tmp/c && cat $TMPDIR/c /var/tmp/c && echo $TMPDIR")),
            "y\ny\n/tmp"
        );
        let seen = ok(&session.sh("ls /tmp"));
        let stub = session.root.components().nth(2).unwrap().as_os_str().to_str().unwrap();
        assert!(
            seen.lines().all(|name| ["c", "d", stub].contains(&name) || name.starts_with("tmp.")),
            "{seen}"
        );
    } else {
        let exit = session.sh("echo y > /tmp/wall-test-file");
        fails(&exit);
        assert!(exit.notes.iter().any(|note| note.contains("$TMPDIR")), "{exit:?}");
    }
}

fn files(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session.sh("touch f && mkdir d"));
    let mode = |name: &str| fs::metadata(session.work().join(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("f"), mode("d")), (0o644, 0o755));
    for own in ["home", "tmp", "caches"] {
        assert_eq!(fs::metadata(session.root.join(own)).unwrap().mode() & 0o777, 0o700, "{own}");
    }
    assert_eq!(ok(&session.sh("id -u")), rustix::process::geteuid().as_raw().to_string());
}

fn devices(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session
        .sh("echo x > /dev/null && head -c 9 /dev/zero | wc -c && head -c 9 /dev/urandom > /dev/null"));
    ok(&session
        .sh("(echo x > /dev/full) 2> /dev/null || true; echo x > /dev/shm/wall-$$ && rm /dev/shm/wall-$$"));
    ok(&session.sh(
        "ls /dev > /dev/null; ls /sys/class > /dev/null; cat /sys/devices/system/cpu/online > /dev/null",
    ));
}

fn added_folders(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        for name in ["data", "out"] {
            fs::create_dir(root.join(name)).unwrap();
            fs::write(root.join(name).join("f"), name).unwrap();
        }
        config.read_dirs = vec![root.join("data")];
        config.write_dirs = vec![root.join("out")];
    });
    assert_eq!(
        ok(&session.sh("cat ../data/f && echo && cp ../data/f ../out/g && mv ../out/f . && cat f ../out/g")),
        "data\noutdata"
    );
    fails(&session.sh("echo x > ../data/f"));
    fails(&session.sh("rm ../data/f"));
}

/// A virtual environment outside, made from an interpreter elsewhere, behind a link; and a pyenv.
fn tools_behind_links(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let home = root.join("user");
        let python = home.join(".local/share/uv/python/cpython-3.12");
        write_program(
            &python.join("bin/python3.12"),
            "#!/bin/sh\ncat \"$(dirname \"$(readlink -f \"$0\")\")/../lib/python3.12/os.py\"\n",
        );
        write_program(&python.join("lib/python3.12/os.py"), "library");
        let venv = home.join("envs/a");
        write_program(&venv.join("pyvenv.cfg"), &format!("home = {}/bin\n", python.display()));
        write_program(&venv.join("lib/python3.12/site-packages/p.py"), "package");
        fs::create_dir_all(venv.join("bin")).unwrap();
        symlink(python.join("bin/python3.12"), venv.join("bin/python")).unwrap();
        fs::create_dir_all(home.join(".local/bin")).unwrap();
        symlink(venv.join("bin/python"), home.join(".local/bin/linked")).unwrap();

        let shim = "#!/bin/sh\nexec \"$PYENV_ROOT/versions/1/bin/$(basename \"$0\")\" \"$@\"\n";
        write_program(&home.join(".pyenv/shims/shimmed"), shim);
        write_program(&home.join(".pyenv/versions/1/bin/shimmed"), "#!/bin/sh\necho shimmed\n");
        let path = format!("{0}/.local/bin:{0}/.pyenv/shims:/usr/bin:/bin", home.display());
        config.user_env = env(&[("PATH", &path), ("HOME", home.to_str().unwrap())]);
        config.private_dirs = vec![home.join(".local/share/ml-intern")];
        write_program(&home.join(".local/share/ml-intern/state"), "secret");
        write_program(&home.join("notes"), "secret");
    });
    assert_eq!(ok(&session.sh("linked && echo && shimmed")), "library\nshimmed");
    let user = session.root.join("user");
    let user = user.display();
    assert_eq!(ok(&session.sh(&format!("cat {user}/envs/a/lib/python3.12/site-packages/p.py"))), "package");
    fails(&session.sh(&format!("cat {user}/.local/share/ml-intern/state")));
    let listed = session.sh(&format!("ls -A {user}"));
    assert!(variant.mounts || listed.code != Some(0), "{listed:?}");
    assert!(!listed.stdout.text().contains("notes"), "{listed:?}");
}

/// Environments that are not on `PATH`, as pyenv, uv and conda make them from a Python in the home.
fn environments_of_the_workspace(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let home = root.join("user");
        for (prefix, environment) in [
            (".pyenv/versions/3.12.1", "venv"),
            (".local/share/uv/python/cpython-3.12.9-linux", ".venv"),
            ("miniconda3", "env"),
        ] {
            let python = home.join(prefix);
            write_program(
                &python.join("bin/python3.12"),
                "#!/bin/sh\nprefix=$(dirname \"$(readlink -f \"$0\")\")/..\n\
                 cat \"$prefix/lib/python3.12/os.py\" \"$prefix/lib/libpython.so\"\n",
            );
            write_program(&python.join("lib/python3.12/os.py"), "library");
            write_program(&python.join("lib/libpython.so"), " of python");
            symlink("python3.12", python.join("bin/python3")).unwrap();
            let environment = root.join("work").join(environment);
            write_program(&environment.join("pyvenv.cfg"), &format!("home = {}/bin\n", python.display()));
            fs::create_dir_all(environment.join("bin")).unwrap();
            symlink(python.join("bin/python3"), environment.join("bin/python")).unwrap();
        }
        // uv's name for the newest patch. Private mounts hide links in the machine's `/tmp`, where this is.
        if !variant.mounts {
            let uv = home.join(".local/share/uv/python");
            symlink("cpython-3.12.9-linux", uv.join("cpython-3.12-linux")).unwrap();
            fs::remove_file(root.join("work/.venv/bin/python")).unwrap();
            symlink(uv.join("cpython-3.12-linux/bin/python3.12"), root.join("work/.venv/bin/python"))
                .unwrap();
        }
        // As `--copies` makes it: only the settings name the installation.
        fs::remove_file(root.join("work/env/bin/python")).unwrap();
        write_program(
            &root.join("work/env/bin/python"),
            &format!("#!/bin/sh\nexec {}/miniconda3/bin/python3\n", home.display()),
        );
        write_program(&home.join("miniconda3/notes"), "secret");
        config.user_env = env(&[("PATH", "/usr/bin:/bin"), ("HOME", home.to_str().unwrap())]);
    });
    for environment in ["venv", ".venv", "env"] {
        assert_eq!(
            ok(&session.sh(&format!("{environment}/bin/python"))),
            "library of python",
            "{environment}"
        );
    }
    fails(&session.sh(&format!("cat {}/user/miniconda3/notes", session.root.display())));
}

fn models(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let hub = root.join("user/.cache/huggingface/hub/models--org--name");
        write_program(&hub.join("blobs/b1"), "weights");
        write_program(&hub.join("refs/main"), "abc");
        fs::create_dir_all(hub.join("snapshots/abc/sub")).unwrap();
        symlink("../../../blobs/b1", hub.join("snapshots/abc/sub/model.bin")).unwrap();
        config.user_env = env(&[("HOME", root.join("user").to_str().unwrap())]);
    });
    let snapshot = "$HF_HOME/hub/models--org--name/snapshots/$(cat $HF_HOME/hub/models--org--name/refs/main)";
    assert_eq!(ok(&session.sh(&format!("cat {snapshot}/sub/model.bin"))), "weights");
    ok(&session.sh(&format!("echo more > {snapshot}/sub/config.json && mkdir {snapshot}/../def")));
    fails(&session.sh(&format!("echo other > {snapshot}/sub/model.bin")));
    let user = session.root.join("user/.cache/huggingface/hub/models--org--name");
    assert_eq!(fs::read_to_string(user.join("blobs/b1")).unwrap(), "weights");
    assert!(!user.join("snapshots/def").exists());
}

fn network_open(variant: &Variant) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let session = Session::with(variant, |config, _| config.network = Network::Open);
    ok(&session.python(&format!("import socket; socket.create_connection(('127.0.0.1', {port}))")));
    ok(&session.python("import socket; print(socket.getaddrinfo('localhost', 80), socket.if_nameindex())"));
    ok(&session.python(
        "import socket; s = socket.socket(2, 2); s.bind(('127.0.0.1', 0)); s.sendto(b'x', s.getsockname())",
    ));
}

fn off(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        config.mode = Mode::Off;
        fs::write(root.join("outside"), "text").unwrap();
        config.user_env =
            env(&[("EDITOR", "vi"), ("HF_TOKEN", "hf_x"), ("DB_PASS", "x"), ("HOME", "/somewhere")]);
    });
    assert_eq!(session.wall().grade(), Grade::None);
    assert_eq!(
        ok(&session.sh("cat ../outside; echo; echo $HOME $EDITOR $HF_TOKEN $DB_PASS")),
        "text\n/somewhere vi"
    );
    ok(&session.python("import socket; socket.socket(2, 1).bind(('127.0.0.1', 0))"));
    assert_eq!(session.block_on(session.wall().probe()).unwrap().acts, []);
}

fn external(variant: &Variant) {
    let session = Session::with(variant, |config, _| config.mode = Mode::External);
    assert_eq!(session.wall().grade(), Grade::External);
    assert_eq!(ok(&session.sh("ls / > /dev/null; echo $TMPDIR")), session.root.join("tmp").to_str().unwrap());
    assert_eq!(Path::new(&ok(&session.sh("echo $HOME"))), session.root.join("home"));
}

fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

fn moves(variant: &Variant) {
    let session = Session::new(variant);
    // `mv` would copy where the kernel refuses.
    let program = "import os\n\
                   for top in ['.', os.environ['PIP_CACHE_DIR'], os.environ['TMPDIR'], os.environ['HOME']]:\n\
                   \x20   os.makedirs(top + '/a/inner'); os.makedirs(top + '/b')\n\
                   \x20   open(top + '/a/file', 'w').close()\n\
                   \x20   os.rename(top + '/a/file', top + '/b/file'); os.rename(top + '/a/inner', top + '/b/inner')\n\
                   \x20   os.link(top + '/b/file', top + '/a/link')";
    ok(&session.python(program));
}
