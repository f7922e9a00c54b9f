//! What must not be possible.

use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use ml_intern_wall::{Command, Grade, Network, Outcome, WallError};

use crate::roles::{Test, sh};
use crate::session::{Session, Variant, env, fails, ok, sh as script};

pub(crate) const TESTS: &[Test] = &[
    ("every_forbidden_act_is_refused", every_forbidden_act_is_refused),
    ("the_hosts_environment_is_not_readable", host_environment),
    ("other_processes_are_neither_traced_nor_signalled", other_processes),
    ("the_guard_is_out_of_reach", the_guard_is_out_of_reach),
    ("nothing_is_connected_to_when_the_network_is_off", network_off),
    ("abstract_sockets_outside_are_out_of_reach", abstract_sockets),
    ("exotic_sockets_are_refused", exotic_sockets),
    ("system_calls_are_refused", system_calls),
    ("no_command_leaves_a_set_id_program", set_id_programs),
    ("namespaces_and_mounts_are_refused", namespaces),
    ("terminal_input_cannot_be_pushed", terminal_input),
    ("other_terminals_are_out_of_reach", other_terminals),
    ("sockets_in_tmp_are_out_of_reach", sockets_in_tmp),
    ("only_standard_descriptors_are_inherited", descriptors),
    ("commands_have_no_privileges", privileges),
    ("the_environment_comes_from_a_list", environment),
    ("a_command_cannot_set_refused_names", refused_names),
];

fn every_forbidden_act_is_refused(variant: &Variant) {
    let session = Session::new(variant);
    let grade = if variant.full { Grade::Full } else { Grade::Partial };
    assert_eq!((session.wall().grade(), session.found.get()), (grade, None));
    let report = session.block_on(session.wall().probe()).unwrap();
    assert_eq!((report.grade, session.found.get()), (grade, Some(&grade)), "{:#?}", report.residuals);
    let refused = report.acts.iter().filter(|act| matches!(act.outcome, Outcome::Refused(_))).count();
    assert!(refused >= 12 && refused == report.acts.len(), "{:#?}", report.acts);
    assert!(report.residuals.len() >= 3, "{:#?}", report.residuals);
    let has_mounts = !report.residuals.iter().any(|residual| residual.contains("no private mounts"));
    assert_eq!(has_mounts, variant.mounts, "{:#?}", report.residuals);
}

fn host_environment(variant: &Variant) {
    let session = Session::new(variant);
    let host = std::process::id();
    for file in ["environ", "mem", "maps", "fd", "cwd/", "root/", "auxv", "task/1/environ"] {
        fails(&session.sh(&format!("ls /proc/{host}/{file} && cat /proc/{host}/{file}")));
    }
    fails(&session.sh("cat /proc/1/environ"));
    // Nor the supervisor's.
    fails(&session.sh("cat /proc/$PPID/environ"));
    fails(&session.sh("readlink /proc/$PPID/fd/*"));
    fails(&session.sh("echo x > /proc/self/oom_score_adj"));
    fails(&session.sh("echo x > /proc/sys/kernel/core_pattern"));
}

/// Calls the system from Python: prints the error's name, or `done`.
fn call(session: &Session, expression: &str) -> String {
    ok(&session.python(&format!(
        "import ctypes, errno, os, platform\n\
         libc = ctypes.CDLL(None, use_errno=True)\n\
         x86 = platform.machine() == 'x86_64'\n\
         result = libc.{expression}\n\
         print(errno.errorcode[ctypes.get_errno()] if result < 0 else 'done')"
    )))
}

fn other_processes(variant: &Variant) {
    let session = Session::new(variant);
    let host = std::process::id();
    const PTRACE_SEIZE: u32 = 0x4206;
    assert_eq!(call(&session, &format!("ptrace({PTRACE_SEIZE}, {host}, 0, 0)")), "EPERM");
    assert_eq!(call(&session, "ptrace(0, 0, 0, 0)"), "EPERM", "not even to be traced");
    assert_eq!(call(&session, &format!("process_vm_readv({host}, 0, 0, 0, 0, 0)")), "EPERM");
    // Where processes are the session's own it is not there.
    let refused = if variant.full { "ESRCH" } else { "EPERM" };
    assert_eq!(call(&session, &format!("kill({host}, 0)")), refused);
    assert_eq!(call(&session, &format!("kill({host}, 9)")), refused);
    const NPROC: u32 = 6;
    let limit = format!("prlimit({host}, {NPROC}, (ctypes.c_ulong * 2)(0, 0), 0)");
    assert_eq!(call(&session, &limit), "EPERM");
    assert_eq!(call(&session, &format!("setpriority(0, {host}, 19)")), "EPERM");
    ok(&session.sh("ulimit -n 64 && nice -n 5 true"));
    // Whatever this ends, it ends inside.
    session.sh("kill -9 -1");
    ok(&session.sh("true"));
}

