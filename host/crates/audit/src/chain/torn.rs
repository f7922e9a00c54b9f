//! What a power loss leaves at the end of a chain: a part of a line, or a record without its line end.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::{current, next_part, put_away};
use crate::record::{Act, digest};

/// Makes a file of a chain end with its last record, which ends at `end`. What stands behind it is kept in a copy of
/// the file; the chain goes on in a new file, whose first record is the one that is returned.
pub(super) fn put_aside(file: &mut File, end: u64, folder: &Path, name: &str) -> io::Result<Option<Act>> {
    let length = file.metadata()?.len();
    if length == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(end.saturating_sub(1)))?;
    let mut rest = Vec::new();
    file.read_to_end(&mut rest)?;
    let has_line_end = end > 0 && rest.first() == Some(&b'\n');
    if end == length {
        if !has_line_end {
            file.write_all(b"\n")?;
        }
        return Ok(None);
    }
    let part = next_part(folder, name)?;
    let copy = part.with_extension("torn");
    let torn = &rest[usize::from(end > 0)..];
    let act = Act::Torn {
        file: copy.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        bytes: torn.len() as u64,
        digest: digest(torn),
    };
    let path = current(folder, name);
    let mut kept = File::options().write(true).create_new(true).mode(0o600).open(&copy)?;
    io::copy(&mut File::open(&path)?, &mut kept)?;
    kept.sync_all()?;
    file.set_len(end)?;
    file.sync_data()?;
    if end > 0 {
        put_away(&path, &part)?;
    }
    Ok(Some(act))
}
