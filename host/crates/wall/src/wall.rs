use std::ffi::OsString;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Mode as FileMode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::capture::Capture;
use crate::command::{Command, Exit, MAX_OUTPUT_KEPT};
use crate::config::{Grade, Mode, Network, Report, Space, WallConfig};
use crate::connection::{ConnectError, Connection, Running};
use crate::environment;
use crate::error::WallError;
use crate::explain::{View, explain};
use crate::grade::{has_user_namespaces, residuals, unavailable, why_unavailable};
use crate::host::{user_open_files, user_umask};
use crate::rights::Rights;
use crate::sealed::Sealed;
use crate::space;
use crate::supervisor::{GRACE, KILL_WAIT};
use crate::tools::hub_folder;
use crate::wire::{Confinement, End, Enforced, Files, HubLinks, Refusal, Reply, STDIO, Stage, Start};

/// How much longer than its grace the end of a command may take before its supervisor is given up.
const END_MARGIN: Duration = Duration::from_secs(3);

/// Most sentences on what appeared.
const MAX_APPEARED: usize = 8;

/// The wall of one session. Cheap to make; the supervisor starts with the first command.
///
/// Dropped, it ends every process of the session in the background; [`Wall::shutdown`] waits for that.
pub struct Wall {
    config: WallConfig,
    session: Mutex<Option<Arc<Session>>>,
}

impl std::fmt::Debug for Wall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds the user's whole environment.
        f.debug_struct("Wall").field("mode", &self.config.mode).finish_non_exhaustive()
    }
}

/// A supervisor and what was decided when it was started.
struct Session {
    connection: Connection,
    rights: Arc<Rights>,
    space: Space,
    files: Files,
    /// Why commands see more of the machine than was wanted.
    lost: Vec<String>,
    sealed: std::sync::Mutex<Sealed>,
    env: Vec<(OsString, OsString)>,
}

impl Wall {
    pub fn new(config: WallConfig) -> Self {
        Self { config, session: Mutex::new(None) }
    }

    /// How strong the wall will be, from what the kernel says that it has. Starts nothing.
    pub fn grade(&self) -> Grade {
        match self.config.mode {
            Mode::Off => Grade::None,
            Mode::External => Grade::External,
            Mode::Workspace | Mode::ReadOnly => match why_unavailable() {
                None if self.config.space == Space::Own && has_user_namespaces() => Grade::Full,
                None => Grade::Partial,
                Some(_) => Grade::None,
            },
        }
    }

    /// Whether commands may have connections that this program knows nothing of.
    #[must_use]
    pub fn reaches_network(&self) -> bool {
        !self.config.mode.is_confined() || self.config.network == Network::Open
    }

    /// Whether a command got something from outside this machine by what the host serves them.
    #[must_use]
    pub fn has_fetched(&self) -> bool {
        self.config.commands.has_fetched()
    }

