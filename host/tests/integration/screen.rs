//! A chat at a terminal.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::TestHost;

/// A chat on a terminal of its own.
pub(crate) struct Screen {
    child: std::process::Child,
    terminal: File,
    shown: Receiver<Vec<u8>>,
    pub(crate) text: String,
    /// Where the last text that was waited for in turn ends.
    seen: usize,
}

impl Screen {
    pub(crate) fn chat(host: &TestHost, more: &[&str]) -> Self {
        Self::of(host.command([&["-m", "chat/m"], more].concat()))
    }

    /// The chat that a command is.
    pub(crate) fn of(mut command: Command) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        let child =
            command.env("TERM", "dumb").stdin(slave()).stdout(slave()).stderr(slave()).spawn().unwrap();
        let terminal = File::from(master);
        let mut reader = terminal.try_clone().unwrap();
        let (sender, shown) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, terminal, shown, text: String::new(), seen: 0 }
    }

    /// Waits for a text, and presses a key again and again until it is there: keys that come before a question
    /// was seen do not count.
    pub(crate) fn until(&mut self, part: &str, key: Option<&str>) {
        self.until_times(part, 1, key);
    }

    /// The same, for a text that has to be there so many times.
    pub(crate) fn until_times(&mut self, part: &str, times: usize, key: Option<&str>) {
        self.wait(part, key, |screen| screen.text.matches(part).count() >= times);
    }

    /// The same, for a text behind the last one that was waited for like this.
    pub(crate) fn next(&mut self, part: &str, key: Option<&str>) {
        self.wait(part, key, |screen| screen.text[screen.seen..].contains(part));
        let at = self.text[self.seen..].find(part).unwrap_or(0);
        self.seen += at + part.len();
    }

    /// Types a message once there is a prompt, which turns pasting on first.
    pub(crate) fn say(&mut self, message: &str) {
        self.press(&format!("{message}\r"));
    }

    /// Presses keys once there is a prompt.
    pub(crate) fn press(&mut self, keys: &str) {
        self.next("\x1b[?2004h", None);
        self.next("> ", None);
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Types at once, whatever is there.
    pub(crate) fn paste(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// The exit code, once it ended by itself.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }

    fn wait(&mut self, part: &str, key: Option<&str>, is_there: impl Fn(&Self) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_there(self) {
            assert!(Instant::now() < end, "no `{part}`: {}", self.text);
            match self.shown.recv_timeout(Duration::from_millis(900)) {
                Ok(bytes) => {
                    self.text.push_str(&String::from_utf8_lossy(&bytes));
                    // The editor asks where its cursor is.
                    if bytes.windows(4).any(|w| w == b"\x1b[6n") {
                        self.terminal.write_all(b"\x1b[1;1R").unwrap();
                    }
                }
                Err(_) => {
                    if let Some(key) = key {
                        self.terminal.write_all(key.as_bytes()).unwrap();
                    }
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
