//! The approval card: what is asked, and the one key that answers.

mod layout;
mod sheet;

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use crossterm::event::{Event as Key, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, poll, read};
use crossterm::terminal::{disable_raw_mode, enable_raw_mode};
use protocol::{ApprovalAnswer, ApprovalRequest};
use serde_json::Value;

use crate::editor::Editor;
use crate::render::plain;
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
    editor: &Editor,
) -> std::io::Result<Decided> {
    let count = requests.len();
    let mut answers = Vec::with_capacity(count);
    for (k, request) in requests.iter().enumerate() {
        let mut edited = Edited { request: request.clone(), texts: BTreeMap::new() };
        let Some(key) = choose(out, &mut edited, (k + 1, count), style, editor)? else {
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
            edits: edited.texts,
        });
    }
    Ok(Decided::Answers(answers))
}

/// A request with the texts that the person wrote anew, by the argument.
struct Edited {
    request: ApprovalRequest,
    texts: BTreeMap<String, String>,
}

impl Edited {
    /// Lets the person edit the texts of the call, one after another.
    fn edit(&mut self, editor: &Editor) -> anyhow::Result<()> {
        for shown in &mut self.request.texts {
            let Some(Value::String(text)) = self.request.arguments.pointer_mut(&shown.argument) else {
                continue;
            };
            let edited = editor.edit(text)?;
            if edited != *text {
                (shown.bytes, shown.sha256) = (edited.len(), audit::digest(edited.as_bytes()));
                text.clone_from(&edited);
                self.texts.insert(shown.argument.clone(), edited);
            }
        }
        Ok(())
    }
}

/// Shows one card until a key answers it. None: Ctrl-C or Ctrl-D.
fn choose(
    out: &mut impl Write,
    edited: &mut Edited,
    place: (usize, usize),
    style: Style,
    editor: &Editor,
) -> std::io::Result<Option<char>> {
    let mut whole = false;
    loop {
        // A terminal that does not know its size says 0.
        let size = crossterm::terminal::size().ok().filter(|(columns, _)| *columns > 0);
        let columns = size.map_or(80, |(columns, _)| columns.into());
        let card = sheet::card(edited, place, columns, style, whole);
        for row in &card.rows {
            writeln!(out, "{row}")?;
        }
        let keys = keys(&edited.request, card.left_out);
        write!(out, "{} ", style.bold(&menu(&keys, columns)))?;
        out.flush()?;
        let letters: Vec<char> = keys.iter().map(|(letter, _)| *letter).collect();
        match key(out, &letters, None)? {
            Some('w') => whole = true,
            // What was written is shown like what was asked for, and needs a yes of its own.
            Some('e') => {
                if let Err(error) = edited.edit(editor) {
                    writeln!(out, "{}", style.yellow(&plain(&format!("  not edited: {error:#}"))))?;
                }
            }
            other => return Ok(other),
        }
    }
}

/// The keys that hold for a request, and what each means.
fn keys(request: &ApprovalRequest, left_out: usize) -> Vec<(char, &'static str)> {
    let mut keys = vec![('y', "once")];
    if request.for_session {
        keys.push(('s', "for the session"));
    }
    // Only what is running can be answered for good, and only where that is a grant.
    if request.lasting {
        keys.push(('g', "for good"));
    }
    if !request.texts.is_empty() {
        keys.push(('e', "edit"));
    }
    keys.extend([('n', "refuse"), ('f', "refuse with words")]);
    if left_out > 0 {
        keys.push(('w', "show all"));
    }
    keys
}

/// The keys in as few rows as fit.
fn menu(keys: &[(char, &str)], columns: usize) -> String {
    let mut menu = String::new();
    let mut used = 0;
    for (letter, meaning) in keys {
        let item = format!("{letter} {meaning}");
        let length = item.chars().count() + 3;
        match used {
            0 => menu.push_str("  "),
            _ if used + length + 3 > columns => {
                menu.push_str("\n  ");
                used = 0;
            }
            _ => menu.push_str(" · "),
        }
        menu.push_str(&item);
        used += length;
    }
    menu + ":"
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

    #[test]
    fn keys_are_offered_where_they_hold_and_fit_the_terminal() {
        let request = |for_session| ApprovalRequest {
            tool: "bash".to_owned(),
            arguments: serde_json::json!({}),
            tool_call_id: "1".into(),
            tiers: [protocol::Tier::Remote].into(),
            reason: String::new(),
            need: None,
            target: String::new(),
            for_session,
            lasting: false,
            price_usd: None,
            remaining_usd: None,
            payer: None,
            taint: None,
            texts: Vec::new(),
        };
        let letters = |for_session, left_out| -> String {
            keys(&request(for_session), left_out).into_iter().map(|(letter, _)| letter).collect()
        };
        assert_eq!(
            (letters(true, 0), letters(false, 0), letters(false, 3)),
            ("ysnf".into(), "ynf".into(), "ynfw".into())
        );
        let menu = |columns| menu(&keys(&request(true), 1), columns);
        assert_eq!(menu(100), "  y once · s for the session · n refuse · f refuse with words · w show all:");
        assert!(
            menu(60).lines().count() == 2 && menu(60).lines().all(|row| row.chars().count() < 60),
            "{}",
            menu(60)
        );
    }

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