fn the_guard_is_out_of_reach(variant: &Variant) {
    let session = Session::new(variant);
    let guard = ok(&session.sh("awk '/^PPid/ { print $2 }' /proc/$PPID/status"));
    if variant.full {
        assert_eq!((guard.as_str(), call(&session, "kill(1, 0)").as_str()), ("1", "EPERM"));
        fails(&session.sh("kill -9 1"));
        ok(&session.sh("true"));
        return;
    }
    let status = fs::read_to_string(format!("/proc/{guard}/status")).unwrap();
    let is_ours = status.contains(&format!("PPid:\t{}\n", std::process::id()));
    assert!(is_ours, "the guard is our child: {status}");
    assert_eq!(call(&session, &format!("kill({guard}, 0)")), "EPERM");
    fails(&session.sh(&format!("kill -9 {guard}")));
    assert!(Path::new(&format!("/proc/{guard}")).exists());
}

fn network_off(variant: &Variant) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let session = Session::new(variant);
    let listeners = (tcp, udp);
    let tcp = listeners.0.local_addr().unwrap().port();
    let udp = listeners.1.local_addr().unwrap().port();
    let [connect, send] = [
        format!("import socket; socket.create_connection(('127.0.0.1', {tcp}))"),
        format!("import socket; socket.socket(2, 2).sendto(b'x', ('127.0.0.1', {udp}))"),
    ];
    if variant.full {
        // They reach a loopback, and nobody on this machine's.
        assert!(fails(&session.python(&connect)).contains("Connection refused"));
        session.python(&send);
        listeners.0.set_nonblocking(true).unwrap();
        listeners.1.set_nonblocking(true).unwrap();
        assert!(listeners.0.accept().is_err() && listeners.1.recv(&mut [0; 8]).is_err());
        return;
    }
    for program in [
        connect,
        send,
        "import socket; socket.socket(10, 1)".into(),
        "import socket; socket.socket(2, 1).bind(('127.0.0.1', 0))".into(),
        "import urllib.request; urllib.request.urlopen('http://127.0.0.1')".into(),
    ] {
        assert!(fails(&session.python(&program)).contains("Permission denied"), "{program}");
    }
    ok(&session.python("import socket; a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'"));
    ok(&session.python(
        "import socket, os\n\
         s = socket.socket(socket.AF_UNIX); s.bind('own.sock'); s.listen()\n\
         socket.socket(socket.AF_UNIX).connect('own.sock')",
    ));
}

fn abstract_sockets(variant: &Variant) {
    let name = format!("wall-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    for network in [Network::Off, Network::Open] {
        let session = Session::with(variant, |config, _| config.network = network);
        let connect = format!("import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')");
        let is_elsewhere = variant.full && network == Network::Off;
        let why = if is_elsewhere { "Connection refused" } else { "Operation not permitted" };
        assert!(fails(&session.python(&connect)).contains(why));
        ok(&session.python(
            "import socket\n\
             s = socket.socket(socket.AF_UNIX); s.bind('\\0wall-own'); s.listen()\n\
             socket.socket(socket.AF_UNIX).connect('\\0wall-own')",
        ));
    }
}

fn exotic_sockets(variant: &Variant) {
    for network in [Network::Off, Network::Open] {
        let session = Session::with(variant, |config, _| config.network = network);
        const PACKET_ALG_VSOCK: [u32; 3] = [17, 38, 40];
        for family in PACKET_ALG_VSOCK {
            assert_eq!(call(&session, &format!("socket({family}, 3, 0)")), "EAFNOSUPPORT");
        }
        let netlink_audit = call(&session, "socket(16, 3, 9)");
        assert_eq!(netlink_audit, "EAFNOSUPPORT");
        let netlink_route = call(&session, "socket(16, 3, 0)");
        assert_eq!(netlink_route, if network == Network::Off { "EAFNOSUPPORT" } else { "done" });
    }
}

