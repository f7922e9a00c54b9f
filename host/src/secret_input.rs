//! What a person types and nobody is to see: credentials, passwords of keys.

use std::io::{IsTerminal as _, Read as _, Write as _};

use crate::exit::{Exit, Failure};
use crate::secrets::MAX_VALUE;

/// The value, typed without being shown or read from standard input.
pub(crate) fn ask(what: &str) -> Result<String, Failure> {
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return typed(what);
    }
    let mut text = String::new();
    let read = stdin.lock().take(MAX_VALUE + 1).read_to_string(&mut text);
    read.map_err(|_| Failure::usage("standard input is not text"))?;
    if text.len() as u64 > MAX_VALUE {
        return Err(Failure::usage(format!("standard input has more than {} KiB", MAX_VALUE >> 10)));
    }
    Ok(text)
}

/// Reads a line from the terminal, which shows nothing of it.
fn typed(what: &str) -> Result<String, Failure> {
    const INTERRUPT: u8 = 3;
    const END: u8 = 4;
    let _quiet = Quiet::new()?;
    let mut out = std::io::stderr();
    write!(out, "{what}, not shown: ")?;
    out.flush()?;
    let mut bytes = Vec::new();
    for byte in std::io::stdin().lock().bytes() {
        match byte? {
            b'\r' | b'\n' | END => break,
            INTERRUPT => {
                writeln!(out)?;
                return Err(Failure::new(
                    Exit::Interrupted,
                    anyhow::anyhow!("interrupted; nothing was stored"),
                ));
            }
            // Backspace, as terminals send it, takes a whole character.
            8 | 127 => while bytes.pop().is_some_and(|byte: u8| byte & 0xc0 == 0x80) {},
            byte if bytes.len() as u64 <= MAX_VALUE => bytes.push(byte),
            _ => {}
        }
    }
    writeln!(out)?;
    String::from_utf8(bytes).map_err(|_| Failure::usage("that was not text"))
}

/// The terminal shows nothing of what is typed, and hands it over key by key, until this is dropped.
struct Quiet(rustix::termios::Termios);

impl Quiet {
    fn new() -> std::io::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        let stdin = std::io::stdin();
        let before = tcgetattr(&stdin)?;
        let mut quiet = before.clone();
        quiet
            .local_modes
            .remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
        tcsetattr(&stdin, OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // What was typed ahead is thrown away with it: it may be the rest of a value.
        let _ =
            rustix::termios::tcsetattr(std::io::stdin(), rustix::termios::OptionalActions::Flush, &self.0);
    }
}
