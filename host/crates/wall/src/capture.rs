//! What a command writes: its beginning and end in memory, all of it in a file if it is long.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::command::Captured;

/// Most bytes of one output that are kept in a file; more is counted and discarded. A command in a loop
/// must not fill the disk.
const MAX_FILE: u64 = 256 << 20;

/// Bytes that are read at once: what a pipe holds.
const READ_SIZE: usize = 64 << 10;

/// Bytes that are gathered before they are written to the file.
const WRITE_SIZE: usize = 512 << 10;

/// Names that are tried for the file, should a command have taken one.
const NAME_ATTEMPTS: usize = 16;

/// The running capture of one pipe.
pub(crate) struct Capture {
    ended: CancellationToken,
    task: JoinHandle<io::Result<(Captured, Option<String>)>>,
}

impl Capture {
    /// Reads `pipe`, keeping at most `limit` bytes in memory. A longer output goes to
    /// a new file in `tmp`.
    pub(crate) fn start(pipe: OwnedFd, limit: usize, tmp: PathBuf) -> io::Result<Self> {
        let pipe = Receiver::from_owned_fd(pipe)?;
        let ended = CancellationToken::new();
        let task = tokio::spawn(read_until(pipe, ended.clone(), Kept::new(limit), tmp));
        Ok(Self { ended, task })
    }

    /// What was written until now, and what the reader has to say of it. To be called after the command
    /// ended. Should a background process hold the pipe, it is read on and what comes is discarded, so that
    /// the process neither blocks nor dies of it.
    pub(crate) async fn finish(self) -> io::Result<(Captured, Option<String>)> {
        self.ended.cancel();
        self.task.await.map_err(io::Error::other)?
    }
}

async fn read_until(
    pipe: Receiver,
    ended: CancellationToken,
    mut kept: Kept,
    tmp: PathBuf,
) -> io::Result<(Captured, Option<String>)> {
    let mut buffer = vec![0; READ_SIZE];
    let mut is_open = true;
    while is_open {
        let read = tokio::select! {
            biased;
            () = ended.cancelled() => break,
            read = read_some(&pipe, &mut buffer) => read?,
        };
        is_open = read > 0;
        kept.push(buffer.get(..read).unwrap_or_default());
        kept.write_file(&tmp, WRITE_SIZE).await;
    }
    if is_open {
        // Exactly what is there now: a background process may write faster than it is read.
        let mut left = usize::try_from(rustix::io::ioctl_fionread(&pipe)?).unwrap_or(usize::MAX);
        while left > 0 {
            let part = buffer.get_mut(..left.min(READ_SIZE)).unwrap_or_default();
            // Not `try_read`, which reads nothing before the runtime was told of the last bytes.
            let read = match rustix::io::read(&pipe, &mut *part) {
                Ok(0) | Err(rustix::io::Errno::AGAIN) => break,
                Ok(read) => read,
                Err(errno) => return Err(errno.into()),
            };
            kept.push(part.get(..read).unwrap_or_default());
            left -= read;
        }
        tokio::spawn(discard(pipe));
    }
    kept.write_file(&tmp, 0).await;
    Ok(kept.into_captured())
}

