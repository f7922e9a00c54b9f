//! Diagnostics: a file in the state folder, opened at the first line; standard error with `-v`.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use protocol::text;
use redact::Redactor;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::assemble::Setup;
use crate::paths::make_private;

/// Bytes after which the file is put aside; one older file is kept.
const MAX_BYTES: u64 = 5 << 20;

/// Sets diagnostics up for the process.
pub(crate) fn start(setup: &Setup, verbose: bool) {
    let level = if verbose {
        "warn,ml_intern=debug,ml_intern_runtime=debug,ml_intern_wall=debug,ml_intern_provider=debug,ml_intern_egress=debug,ml_intern_agent=debug"
    } else {
        "warn,ml_intern=info"
    };
    let secrets = setup.held().redactor.clone();
    let builder = tracing_subscriber::fmt().with_env_filter(EnvFilter::new(level)).with_ansi(false);
    // A second call, as tests make it, changes nothing.
    let _ = if verbose {
        builder.with_writer(Clean { make: io::stderr, secrets }).try_init()
    } else {
        let file = LogFile::new(setup.paths.state.join("logs/ml-intern.log"));
        builder.with_writer(Clean { make: file, secrets }).try_init()
    };
}

/// Lines without secrets, and without what acts on a terminal or makes two lines of one: guests and
/// servers write in them.
struct Clean<W> {
    make: W,
    secrets: Redactor,
}

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for Clean<W> {
    type Writer = Clean<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        Clean { make: self.make.make_writer(), secrets: self.secrets.clone() }
    }
}

impl<W: Write> Write for Clean<W> {
    /// Takes a whole line, as the subscriber hands them over.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let clean = self.secrets.bytes(line);
        let clean = String::from_utf8_lossy(&clean);
        let shown = text::line(clean.strip_suffix('\n').unwrap_or(&clean));
        self.make.write_all(format!("{shown}\n").as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.make.flush()
    }
}

/// A file that is opened when the first line comes.
struct LogFile {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl LogFile {
    fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::new(None) }
    }

    fn open(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            make_private(folder)?;
        }
        if std::fs::metadata(&self.path).is_ok_and(|m| m.len() > MAX_BYTES) {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.is_none() {
            *file = Some(self.open()?);
        }
        file.as_mut().map_or(Ok(bytes.len()), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_line_in_which_nothing_acts_and_no_secret_stands() {
        let secrets = Redactor::new([("key".to_owned(), "s3cret-value".to_owned().into())]);
        let mut clean = Clean { make: Vec::new(), secrets };
        clean.write_all(b"DEBUG said s3cret-value\r\nforged \x1b[2J\xe2\x80\xae\n").unwrap();
        clean.write_all(b"DEBUG next\n").unwrap();
        let written = String::from_utf8(clean.make).unwrap();
        assert_eq!(written, "DEBUG said [redacted:key]\\r\\nforged \\u{1b}[2J\\u{202e}\nDEBUG next\n");
    }
}
