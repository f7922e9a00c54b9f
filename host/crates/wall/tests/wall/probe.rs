//! What training programs do at their start, and what a session leaves running.

use std::fs;

use crate::roles::Test;
use crate::session::{Session, Variant, ok, sh};

pub(crate) const TESTS: &[Test] = &[
    ("what_a_training_does_at_its_start_works", training),
    ("a_server_of_an_earlier_call_is_still_there", server),
    ("odd_surroundings_hold_nothing_up", odd_surroundings),
];

const TRAINING: &str = r#"
import ctypes, mmap, multiprocessing as mp, os, pty, resource
from multiprocessing import shared_memory

def work(queue, value, lock):
    with lock: value.value += 1
    queue.put(os.getpid())

def main():
    open('/dev/null', 'w').write('x')
    libc = ctypes.CDLL(None, use_errno=True)
    libc.sem_open.restype = ctypes.c_void_p
    assert libc.sem_open(b'/ml-intern-probe', os.O_CREAT | os.O_EXCL, 0o600, 1)
    assert libc.sem_unlink(b'/ml-intern-probe') == 0
    leader, follower = pty.openpty(); os.write(follower, b'x'); assert os.ttyname(follower)
    memory = os.memfd_create('probe'); os.ftruncate(memory, 1 << 20); mmap.mmap(memory, 1 << 20)
    # As CUDA reserves address space: 8 TiB, nothing of it used; 0x4022 is private, anonymous, not reserved.
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    assert libc.mmap(None, 8 << 40, 0, 0x4022, -1, 0) != ctypes.c_void_p(-1).value
    for limit in (resource.RLIMIT_CPU, resource.RLIMIT_AS, resource.RLIMIT_FSIZE):
        assert resource.getrlimit(limit)[0] == resource.RLIM_INFINITY, limit
    # 5 GB, most of it a hole.
    with open('large', 'wb') as file: file.seek(5 * 10**9); file.write(b'x')
    assert os.stat('large').st_size > 5 * 10**9; os.remove('large')
    os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1)
    for how in ('fork', 'spawn', 'forkserver'):
        context = mp.get_context(how)
        queue, value, guard = context.Queue(), context.Value('i', 0), context.Lock()
        many = [context.Process(target=work, args=(queue, value, guard)) for _ in range(3)]
        [one.start() for one in many]; [queue.get(timeout=60) for _ in many]; [one.join() for one in many]
        assert value.value == 3, how
    block = shared_memory.SharedMemory(create=True, size=1 << 20); block.close(); block.unlink()
    print('all of it')

if __name__ == '__main__': main()
"#;

fn training(variant: &Variant) {
    let session = Session::new(variant);
    fs::write(session.work().join("probe.py"), TRAINING).unwrap();
    // From an environment in the home folder, as people keep them.
    ok(&session.sh("python3 -m venv --without-pip $HOME/env"));
    assert_eq!(ok(&session.sh("$HOME/env/bin/python probe.py")), "all of it");
    ok(&session.sh("$HOME/env/bin/python -c 'import sys; assert sys.prefix != sys.base_prefix, sys.prefix'"));
}

fn server(variant: &Variant) {
    if !variant.full {
        return;
    }
    let session = Session::new(variant);
    let serve = "setsid python3 -m http.server 8123 --bind 127.0.0.1 >log 2>&1 & \
                 for i in $(seq 100); do python3 -c 'import socket; socket.create_connection((\"127.0.0.1\", 8123))' 2>/dev/null && break; sleep 0.1; done";
    ok(&session.sh(serve));
    let ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8123/log').status)";
    assert_eq!(ok(&session.python(ask)), "200");
}

fn odd_surroundings(variant: &Variant) {
    let session = Session::with(variant, |config, root| {
        let work = root.join("work");
        assert!(std::process::Command::new("mkfifo").arg(work.join("pipe")).status().unwrap().success());
        std::os::unix::fs::symlink("/dev/zero", work.join("AGENTS.md")).unwrap();
        std::os::unix::fs::symlink("nowhere", work.join(".envrc")).unwrap();
        std::os::unix::net::UnixListener::bind(work.join("sock")).unwrap();
        std::os::unix::fs::symlink("work", root.join("linked")).unwrap();
        config.workspace = root.join("linked");
        let path = config.user_env.iter_mut().find(|(name, _)| name == "PATH").unwrap();
        let mut gone = std::ffi::OsString::from("/nowhere/bin:");
        gone.push(&path.1);
        path.1 = gone;
    });
    ok(&session.sh("ls -la && test -p pipe && test -S sock"));
    let closed = sh("exec >&- 2>&- <&-; sleep 0.1; exit 3");
    assert_eq!(session.run(closed).unwrap().code, Some(3));
    let bytes = session.sh("printf '\\377\\376ok\\000'");
    assert_eq!(bytes.stdout.head, b"\xff\xfeok\0");
}
