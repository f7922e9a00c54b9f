//! What the host does to itself before anything else, so that nothing of the same user can look into it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::sync::OnceLock;

use crate::keys::is_credential;
use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};

/// The mask the user started the host with; commands get it back.
static USER_UMASK: OnceLock<u32> = OnceLock::new();

/// How many files the user let the host open; commands get that back.
static USER_OPEN_FILES: OnceLock<u64> = OnceLock::new();

/// Files the host may open, where the system lets it: all calls of plugins together hold some.
const OPEN_FILES: u64 = 8_192;

/// The mask where the host never changed its own.
const USUAL_UMASK: u32 = 0o022;

/// Makes this process unreadable to others of the same user: not dumpable (no ptrace, no
/// `/proc/PID/environ`), no core files, and new files for the user alone.
///
/// To be called first in `main`.
pub fn harden_host() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    // Called twice, the second time would report our own mask as the user's.
    USER_UMASK.get_or_init(|| before.as_raw_mode());
    let files = getrlimit(Resource::Nofile);
    if let Some(now) = files.current {
        USER_OPEN_FILES.get_or_init(|| now);
        let more = files.maximum.map_or(OPEN_FILES, |most| most.min(OPEN_FILES)).max(now);
        setrlimit(Resource::Nofile, Rlimit { current: Some(more), ..files })?;
    }
    Ok(())
}

/// How many files the user let the host open, where there is a limit.
pub(crate) fn user_open_files() -> Option<u64> {
    USER_OPEN_FILES.get().copied()
}

/// Overwrites the block of memory that `/proc/PID/environ` shows, all of it. The variables stay as they were in memory
/// of our own, but those that are credentials, by their name or by themselves: they are empty afterwards, so read
/// them before.
///
/// To be called in `main` before the first thread is started; with more than one it changes nothing and
/// is an error.
pub fn scrub_environment() -> io::Result<()> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other(
            "the environment can only be cleared before the first thread is started",
        ));
    }
    let (start, end) = environment_block(&fs::read_to_string("/proc/self/stat")?)
        .ok_or_else(|| io::Error::other("`/proc/self/stat` does not say where the environment lies"))?;
    crate::sys::replace_environment(start, end, |name, value| {
        if is_credential(&name.to_string_lossy(), &value.to_string_lossy()) { OsString::new() } else { value }
    });
    Ok(())
}

/// The mask the user started the host with: what commands and new files of the workspace get.
pub fn user_umask() -> u32 {
    *USER_UMASK.get().unwrap_or(&USUAL_UMASK)
}

/// `env_start` and `env_end` of a line of `/proc/PID/stat`, its fields 50 and 51.
fn environment_block(stat: &str) -> Option<(usize, usize)> {
    // The second field is the program's name in brackets and may hold anything; the third follows it.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(47);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_is_found_behind_any_program_name() {
        let numbers: Vec<String> = (3..=52).map(|field| field.to_string()).collect();
        let stat = format!("7 (a ) b 1 2) {}", numbers.join(" "));
        assert_eq!(environment_block(&stat), Some((50, 51)));
    }
}
