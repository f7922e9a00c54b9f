#![allow(unsafe_code, reason = "system calls that no dependency wraps safely; nothing else is here")]

//! The crate's unsafe code: one small function per system call.

use std::io;

use rustix::process::Pid;

/// What [`fork`] returned to.
pub(crate) enum Fork {
    Parent(Pid),
    Child,
}

/// Forks this process, which must have one thread only: in the child of a process with several, any lock
/// may be held for ever.
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: the supervisor never starts a thread, so the child is a whole copy that may go on as usual.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        Some(child) if pid > 0 => Ok(Fork::Parent(child)),
        Some(_) => Err(io::Error::last_os_error()),
        None => Ok(Fork::Child),
    }
}

/// Closes every descriptor from 3 on. For the first moment of a process, when it owns none of them.
pub(crate) fn close_inherited_descriptors() -> io::Result<()> {
    // SAFETY: called before this process opened anything, so no value owns one of the descriptors.
    let result = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
    check(result).map(drop)
}

/// Blocks every signal for this process.
pub(crate) fn block_signals() -> io::Result<()> {
    // SAFETY: the set is initialised by `sigfillset` before it is read, and no old mask is asked for.
    let result = unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    check(result.into()).map(drop)
}

/// Blocks no signal any more, and does nothing when one of those arrives that a program is asked to end,
/// stop or wake up with. Unlike a mask or an ignored signal, that is not handed on to programs it starts.
pub(crate) fn take_signals_calmly() -> io::Result<()> {
    const SIGNALS: [libc::c_int; 14] = [
        libc::SIGHUP,
        libc::SIGINT,
        libc::SIGQUIT,
        libc::SIGTERM,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGTSTP,
        libc::SIGTTIN,
        libc::SIGTTOU,
        libc::SIGXCPU,
    ];
    extern "C" fn nothing(_signal: libc::c_int) {}
    let handler = nothing as extern "C" fn(libc::c_int);
    // SAFETY: the handler does nothing, which is allowed at any time; the set is initialised by
    // `sigemptyset` before it is read.
    let result = unsafe {
        for signal in SIGNALS {
            libc::signal(signal, handler as libc::sighandler_t);
        }
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, std::ptr::null_mut())
    };
    check(result.into()).map(drop)
}

/// Lets the kernel reap children of this process, adopted ones too.
pub(crate) fn reap_automatically() -> io::Result<()> {
    // SAFETY: `SIG_IGN` installs no handler.
    let previous = unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    if previous == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends SIGKILL to every process that this one may signal, itself excepted.
///
/// Only for a process whose Landlock domain is scoped for signals: then it is its descendants.
pub(crate) fn kill_everything_in_reach() {
    // SAFETY: `kill` reads no memory. That nothing is in reach is no error here.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Asks whether `pid` could be signalled, without signalling it.
pub(crate) fn may_signal(pid: Pid) -> io::Result<()> {
    // SAFETY: `kill` reads no memory, and signal 0 is never delivered.
    let result = unsafe { libc::kill(pid.as_raw_nonzero().get(), 0) };
    check(result.into()).map(drop)
}

/// Detaches this process from namespaces of its parent. `flags` must not contain `CLONE_FILES` or the like.
pub(crate) fn unshare(flags: rustix::thread::UnshareFlags) -> io::Result<()> {
    // SAFETY: only called with namespace flags, which leave descriptors and memory as they are.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// Makes the mount at `tree` read-only, with all that is mounted in it.
pub(crate) fn make_read_only(tree: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let attributes =
        libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    // SAFETY: the descriptor is open, and path and attributes are valid for the call, which only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result).map(drop)
}

/// Brings up the loopback of this network namespace, to which `socket` belongs.
pub(crate) fn bring_up_loopback(socket: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    // SAFETY: an all-zero request is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open, and the call reads one request from a valid address.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(result.into()).map(drop)
}

/// Attaches to `pid` as a tracer would.
pub(crate) fn trace(pid: Pid) -> io::Result<()> {
    let pid = libc::c_long::from(pid.as_raw_nonzero().get());
    // SAFETY: PTRACE_SEIZE takes no pointers, and stops nothing.
    let result = unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, pid, 0, 0) };
    check(result).map(drop)
}

/// Asks for the session's keyring.
pub(crate) fn session_keyring() -> io::Result<()> {
    let session_keyring: libc::c_long = libc::KEY_SPEC_SESSION_KEYRING.into();
    // SAFETY: KEYCTL_GET_KEYRING_ID takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_GET_KEYRING_ID, session_keyring, 0) };
    check(result).map(drop)
}

/// Asks for an io_uring with parameters that the kernel refuses after the filter let it pass.
pub(crate) fn io_uring() -> io::Result<()> {
    // SAFETY: a null parameter block makes the kernel return EFAULT without writing anything.
    let result = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null_mut::<libc::c_void>()) };
    check(result).map(drop)
}

/// Tries to push a byte into the input of `terminal`.
pub(crate) fn push_input(terminal: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let byte = 0u8;
    // SAFETY: the descriptor is open and TIOCSTI reads one byte from a valid address.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSTI, &raw const byte) };
    check(result.into()).map(drop)
}

/// The Landlock version of the running kernel, 0 where there is none.
pub(crate) fn landlock_abi() -> i64 {
    const VERSION_FLAG: u32 = 1;
    // SAFETY: with the version flag the call takes no attributes and creates nothing.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            VERSION_FLAG,
        )
    };
    version.max(0)
}

/// Whether seccomp filters that answer with an error can be installed.
pub(crate) fn has_seccomp() -> bool {
    let action: u32 = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the call reads one u32 from a valid address.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) };
    result == 0
}

/// Gives this process an environment of its own, with what `kept` makes of each value, and overwrites with zeros the
/// block in which it was handed over, at `start..end`, which must be this process's own as the kernel reports it.
///
/// The process must have one thread only.
#[expect(clippy::disallowed_methods, reason = "it is not looked at, only moved")]
pub(crate) fn replace_environment(
    start: usize,
    end: usize,
    kept: impl Fn(&std::ffi::OsStr, std::ffi::OsString) -> std::ffi::OsString,
) {
    let length = end.saturating_sub(start);
    if start == 0 || length == 0 {
        return;
    }
    for (name, value) in std::env::vars_os() {
        let value = kept(&name, value);
        // SAFETY: with one thread nobody reads the environment meanwhile.
        unsafe { std::env::set_var(name, value) };
    }
    // SAFETY: the kernel mapped the block readable and writable at exec and libc never unmaps it. With one
    // thread nobody reads or writes it meanwhile, and no Rust reference into it is alive. What of the environment
    // still points into it (names that are there twice, lines that are no variables) is an empty line from now on.
    unsafe { std::slice::from_raw_parts_mut(start as *mut u8, length) }.fill(0);
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
