//! Namespaces of the session's own: users, mounts, processes, System V memory, host name and, unless commands may
//! reach the machine's, the network.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use rustix::process::{Pid, Signal, WaitOptions, getegid, geteuid, waitpid};
use rustix::thread::UnshareFlags;

use crate::config::Network;
use crate::sys::{self, Fork};

/// Leaves the machine's namespaces. The process itself stays among its processes and ends as the first of the new
/// ones does; that one goes on.
///
/// Gives what listens at the ports of the loopback there.
pub(super) fn enter(network: Network, ports: &[u16]) -> io::Result<Vec<OwnedFd>> {
    let mut flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    if network != Network::Open {
        flags |= UnshareFlags::NEWNET;
    }
    new_user(flags)?;
    if network != Network::Open {
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        sys::bring_up_loopback(socket.as_fd()).map_err(|error| about("bring up the loopback", &error))?;
    }
    let listen = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).map(OwnedFd::from);
    let ports = if network == Network::Open { &[] } else { ports };
    ports
        .iter()
        .map(listen)
        .collect::<io::Result<_>>()
        .map_err(|error| about("listen on the loopback", &error))
}

/// Makes the first process of the session. In the one that was before, it gives that.
pub(super) fn split() -> io::Result<Option<Pid>> {
    match sys::fork()? {
        Fork::Child => {
            // Whoever ends the outer process means this one: nothing of the machine's reaches in here but that.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            Ok(None)
        }
        Fork::Parent(first) => Ok(Some(first)),
    }
}

/// Waits for the end of the session.
pub(super) fn wait_for(first: Pid) -> io::Result<()> {
    loop {
        match waitpid(Some(first), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            waited => return waited.map(drop).map_err(Into::into),
        }
    }
}

/// Enters new namespaces, with them one of users that changes no id.
pub(super) fn new_user(flags: UnshareFlags) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    sys::unshare(flags | UnshareFlags::NEWUSER).map_err(|error| about("make a user namespace", &error))?;
    let write = |file: &str, text: String| {
        fs::write(file, text).map_err(|error| about(&format!("write `{file}`"), &error))
    };
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    write("/proc/self/gid_map", format!("{group} {group} 1"))
}

fn about(what: &str, error: &io::Error) -> io::Error {
    io::Error::other(format!("{what}: {error}"))
}
