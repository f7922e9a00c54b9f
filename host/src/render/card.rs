//! The approval card: what is asked, and the one key that answers.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use crossterm::event::{Event as Key, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use protocol::text::{line, plain};
use protocol::{ApprovalAnswer, ApprovalRequest, Need, ShownText, Tier};
use serde_json::Value;

use crate::editor::Editor;
use crate::render::exact;
use crate::render::style::Style;

/// Keys typed before the card was seen do not count: the buffer is emptied for this long.
const PAUSE: Duration = Duration::from_millis(400);

/// Keys that come faster than this after each other were pasted.
const PASTE: Duration = Duration::from_millis(30);

/// Lines of a text that are shown of its head and of its end, and characters of one.
const HEAD: usize = 60;
const TAIL: usize = 10;
const LINE: usize = 400;

/// What a person decided about a batch.
pub(crate) enum Decided {
    Answers(Vec<ApprovalAnswer>),
    /// Ctrl-C: stop the turn.
    Interrupt,
}

/// Shows the cards of a batch and waits for the answers. Blocks.
pub(crate) fn ask(
    out: &mut impl Write,
    requests: &[ApprovalRequest],
    style: Style,
    editor: &Editor,
) -> std::io::Result<Decided> {
    let count = requests.len();
    let mut answers = Vec::with_capacity(count);
    for (k, request) in requests.iter().enumerate() {
        let mut request = request.clone();
        let mut edits = BTreeMap::new();
        let key = loop {
            for line in lines(&request, &edits, k + 1, count, style) {
                writeln!(out, "{line}")?;
            }
            let (keys, edit): (&[char], _) = match request.texts.is_empty() {
                true => (&['y', 's', 'n', 'f'], ""),
                false => (&['y', 's', 'e', 'n', 'f'], "e edit · "),
            };
            let words = format!("y once · s for the session · {edit}n refuse · f refuse with words:");
            write!(out, "  {} ", style.bold(&words))?;
            out.flush()?;
            match key(out, keys, None)? {
                None => return Ok(Decided::Interrupt),
                // What was written is shown like what was asked for, and needs a yes of its own.
                Some('e') => {
                    if let Err(error) = edit_texts(&mut request, &mut edits, editor) {
                        writeln!(out, "{}", style.yellow(&plain(&format!("  not edited: {error:#}"))))?;
                    }
                }
                Some(key) => break key,
            }
        };
        let feedback = match key {
            'f' => {
                let words = words(out)?;
                writeln!(out)?;
                let Some(words) = words else {
                    return Ok(Decided::Interrupt);
                };
                Some(words)
            }
            _ => None,
        };
        answers.push(ApprovalAnswer {
            tool_call_id: request.tool_call_id.clone(),
            approved: matches!(key, 'y' | 's'),
            feedback,
            for_session: key == 's',
            edits,
        });
    }
    Ok(Decided::Answers(answers))
}

/// Lets the person edit the texts of a call, one after another.
fn edit_texts(
    request: &mut ApprovalRequest,
    edits: &mut BTreeMap<String, String>,
    editor: &Editor,
) -> anyhow::Result<()> {
    for shown in &mut request.texts {
        let Some(Value::String(text)) = request.arguments.pointer_mut(&shown.argument) else { continue };
        let edited = editor.edit(text)?;
        if edited != *text {
            (shown.bytes, shown.sha256) = (edited.len(), audit::digest(edited.as_bytes()));
            text.clone_from(&edited);
            edits.insert(shown.argument.clone(), edited);
        }
    }
    Ok(())
}

/// The lines of a text that is decided by: its head and its end, if it is long.
fn text_lines(text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let show = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|line| format!("  | {}", exact(line, LINE))).collect()
    };
    if lines.len() <= HEAD + TAIL {
        return show(&lines);
    }
    let between = format!("  … {} lines between; e shows them all", lines.len() - HEAD - TAIL);
    [show(&lines[..HEAD]), vec![between], show(&lines[lines.len() - TAIL..])].concat()
}

fn lines(
    request: &ApprovalRequest,
    edits: &BTreeMap<String, String>,
    number: usize,
    count: usize,
    style: Style,
) -> Vec<String> {
    let tiers: Vec<&str> = request.tiers.iter().map(|tier| tier.as_str()).collect();
    let head = format!("[{number}/{count}] {} · {}", line(&request.tool), tiers.join(" + "));
    let mut out =
        vec![style.yellow(&format!("Approval required {head}")), format!("  {}", line(&request.reason))];
    match &request.need {
        Some(Need::Network { plugin, grant }) => {
            out.push(format!("  let {} send {}", line(plugin), line(grant)));
        }
        Some(Need::Budget { .. }) => out.push("  go on".to_owned()),
        Some(Need::SealedPath { path }) => out.push(format!("  change {}", line(path))),
        None => {
            let mut arguments = request.arguments.clone();
            for shown in &request.texts {
                if let Some(text) = arguments.pointer_mut(&shown.argument) {
                    *text = Value::from("(below)");
                }
            }
            let arguments = serde_json::to_string_pretty(&arguments).unwrap_or_default();
            out.extend(plain(&arguments).lines().map(|line| format!("  {line}")));
            for ShownText { argument, path, bytes, sha256 } in &request.texts {
                let from = match (edits.contains_key(argument), path) {
                    (true, _) => " as you wrote it".to_owned(),
                    (false, Some(path)) => format!(" from the file {}", exact(path, 160)),
                    (false, None) => String::new(),
                };
                out.push(format!("  {}{from}: {bytes} bytes, sha256 {sha256}", exact(argument, 64)));
                let text = request.arguments.pointer(argument).and_then(Value::as_str);
                out.extend(text_lines(text.unwrap_or_default()));
            }
        }
    }
    if let Some(price) = request.price_usd {
        let left =
            request.remaining_usd.map(|left| format!(", of {left:.2} USD that are left")).unwrap_or_default();
        out.push(style.yellow(&format!("  costs at most {price:.2} USD{left}")));
    } else if request.tiers.contains(&Tier::Spend) && request.need.is_none() {
        out.push(style.yellow("  nobody knows what it costs"));
    }
    if let Some(taint) = &request.taint {
        out.push(style.yellow(&format!(
            "  the session has read {}, which may have talked the model into it",
            line(taint)
        )));
    }
    // Again, where it cannot have scrolled away.
    out.push(format!("  → {} {}", exact(&request.tool, 64), exact(&request.target, 160)));
    out
}

