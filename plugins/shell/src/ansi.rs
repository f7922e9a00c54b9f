/// Removes terminal sequences: `ESC [ … letter` and `ESC ] … BEL` (or `ESC \`).
pub(crate) fn strip(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\u{1b}') {
        out.push_str(&rest[..at]);
        let sequence = &rest[at + 1..];
        rest = match sequence.as_bytes().first() {
            Some(b'[') => skip_control(&sequence[1..]),
            Some(b']') => skip_command(&sequence[1..]),
            _ => sequence,
        };
    }
    out.push_str(rest);
    out
}

/// Parameters are 0x20 to 0x3f; the byte after them ends the sequence.
fn skip_control(text: &str) -> &str {
    let parameters = text.bytes().take_while(|b| (0x20..0x40).contains(b)).count();
    match text[parameters..].chars().next() {
        Some(last) if ('@'..='~').contains(&last) => &text[parameters + 1..],
        _ => &text[parameters..],
    }
}

fn skip_command(text: &str) -> &str {
    match text.find(['\u{7}', '\u{1b}', '\n']) {
        Some(at) if text.as_bytes()[at] == 7 => &text[at + 1..],
        Some(at) if text[at..].starts_with("\u{1b}\\") => &text[at + 2..],
        // An unfinished sequence ends with its line, so that it cannot swallow what follows.
        Some(at) => &text[at..],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::strip;

    #[test]
    fn colours_titles_and_moves_are_removed() {
        assert_eq!(strip("\u{1b}[31mred\u{1b}[0m"), "red");
        assert_eq!(strip("a\u{1b}]0;title\u{7}b\u{1b}]8;;http://x\u{1b}\\c"), "abc");
        assert_eq!(strip("50%\u{1b}[2K\u{1b}[?25hdone"), "50%done");
    }

    #[test]
    fn an_unfinished_sequence_swallows_nothing_after_its_line() {
        assert_eq!(strip("a\u{1b}]0;never ended\nb"), "a\nb");
        assert_eq!(strip("a\u{1b}[31"), "a");
        assert_eq!(strip("a\u{1b}"), "a");
        assert_eq!(strip("a\u{1b}[31ä"), "aä");
    }
}
