use schemars::JsonSchema;
use sdk::exec::{Captured, Command, Exit};
use sdk::{Call, ErrorKind, Output, Tool, ToolError, thousands, truncate_middle};
use serde::Deserialize;

use crate::{ansi, spill};

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
        let text = render(&exit, seconds, |text| spill::keep(&call.id, text));
        // A command that ends well when it is told to stop did not do what it was asked for.
        Ok(Output::text(text).failed_if(exit.timed_out || exit.code != Some(0)))
    }
}

/// What the model reads: stdout, then stderr, then how it ended.
fn render(exit: &Exit, seconds: i64, spill: impl FnMut(&str) -> Option<String>) -> String {
    let streams = [Stream::of(&exit.stdout, "stdout"), Stream::of(&exit.stderr, "stderr")];
    let mut text = shorten(&streams, spill);
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

/// One of a command's two outputs.
struct Stream<'a> {
    name: &'static str,
    /// What there is of it here, for reading.
    text: String,
    /// Bytes that were written.
    total: u64,
    /// The file that has all of it, where the text has not.
    file: Option<&'a str>,
}

impl<'a> Stream<'a> {
    fn of(captured: &'a Captured, name: &'static str) -> Self {
        let mut text = ansi::strip(&String::from_utf8_lossy(&captured.head));
        let file = captured.file.as_deref();
        if !captured.tail.is_empty() {
            let kept = (captured.head.len() + captured.tail.len()) as u64;
            let left_out = thousands(captured.total.saturating_sub(kept));
            let where_it_is = file.map_or_else(String::new, |file| format!("; all of it is in {file}"));
            text.push_str(&format!("\n\n... ({left_out} bytes of {name} left out{where_it_is}) ...\n\n"));
            text.push_str(&ansi::strip(&String::from_utf8_lossy(&captured.tail)));
        }
        Self { name, text, total: captured.total, file }
    }

    /// Where all of it is, in words.
    fn place(&self, file: &str) -> String {
        format!("{file} ({}, {} bytes)", self.name, thousands(self.total))
    }
}

/// Both outputs, one after the other, with the middle left out if it is long.
fn shorten(streams: &[Stream<'_>; 2], spill: impl FnMut(&str) -> Option<String>) -> String {
    let [out, errors] = streams;
    let line_end =
        if out.text.is_empty() || out.text.ends_with('\n') || errors.text.is_empty() { "" } else { "\n" };
    let text = format!("{}{line_end}{}", out.text, errors.text);
    let total = text.chars().count();
    if total <= HEAD_CHARS + TAIL_CHARS {
        return text;
    }
    let saved = saved(streams, &text, spill);
    let has_holes = streams.iter().any(|stream| stream.file.is_some());
    truncate_middle(text, HEAD_CHARS, TAIL_CHARS, |left_out| {
        let size = if has_holes {
            format!("{} bytes of output", thousands(out.total + errors.total))
        } else {
            format!("{} of {} characters left out", thousands(left_out as u64), thousands(total as u64))
        };
        format!(
            "\n\n... ({size}; the first {} and the last {}{} are shown) ...\n{saved}\n\
             The command has finished; go on with what is shown or look into the file.\n\n",
            thousands(HEAD_CHARS as u64),
            thousands(TAIL_CHARS as u64),
            if has_holes { " characters" } else { "" },
        )
    })
}

/// Where the full output is. What the host has kept in a file already is named, not kept again.
fn saved(streams: &[Stream<'_>; 2], text: &str, mut spill: impl FnMut(&str) -> Option<String>) -> String {
    let places: Option<Vec<String>> = if streams.iter().all(|stream| stream.file.is_none()) {
        spill(text).map(|path| vec![path])
    } else {
        let written = streams.iter().filter(|stream| stream.total > 0);
        let place = |stream: &Stream<'_>| match stream.file {
            Some(file) => Some(stream.place(file)),
            None => spill(&stream.text).map(|path| stream.place(&path)),
        };
        written.map(place).collect()
    };
    match places {
        Some(places) => format!(
            "Full output saved to {} — look at parts of it with the read tool (offset, limit).",
            places.join(" and ")
        ),
        None => "The full output could not be saved: no space is left in /tmp.".to_owned(),
    }
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
    fn where_the_host_kept_a_file_that_one_is_named_and_no_other_made() {
        let cut = Captured {
            head: vec![b'a'; 250_000],
            tail: vec![b'z'; 750_000],
            total: 3_000_000,
            file: Some("/tmp/whole".to_owned()),
        };
        let ended = Exit { stdout: cut, ..exit(0, "", "") };
        let out = render(&ended, 1, |_| unreachable!());
        assert!(
            out.contains(
                "\n\n... (3,000,000 bytes of output; the first 6,250 and the last 18,750 characters are shown) ...\n\
                 Full output saved to /tmp/whole (stdout, 3,000,000 bytes) — look"
            ),
            "{out}"
        );
        assert!(!out.contains("left out"), "the inner notice is not shown");
        let both = Exit { stderr: captured("warning\n"), ..ended };
        let mut kept = Vec::new();
        let out = render(&both, 1, |text| {
            kept.push(text.to_owned());
            Some("/tmp/errors".to_owned())
        });
        assert!(
            out.contains("/tmp/whole (stdout, 3,000,000 bytes) and /tmp/errors (stderr, 8 bytes) —"),
            "{out}"
        );
        assert_eq!(kept, ["warning\n"]);
    }
}