/// Waits for one of the keys and shows it. Enter counts as one of them or as nothing. None: Ctrl-C or Ctrl-D.
pub(crate) fn key(out: &mut impl Write, keys: &[char], enter: Option<char>) -> std::io::Result<Option<char>> {
    let key = raw(|| read_key(keys, enter))?;
    writeln!(out, "{}", key.unwrap_or('^'))?;
    Ok(key)
}

/// Waits for one of the keys, after the buffer was emptied. None: Ctrl-C or Ctrl-D.
fn read_key(keys: &[char], enter: Option<char>) -> std::io::Result<Option<char>> {
    while poll(PAUSE)? {
        if is_end(&read()?) {
            return Ok(None);
        }
    }
    loop {
        let event = read()?;
        if is_end(&event) {
            return Ok(None);
        }
        let Key::Key(KeyEvent { code, kind: KeyEventKind::Press, modifiers, .. }) = event else {
            continue;
        };
        let key = match (code, enter) {
            (KeyCode::Char(c), _) => c.to_ascii_lowercase(),
            (KeyCode::Enter, Some(key)) => key,
            _ => continue,
        };
        let pasted = poll(PASTE)?;
        if pasted || modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            // What was pasted is no answer; the rest of it is dropped.
            while poll(PASTE)? {
                read()?;
            }
            continue;
        }
        if keys.contains(&key) {
            return Ok(Some(key));
        }
    }
}

fn is_end(event: &Key) -> bool {
    let Key::Key(KeyEvent { code: KeyCode::Char(c), modifiers, .. }) = event else {
        return false;
    };
    modifiers.contains(KeyModifiers::CONTROL) && matches!(c, 'c' | 'd')
}

/// Reads a line. None: Ctrl-C or Ctrl-D. In raw mode, for otherwise Ctrl-C would reach the turn behind the
/// card's back, and the answer would come when nothing waits for it.
fn words(out: &mut impl Write) -> std::io::Result<Option<String>> {
    raw(|| {
        let mut line = String::new();
        loop {
            write!(out, "\r\x1b[K  what should it do instead? {line}")?;
            out.flush()?;
            match typed(&mut line, &read()?) {
                Typed::More => {}
                Typed::Done => return Ok(Some(line.trim().to_owned())),
                Typed::End => return Ok(None),
            }
        }
    })
}

/// What a key does to a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Typed {
    More,
    Done,
    /// Ctrl-C or Ctrl-D.
    End,
}

fn typed(line: &mut String, event: &Key) -> Typed {
    if is_end(event) {
        return Typed::End;
    }
    let Key::Key(KeyEvent { code, kind: KeyEventKind::Press | KeyEventKind::Repeat, modifiers, .. }) = event
    else {
        return Typed::More;
    };
    match code {
        KeyCode::Enter => return Typed::Done,
        KeyCode::Backspace => {
            line.pop();
        }
        KeyCode::Char(c) if !modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) => line.push(*c),
        _ => {}
    }
    Typed::More
}

fn raw<T>(work: impl FnOnce() -> std::io::Result<T>) -> std::io::Result<T> {
    enable_raw_mode()?;
    let done = work();
    disable_raw_mode()?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Key {
        Key::Key(KeyEvent::new(code, modifiers))
    }

    #[test]
    fn words_are_typed_corrected_and_given_up() {
        let mut line = String::new();
        let plain = |c| key(KeyCode::Char(c), KeyModifiers::NONE);
        for c in "no é".chars() {
            assert_eq!(typed(&mut line, &plain(c)), Typed::More);
        }
        assert_eq!(typed(&mut line, &key(KeyCode::Backspace, KeyModifiers::NONE)), Typed::More);
        assert_eq!(typed(&mut line, &key(KeyCode::Char('a'), KeyModifiers::CONTROL)), Typed::More);
        assert_eq!(line, "no ");
        assert_eq!(typed(&mut line, &key(KeyCode::Enter, KeyModifiers::NONE)), Typed::Done);
        assert_eq!(typed(&mut line, &key(KeyCode::Char('c'), KeyModifiers::CONTROL)), Typed::End);
        assert_eq!(typed(&mut line, &key(KeyCode::Char('d'), KeyModifiers::CONTROL)), Typed::End);
    }
}
