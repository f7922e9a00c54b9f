//! A piece of work in a process of its own that has memory and time within limits and nothing else: no
//! files, no network, no other process. What a stranger's file makes it do costs that process.

use std::io::{self, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process_group, setrlimit,
    waitid,
};

use crate::config::SupervisorCommand;
use crate::job_error::JobError;
use crate::{supervisor, sys};

/// Bytes before the input: the limits of memory and of CPU time.
const HEADER_BYTES: usize = 16;

/// First byte of an answer.
const DONE: u8 = 0;
const REFUSED: u8 = 1;
const NOT_BEGUN: u8 = 2;

/// How long a process that has closed its output may take to end.
const GRACE: Duration = Duration::from_secs(5);

/// What such a process is started with, and what it may use.
#[derive(Clone, Debug)]
pub struct Job {
    /// This program again, with the argument that makes it call [`job_main`] first.
    pub command: SupervisorCommand,
    /// Bytes it may write to, in all.
    pub memory_bytes: u64,
    /// Time it may compute, over all its threads.
    pub cpu_time: Duration,
    /// Time it may take.
    pub wall_time: Duration,
    /// Bytes it may answer.
    pub answer_bytes: u64,
}

impl Job {
    /// Hands the input over and waits for the answer. Blocks.
    ///
    /// # Errors
    /// When the process cannot be started, refuses, or meets one of its limits.
    pub fn run(&self, input: &[u8]) -> Result<Vec<u8>, JobError> {
        self.run_until(input, &JobEnd::default())
    }

    /// The same, until somebody ends it.
    ///
    /// # Errors
    /// As [`Job::run`].
    pub fn run_until(&self, input: &[u8], end: &JobEnd) -> Result<Vec<u8>, JobError> {
        let mut child = self.start().map_err(JobError::Start)?;
        end.began(&child);
        let answer = self.exchange(&mut child, input);
        if let Ok(Some(_)) = &answer {
            // Its output is closed. How it ends says whether that was all of it.
            wait_for_end(&child);
        }
        // Nothing of its group is left. It is still known to the kernel, so no other has its id.
        kill(&child);
        end.is_over();
        let status = child.wait().map_err(JobError::Start)?;
        let answer = answer.map_err(JobError::Start)?.ok_or(JobError::Time(self.wall_time))?;
        match answer.split_first() {
            _ if self.is_too_large(&answer) => Err(JobError::TooLarge { bytes: self.answer_bytes }),
            Some((&DONE, rest)) if status.success() => Ok(rest.to_vec()),
            Some((&REFUSED, reason)) if status.success() => {
                Err(JobError::Refused(String::from_utf8_lossy(reason).into_owned()))
            }
            Some((&NOT_BEGUN, reason)) if status.success() => {
                Err(JobError::Start(io::Error::other(String::from_utf8_lossy(reason).into_owned())))
            }
            _ if status.signal() == Some(Signal::XCPU.as_raw()) => Err(JobError::Cpu(self.cpu_time)),
            _ => Err(JobError::Memory { bytes: self.memory_bytes, status }),
        }
    }

    /// With its first byte, which says what it is.
    fn is_too_large(&self, answer: &[u8]) -> bool {
        answer.len() as u64 > self.answer_bytes + 1
    }

    fn start(&self) -> io::Result<Child> {
        Command::new(&self.command.program)
            .args(&self.command.args)
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    }

    /// Writes the input and reads the answer. None: it took too long.
    fn exchange(&self, child: &mut Child, input: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("it has no input or output"));
        };
        let mut header = self.memory_bytes.to_le_bytes().to_vec();
        header.extend(self.cpu_time.as_secs().max(1).to_le_bytes());
        let (sender, receiver) = mpsc::sync_channel(1);
        let limit = self.answer_bytes + 2;
        std::thread::scope(|scope| {
            let thread = || std::thread::Builder::new().name("job".to_owned());
            // One that died reads nothing; its end says why.
            let write = move || drop(stdin.write_all(&header).and_then(|()| stdin.write_all(input)));
            let read = move || {
                let mut answer = Vec::new();
                let done = stdout.take(limit).read_to_end(&mut answer).map(|_| answer);
                // Nobody waits any more if it took too long.
                let _ = sender.send(done);
            };
            let started =
                thread().spawn_scoped(scope, write).and_then(|_| thread().spawn_scoped(scope, read));
            let answer = match started {
                Ok(_) => receiver.recv_timeout(self.wall_time).ok().transpose(),
                Err(error) => Err(error),
            };
            if !matches!(&answer, Ok(Some(answer)) if !self.is_too_large(answer)) {
                // The threads end with its pipes.
                kill(child);
            }
            answer
        })
    }
}

