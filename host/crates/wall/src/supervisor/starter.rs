use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, test_kill_process_group};

use super::channel::Channel;
use crate::sys;
use crate::wire::{End, Refusal, Reply, Request, STDIO, Start};

/// How long a group has between SIGTERM and SIGKILL: enough to remove a lock file, not to be waited for.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long a killed group is waited for; only one that hangs in the kernel is still there then.
pub(crate) const KILL_WAIT: Duration = Duration::from_millis(500);

/// How often a group that is being ended is looked at.
const ENDING_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Starts commands for the host until it is gone. `is_own` says that nothing but the session is in reach of it.
pub(super) fn serve(channel: Channel, is_own: bool) -> io::Result<()> {
    // Commands can signal this process, which would be the end of their own session.
    sys::take_signals_calmly()?;
    // Without the guard nothing would end what commands leave behind. The host sees the socket close.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut starter = Starter { channel, running: Vec::new(), is_own };
    loop {
        if starter.wait()? && !starter.obey()? {
            return Ok(());
        }
        starter.report()?;
    }
}

struct Starter {
    channel: Channel,
    running: Vec<Running>,
    is_own: bool,
}

/// A command that was started and whose end was not told yet.
struct Running {
    id: u64,
    child: Child,
    group: Pid,
    ended: OwnedFd,
    status: Option<ExitStatus>,
    /// When the group gets SIGKILL, once the host asked for its end.
    kill_at: Option<Instant>,
}

impl Starter {
    /// Waits for the host or the end of a command. True if the host has something to say.
    fn wait(&self) -> io::Result<bool> {
        let mut watched = vec![PollFd::new(&self.channel, PollFlags::IN)];
        let alive = self.running.iter().filter(|running| running.status.is_none());
        watched.extend(alive.map(|running| PollFd::from_borrowed_fd(running.ended.as_fd(), PollFlags::IN)));
        let is_ending = self.running.iter().any(|running| running.kill_at.is_some());
        let pause = is_ending.then_some(&ENDING_PAUSE);
        retry_on_intr(|| poll(&mut watched, pause))?;
        Ok(watched.first().is_some_and(|channel| !channel.revents().is_empty()))
    }

    /// Does what the host asked for. False if it is gone.
    fn obey(&mut self) -> io::Result<bool> {
        if !self.channel.read()? {
            return Ok(false);
        }
        while let Some(request) = self.channel.next()? {
            match request {
                Request::Run(start) => {
                    let id = start.id;
                    let stdio = self.channel.take_stdio()?;
                    let started = match Running::start(&start, &stdio) {
                        Err(Refusal::Full) if self.is_own => {
                            self.make_room()?;
                            Running::start(&start, &stdio)
                        }
                        started => started,
                    };
                    match started {
                        Ok(running) => self.running.push(running),
                        Err(refusal) => self.channel.send(&Reply::Refused { id, refusal })?,
                    }
                }
                Request::End { id } => {
                    if let Some(running) = self.running.iter_mut().find(|running| running.id == id) {
                        running.end();
                    }
                }
                Request::Confine(_) => return Err(io::Error::other("the wall was to be built twice")),
            }
        }
        Ok(true)
    }

