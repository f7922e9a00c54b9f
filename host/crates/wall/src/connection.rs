//! The host's end of the socket to a supervisor.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::{Act, SupervisorCommand};
use crate::error::WallError;
use crate::socket::{receive_part, send_part};
use crate::wire::{Confinement, Inbox, Reply, Request, STDIO, Stage, Start, encode};

/// How long a supervisor may take until it is ready. Usual are 10 to 20 ms.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long a supervisor may take to end its session: its own limit and a margin.
const END_LIMIT: Duration = Duration::from_secs(3);

/// Messages that wait to be sent: each is a command or its end, and few commands run at once.
const OUTGOING: usize = 64;

const READ_SIZE: usize = 16 << 10;

/// Most notes that wait.
const MAX_NOTES: usize = 16;

/// A supervisor that is ready, or was.
pub(crate) struct Connection {
    socket: Arc<UnixStream>,
    outgoing: mpsc::Sender<Outgoing>,
    pending: Pending,
    notes: Notes,
    /// Cancelled when the supervisor is gone and with it every process of the session.
    gone: CancellationToken,
    next_id: AtomicU64,
    pub(crate) acts: Vec<Act>,
    pub(crate) start: Duration,
}

/// What the supervisor did of its own accord, to be told with the next result.
type Notes = Arc<Mutex<Vec<String>>>;

/// The first reply, and the descriptors that came with it.
type Hello = (Reply, Vec<OwnedFd>);

/// Who waits for the end of which command.
type Pending = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

struct Outgoing {
    frame: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// Why there is no connection.
pub(crate) enum ConnectError {
    /// The supervisor could not build the wall.
    Failed {
        stage: Stage,
        reason: String,
    },
    Other(WallError),
}

impl Connection {
    /// Starts a supervisor and waits until it is ready. Gives what came with that: its listeners.
    pub(crate) async fn start(
        command: &SupervisorCommand,
        confinement: Confinement,
    ) -> Result<(Self, Vec<OwnedFd>), ConnectError> {
        let started = Instant::now();
        let (socket, child) = spawn(command.clone()).await.map_err(ConnectError::Other)?;
        let socket =
            UnixStream::from_std(socket.into()).map_err(|error| could_not("watch its socket", error))?;
        let socket = Arc::new(socket);
        let (outgoing, to_send) = mpsc::channel(OUTGOING);
        let (hello, ready) = oneshot::channel();
        let pending = Pending::default();
        let gone = CancellationToken::new();
        tokio::spawn(send_all(Arc::clone(&socket), to_send));
        let notes = Notes::default();
        let receive = receive_all(
            Arc::clone(&socket),
            Arc::clone(&pending),
            hello,
            Arc::clone(&notes),
            child,
            gone.clone(),
        );
        tokio::spawn(receive);

        let frame = encode(&Request::Confine(Box::new(confinement)));
        let frame = frame.map_err(|error| could_not("describe the wall to it", error))?;
        // If it is gone already, the answer says so.
        let _ = outgoing.send(Outgoing { frame, descriptors: Vec::new() }).await;
        match tokio::time::timeout(START_LIMIT, ready).await {
            Ok(Ok((Reply::Ready { acts }, descriptors))) => {
                let next_id = AtomicU64::new(1);
                let connection =
                    Self { socket, outgoing, pending, notes, gone, next_id, acts, start: started.elapsed() };
                Ok((connection, descriptors))
            }
            Ok(Ok((Reply::Failed { stage, reason }, _))) => Err(ConnectError::Failed { stage, reason }),
            Ok(_) => Err(could_not("start", io::Error::other("it ended before it was ready"))),
            Err(_) => {
                let _ = rustix::net::shutdown(socket.as_fd(), Shutdown::Write);
                let limit = START_LIMIT.as_secs();
                Err(could_not("start", io::Error::other(format!("it was not ready within {limit} s"))))
            }
        }
    }

    /// What the supervisor did of its own accord since this was asked last.
    pub(crate) fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Has a command started with these descriptors as its stdin, stdout and stderr. The id of `start` is
    /// given here.
    pub(crate) async fn run(&self, mut start: Start, stdio: [OwnedFd; STDIO]) -> Result<Running, WallError> {
        start.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = start.id;
        let program = start.program.clone();
        let frame = encode(&Request::Run(Box::new(start)))
            .map_err(|error| WallError::Start { program, reason: error.to_string() })?;
        let (sender, reply) = oneshot::channel();
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).insert(id, sender);
        let running =
            Running { id, reply, outgoing: self.outgoing.clone(), pending: Arc::clone(&self.pending) };
        // If it is gone, the reply that never comes says so.
        let _ = self.outgoing.send(Outgoing { frame, descriptors: stdio.into() }).await;
        Ok(running)
    }

    /// Ends every process of the session and waits until they are gone.
    pub(crate) async fn close(&self) {
        let _ = rustix::net::shutdown(self.socket.as_fd(), Shutdown::Write);
        if tokio::time::timeout(END_LIMIT, self.gone.cancelled()).await.is_err() {
            tracing::warn!("the supervisor of commands did not end within {} s", END_LIMIT.as_secs());
        }
    }
}

