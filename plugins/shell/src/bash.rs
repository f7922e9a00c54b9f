use std::path::Path;

use schemars::JsonSchema;
use sdk::exec::{Captured, Command, Exit};
use sdk::{Call, ErrorKind, Output, Tool, ToolError, thousands, truncate_middle};
use serde::Deserialize;

use crate::ansi;

/// Seconds a command may take when no timeout is given.
const DEFAULT_TIMEOUT_S: i64 = 120;

/// Seconds a command may take at most: ten hours.
const MAX_TIMEOUT_S: i64 = 36_000;

/// Characters shown: above their sum the middle is left out.
const HEAD_CHARS: usize = 6_250;
const TAIL_CHARS: usize = 18_750;

/// Arguments of `bash`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Bash {
    /// The command line, run by sh.
    command: String,
    /// What it does, in 5 to 10 words, for the person who watches.
    #[allow(dead_code, reason = "for display, by the host")]
    description: Option<String>,
    /// Directory to run in (default: the working directory).
    work_dir: Option<String>,
    /// Seconds until it is ended (default 120, at most 36000).
    timeout: Option<i64>,
}

impl Tool for Bash {
    const NAME: &'static str = "bash";
    const DESCRIPTION: &'static str = "Runs one shell command; each call is a fresh shell. Chain dependent commands with &&, send \
        independent ones as parallel calls. Do not use it to read, write or edit files: there are tools for that. Long work: \
        start it in the background with its output in a file and look at that from later calls: \
        nohup CMD > /tmp/output.log 2>&1 & echo $!";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        if self.command.trim().is_empty() {
            return Err(ToolError::invalid("there is no command"));
        }
        let seconds = match self.timeout.unwrap_or(0) {
            0 => DEFAULT_TIMEOUT_S,
            given => given.clamp(1, MAX_TIMEOUT_S),
        };
        let timeout_ms = u32::try_from(seconds * 1_000).unwrap_or(u32::MAX);
        let mut command = Command::new("sh", ["-c", &self.command]).timeout_ms(timeout_ms);
        if let Some(dir) = self.work_dir {
            command = command.current_dir(dir);
        }
        let exit = command.run().map_err(|e| match e.kind {
            ErrorKind::Denied | ErrorKind::Cancelled => e,
            _ => {
                let message = format!("bash error: {}", e.message);
                e.with_message(message)
            }
        })?;
        let spill = |text: &str| {
            let path = format!("/tmp/bash_output_{}.txt", file_name(&call.id));
            std::fs::write(&path, text).ok().map(|()| path)
        };
        Ok(Output::text(render(&exit, seconds, spill)).failed_if(exit.code != Some(0)))
    }
}

/// What the model reads: stdout, then stderr, then how it ended.
fn render(exit: &Exit, seconds: i64, spill: impl FnOnce(&str) -> Option<String>) -> String {
    let mut text = text_of(&exit.stdout, "stdout");
    let errors = text_of(&exit.stderr, "stderr");
    if !text.is_empty() && !text.ends_with('\n') && !errors.is_empty() {
        text.push('\n');
    }
    text.push_str(&errors);
    let mut text = shorten(text, spill);
    if text.trim().is_empty() {
        text = "(no output)".to_owned();
    }
    let mut end = |line: &str| {
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(line);
    };
    if exit.timed_out {
        end(&format!(
            "(ended after {seconds}s: timeout. For long work run it in the background: nohup CMD > /tmp/output.log 2>&1 & \
             echo $! ; then look at it with: kill -0 PID ; tail -n 50 /tmp/output.log)"
        ));
    } else if let Some(signal) = &exit.signal {
        end(&format!("(ended by {signal})"));
    } else if let Some(code) = exit.code.filter(|code| *code != 0) {
        end(&format!("(exit code {code})"));
    }
    for note in &exit.notes {
        end(note);
    }
    text
}

fn text_of(captured: &Captured, name: &str) -> String {
    let mut text = ansi::strip(&String::from_utf8_lossy(&captured.head));
    if !captured.tail.is_empty() {
        let kept = (captured.head.len() + captured.tail.len()) as u64;
        let left_out = thousands(captured.total.saturating_sub(kept));
        let file = captured.file.as_deref().unwrap_or("nowhere");
        text.push_str(&format!(
            "\n\n... ({left_out} bytes of {name} left out; all of it is in {file}) ...\n\n"
        ));
        text.push_str(&ansi::strip(&String::from_utf8_lossy(&captured.tail)));
    }
    text
}

