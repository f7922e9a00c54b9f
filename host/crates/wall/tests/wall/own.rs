//! What namespaces of the session's own leave out, and that what is left is whole.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, mpsc};

use ml_intern_wall::{Grade, Loopback, Mode, Network, Space, WallError};

use crate::roles::Test;
use crate::session::{Session, Text as _, Variant, fails, ok, sh};

pub(crate) const TESTS: &[Test] = &[
    ("what_was_not_given_is_not_there", what_was_not_given),
    ("other_programs_are_not_there", other_programs),
    ("links_lead_where_they_led", links),
    ("the_loopback_is_the_sessions", loopback),
    ("the_kernels_settings_are_not_commands", settings),
    ("threads_of_others_get_names", thread_names),
    ("less_than_is_required_runs_nothing", required),
    ("what_is_not_there_is_explained", explained),
    ("what_the_host_serves_is_on_their_loopback", served),
];

fn what_was_not_given(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::with(variant, |_, root| {
        fs::create_dir_all(root.join("other/.git")).unwrap();
        fs::write(root.join("other/file"), "secret").unwrap();
    });
    let outside = session.root.join("other");
    let listener = UnixListener::bind(outside.join("agent.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let connect =
        format!("import socket; socket.socket(socket.AF_UNIX).connect('{}/agent.sock')", outside.display());
    let error = fails(&session.python(&connect));
    let look = format!("import os; os.stat('{}/file')", outside.display());
    let look = session.python(&look);
    assert!(error.contains("No such file or directory"), "{error}");
    assert!(listener.accept().is_err());
    assert!(fails(&look).contains("No such file or directory"));
    for act in ["chmod 600", "touch", "cat", "setfattr -n user.a -v b", "ls -d", "ln -s x"] {
        fails(&session.sh(&format!("{act} {}/file", outside.display())));
    }
    // Nor by any way around.
    for path in ["/proc/1/root", "/proc/self/root/../..", "/proc/self/cwd/../other", "/proc/$PPID/cwd/.."] {
        let found = session.sh(&format!("ls -a {path}/other {path}{} 2>/dev/null", outside.display()));
        assert_eq!(found.stdout.text(), "", "{path}");
    }
    // Nothing can be made beside what was given.
    session.sh(&format!("mkdir {}/new", session.root.display()));
    assert!(!session.root.join("new").exists());
    fails(&session.sh("mkdir /new || mkdir /home/new || touch /dev/new"));
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "secret");
}

fn other_programs(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::new(variant);
    let listed = ok(&session.sh("ls /proc | grep -c '^[0-9]'"));
    assert!(listed.parse::<u32>().unwrap() <= 5, "{listed}");
    let lines = ok(&session.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"));
    assert!(!lines.contains("process_api") && lines.contains("supervisor"), "{lines}");
    // Memory that programs share by a key.
    let key = format!("{}", 0x0040_0000 + std::process::id());
    let get = |flags: &str| {
        format!(
            "import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n\
             print(libc.shmget({key}, 4096, {flags}))"
        )
    };
    let make = std::process::Command::new("python3").args(["-c", &get("0o1600")]).output().unwrap();
    let id = String::from_utf8(make.stdout).unwrap();
    assert_ne!(id.trim(), "-1");
    assert_eq!(ok(&session.python(&get("0o600"))), "-1");
    let remove = format!("import ctypes; ctypes.CDLL(None).shmctl({}, 0, None)", id.trim());
    assert!(std::process::Command::new("python3").args(["-c", &remove]).status().unwrap().success());
}

fn links(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::with(variant, |config, root| {
        fs::create_dir_all(root.join("real/tools/bin")).unwrap();
        fs::create_dir_all(root.join("real/project")).unwrap();
        fs::write(root.join("real/project/data"), "data").unwrap();
        std::os::unix::fs::symlink("real/project", root.join("linked")).unwrap();
        std::os::unix::fs::symlink("../real/tools", root.join("work/tools")).unwrap();
        std::os::unix::fs::symlink("real", root.join("also")).unwrap();
        config.read_dirs = vec![root.join("linked"), root.join("also/tools")];
    });
    let at = |path: &str| session.root.join(path).display().to_string();
    assert_eq!(ok(&session.sh(&format!("cat {}", at("linked/data")))), "data");
    ok(&session.sh(&format!("ls {} && ls tools/bin/", at("also/tools/bin"))));
    ok(&session.sh("/bin/sh -c true && ls -d /lib/. /tmp/. /dev/fd/ && echo a | cat /dev/stdin"));
    ok(&session
        .python("import ssl, socket, zoneinfo; zoneinfo.ZoneInfo('UTC'); ssl.create_default_context()"));
    ok(&session.python("import getpass, pwd, os; pwd.getpwuid(os.getuid()); os.getlogin if 0 else None"));
}

fn loopback(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::new(variant);
    ok(&session.python(
        "import socket, threading\n\
         for family, name in [(socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')]:\n\
         \x20   s = socket.socket(family); s.bind((name, 0)); s.listen()\n\
         \x20   socket.create_connection((name, s.getsockname()[1])).send(b'x')\n\
         \x20   assert s.accept()[0].recv(1) == b'x'",
    ));
    for (program, why) in [
        ("socket.create_connection(('192.0.2.1', 443), 5)", "Network is unreachable"),
        ("socket.socket(2, 2).sendto(b'x', ('192.0.2.1', 53))", "Network is unreachable"),
        ("socket.socket(2, 3, 1)", "not permitted"),
        ("socket.socket(17, 3)", "not supported"),
        ("socket.socket(16, 3)", "not supported"),
        ("socket.getaddrinfo('example.com', 443)", "resol"),
    ] {
        let error = fails(&session.python(&format!("import socket; {program}")));
        assert!(error.contains(why), "{program}: {error}");
    }
    let session = Session::with(variant, |config, _| config.network = Network::Open);
    assert_eq!(session.block_on(session.wall().probe()).unwrap().grade, Grade::Full);
    ok(&session.python("import socket; socket.socket(2, 2).connect(('192.0.2.1', 53))"));
}

fn settings(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::new(variant);
    for path in ["sys/kernel/hostname", "sys/vm/drop_caches", "sys/kernel/core_pattern", "sysrq-trigger"] {
        fails(&session.sh(&format!("echo 1 > /proc/{path}")));
    }
    fails(&session.sh("mount -o remount,rw /proc/sys || umount /proc/sys || hostname other"));
}

fn thread_names(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::new(variant);
    // As libc names one that is not the caller.
    let program = "import threading, time\n\
                   t = threading.Thread(target=time.sleep, args=(1,)); t.start()\n\
                   path = f'/proc/self/task/{t.native_id}/comm'\n\
                   open(path, 'w').write('loader'); print(open(path).read().strip())";
    fs::write(session.work().join("names.py"), program).unwrap();
    assert_eq!(ok(&session.sh("sh -c 'python3 names.py; true'; true")), "loader");
}

fn required(variant: &Variant) {
    let session = Session::with(variant, |config, _| config.required = Some(Grade::Full));
    let ran = session.run(sh("echo ran > file"));
    if variant.full {
        ok(&ran.unwrap());
        return;
    }
    let Err(WallError::Unavailable { reason, .. }) = ran else { panic!("{ran:?}") };
    assert!(reason.contains("the least is full"), "{reason}");
    assert!(!session.work().join("file").exists());
    for mode in [Mode::Off, Mode::External] {
        let session = Session::with(variant, |config, _| {
            (config.mode, config.required, config.space) = (mode, Some(Grade::Partial), Space::Own);
        });
        assert!(matches!(session.run(sh("true")), Err(WallError::Unavailable { .. })));
    }
}

fn explained(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::with(variant, |_, root| {
        fs::create_dir(root.join("datasets")).unwrap();
        fs::write(root.join("datasets/train.csv"), "a").unwrap();
    });
    let path = session.root.join("datasets/train.csv");
    let said = |path: &Path| session.sh(&format!("cat {}", path.display()));
    let there = said(&path);
    let advice = format!("`--add-dir {}", session.root.join("datasets").display());
    assert!(there.notes[0].contains(&advice) && there.wall_refusals == 1, "{there:?}");
    // What is nowhere is no refusal.
    let nowhere = said(&session.root.join("nowhere/train.csv"));
    assert_eq!((nowhere.wall_refusals, nowhere.notes), (0, Vec::new()));
}

fn served(variant: &Variant) {
    let (sender, listeners) = mpsc::channel();
    let loopback = Loopback {
        ports: vec![41_001, 41_002],
        env: vec![("HF_ENDPOINT".into(), "http://127.0.0.1:41002".into())],
        listening: Arc::new(move |listeners| sender.send(listeners).unwrap()),
    };
    let session = Session::with(variant, |config, _| {
        (config.network, config.loopback) = (Network::Gateway, Some(loopback));
    });
    if !variant.full {
        // Nobody else's loopback is listened on, and nothing reaches it.
        assert_eq!(ok(&session.sh("echo \"$HF_ENDPOINT\"")), "");
        fails(&session.python("import socket; socket.create_connection(('127.0.0.1', 41002))"));
        assert!(listeners.try_recv().is_err());
        return;
    }
    assert_eq!(ok(&session.sh("echo $HF_ENDPOINT")), "http://127.0.0.1:41002");
    let first: Vec<TcpListener> = listeners.try_recv().unwrap();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = first[1].accept().unwrap();
        stream.write_all(b"served").unwrap();
    });
    let ask = "import socket; print(socket.create_connection(('127.0.0.1', 41002)).recv(9).decode())";
    assert_eq!(ok(&session.python(ask)), "served");
    served.join().unwrap();
    // On this machine's loopback nobody listens there.
    assert!(std::net::TcpStream::connect(("127.0.0.1", 41_002)).is_err());
    session.sh("kill -9 $PPID");
    ok(&session.sh("true"));
    assert_eq!(listeners.try_recv().unwrap().len(), 2);
}