/// A command that runs. Dropped before its reply came, it is ended.
pub(crate) struct Running {
    id: u64,
    reply: oneshot::Receiver<Reply>,
    outgoing: mpsc::Sender<Outgoing>,
    pending: Pending,
}

impl Running {
    /// How the command ended; none if the supervisor is gone, which has ended the command then.
    pub(crate) async fn reply(&mut self) -> Option<Reply> {
        (&mut self.reply).await.ok()
    }

    /// Asks for the end of the command's process group.
    pub(crate) fn end(&self) {
        let Ok(frame) = encode(&Request::End { id: self.id }) else {
            return;
        };
        let end = Outgoing { frame, descriptors: Vec::new() };
        // Only a supervisor that does not read its socket lets the queue fill up; it is given up later.
        if self.outgoing.try_send(end).is_err() {
            tracing::warn!(id = self.id, "the supervisor of commands does not take messages");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A command whose reply came is no longer there.
        if self.pending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id).is_some() {
            self.end();
        }
    }
}

/// Starts the supervisor with an empty environment and one end of a socket pair as its standard input.
async fn spawn(command: SupervisorCommand) -> Result<(OwnedFd, Child), WallError> {
    let spawn = move || -> io::Result<(OwnedFd, Child)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let child = std::process::Command::new(&command.program)
            .args(&command.args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((ours, child))
    };
    let spawned = tokio::task::spawn_blocking(spawn).await.map_err(io::Error::other).flatten();
    spawned.map_err(|error| WallError::supervisor("it could not be started", error))
}

/// Sends what is queued, and closes this direction when nobody can queue any more.
async fn send_all(socket: Arc<UnixStream>, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(outgoing) = queue.recv().await {
        if let Err(error) = send(&socket, outgoing).await {
            tracing::debug!("the supervisor of commands takes no message: {error}");
            break;
        }
    }
    let _ = rustix::net::shutdown(socket.as_fd(), Shutdown::Write);
}

async fn send(socket: &UnixStream, outgoing: Outgoing) -> io::Result<()> {
    let mut rest = outgoing.frame.as_slice();
    let mut descriptors = outgoing.descriptors.as_slice();
    while !rest.is_empty() {
        socket.writable().await?;
        match socket.try_io(Interest::WRITABLE, || Ok(send_part(socket.as_fd(), rest, descriptors)?)) {
            Ok(sent) => {
                rest = rest.get(sent..).unwrap_or_default();
                // They went with the first bytes.
                descriptors = &[];
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Hands out replies until the supervisor is gone.
async fn receive_all(
    socket: Arc<UnixStream>,
    pending: Pending,
    hello: oneshot::Sender<Hello>,
    notes: Notes,
    mut child: Child,
    gone: CancellationToken,
) {
    let mut hello = Some(hello);
    let (mut inbox, mut descriptors) = (Inbox::default(), VecDeque::new());
    loop {
        let reply = match receive(&socket, &mut inbox, &mut descriptors).await {
            Ok(Some(reply)) => reply,
            Ok(None) => break,
            Err(error) => {
                tracing::warn!("the supervisor of commands cannot be understood: {error}");
                let _ = rustix::net::shutdown(socket.as_fd(), Shutdown::Both);
                break;
            }
        };
        let waiting = match &reply {
            Reply::Ready { .. } | Reply::Failed { .. } => {
                let came_with = std::mem::take(&mut descriptors).into();
                let _ = hello.take().map(|hello| hello.send((reply, came_with)));
                continue;
            }
            Reply::Limit { note } => {
                tracing::info!("{note}");
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                if notes.len() < MAX_NOTES {
                    notes.push(note.clone());
                }
                continue;
            }
            Reply::Refused { id, .. } | Reply::Exited { id, .. } => {
                pending.lock().unwrap_or_else(PoisonError::into_inner).remove(id)
            }
        };
        // Who asked may have gone away meanwhile.
        let _ = waiting.map(|waiting| waiting.send(reply));
    }
    let exited = tokio::task::spawn_blocking(move || child.wait()).await;
    tracing::debug!(?exited, "the supervisor of commands is gone");
    gone.cancel();
    pending.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

async fn receive(
    socket: &UnixStream,
    inbox: &mut Inbox,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<Option<Reply>> {
    let mut bytes = [0; READ_SIZE];
    loop {
        if let Some(reply) = inbox.next()? {
            return Ok(Some(reply));
        }
        socket.readable().await?;
        let read = || Ok(receive_part(socket.as_fd(), &mut bytes, descriptors)?);
        match socket.try_io(Interest::READABLE, read) {
            Ok(0) => return Ok(None),
            Ok(read) => inbox.push(bytes.get(..read).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn could_not(what: &str, error: io::Error) -> ConnectError {
    ConnectError::Other(WallError::supervisor(format!("could not {what}"), error))
}