fn shorten(text: String, spill: impl FnOnce(&str) -> Option<String>) -> String {
    let total = text.chars().count();
    if total <= HEAD_CHARS + TAIL_CHARS {
        return text;
    }
    let saved = match spill(&text) {
        Some(path) => {
            format!("Full output saved to {path} — look at parts of it with the read tool (offset, limit).")
        }
        None => "The full output could not be saved: no space is left in /tmp.".to_owned(),
    };
    truncate_middle(text, HEAD_CHARS, TAIL_CHARS, |left_out| {
        format!(
            "\n\n... ({} of {} characters left out; the first {} and the last {} are shown) ...\n{saved}\n\
             The command has finished; go on with what is shown or look into the file.\n\n",
            thousands(left_out as u64),
            thousands(total as u64),
            thousands(HEAD_CHARS as u64),
            thousands(TAIL_CHARS as u64),
        )
    })
}

/// The call's id as part of a file name.
fn file_name(id: &str) -> String {
    let name: String =
        id.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).take(64).collect();
    if Path::new(&name).file_name().is_some() { name } else { "call".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(text: &str) -> Captured {
        Captured { head: text.as_bytes().to_vec(), tail: Vec::new(), total: text.len() as u64, file: None }
    }

    fn exit(code: i32, stdout: &str, stderr: &str) -> Exit {
        Exit {
            code: Some(code),
            signal: None,
            timed_out: false,
            duration_ms: 1,
            stdout: captured(stdout),
            stderr: captured(stderr),
            notes: Vec::new(),
            extra: None,
        }
    }

    fn shown(exit: &Exit) -> String {
        render(exit, 1, |_| Some("/tmp/all.txt".to_owned()))
    }

    #[test]
    fn stdout_comes_before_stderr_and_the_exit_code_last() {
        assert_eq!(shown(&exit(3, "out\n", "err\n")), "out\nerr\n(exit code 3)");
        assert_eq!(shown(&exit(0, "out", "err")), "out\nerr");
        assert_eq!(shown(&exit(0, "", "")), "(no output)");
        assert_eq!(shown(&exit(1, " \n", "")), "(no output)\n(exit code 1)");
    }

    #[test]
    fn a_timeout_tells_the_seconds_and_the_way_to_run_in_the_background() {
        let ended =
            Exit { code: None, signal: Some("SIGTERM".to_owned()), timed_out: true, ..exit(0, "", "") };
        let text = shown(&ended);
        assert!(text.contains("1s") && text.contains("nohup"), "{text}");
    }

    #[test]
    fn a_signal_and_notes_are_told() {
        let mut ended = Exit { code: None, signal: Some("SIGKILL".to_owned()), ..exit(0, "x\n", "") };
        ended.notes.push("a note".to_owned());
        assert_eq!(shown(&ended), "x\n(ended by SIGKILL)\na note");
    }

    #[test]
    fn long_output_keeps_a_quarter_before_and_three_after() {
        let text: String = (0..108_894).map(|k| char::from(b'a' + (k % 26) as u8)).collect();
        let mut all = String::new();
        let out = render(&exit(0, &text, ""), 1, |whole| {
            all = whole.to_owned();
            Some("/tmp/all.txt".to_owned())
        });
        assert_eq!(all, text);
        assert!(out.starts_with(&text[..6_250]) && out.ends_with(&text[108_894 - 18_750..]));
        assert!(out.contains(
            "... (83,894 of 108,894 characters left out; the first 6,250 and the last 18,750 are shown) ..."
        ));
        assert!(out.contains("Full output saved to /tmp/all.txt"));
    }

    #[test]
    fn output_that_the_host_cut_names_its_file() {
        let cut = Captured {
            head: b"start".to_vec(),
            tail: b"end".to_vec(),
            total: 5_000,
            file: Some("/tmp/f".to_owned()),
        };
        let ended = Exit { stdout: cut, ..exit(0, "", "") };
        assert_eq!(
            shown(&ended),
            "start\n\n... (4,992 bytes of stdout left out; all of it is in /tmp/f) ...\n\nend"
        );
    }

    #[test]
    fn call_ids_become_harmless_file_names() {
        assert_eq!(file_name("call_1"), "call_1");
        assert_eq!(file_name("../../etc/passwd"), "etcpasswd");
        assert_eq!(file_name("…"), "call");
    }
}
