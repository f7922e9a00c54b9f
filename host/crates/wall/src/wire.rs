//! What host and supervisor say to each other: JSON with a length before it, over a socket pair.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::config::{Act, CommandLimits, Network};
use crate::rights::Rule;

/// Longest message. A command's arguments and environment are the longest part, and the kernel takes
/// about 2 MiB of them.
const MAX_MESSAGE: usize = 16 << 20;

/// Descriptors that come with a [`Request::Run`]: stdin, stdout and stderr.
pub(crate) const STDIO: usize = 3;

/// What the host says. The first message is [`Request::Confine`], and it is said once.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Request {
    Confine(Box<Confinement>),
    Run(Box<Start>),
    /// Ends the process group of a command: SIGTERM, after a grace SIGKILL.
    End {
        id: u64,
    },
}

/// What the supervisor says.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Reply {
    /// The first message, unless the wall could not be built. With it come the listeners of the ports.
    Ready {
        acts: Vec<Act>,
    },
    /// The wall could not be built; the supervisor ends.
    Failed {
        stage: Stage,
        reason: String,
    },
    /// A limit was met, and what came of it.
    Limit {
        note: String,
    },
    Refused {
        id: u64,
        refusal: Refusal,
    },
    Exited {
        id: u64,
        end: End,
    },
}

/// How the supervisor confines itself and the commands.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Confinement {
    /// What is enforced; without it commands run as the user would.
    pub(crate) enforced: Option<Enforced>,
    pub(crate) umask: u32,
    /// Files that a process may open, where the user has a limit.
    pub(crate) open_files: Option<u64>,
    pub(crate) hub: Option<HubLinks>,
    pub(crate) limits: CommandLimits,
}

/// Models that the user downloaded before, and the Hub cache of commands, where they are to be found.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct HubLinks {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Enforced {
    pub(crate) network: Network,
    /// Ports of a loopback of their own on which the host listens.
    pub(crate) ports: Vec<u16>,
    pub(crate) rules: Vec<Rule>,
    pub(crate) files: Files,
    /// Folders of this machine that no rule covers, for trying whether they can be read and written.
    pub(crate) outside: Vec<PathBuf>,
}

/// What commands see of the machine's files.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Files {
    /// A root of their own; processes, network and memory to share of their own too.
    Own(Root),
    Mounts(Mounts),
    Machine,
}

impl Files {
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// A file system in which nothing is but this, and `/proc` and devices.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Root {
    /// The session's tmp, as `/tmp` and `/var/tmp`.
    pub(crate) tmp: PathBuf,
    /// What is taken over from the machine, each after what it lies in.
    pub(crate) trees: Vec<Kept>,
    /// Links that lie in none of these, and lead to them.
    pub(crate) links: Vec<Link>,
    /// What of them is read-only all the same.
    pub(crate) sealed: Vec<Kept>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Link {
    pub(crate) path: PathBuf,
    pub(crate) target: PathBuf,
}

/// The private mounts. All others become read-only: Landlock guards what files hold, but not their modes,
/// owners, times and attributes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Mounts {
    /// The session's tmp, bound over each of `over_tmp`.
    pub(crate) tmp: PathBuf,
    pub(crate) over_tmp: Vec<PathBuf>,
    /// Folders that get an empty file system.
    pub(crate) empty: Vec<PathBuf>,
    /// Whether `/dev/pts` gets terminals of its own.
    pub(crate) terminals: bool,
    /// Folders and files below the former that must still be there, and folders elsewhere that stay
    /// writable, in the order of their paths.
    pub(crate) keep: Vec<Kept>,
    /// What of those is read-only all the same.
    pub(crate) sealed: Vec<Kept>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    /// Landlock adds up what is allowed on the way to a path, so below a folder that commands can write to
    /// the mount has to be read-only.
    pub(crate) is_writable: bool,
}

/// Where a wall could not be built.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum Stage {
    /// The namespaces and what is mounted in them, which the wall can do without.
    Space,
    /// Landlock, seccomp, capabilities and all else.
    Confinement,
    /// A forbidden act was possible.
    Acts,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Start {
    pub(crate) id: u64,
    pub(crate) program: String,
    pub(crate) args: Vec<String>,
    pub(crate) cwd: PathBuf,
    /// The whole environment.
    pub(crate) env: Vec<(OsString, OsString)>,
}

/// Why the supervisor did not start a command.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) enum Refusal {
    ProgramMissing {
        searched: Option<String>,
    },
    WorkingFolder {
        reason: String,
    },
    Start {
        reason: String,
    },
    /// There are as many processes as there may be.
    Full,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) enum End {
    Code(i32),
    Signal(i32),
}

/// A message as it goes over the socket.
pub(crate) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = frame.len() - 4;
    if length > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("arguments, environment and names of {length} bytes are more than {MAX_MESSAGE}"),
        ));
    }
    frame[..4].copy_from_slice(&u32::try_from(length).map_err(io::Error::other)?.to_le_bytes());
    Ok(frame)
}

/// Bytes of the socket until they are whole messages.
#[derive(Default)]
pub(crate) struct Inbox(Vec<u8>);

impl Inbox {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next message, once all of it is there.
    pub(crate) fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(header) = self.0.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*header) as usize;
        if length > MAX_MESSAGE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is longer than any can be"));
        }
        let Some(body) = self.0.get(4..4 + length) else {
            return Ok(None);
        };
        let message = serde_json::from_slice(body)?;
        self.0.drain(..4 + length);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_whole_however_they_are_cut() {
        let mut bytes = encode(&Request::End { id: 7 }).unwrap();
        bytes.extend(encode(&Request::End { id: 8 }).unwrap());
        let mut inbox = Inbox::default();
        let mut ids = Vec::new();
        for byte in bytes {
            inbox.push(&[byte]);
            while let Some(request) = inbox.next::<Request>().unwrap() {
                let Request::End { id } = request else { panic!("{request:?}") };
                ids.push(id);
            }
        }
        assert_eq!(ids, [7, 8]);
    }

    #[test]
    fn a_length_beyond_any_message_is_an_error() {
        let mut inbox = Inbox::default();
        inbox.push(&[0xff; 4]);
        assert!(inbox.next::<Request>().is_err());
    }
}
