//! When standard input is read, and how long it is waited for.

use std::io::{IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use crate::exit::Failure;

/// Time in which a pipe beside a prompt must deliver its first byte.
const FIRST_BYTE: Duration = Duration::from_secs(1);

/// Bytes that are taken as a prompt.
const MAX_PROMPT: u64 = 4 << 20;

/// The prompt of a run: the argument, standard input, or both.
pub(crate) async fn prompt(argument: Option<String>) -> Result<Option<String>, Failure> {
    match argument {
        Some(dash) if dash == "-" => read().await.map(Some),
        Some(prompt) => {
            if !delivers().await {
                return Ok(Some(prompt));
            }
            let piped = read().await?;
            Ok(Some(if piped.trim().is_empty() { prompt } else { format!("{prompt}\n\n{piped}") }))
        }
        None if std::io::stdin().is_terminal() => Ok(None),
        None => read().await.map(Some),
    }
}

/// Whether standard input is a file, or a pipe that has something to say soon.
async fn delivers() -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::fs::{FileType, fstat};
    let stdin = std::io::stdin();
    match fstat(stdin.as_fd()).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
        Ok(FileType::RegularFile) => return true,
        Ok(FileType::Fifo | FileType::Socket) => {}
        _ => return false,
    }
    let ready = tokio::task::spawn_blocking(|| {
        let stdin = std::io::stdin();
        let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
        let timeout = Timespec { tv_sec: FIRST_BYTE.as_secs().cast_signed(), tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::IN)
    });
    ready.await.unwrap_or(false)
}

async fn read() -> Result<String, Failure> {
    let read = tokio::task::spawn_blocking(|| {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(MAX_PROMPT + 1).read_to_end(&mut bytes).map(|_| bytes)
    });
    let bytes = read.await.map_err(|e| Failure::from(anyhow::anyhow!("standard input: {e}")))??;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Failure::usage(format!(
            "standard input has more than {} MiB; put it into a file and name that",
            MAX_PROMPT >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not UTF-8 text"))
}

/// Whether the answer can be written there later.
pub(crate) fn check_output(path: &std::path::Path) -> Result<(), String> {
    let opened = std::fs::OpenOptions::new().append(true).create(true).open(path);
    opened.map(drop).map_err(|e| format!("-o {}: {e}", path.display()))
}

/// Writes a text where `-o` says.
pub(crate) fn write_output(path: &std::path::Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("-o {}: {e}", path.display()))
}