    /// Runs a command to its end, its timeout or its cancellation.
    ///
    /// Processes that it leaves in the background go on until they end or the session does; the call does
    /// not wait for them. A timeout or a cancellation ends the command's process group: SIGTERM, and SIGKILL
    /// after two seconds. So does dropping the future.
    pub async fn run(&self, command: Command, cancel: CancellationToken) -> Result<Exit, WallError> {
        let (session, mut notes) = self.session().await?;
        if cancel.is_cancelled() {
            return Ok(Exit { cancelled: true, notes, ..Exit::default() });
        }
        let mut env = session.env.clone();
        environment::extend(&mut env, &self.config, &command.env)?;
        let cwd = session.workspace().join(command.cwd.unwrap_or_default());
        let limit = command.max_output.min(MAX_OUTPUT_KEPT);

        let pipes = Pipes::new(command.stdin.is_some())
            .map_err(|error| WallError::supervisor("no pipes could be made", error))?;
        let capture = |pipe| {
            let capture = Capture::start(pipe, limit, session.rights.tmp.clone());
            capture.map_err(|error| WallError::supervisor("its output cannot be read", error))
        };
        let (stdout, stderr) = (capture(pipes.stdout)?, capture(pipes.stderr)?);
        let (program, args) = (command.program, command.args);
        let _listed = self.config.commands.begin(&program, &args);
        let start = Start { id: 0, program: program.clone(), args, cwd: cwd.clone(), env };
        let started = Instant::now();
        let running = session.connection.run(start, pipes.theirs).await?;
        let input = pipes.stdin.zip(command.stdin).map(|(pipe, bytes)| tokio::spawn(feed(pipe, bytes)));
        let ending = wait(running, command.timeout, &cancel, &session.connection).await;
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(input) = input {
            input.abort();
        }

        let mut exit = Exit { duration_ms, ..Exit::default() };
        let capture_failed = |error| WallError::supervisor("its output could not be read", error);
        let (stdout, stdout_note) = stdout.finish().await.map_err(capture_failed)?;
        let (stderr, stderr_note) = stderr.finish().await.map_err(capture_failed)?;
        (exit.stdout, exit.stderr) = (stdout, stderr);
        match ending.reply {
            Some(Reply::Refused { refusal, .. }) => return Err(refused(refusal, program, cwd)),
            Some(Reply::Exited { end: End::Code(code), .. }) => exit.code = Some(code),
            Some(Reply::Exited { end: End::Signal(number), .. }) => exit.signal = Some(signal_name(number)),
            Some(Reply::Ready { .. } | Reply::Failed { .. } | Reply::Limit { .. }) | None => {
                exit.signal = Some(signal_name(libc::SIGKILL));
                notes.push(
                    "the supervisor of commands ended during this command, and every process of the session with it"
                        .into(),
                );
            }
        }
        (exit.timed_out, exit.cancelled) = (ending.timed_out, ending.cancelled);
        notes.extend([stdout_note, stderr_note].into_iter().flatten());
        notes.extend(session.connection.take_notes());
        if self.config.mode.is_confined() {
            let (explained, refusals) = session.explain(&self.config, &exit, &cwd);
            notes.extend(explained);
            exit.wall_refusals = refusals;
            notes.extend(session.look_for_sealed());
        }
        exit.notes = notes;
        Ok(exit)
    }

    /// Starts the supervisor, unless it runs, and tells what the wall is worth: the forbidden acts that it
    /// tried and what this grade leaves open.
    pub async fn probe(&self) -> Result<Report, WallError> {
        let (session, _) = self.session().await?;
        Ok(Report {
            grade: self.grade_of(session.space),
            acts: session.connection.acts.clone(),
            residuals: residuals(&self.config, &session.files, &session.lost),
            start: session.connection.start,
        })
    }

    /// Ends every process of the session and waits until they are gone, at most three seconds.
    pub async fn shutdown(&self) {
        let session = self.session.lock().await.take();
        if let Some(session) = session {
            session.connection.close().await;
        }
    }

    /// The running supervisor, or a new one and what has to be said of it.
    async fn session(&self) -> Result<(Arc<Session>, Vec<String>), WallError> {
        let mut slot = self.session.lock().await;
        if let Some(session) = slot.as_ref().filter(|session| !session.connection.is_gone()) {
            return Ok((Arc::clone(session), Vec::new()));
        }
        let session = Arc::new(self.start(slot.as_deref()).await?);
        let note = slot.is_some().then(|| {
            "the supervisor of commands had ended and was started again; background processes of earlier commands \
             are gone"
                .to_owned()
        });
        *slot = Some(Arc::clone(&session));
        Ok((session, note.into_iter().collect()))
    }

