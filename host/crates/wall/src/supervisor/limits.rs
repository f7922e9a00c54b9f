//! What all commands of a session may use together.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process};

use crate::config::CommandLimits;

/// First kernel in which a namespace has a highest process number of its own.
const OWN_NUMBERS: (u32, u32) = (6, 14);

/// Limits processes of this user namespace. Root is not held by that.
pub(super) fn processes(limits: CommandLimits) -> io::Result<()> {
    let limit = Some(limits.processes.into());
    Ok(rustix::process::setrlimit(Resource::Nproc, Rlimit { current: limit, maximum: limit })?)
}

/// Limits the numbers of processes in this namespace, of which each thread takes one, where the kernel has that. In
/// others the number is the machine's, and never touched.
pub(super) fn process_numbers(proc: &Path, limits: CommandLimits) -> io::Result<()> {
    if !has_own_numbers(&rustix::system::uname().release().to_string_lossy()) {
        return Ok(());
    }
    fs::write(proc.join("sys/kernel/pid_max"), limits.processes.to_string())
}

fn has_own_numbers(release: &str) -> bool {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= OWN_NUMBERS
}

/// Bytes of memory that commands may have together.
pub(super) fn memory(limits: CommandLimits) -> u64 {
    let machine = || {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let kib = total.and_then(|total| total.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map_or(u64::MAX, |kib| kib / 10 * 9 * 1024)
    };
    limits.memory_bytes.unwrap_or_else(machine)
}

/// Ends the largest process where all together have more memory than they may, and says so.
pub(super) fn check_memory(limit: u64, starter: Pid) -> Option<String> {
    let mut total = shared_memory();
    let mut largest: Option<(u64, Pid)> = None;
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else {
            continue;
        };
        let bytes = fs::read_to_string(entry.path().join("statm")).ok().and_then(|text| own_bytes(&text));
        let bytes = bytes.unwrap_or_default();
        total = total.saturating_add(bytes);
        let is_command = pid != starter && pid != rustix::process::getpid();
        if is_command && largest.is_none_or(|(most, _)| bytes > most) {
            largest = Some((bytes, pid));
        }
    }
    let (bytes, pid) = largest.filter(|_| total > limit)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    kill_process(pid, Signal::KILL).ok()?;
    const MIB: u64 = 1 << 20;
    Some(format!(
        "commands had {} MiB of memory together, and may have {} MiB: the largest process, `{}` with {} MiB, was \
         ended; the setting `command_limits` changes that",
        total / MIB,
        limit / MIB,
        name.trim(),
        bytes / MIB
    ))
}

/// What a line of `statm` counts that is in memory and not shared.
fn own_bytes(statm: &str) -> Option<u64> {
    let mut pages = statm.split_ascii_whitespace().skip(1).map(|pages| pages.parse::<u64>().ok());
    let (resident, shared) = (pages.next()??, pages.next()??);
    Some(resident.saturating_sub(shared).saturating_mul(rustix::param::page_size() as u64))
}

/// Bytes of files that lie in memory.
fn shared_memory() -> u64 {
    rustix::fs::statvfs("/dev/shm")
        .map_or(0, |found| found.f_blocks.saturating_sub(found.f_bfree).saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_and_memory_are_read() {
        for (release, has) in [
            ("6.18.44-fc-v669", true),
            ("6.14.0", true),
            ("7.0", true),
            ("6.13.9-x", false),
            ("5.15.0-1", false),
            ("", false),
        ] {
            assert_eq!(has_own_numbers(release), has, "{release}");
        }
        let page = rustix::param::page_size() as u64;
        assert_eq!(own_bytes("900 40 10 1 0 20 0"), Some(30 * page));
        assert_eq!(own_bytes("900 4 10"), Some(0));
        assert_eq!((own_bytes("900"), own_bytes("a b c")), (None, None));
    }
}
