use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open, waitid};

use super::channel::Channel;
use super::limits::check_memory;
use crate::sys;
use crate::wire::Reply;

/// How long the last processes of a session are waited for. Killed ones are gone in milliseconds, unless
/// they hang in the kernel, where nothing ends them.
const LAST_WAIT: Duration = Duration::from_millis(1500);

/// How often the session's memory is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

const PAUSE: Duration = Duration::from_millis(2);

/// Rounds of looking for processes that were forked while the others were stopped.
const MAX_STOP_ROUNDS: usize = 100;

/// Waits until the host or the starter is gone, then ends every process of the session.
/// `memory` is what commands may have of that, where it can be seen.
pub(super) fn watch(mut channel: Channel, starter: Pid, scoped: bool, memory: Option<u64>) -> io::Result<()> {
    sys::reap_automatically()?;
    match pidfd_open(starter, PidfdFlags::empty()) {
        Ok(ended) => {
            loop {
                // The starter reads the socket; here it only matters that the host closed it.
                let mut watched = [
                    PollFd::new(&channel, PollFlags::RDHUP),
                    PollFd::from_borrowed_fd(ended.as_fd(), PollFlags::IN),
                ];
                if retry_on_intr(|| poll(&mut watched, memory.is_some().then_some(&LOOK)))? > 0 {
                    break;
                }
                if let Some(note) = memory.and_then(|limit| check_memory(limit, starter)) {
                    channel.send(&Reply::Limit { note })?;
                }
            }
        }
        Err(Errno::SRCH) => {}
        Err(error) => return Err(error.into()),
    }
    end_everything(scoped);
    Ok(())
}

fn end_everything(scoped: bool) {
    let deadline = Instant::now() + LAST_WAIT;
    loop {
        if scoped {
            // The kernel signals all of them under one lock, so a fork bomb cannot outrun it.
            sys::kill_everything_in_reach();
        } else {
            kill_descendants();
        }
        // With SIGCHLD ignored there is never a status to fetch: either children are left or none is.
        let left = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        if left.is_err_and(|errno| errno == Errno::CHILD) || Instant::now() > deadline {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// Kills every descendant one by one: stops them first, until none is left that could fork.
fn kill_descendants() {
    let mut stopped = HashSet::new();
    for _ in 0..MAX_STOP_ROUNDS {
        let found = descendants();
        let new: Vec<Pid> = found.difference(&stopped).copied().collect();
        if new.is_empty() {
            break;
        }
        for pid in new {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::STOP);
        }
        stopped.extend(found);
    }
    for pid in stopped {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn descendants() -> HashSet<Pid> {
    let mut found = HashSet::new();
    let mut open = vec![rustix::process::getpid()];
    while let Some(parent) = open.pop() {
        for child in children(parent) {
            if found.insert(child) {
                open.push(child);
            }
        }
    }
    found
}

fn children(parent: Pid) -> Vec<Pid> {
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
                .collect::<Vec<_>>()
        })
        .collect()
}