    async fn start(&self, before: Option<&Session>) -> Result<Session, WallError> {
        if let Some(reason) = why_unavailable().filter(|_| self.config.mode.is_confined()) {
            return Err(unavailable(reason));
        }
        let rights = match before {
            Some(before) => Arc::clone(&before.rights),
            None => {
                let config = self.config.clone();
                let rights = tokio::task::spawn_blocking(move || Rights::new(&config)).await;
                Arc::new(rights.map_err(|error| {
                    WallError::supervisor("its rules could not be listed", io::Error::other(error))
                })??)
            }
        };
        let written = if self.config.mode.is_confined() { rights.written() } else { Vec::new() };
        let is_sealed = self.config.sealed;
        let known = before.map(|before| before.sealed.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let find = move || Sealed::find(written, is_sealed, known.as_ref());
        let mut sealed = tokio::task::spawn_blocking(find).await.map_err(|error| {
            WallError::supervisor("what is sealed could not be found", io::Error::other(error))
        })?;
        let mut lost = before.map(|before| before.lost.clone()).unwrap_or_default();
        let spaces = match (self.config.mode.is_confined(), self.config.space) {
            (false, _) => &[Space::Machine][..],
            (true, Space::Own) => &[Space::Own, Space::Mounts, Space::Machine],
            (true, Space::Mounts) => &[Space::Mounts, Space::Machine],
            (true, Space::Machine) => &[Space::Machine],
        };
        // Only at the session's start less is taken: later on a command may have brought it about.
        let spaces = before.map_or(spaces, |before| std::slice::from_ref(&before.space));
        let kept = if spaces == [Space::Machine] { Vec::new() } else { sealed.kept() };
        let mut found = None;
        for space in spaces {
            let files = match space {
                Space::Own => Files::Own(space::root(&rights, kept.clone())),
                Space::Mounts => Files::Mounts(rights.mounts(kept.clone())),
                Space::Machine => {
                    sealed.nothing_is_mounted();
                    Files::Machine
                }
            };
            match self.connect(&rights, files.clone()).await {
                Err(ConnectError::Failed { stage: Stage::Space, reason }) if before.is_none() => {
                    tracing::info!("commands see more of the machine than they need: {reason}");
                    lost.push(reason);
                }
                other => {
                    found = Some((other, *space, files));
                    break;
                }
            }
        }
        let Some((connection, space, files)) = found else {
            return Err(unavailable(lost.join("; ")));
        };
        let (connection, listeners) = connection.map_err(|error| match error {
            ConnectError::Failed { stage: Stage::Acts, reason } => {
                unavailable(format!("the wall has a hole, {reason}"))
            }
            ConnectError::Failed { reason, .. } => unavailable(reason),
            ConnectError::Other(error) => error,
        })?;
        let grade = self.grade_of(space);
        if let Some(required) = self.config.required.filter(|required| grade > *required) {
            let why = lost.first().map_or("it was not wanted", String::as_str);
            return Err(unavailable(format!("the least is {}, and {why}", required.name())));
        }
        let _ = self.config.found.set(grade);
        let is_private = match &files {
            Files::Own(_) => true,
            Files::Mounts(mounts) => mounts.over_tmp.iter().any(|path| path == Path::new("/tmp")),
            Files::Machine => false,
        };
        let tmp = if is_private { Path::new("/tmp") } else { &rights.tmp };
        let mut env = environment::base(&self.config, &rights.tool_env, tmp);
        if files.is_own() {
            // The workspace is a mount of its own in a repository around it.
            env.push(("GIT_DISCOVERY_ACROSS_FILESYSTEM".into(), "1".into()));
        }
        if let Some(loopback) = self.config.loopback.as_ref().filter(|_| !listeners.is_empty()) {
            env.extend(loopback.env.iter().cloned());
            (loopback.listening)(listeners.into_iter().map(TcpListener::from).collect());
        }
        Ok(Session { connection, rights, space, files, lost, sealed: sealed.into(), env })
    }

    fn grade_of(&self, space: Space) -> Grade {
        match (self.config.mode, space) {
            (Mode::Off, _) => Grade::None,
            (Mode::External, _) => Grade::External,
            (Mode::Workspace | Mode::ReadOnly, Space::Own) => Grade::Full,
            (Mode::Workspace | Mode::ReadOnly, _) => Grade::Partial,
        }
    }

    async fn connect(
        &self,
        rights: &Rights,
        files: Files,
    ) -> Result<(Connection, Vec<OwnedFd>), ConnectError> {
        let enforced = self.config.mode.is_confined().then(|| Enforced {
            network: self.config.network,
            ports: self.config.loopback.iter().flat_map(|loopback| &loopback.ports).copied().collect(),
            rules: rights.rules.clone(),
            outside: rights.outside(&files),
            files,
        });
        let hub = hub_folder(&self.config, "hub").filter(|_| self.config.mode != Mode::Off);
        let to = environment::hub_cache(&self.config);
        let hub = hub.map(|from| HubLinks { from, to });
        let umask = user_umask();
        let limits = self.config.limits;
        let confinement = Confinement { enforced, umask, open_files: user_open_files(), hub, limits };
        Connection::start(&self.config.supervisor, confinement).await
    }
}

impl Session {
    fn workspace(&self) -> &Path {
        self.rights.granted.first().map_or(Path::new("/"), PathBuf::as_path)
    }