async fn read_some(pipe: &Receiver, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        pipe.readable().await?;
        match pipe.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// Reads on until every process that holds the pipe is gone, at the latest at the session's end.
async fn discard(pipe: Receiver) {
    let mut buffer = vec![0; READ_SIZE];
    while read_some(&pipe, &mut buffer).await.is_ok_and(|read| read > 0) {}
}

/// The part of an output that is kept.
struct Kept {
    limit: usize,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
    /// What is to be written to the file next, once there is too much for memory.
    unwritten: Vec<u8>,
    file: Spill,
    note: Option<String>,
}

enum Spill {
    NotNeeded,
    Open {
        file: File,
        name: String,
        size: u64,
    },
    /// It could not be written, or it is full.
    Closed {
        name: Option<String>,
    },
}

impl Kept {
    fn new(limit: usize) -> Self {
        Self {
            limit,
            head: Vec::new(),
            tail: VecDeque::new(),
            total: 0,
            unwritten: Vec::new(),
            file: Spill::NotNeeded,
            note: None,
        }
    }

    fn push(&mut self, bytes: &[u8]) {
        let before = self.total;
        self.total += bytes.len() as u64;
        match self.file {
            Spill::NotNeeded if self.total > self.limit as u64 && before <= self.limit as u64 => {
                self.unwritten.extend_from_slice(&self.head);
                self.unwritten.extend(&self.tail);
                self.unwritten.extend_from_slice(bytes);
            }
            Spill::NotNeeded if self.total <= self.limit as u64 => {}
            Spill::NotNeeded | Spill::Open { .. } => self.unwritten.extend_from_slice(bytes),
            Spill::Closed { .. } => {}
        }
        let head_room = (self.limit / 4).saturating_sub(self.head.len()).min(bytes.len());
        let (head, rest) = bytes.split_at(head_room);
        self.head.extend_from_slice(head);
        let tail_limit = self.limit - self.limit / 4;
        let rest = rest.get(rest.len().saturating_sub(tail_limit)..).unwrap_or_default();
        let too_many = (self.tail.len() + rest.len()).saturating_sub(tail_limit);
        self.tail.drain(..too_many);
        self.tail.extend(rest);
    }

    /// Writes what has gathered, if it is more than `threshold`. An output whose file cannot be written is
    /// still captured in memory.
    async fn write_file(&mut self, tmp: &Path, threshold: usize) {
        if self.unwritten.is_empty() || self.unwritten.len() < threshold {
            return;
        }
        let bytes = std::mem::take(&mut self.unwritten);
        let spill = std::mem::replace(&mut self.file, Spill::Closed { name: None });
        let tmp = tmp.to_path_buf();
        let written =
            tokio::task::spawn_blocking(move || spill.write(&tmp, &bytes).map(|spill| (spill, bytes)));
        match written.await.map_err(io::Error::other).flatten() {
            Ok((spill, mut bytes)) => {
                self.file = spill;
                bytes.clear();
                self.unwritten = bytes;
            }
            Err(error) => self.note = Some(format!("the full output could not be kept in a file: {error}")),
        }
        if let Spill::Closed { name: Some(name) } = &self.file {
            let limit = MAX_FILE >> 20;
            self.note = Some(format!("`/tmp/{name}` has the first {limit} MiB of the output"));
        }
    }

    fn into_captured(mut self) -> (Captured, Option<String>) {
        let name = match self.file {
            Spill::Open { name, .. } | Spill::Closed { name: Some(name) } => Some(name),
            Spill::NotNeeded | Spill::Closed { name: None } => None,
        };
        let mut tail: Vec<u8> = self.tail.into();
        if self.total <= self.limit as u64 {
            self.head.append(&mut tail);
        }
        let file = name.map(|name| format!("/tmp/{name}"));
        (Captured { head: self.head, tail, total: self.total, file }, self.note)
    }
}

impl Spill {
    fn write(self, tmp: &Path, bytes: &[u8]) -> io::Result<Self> {
        let (mut file, name, size) = match self {
            Self::NotNeeded => {
                let (file, name) = create(tmp)?;
                (file, name, 0)
            }
            Self::Open { file, name, size } => (file, name, size),
            Self::Closed { .. } => return Ok(self),
        };
        let room = usize::try_from(MAX_FILE - size).unwrap_or(usize::MAX);
        let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        file.write_all(part)?;
        if part.len() < bytes.len() {
            return Ok(Self::Closed { name: Some(name) });
        }
        Ok(Self::Open { file, name, size: size + part.len() as u64 })
    }
}

/// Makes a file that nobody else chose: commands can write to the session's tmp too.
fn create(tmp: &Path) -> io::Result<(File, String)> {
    let mut last = io::Error::other("no name is free");
    for attempt in 0..NAME_ATTEMPTS {
        let name = format!("output-{:016x}.txt", RandomState::new().hash_one(attempt));
        let flags = i32::try_from(OFlags::NOFOLLOW.bits()).map_err(io::Error::other)?;
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(tmp.join(&name));
        match opened {
            Ok(file) => return Ok((file, name)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn captured(limit: usize, parts: &[&[u8]], tmp: &Path) -> Captured {
        let mut kept = Kept::new(limit);
        for part in parts {
            kept.push(part);
            kept.write_file(tmp, 0).await;
        }
        kept.into_captured().0
    }

    #[tokio::test]
    async fn short_output_is_kept_whole_and_makes_no_file() {
        let tmp = tempfile::tempdir().unwrap();
        let output = captured(8, &[b"abc", b"defgh"], tmp.path()).await;
        assert_eq!(output, Captured { head: b"abcdefgh".into(), tail: Vec::new(), total: 8, file: None });
        assert_eq!(std::fs::read_dir(tmp.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn long_output_keeps_a_quarter_and_three_and_all_of_it_in_a_file() {
        let tmp = tempfile::tempdir().unwrap();
        for parts in [&[&b"0123456789"[..]][..], &[b"0", b"1234567", b"89"], &[b"01234567", b"8", b"9"]] {
            let output = captured(8, parts, tmp.path()).await;
            assert_eq!((output.head, output.tail, output.total), (b"01".into(), b"456789".into(), 10));
            let file = output.file.unwrap();
            let name = file.strip_prefix("/tmp/").unwrap();
            assert_eq!(std::fs::read(tmp.path().join(name)).unwrap(), b"0123456789");
        }
    }

    #[tokio::test]
    async fn output_is_counted_when_no_file_can_be_written() {
        let output = captured(4, &[b"012345", b"6789"], Path::new("/nowhere")).await;
        assert_eq!(
            (output.head, output.tail, output.total, output.file),
            (b"0".into(), b"789".into(), 10, None)
        );
    }

    #[tokio::test]
    async fn bytes_that_the_runtime_was_not_told_of_are_kept() {
        let (ours, theirs) = rustix::pipe::pipe().unwrap();
        let capture = Capture::start(ours, 8, PathBuf::new()).unwrap();
        rustix::io::write(&theirs, b"last").unwrap();
        // The other end stays open, as a background process would keep it.
        assert_eq!(capture.finish().await.unwrap().0.head, b"last");
    }
}
