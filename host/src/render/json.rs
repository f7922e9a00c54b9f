//! One JSON object a line.

use std::io::Write;

use serde::Serialize;

/// Writes a line and hands it to the kernel.
pub(crate) fn line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut text = escaped(serde_json::to_string(value)?);
    text.push('\n');
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Control characters above ASCII act on some terminals, and JSON does not escape them.
fn escaped(text: String) -> String {
    let acts = |c: char| matches!(c, '\u{7f}'..='\u{9f}');
    if !text.contains(acts) {
        return text;
    }
    let one = |c: char| if acts(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() };
    text.chars().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn no_control_character_is_in_a_line() {
        let mut out = Vec::new();
        line(&mut out, &"a\u{9b}2J\u{1b}[m\u{7f}ü").unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "\"a\\u009b2J\\u001b[m\\u007fü\"\n");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), "a\u{9b}2J\u{1b}[m\u{7f}ü");
    }
}
