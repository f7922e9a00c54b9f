//! What runs between the host and the commands.
//!
//! Two processes, and where the session has namespaces of its own a third outside of them that waits for the
//! first. The *guard* confines itself and forks; it adopts whatever a command leaves behind and
//! ends all of it when the host or the starter is gone. The *starter* starts the commands. It lies one
//! Landlock domain deeper than the guard, and so do the commands: they can signal the starter, which ends
//! their own session, but never the guard that cleans up after them.

mod acts;
mod channel;
mod confine;
mod filter;
mod guard;
mod hub;
mod limits;
mod mounts;
mod root;
mod space;
mod starter;

use std::io;
use std::process::ExitCode;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit};

use crate::sys::{self, Fork};
use crate::wire::{Confinement, Files, Reply, Request, Stage};
use acts::AbstractSocket;
use channel::Channel;

pub(crate) use confine::{LANDLOCK_ABI, shut_out};
pub(crate) use starter::{GRACE, KILL_WAIT};

/// The supervisor's `main`: what the host's binary runs, before anything else, when it is started with the
/// argument of [`SupervisorCommand`](crate::SupervisorCommand). Its standard input is the socket to the
/// host.
pub fn supervisor_main() -> ExitCode {
    // There is nobody to tell an error to but the host, which sees the socket close.
    if supervise().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn supervise() -> io::Result<()> {
    sys::close_inherited_descriptors()?;
    let mut channel = Channel::from_stdin()?;
    // A signal for the host's process group is not meant for the session's commands.
    sys::block_signals()?;
    rustix::process::setsid()?;
    let host = rustix::process::getppid();
    let Some(Request::Confine(confinement)) = channel.receive()? else {
        return Ok(());
    };

    let socket = AbstractSocket::listen()?;
    let mut listeners = Vec::new();
    if let Some(enforced) = confinement.enforced.as_ref().filter(|enforced| enforced.files.is_own()) {
        match space::enter(enforced.network, &enforced.ports) {
            Ok(found) => listeners = found,
            Err(error) => {
                return channel.send(&Reply::Failed { stage: Stage::Space, reason: error.to_string() });
            }
        }
        if let Some(first) = space::split()? {
            // The host must see the socket close when the session is over.
            drop((channel, socket, listeners));
            return space::wait_for(first);
        }
    }
    if let Err((stage, error)) = prepare(&confinement) {
        return channel.send(&Reply::Failed { stage, reason: error.to_string() });
    }
    let is_own = confinement.enforced.as_ref().is_some_and(|enforced| enforced.files.is_own());
    match sys::fork()? {
        Fork::Parent(starter) => {
            drop((socket, listeners));
            let memory = is_own.then(|| limits::memory(confinement.limits));
            guard::watch(channel, starter, is_scoped(&confinement, host), memory)
        }
        Fork::Child => {
            let acts = match starter_acts(&confinement, host, socket) {
                Ok(acts) => acts,
                Err((stage, reason)) => return channel.send(&Reply::Failed { stage, reason }),
            };
            if let Some(links) = &confinement.hub {
                hub::link(links);
            }
            channel.send_with(&Reply::Ready { acts }, &listeners)?;
            drop(listeners);
            starter::serve(channel, is_own)
        }
    }
}

/// Confines this process and all that it will start.
fn prepare(confinement: &Confinement) -> Result<(), (Stage, io::Error)> {
    let at = |stage| move |error: rustix::io::Errno| (stage, error.into());
    rustix::process::umask(Mode::from_raw_mode(confinement.umask));
    let no_core = Rlimit { current: Some(0), maximum: Some(0) };
    rustix::process::setrlimit(Resource::Core, no_core).map_err(at(Stage::Confinement))?;
    if let Some(current) = confinement.open_files {
        // Programs that wait with `select` break above 1,024 files: commands get what the user has.
        let limit = Rlimit { current: Some(current), ..rustix::process::getrlimit(Resource::Nofile) };
        rustix::process::setrlimit(Resource::Nofile, limit).map_err(at(Stage::Confinement))?;
    }
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).map_err(at(Stage::Confinement))?;
    let made = match confinement.enforced.as_ref().map(|enforced| &enforced.files) {
        Some(Files::Own(own)) => {
            limits::processes(confinement.limits).map_err(|error| (Stage::Space, error))?;
            root::make(own, confinement.limits)
        }
        Some(Files::Mounts(mounts)) => mounts::make(mounts),
        Some(Files::Machine) | None => Ok(()),
    };
    made.map_err(|error| (Stage::Space, error))?;
    // Not earlier: a process that is not dumpable cannot write the id maps of its own user namespace.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Stage::Confinement))?;
    if let Some(enforced) = &confinement.enforced {
        confine::enforce(enforced).map_err(|error| (Stage::Confinement, error))?;
    }
    Ok(())
}

/// Enters the commands' domain and tries what must not be possible in it.
fn starter_acts(
    confinement: &Confinement,
    host: Option<Pid>,
    socket: AbstractSocket,
) -> Result<Vec<crate::Act>, (Stage, String)> {
    let Some(enforced) = &confinement.enforced else {
        return Ok(Vec::new());
    };
    confine::enter_commands_domain().map_err(|error| (Stage::Confinement, error.to_string()))?;
    let acts = acts::try_all(enforced, host, &socket);
    match acts.iter().find(|act| act.outcome == crate::Outcome::Possible) {
        Some(act) => Err((Stage::Acts, format!("it was possible to {}", act.name))),
        None => Ok(acts),
    }
}

/// Whether signals of this process reach its descendants only. Tried, because the guard's last act would
/// otherwise end every process of the user.
fn is_scoped(confinement: &Confinement, host: Option<Pid>) -> bool {
    confinement.enforced.is_some()
        && host.is_some_and(|host| {
            sys::may_signal(host).is_err_and(|error| error.raw_os_error() == Some(libc::EPERM))
        })
}
