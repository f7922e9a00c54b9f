//! The forbidden acts, tried from where commands run.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen, socket_with,
};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

use crate::config::{Act, Network, Outcome};
use crate::sys;
use crate::wire::Enforced;

/// A listening socket from before the confinement, as another program of the user might have one.
pub(super) struct AbstractSocket {
    _listening: OwnedFd,
    address: SocketAddrUnix,
}

impl AbstractSocket {
    pub(super) fn listen() -> io::Result<Self> {
        let listening = local_socket()?;
        // Without a name the kernel gives it an abstract one that is free.
        bind(&listening, &SocketAddrUnix::new_unnamed())?;
        listen(&listening, 1)?;
        let address = getsockname(&listening)?.try_into()?;
        Ok(Self { _listening: listening, address })
    }
}

/// Tries every act once.
pub(super) fn try_all(enforced: &Enforced, host: Option<Pid>, socket: &AbstractSocket) -> Vec<Act> {
    let is_own = enforced.files.is_own();
    let mut acts = Vec::new();
    let mut tried = |name: String, result: io::Result<()>| {
        acts.push(Act { name, outcome: outcome(result, is_own) });
    };

    for folder in &enforced.outside {
        tried(format!("list `{}`", folder.display()), fs::read_dir(folder).map(drop));
        tried(format!("make a file in `{}`", folder.display()), make_file(folder));
    }
    if let Some(host) = host {
        let environment = format!("/proc/{host}/environ");
        tried("read the host's environment".into(), fs::read(environment).map(drop));
        tried("signal the host".into(), sys::may_signal(host));
        tried("attach to the host as a debugger".into(), sys::trace(host));
    }
    tried("connect to an abstract socket outside".into(), reach(socket));
    if is_own {
        tried("find other processes of this machine".into(), find_processes());
        tried("write the kernel's settings".into(), write_setting());
    }
    if is_own && enforced.network != Network::Open {
        tried("send to an address outside".into(), send_outside());
        tried("find a network besides the loopback".into(), find_network());
    } else if enforced.network != Network::Open {
        tried("make a TCP socket".into(), internet_socket(SocketType::STREAM));
        tried("make a UDP socket".into(), internet_socket(SocketType::DGRAM));
    }
    let mounted = mount("tmpfs", "/proc", "tmpfs", MountFlags::empty(), None);
    tried("mount a file system".into(), mounted.map_err(Into::into));
    tried("make a user namespace".into(), sys::unshare(UnshareFlags::NEWUSER));
    tried("use the kernel's keyring".into(), sys::session_keyring());
    tried("use io_uring".into(), filtered(sys::io_uring()));
    tried("push input into a terminal".into(), filtered(sys::push_input(rustix::stdio::stdin())));
    // Without a name it fails in any case.
    let set_id = rustix::fs::chmod("", Mode::SUID | Mode::RWXU).map_err(io::Error::from);
    tried("let a program run with its owner's rights".into(), filtered(set_id));
    tried("hold a capability".into(), hold_capability());
    acts
}

/// `is_own` says that what is not there was left out.
fn outcome(result: io::Result<()>, is_own: bool) -> Outcome {
    match result {
        Ok(()) => Outcome::Possible,
        Err(error) if !is_own && error.kind() == io::ErrorKind::NotFound => {
            Outcome::Untried(error.to_string())
        }
        Err(error) => Outcome::Refused(error.to_string()),
    }
}

fn make_file(folder: &Path) -> io::Result<()> {
    let path = folder.join(format!(".ml-intern-wall-{}", rustix::process::getpid()));
    OpenOptions::new().write(true).create_new(true).open(&path)?;
    fs::remove_file(path)
}

fn local_socket() -> rustix::io::Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

fn reach(socket: &AbstractSocket) -> io::Result<()> {
    Ok(connect(local_socket()?, &socket.address)?)
}

/// The session's own are the guard and this process.
fn find_processes() -> io::Result<()> {
    let entries = fs::read_dir("/proc")?.flatten();
    let processes = entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok());
    if processes.count() > 2 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ESRCH)) }
}

/// One that changes nothing: how it would be opened.
fn write_setting() -> io::Result<()> {
    OpenOptions::new().write(true).open("/proc/sys/kernel/hostname").map(drop)
}

/// To an address of documentation, which nobody has.
fn send_outside() -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    socket.send_to(b"?", "192.0.2.1:9").map(drop)
}

fn find_network() -> io::Result<()> {
    let text = fs::read_to_string("/proc/net/dev")?;
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim()));
    if names.clone().any(|name| name != "lo") {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(libc::ENODEV))
    }
}

fn internet_socket(kind: SocketType) -> io::Result<()> {
    Ok(socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None).map(drop)?)
}

/// These calls fail in any case; only the filter's own error says that they did not reach the kernel.
fn filtered(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Err(error),
        _ => Ok(()),
    }
}

fn hold_capability() -> io::Result<()> {
    let sets = rustix::thread::capabilities(None)?;
    if (sets.effective | sets.permitted | sets.inheritable).is_empty() {
        Err(io::Error::from_raw_os_error(libc::EPERM))
    } else {
        Ok(())
    }
}
