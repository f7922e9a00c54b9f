//! System calls that commands do not get.

use std::collections::BTreeMap;
use std::io;

use libc::c_long;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use crate::config::Network;

type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// Refused whatever the arguments: other processes' memory, the kernel's keys and programs, mounts and
/// namespaces, the machine's state.
const REFUSED: &[c_long] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    OPEN_TREE_ATTR,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_lookup_dcookie,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
];

/// The same number everywhere, and not in `libc` yet.
const OPEN_TREE_ATTR: c_long = 467;

/// Missing in `libc` for one of its C libraries.
const KEXEC_FILE_LOAD: c_long = if cfg!(target_arch = "x86_64") { 320 } else { 294 };

/// Flags of `clone` that make a namespace. (`CLONE_NEWTIME` is not one of them: `clone` reads that bit as
/// part of the exit signal.)
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];

/// Requests of `ioctl` that write into a terminal's input, or change what handles its bytes.
const TERMINAL_REQUESTS: [u64; 3] = [TIOCSTI, TIOCLINUX, TIOCSETD];
const TIOCSTI: u64 = 0x5412;
const TIOCLINUX: u64 = 0x541c;
const TIOCSETD: u64 = 0x5423;

/// Calls that act on any process of the user whose id an argument names, and which argument that is. With 0
/// they act on the caller, as programs use them.
const OTHER_PROCESSES: [(c_long, u8); 3] =
    [(libc::SYS_prlimit64, 0), (libc::SYS_setpriority, 1), (libc::SYS_ioprio_set, 1)];

/// Calls that give a file a mode, and which argument the mode is.
const MODES: &[(c_long, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
];

/// Calls that may make a file, and which arguments the flags and the mode are.
const OPENINGS: &[(c_long, u8, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
    (libc::SYS_openat, 2, 3),
];

/// The same number everywhere, and not in `libc` for all of its C libraries.
const FCHMODAT2: c_long = 452;

/// Modes by which a program runs with its owner's or its group's rights. One that a command left in the
/// workspace would do so for whoever starts it outside.
///
/// Folders pay for this: their setgid bit, which hands the group on, cannot be set either, for no filter
/// sees what a path names. New folders still get it from the folder around them.
const SET_ID: [u32; 2] = [libc::S_ISUID, libc::S_ISGID];

/// Flags of an opening that make the kernel look at the mode. (`O_TMPFILE` without the bit of
/// `O_DIRECTORY`.)
const MAKES_A_FILE: [i32; 2] = [libc::O_CREAT, libc::O_TMPFILE & !libc::O_DIRECTORY];

/// Installs the filters for this process and all that it starts. `own` says that it has a network of its own.
pub(super) fn install(network: Network, own: bool) -> io::Result<()> {
    for program in programs(network, own)? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// One program for each error that is answered.
fn programs(network: Network, own: bool) -> io::Result<Vec<BpfProgram>> {
    let mut programs = vec![compile(refused()?, libc::EPERM)?];
    // Their flags and modes lie in memory, where no filter can read them; programs then use `clone` and
    // `openat`.
    let unknown = [libc::SYS_clone3, libc::SYS_openat2].map(|call| (call, Vec::new()));
    programs.push(compile(Calls::from(unknown), libc::ENOSYS)?);
    programs.push(compile(other_families(network)?, libc::EAFNOSUPPORT)?);
    if network != Network::Open && !own {
        let internet = [libc::AF_INET, libc::AF_INET6];
        let rules =
            internet.iter().map(|family| rule(vec![family_is(*family)?])).collect::<io::Result<_>>()?;
        programs.push(compile(Calls::from([(libc::SYS_socket, rules)]), libc::EACCES)?);
    }
    #[cfg(target_arch = "x86_64")]
    programs.push(no_x32());
    Ok(programs)
}

fn refused() -> io::Result<Calls> {
    let mut calls: Calls = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    let namespaces = NAMESPACES.iter().map(|flag| {
        let flag = u64::from(flag.unsigned_abs());
        rule(vec![condition(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?])
    });
    calls.insert(libc::SYS_clone, namespaces.collect::<io::Result<_>>()?);
    let requests = TERMINAL_REQUESTS
        .iter()
        // The kernel looks at 32 bits of the request; a comparison of 64 could be dodged by the others.
        .map(|request| rule(vec![condition(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, *request)?]));
    calls.insert(libc::SYS_ioctl, requests.collect::<io::Result<_>>()?);
    for (call, argument) in OTHER_PROCESSES {
        let is_named = condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
        calls.insert(call, vec![rule(vec![is_named])?]);
    }
    calls.extend(set_id_modes()?);
    Ok(calls)
}

/// What would make a program that runs with another's rights.
fn set_id_modes() -> io::Result<Calls> {
    let mut calls = Calls::new();
    for (call, mode) in MODES {
        let rules = SET_ID.iter().map(|bit| rule(vec![has_bit(*mode, *bit)?]));
        calls.insert(*call, rules.collect::<io::Result<_>>()?);
    }
    for (call, flags, mode) in OPENINGS {
        let pairs = MAKES_A_FILE.iter().flat_map(|flag| SET_ID.map(|bit| (flag.unsigned_abs(), bit)));
        let rules = pairs.map(|(flag, bit)| rule(vec![has_bit(*flags, flag)?, has_bit(*mode, bit)?]));
        calls.insert(*call, rules.collect::<io::Result<_>>()?);
    }
    Ok(calls)
}

fn has_bit(argument: u8, bit: u32) -> io::Result<SeccompCondition> {
    let bit = u64::from(bit);
    condition(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bit), bit)
}

/// Families of sockets beside path sockets and the internet's. With the network open, libc asks the kernel
/// for addresses and interfaces over netlink's first protocol.
fn other_families(network: Network) -> io::Result<Calls> {
    let mut known = vec![libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
    if network == Network::Open {
        known.push(libc::AF_NETLINK);
    }
    let is_not =
        |family: &i32| condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family_value(*family));
    let mut rules = vec![rule(known.iter().map(is_not).collect::<io::Result<_>>()?)?];
    if network == Network::Open {
        let other_protocol = condition(2, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
        rules.push(rule(vec![family_is(libc::AF_NETLINK)?, other_protocol])?);
    }
    Ok(Calls::from([(libc::SYS_socket, rules)]))
}

fn family_is(family: i32) -> io::Result<SeccompCondition> {
    condition(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, family_value(family))
}

fn family_value(family: i32) -> u64 {
    u64::from(family.unsigned_abs())
}

fn condition(
    argument: u8,
    length: SeccompCmpArgLen,
    operator: SeccompCmpOp,
    value: u64,
) -> io::Result<SeccompCondition> {
    SeccompCondition::new(argument, length, operator, value).map_err(io::Error::other)
}

fn rule(conditions: Vec<SeccompCondition>) -> io::Result<SeccompRule> {
    SeccompRule::new(conditions).map_err(io::Error::other)
}

/// A program that answers `calls` with `errno`, lets all others pass, and ends a process that calls the
/// kernel as another architecture would.
fn compile(calls: Calls, errno: i32) -> io::Result<BpfProgram> {
    let architecture = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let answer = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(calls, SeccompAction::Allow, answer, architecture)
        .and_then(TryInto::try_into)
        .map_err(io::Error::other)
}

/// The x32 interface has the architecture of x86-64 and numbers of its own, which the other filters would
/// let pass.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> BpfProgram {
    const X32_BIT: u32 = 0x4000_0000;
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_NOT_BELOW: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let step = |code, jt, jf, k| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_NOT_BELOW, 0, 1, X32_BIT),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