    /// Ends every process of the session but its own, so that a command can be started again.
    fn make_room(&mut self) -> io::Result<()> {
        let until = Instant::now() + GRACE;
        while Instant::now() < until && has_processes() {
            sys::kill_everything_in_reach();
            for running in &mut self.running {
                running.status = running.status.or(running.child.try_wait()?);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let note = "commands had as many processes as they may have: all were ended; the setting `command_limits` \
                    changes how many those are";
        self.channel.send(&Reply::Limit { note: note.to_owned() })
    }

    /// Tells the host which commands have ended.
    fn report(&mut self) -> io::Result<()> {
        let mut index = 0;
        while let Some(running) = self.running.get_mut(index) {
            if let Some(end) = running.look()? {
                let id = running.id;
                self.running.swap_remove(index);
                self.channel.send(&Reply::Exited { id, end })?;
            } else {
                index += 1;
            }
        }
        Ok(())
    }
}

impl Running {
    fn start(start: &Start, stdio: &[OwnedFd; STDIO]) -> Result<Self, Refusal> {
        check_working_folder(&start.cwd)?;
        let program = find_program(start)?;
        let could_not = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => Refusal::Full,
            _ => Refusal::Start { reason: error.to_string() },
        };
        let [stdin, stdout, stderr] = stdio.each_ref().map(OwnedFd::try_clone);
        let (stdin, stdout, stderr) =
            (stdin.map_err(could_not)?, stdout.map_err(could_not)?, stderr.map_err(could_not)?);
        let child = Command::new(&program)
            .arg0(&start.program)
            .args(&start.args)
            .env_clear()
            .envs(start.env.iter().cloned())
            .current_dir(&start.cwd)
            .process_group(0)
            .stdin(Stdio::from(stdin))
            .stdout(Stdio::from(stdout))
            .stderr(Stdio::from(stderr))
            .spawn()
            .map_err(could_not)?;
        let group = Pid::from_child(&child);
        let ended = pidfd_open(group, PidfdFlags::empty()).map_err(|errno| could_not(errno.into()))?;
        Ok(Self { id: start.id, child, group, ended, status: None, kill_at: None })
    }

    fn end(&mut self) {
        if self.kill_at.is_none() {
            self.kill_at = Some(Instant::now() + GRACE);
            // A stopped process takes SIGTERM only when it goes on. That the group is gone is no error.
            let _ = kill_process_group(self.group, Signal::TERM);
            let _ = kill_process_group(self.group, Signal::CONT);
        }
    }

    /// How the command ended, once it did and, if it was told to, its group with it.
    fn look(&mut self) -> io::Result<Option<End>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        let Some(kill_at) = self.kill_at else {
            return Ok(self.status.and_then(end_of));
        };
        if self.status.is_some() && test_kill_process_group(self.group) == Err(Errno::SRCH) {
            return Ok(self.status.and_then(end_of));
        }
        let now = Instant::now();
        if now >= kill_at {
            let _ = kill_process_group(self.group, Signal::KILL);
        }
        let given_up = now >= kill_at + KILL_WAIT;
        Ok(self.status.filter(|_| given_up).and_then(end_of))
    }
}

/// Whether there is more in the session than its first process and this one.
fn has_processes() -> bool {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count() > 2
}

fn end_of(status: ExitStatus) -> Option<End> {
    status.code().map(End::Code).or_else(|| status.signal().map(End::Signal))
}

fn check_working_folder(cwd: &Path) -> Result<(), Refusal> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let reason = match rustix::fs::open(cwd, flags, Mode::empty()) {
        Ok(_) => return Ok(()),
        Err(Errno::NOENT) => "it does not exist".into(),
        Err(Errno::NOTDIR) => "it is not a folder".into(),
        Err(Errno::ACCESS) => "commands cannot read it; `--add-dir` adds a folder".into(),
        Err(errno) => io::Error::from(errno).to_string(),
    };
    Err(Refusal::WorkingFolder { reason })
}

/// The file to start: the first of that name on the command's `PATH`, or the path that was given.
fn find_program(start: &Start) -> Result<PathBuf, Refusal> {
    if start.program.contains('/') {
        let path = start.cwd.join(&start.program);
        return if path.is_file() { Ok(path) } else { Err(Refusal::ProgramMissing { searched: None }) };
    }
    let path = start.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
    let path = path.unwrap_or(OsStr::new(""));
    let found = std::env::split_paths(path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(&start.program))
        .find(|file| file.is_file() && rustix::fs::access(file, Access::EXEC_OK).is_ok());
    found
        .filter(|_| !start.program.is_empty())
        .ok_or_else(|| Refusal::ProgramMissing { searched: Some(path.to_string_lossy().into_owned()) })
}
