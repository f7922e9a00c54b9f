//! The approval card: what is asked, and the one key that answers.

use std::io::Write;
use std::time::Duration;

use crossterm::event::{Event as Key, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use protocol::text::{line, plain};
use protocol::{ApprovalAnswer, ApprovalRequest, Need, Tier};

use crate::render::exact;
use crate::render::style::Style;

/// Keys typed before the card was seen do not count: the buffer is emptied for this long.
const PAUSE: Duration = Duration::from_millis(400);

/// Keys that come faster than this after each other were pasted.
const PASTE: Duration = Duration::from_millis(30);

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
) -> std::io::Result<Decided> {
    let count = requests.len();
    let mut answers = Vec::with_capacity(count);
    for (k, request) in requests.iter().enumerate() {
        for line in lines(request, k + 1, count, style) {
            writeln!(out, "{line}")?;
        }
        // Only what is running can be answered for good, and only where that is a grant.
        let (ways, keys): (&str, &[char]) = if request.lasting {
            (
                "y once · s for the session · g for good · n refuse · f refuse with words:",
                &['y', 's', 'g', 'n', 'f'],
            )
        } else {
            ("y once · s for the session · n refuse · f refuse with words:", &['y', 's', 'n', 'f'])
        };
        write!(out, "  {} ", style.bold(ways))?;
        out.flush()?;
        let Some(key) = key(out, keys, None)? else {
            return Ok(Decided::Interrupt);
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
            approved: matches!(key, 'y' | 's' | 'g'),
            feedback,
            for_session: key == 's',
            for_good: key == 'g',
        });
    }
    Ok(Decided::Answers(answers))
}

fn lines(request: &ApprovalRequest, number: usize, count: usize, style: Style) -> Vec<String> {
    let tiers: Vec<&str> = request.tiers.iter().map(|tier| tier.as_str()).collect();
    let head = format!("[{number}/{count}] {} · {}", line(&request.tool), tiers.join(" + "));
    let mut out =
        vec![style.yellow(&format!("Approval required {head}")), format!("  {}", line(&request.reason))];
    match &request.need {
        Some(Need::Network { plugin, grant, .. }) => {
            let (origin, method) = grant.rsplit_once(' ').unwrap_or((grant, ""));
            out.push(format!("  plugin  {}", line(plugin)));
            out.push(format!("  origin  {}", line(origin)));
            out.push(format!("  method  {}", line(method)));
        }
        Some(Need::Budget { .. }) => out.push("  go on".to_owned()),
        Some(Need::SealedPath { path }) => out.push(format!("  change {}", line(path))),
        None => {
            let arguments = serde_json::to_string_pretty(&request.arguments).unwrap_or_default();
            out.extend(plain(&arguments).lines().map(|line| format!("  {line}")));
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