fn system_calls(variant: &Variant) {
    let session = Session::new(variant);
    // Numbers of x86-64 and aarch64.
    for (name, x86, arm, error) in [
        ("keyctl", 250, 219, "EPERM"),
        ("add_key", 248, 217, "EPERM"),
        ("bpf", 321, 280, "EPERM"),
        ("perf_event_open", 298, 241, "EPERM"),
        ("io_uring_setup", 425, 425, "EPERM"),
        ("userfaultfd", 323, 282, "EPERM"),
        ("open_by_handle_at", 304, 265, "EPERM"),
        ("open_tree", 428, 428, "EPERM"),
        ("setns", 308, 268, "EPERM"),
        ("clone3", 435, 435, "ENOSYS"),
        ("kexec_load", 246, 104, "EPERM"),
        ("pidfd_getfd", 438, 438, "EPERM"),
    ] {
        assert_eq!(
            call(&session, &format!("syscall({x86} if x86 else {arm}, 0, 0, 0, 0, 0)")),
            error,
            "{name}"
        );
    }
    // `getpid` as x32 would call it.
    if cfg!(target_arch = "x86_64") {
        assert_eq!(call(&session, "syscall(0x40000000 + 39)"), "ENOSYS");
    }
}

fn set_id_programs(variant: &Variant) {
    let session = Session::new(variant);
    let work = session.work();
    fs::write(work.join("f"), "").unwrap();
    for mode in ["0o4755", "0o2755", "0o6000"] {
        for (expression, error) in [
            (format!("chmod(b'f', {mode})"), "EPERM"),
            (format!("fchmod(os.open('f', os.O_RDONLY), {mode})"), "EPERM"),
            (format!("fchmodat(-100, b'f', {mode}, 0)"), "EPERM"),
            (format!("syscall(452, -100, b'f', {mode}, 0)"), "EPERM"),
            (format!("open(b'new', os.O_CREAT | os.O_WRONLY, {mode})"), "EPERM"),
            (format!("openat(-100, b'new', os.O_CREAT | os.O_WRONLY, {mode})"), "EPERM"),
            (format!("openat(-100, b'.', os.O_TMPFILE | os.O_WRONLY, {mode})"), "EPERM"),
            (format!("creat(b'new', {mode})"), "EPERM"),
            (format!("mknod(b'new', 0o100000 | {mode}, 0)"), "EPERM"),
            (format!("mknodat(-100, b'new', 0o100000 | {mode}, 0)"), "EPERM"),
            (format!("syscall(437, -100, b'new', (ctypes.c_ulong * 3)(0o101, {mode}, 0), 24)"), "ENOSYS"),
        ] {
            assert_eq!(call(&session, &expression), error, "{expression}");
        }
    }
    // A mode without a file to make means nothing.
    assert!(call(&session, "open(b'f', os.O_RDONLY, 0o6755)") == "done");
    assert_eq!(call(&session, "openat(-100, b'sticky', os.O_CREAT | os.O_WRONLY, 0o1755)"), "done");
    assert_eq!(call(&session, "chmod(b'f', 0o755)"), "done");

    // Given by the user, from where a command might take it over.
    fs::set_permissions(work.join("f"), std::os::unix::fs::PermissionsExt::from_mode(0o6755)).unwrap();
    session.sh("cp -p f copied; cp -a f archived; tar cf a.tar f && mkdir t && tar xpf a.tar -C t; install -m 4755 f i");
    ok(&session.python("import os\nfor n in 'copied', 'archived', 't/f', 'i':\n    assert not os.path.exists(n) or not os.stat(n).st_mode & 0o6000, n"));
}

fn namespaces(variant: &Variant) {
    let session = Session::new(variant);
    fails(&session.sh("unshare -U true"));
    fails(&session.sh("unshare -m true"));
    fails(&session.sh("mount -t tmpfs none $HOME"));
    const NEWUSER_AND_SIGCHLD: u32 = 0x1000_0000 | 17;
    let clone = format!("syscall(56 if x86 else 220, {NEWUSER_AND_SIGCHLD}, 0, 0, 0, 0)");
    assert_eq!(call(&session, &clone), "EPERM");
    assert_eq!(call(&session, "mount(b'none', b'/proc', b'tmpfs', 0, 0)"), "EPERM");
    assert_eq!(call(&session, "chroot(b'.')"), "EPERM");
}

