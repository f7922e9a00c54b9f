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
    if measured(starter, status_bytes).0.saturating_add(files_in_memory()) <= limit {
        return None;
    }
    // That counts what processes share once for each. Exactly, as it takes longer:
    let files = files_in_memory();
    let (total, largest) = measured(starter, proportional_bytes);
    let total = total.saturating_add(files);
    let (bytes, pid) = largest.filter(|_| total > limit)?;
    if files > bytes {
        // Ending a process would not give them back.
        return None;
    }
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

/// Bytes of all commands, and the largest of them, by what `bytes` reads of a process.
fn measured(starter: Pid, bytes: impl Fn(&Path) -> Option<u64>) -> (u64, Option<(u64, Pid)>) {
    let (mut total, mut largest): (u64, Option<(u64, Pid)>) = (0, None);
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else {
            continue;
        };
        let bytes = bytes(&entry.path()).unwrap_or_default();
        total = total.saturating_add(bytes);
        let is_command = pid != starter && pid != rustix::process::getpid();
        if is_command && largest.is_none_or(|(most, _)| bytes > most) {
            largest = Some((bytes, pid));
        }
    }
    (total, largest)
}

/// What a process has of its own and shares, counted once for each that does.
fn status_bytes(process: &Path) -> Option<u64> {
    kibibytes(&fs::read_to_string(process.join("status")).ok()?, &["RssAnon:", "RssShmem:"])
}

/// The same, what is shared divided among those that share it.
fn proportional_bytes(process: &Path) -> Option<u64> {
    let exact = fs::read_to_string(process.join("smaps_rollup")).ok();
    exact.and_then(|text| kibibytes(&text, &["Pss_Anon:", "Pss_Shmem:"])).or_else(|| status_bytes(process))
}

/// The sum of lines that begin so, in bytes.
fn kibibytes(text: &str, names: &[&str]) -> Option<u64> {
    let values = text.lines().filter_map(|line| {
        let rest = names.iter().find_map(|name| line.strip_prefix(name))?;
        rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    values.map(|kib| kib.saturating_mul(1024)).reduce(u64::saturating_add)
}

/// Bytes of files that lie in memory and may be mapped by nobody.
fn files_in_memory() -> u64 {
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
        let status = "Name:\tx\nRssAnon:\t    40 kB\nRssFile:\t 9 kB\nRssShmem:\t 2 kB\n";
        assert_eq!(kibibytes(status, &["RssAnon:", "RssShmem:"]), Some(42 << 10));
        assert_eq!(kibibytes("Name:\tx\n", &["RssAnon:"]), None);
    }
}
