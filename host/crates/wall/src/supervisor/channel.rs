use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use serde::Serialize;

use crate::socket::{receive_part, send_part};
use crate::wire::{Inbox, Request, STDIO, encode};

const READ_SIZE: usize = 64 << 10;

/// The supervisor's end of the socket to the host.
pub(super) struct Channel {
    socket: OwnedFd,
    inbox: Inbox,
    descriptors: VecDeque<OwnedFd>,
}

impl Channel {
    /// Takes the socket from standard input and puts `/dev/null` there.
    pub(super) fn from_stdin() -> io::Result<Self> {
        let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stdout(&null)?;
        rustix::stdio::dup2_stderr(&null)?;
        Ok(Self { socket, inbox: Inbox::default(), descriptors: VecDeque::new() })
    }

    /// Waits for the next message; none if the host is gone.
    pub(super) fn receive(&mut self) -> io::Result<Option<Request>> {
        loop {
            if let Some(request) = self.next()? {
                return Ok(Some(request));
            }
            if !self.read()? {
                return Ok(None);
            }
        }
    }

    /// The next message that is already here.
    pub(super) fn next(&mut self) -> io::Result<Option<Request>> {
        self.inbox.next()
    }

    /// Reads what the host sent, waiting for it if need be. False if the host is gone.
    pub(super) fn read(&mut self) -> io::Result<bool> {
        let mut bytes = [0; READ_SIZE];
        let read = rustix::io::retry_on_intr(|| {
            receive_part(self.socket.as_fd(), &mut bytes, &mut self.descriptors)
        })?;
        let bytes = bytes.get(..read).unwrap_or_default();
        self.inbox.push(bytes);
        Ok(!bytes.is_empty())
    }

    /// The descriptors that came with the message just read.
    pub(super) fn take_stdio(&mut self) -> io::Result<[OwnedFd; STDIO]> {
        let taken: Vec<OwnedFd> = self.descriptors.drain(..STDIO.min(self.descriptors.len())).collect();
        taken.try_into().map_err(|_| io::Error::other("a command came without its descriptors"))
    }

    pub(super) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// The same, with descriptors.
    pub(super) fn send_with(&mut self, message: &impl Serialize, descriptors: &[OwnedFd]) -> io::Result<()> {
        let frame = encode(message)?;
        let (mut rest, mut descriptors) = (frame.as_slice(), descriptors);
        while !rest.is_empty() {
            let sent = rustix::io::retry_on_intr(|| send_part(self.socket.as_fd(), rest, descriptors))?;
            rest = rest.get(sent..).unwrap_or_default();
            // They went with the first bytes.
            descriptors = &[];
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
