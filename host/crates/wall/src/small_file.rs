//! Reads files that somebody else may have put where they are.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};

/// Most bytes of such a file; git and virtual environments write some hundred.
const MAX_BYTES: u64 = 64 << 10;

/// The text of a file, if it is a regular one of at most 64 KiB.
///
/// A name in a workspace may be a link to `/dev/zero`, or a pipe that nobody writes to: neither may fill the
/// host's memory or hold it up.
pub(crate) fn read(path: &Path) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).ok()?.st_mode);
    if !kind.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    File::from(file).take(MAX_BYTES + 1).read_to_end(&mut bytes).ok()?;
    let is_whole = u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_BYTES);
    String::from_utf8(bytes).ok().filter(|_| is_whole)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_small_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("small"), "text").unwrap();
        symlink("small", path("link")).unwrap();
        assert_eq!(read(&path("link")).as_deref(), Some("text"));

        symlink("/dev/zero", path("endless")).unwrap();
        fs::write(path("long"), vec![b' '; (64 << 10) + 1]).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        for name in ["endless", "long", "pipe", "nothing", "."] {
            assert_eq!(read(&path(name)), None, "{name}");
        }
    }
}