    /// Says what of the kind that commands must not change appeared, or is not held any more.
    fn look_for_sealed(&self) -> Vec<String> {
        let mut notes = self.sealed.lock().unwrap_or_else(PoisonError::into_inner).look();
        let more = notes.len().saturating_sub(MAX_APPEARED);
        notes.truncate(MAX_APPEARED);
        if more > 0 {
            notes.push(format!("and {more} more of that kind"));
        }
        notes
    }

    fn explain(&self, config: &WallConfig, exit: &Exit, cwd: &Path) -> (Vec<String>, u32) {
        let replaced: Vec<PathBuf> = match &self.files {
            Files::Own(_) => space::NEW.map(PathBuf::from).into(),
            Files::Mounts(mounts) => mounts.over_tmp.iter().chain(&mounts.empty).cloned().collect(),
            Files::Machine => Vec::new(),
        };
        let view = View {
            rights: &self.rights,
            mode: config.mode,
            network: config.network,
            cwd,
            replaced: &replaced,
            is_sealed: config.sealed,
            is_own: self.files.is_own(),
        };
        explain(exit, &view)
    }
}

/// How the wait for a command ended.
struct Ending {
    reply: Option<Reply>,
    timed_out: bool,
    cancelled: bool,
}

async fn wait(
    mut running: Running,
    timeout: Duration,
    cancel: &CancellationToken,
    connection: &Connection,
) -> Ending {
    let (timed_out, cancelled) = tokio::select! {
        biased;
        reply = running.reply() => return Ending { reply, timed_out: false, cancelled: false },
        () = cancel.cancelled() => (false, true),
        () = tokio::time::sleep(timeout) => (true, false),
    };
    running.end();
    let limit = GRACE + KILL_WAIT + END_MARGIN;
    let reply = match tokio::time::timeout(limit, running.reply()).await {
        Ok(reply) => reply,
        Err(_) => {
            // Stopped by a command, or hanging in the kernel: only the whole session can be ended then.
            connection.close().await;
            None
        }
    };
    Ending { reply, timed_out, cancelled }
}

/// The pipes of one command.
struct Pipes {
    theirs: [OwnedFd; STDIO],
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Pipes {
    fn new(with_input: bool) -> io::Result<Self> {
        let (stdout, their_stdout) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, their_stderr) = pipe_with(PipeFlags::CLOEXEC)?;
        let (their_stdin, stdin) = if with_input {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC)?;
            (theirs, Some(ours))
        } else {
            (rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, FileMode::empty())?, None)
        };
        Ok(Self { theirs: [their_stdin, their_stdout, their_stderr], stdin, stdout, stderr })
    }
}

/// Writes `bytes` into a pipe and closes it. A command that does not read them is no error.
async fn feed(pipe: OwnedFd, bytes: Vec<u8>) -> io::Result<()> {
    Sender::from_owned_fd(pipe)?.write_all(&bytes).await
}

fn refused(refusal: Refusal, program: String, cwd: PathBuf) -> WallError {
    match refusal {
        Refusal::ProgramMissing { searched } => WallError::ProgramMissing { program, searched },
        Refusal::WorkingFolder { reason } => WallError::WorkingFolder { path: cwd, reason },
        Refusal::Start { reason } => WallError::Start { program, reason },
        Refusal::Full => {
            WallError::Start { program, reason: "there are as many processes as there may be".to_owned() }
        }
    }
}

fn signal_name(number: i32) -> String {
    const NAMES: [(i32, &str); 17] = [
        (libc::SIGHUP, "SIGHUP"),
        (libc::SIGINT, "SIGINT"),
        (libc::SIGQUIT, "SIGQUIT"),
        (libc::SIGILL, "SIGILL"),
        (libc::SIGTRAP, "SIGTRAP"),
        (libc::SIGABRT, "SIGABRT"),
        (libc::SIGBUS, "SIGBUS"),
        (libc::SIGFPE, "SIGFPE"),
        (libc::SIGKILL, "SIGKILL"),
        (libc::SIGUSR1, "SIGUSR1"),
        (libc::SIGSEGV, "SIGSEGV"),
        (libc::SIGUSR2, "SIGUSR2"),
        (libc::SIGPIPE, "SIGPIPE"),
        (libc::SIGALRM, "SIGALRM"),
        (libc::SIGTERM, "SIGTERM"),
        (libc::SIGXFSZ, "SIGXFSZ"),
        (libc::SIGSYS, "SIGSYS"),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| format!("signal {number}"), |(_, name)| (*name).to_owned())
}