fn terminal_input(variant: &Variant) {
    let session = Session::new(variant);
    let exit = session.python(
        "import errno, fcntl, os, pty, termios\n\
         master, slave = pty.openpty()\n\
         for high in 0, 1 << 32:\n\
         \x20   try:\n\
         \x20       fcntl.ioctl(slave, termios.TIOCSTI + 0, b'x')\n\
         \x20       print('pushed')\n\
         \x20   except PermissionError:\n\
         \x20       print('refused')",
    );
    assert_eq!(ok(&exit), "refused\nrefused");
    fails(&sh(variant, "true < /dev/tty"));
}

fn other_terminals(variant: &Variant) {
    let session = Session::new(variant);
    let master =
        rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let path = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let exit = session.sh(&format!("exec 3<>{path}"));
    // Without private mounts this is a residual, and said.
    assert_eq!(exit.code != Some(0), variant.mounts, "{exit:?}");
    let report = session.block_on(session.wall().probe()).unwrap();
    assert_eq!(report.residuals.iter().any(|residual| residual.contains("terminals")), !variant.mounts);
}

fn sockets_in_tmp(variant: &Variant) {
    if !variant.mounts {
        return; // A residual, and said: Landlock does not guard connecting to path sockets.
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let session = Session::new(variant);
    let connect = format!("import socket; socket.socket(socket.AF_UNIX).connect('{}')", path.display());
    fails(&session.python(&connect));
    assert_eq!(ok(&session.sh("find /run | grep -v '^/run$' | head; find /dev/shm -type f")), "");
}

fn descriptors(variant: &Variant) {
    // Descriptors that the host itself inherited without the close-on-exec flag.
    let file = fs::File::open("/dev/null").unwrap();
    let leaked = rustix::io::dup(&file).unwrap();
    let open = "import os\n\
                def is_open(fd):\n\
                \x20   try: os.fstat(fd); return True\n\
                \x20   except OSError: return False\n\
                print([fd for fd in range(1024) if is_open(fd)])";
    let session = Session::new(variant);
    assert_eq!(ok(&session.python(open)), "[0, 1, 2]");
    drop(leaked);
}

fn privileges(variant: &Variant) {
    let session = Session::new(variant);
    let status = ok(&session
        .run(Command { program: "cat".into(), args: vec!["/proc/self/status".into()], ..script("") })
        .unwrap());
    let field = |name: &str| {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
        line.trim_start_matches(':').trim().to_owned()
    };
    let is_root = rustix::process::geteuid().is_root();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "SigBlk"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    if is_root || variant.mounts {
        assert_eq!(field("CapBnd"), "0000000000000000");
    }
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()));
    // glibc's own two signals are ignored in all programs it starts.
    assert_eq!(u64::from_str_radix(&field("SigIgn"), 16).unwrap() & 0x7fff_ffff, 0);
    assert_eq!(ok(&session.sh("ulimit -c")), "0");
    assert_eq!(ok(&session.sh("umask")), "0022");
    assert_eq!(ok(&session.sh("ps -o tty= -p $$ 2>/dev/null || echo '?'")), "?");
}

fn environment(variant: &Variant) {
    let session = Session::with(variant, |config, _| {
        let own = [
            ("HF_TOKEN", "hf_x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("SSH_AUTH_SOCK", "/x"),
            ("LANG", "C.UTF-8"),
        ];
        config.user_env = env(&own);
    });
    let env = ok(&session.sh("env"));
    let home = format!("HOME={}", session.root.join("home").display());
    assert!(env.lines().any(|line| line == home) && env.lines().any(|line| line == "LANG=C.UTF-8"), "{env}");
    for name in ["HF_TOKEN", "AWS_", "SSH_"] {
        assert!(!env.contains(name), "{env}");
    }
}

fn refused_names(variant: &Variant) {
    let session = Session::new(variant);
    for name in ["PATH", "LD_PRELOAD", "HF_TOKEN", "GIT_SSH_COMMAND", "BASH_ENV"] {
        let command = Command { env: vec![(name.into(), "x".into())], ..script("true") };
        assert!(matches!(session.run(command), Err(WallError::Environment { .. })), "{name}");
    }
    let command = Command { env: vec![("STEPS".into(), "7".into())], ..script("echo $STEPS") };
    assert_eq!(ok(&session.run(command).unwrap()), "7");
}