/// Ends a job from another thread: its process is killed at once.
#[derive(Debug, Default)]
pub struct JobEnd(Arc<Mutex<Stage>>);

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Waits,
    Runs(Pid),
    /// It is over, or is to be: nothing has its id any more, or may begin.
    Over,
}

impl JobEnd {
    /// The same one, for the thread that runs the job.
    #[must_use]
    pub fn of_job(&self) -> Self {
        Self(self.0.clone())
    }

    /// Ends the job, also one that did not begin.
    pub fn end(&self) {
        if let Stage::Runs(group) = std::mem::replace(&mut *self.stage(), Stage::Over) {
            // Nothing of it may be left to kill.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    fn began(&self, child: &Child) {
        let mut stage = self.stage();
        match *stage {
            Stage::Over => kill(child),
            _ => *stage = Stage::Runs(Pid::from_child(child)),
        }
    }

    /// Before the process is forgotten and another may have its id.
    fn is_over(&self) {
        *self.stage() = Stage::Over;
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits for the end of a process without forgetting it.
fn wait_for_end(child: &Child) {
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    let until = Instant::now() + GRACE;
    while Instant::now() < until && !matches!(waitid(WaitId::Pid(Pid::from_child(child)), ended), Ok(Some(_)))
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn kill(child: &Child) {
    // Nothing of it may be left to kill.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
}

/// The `main` of a process that [`Job::run`] starts. `prepare` is done before the process is confined,
/// `work` after it, on bytes that nobody vouches for.
pub fn job_main<T>(
    prepare: impl FnOnce() -> Result<T, String>,
    work: impl FnOnce(T, &[u8]) -> Result<Vec<u8>, String>,
) -> ExitCode {
    let (first, rest) = match ready(prepare) {
        Err(reason) => (NOT_BEGUN, reason.into_bytes()),
        Ok((prepared, input)) => match work(prepared, &input) {
            Ok(answer) => (DONE, answer),
            Err(reason) => (REFUSED, reason.into_bytes()),
        },
    };
    let mut stdout = io::stdout().lock();
    let told =
        stdout.write_all(&[first]).and_then(|()| stdout.write_all(&rest)).and_then(|()| stdout.flush());
    if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Confines this process and takes the bytes.
fn ready<T>(prepare: impl FnOnce() -> Result<T, String>) -> Result<(T, Vec<u8>), String> {
    let told = |error: io::Error| format!("its process cannot be confined: {error}");
    sys::close_inherited_descriptors().map_err(told)?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| told(e.into()))?;
    let mut stdin = io::stdin().lock();
    let mut header = [0; HEADER_BYTES];
    stdin.read_exact(&mut header).map_err(told)?;
    let (memory, cpu) = header.split_at(HEADER_BYTES / 2);
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let prepared = prepare()?;
    confine(number(memory), number(cpu)).map_err(told)?;
    let mut input = Vec::new();
    match stdin.read_to_end(&mut input) {
        // As any work that has no more memory.
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => std::process::abort(),
        read => read.map_err(told)?,
    };
    Ok((prepared, input))
}

/// From here on this process has memory and time, and nothing else where the kernel can hold that.
fn confine(memory_bytes: u64, cpu_seconds: u64) -> io::Result<()> {
    let limit = |resource, current, maximum| {
        setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) })
    };
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    // Memory that can be written, not address space: an engine reserves much more of that than it uses.
    limit(Resource::Data, memory_bytes, memory_bytes)?;
    limit(Resource::Cpu, cpu_seconds, cpu_seconds + 1)?;
    if sys::landlock_abi() >= supervisor::LANDLOCK_ABI && sys::has_seccomp() {
        supervisor::shut_out()?;
    }
    Ok(())
}
