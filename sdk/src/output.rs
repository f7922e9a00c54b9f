use serde_json::Value;

use crate::bindings::ml_intern::plugin::types as wit;

/// What a tool answers.
#[derive(Clone, Debug, Default)]
pub struct Output {
    content: Vec<Content>,
    structured: Option<Value>,
    failed: bool,
}

#[derive(Clone, Debug)]
enum Content {
    Text(String),
    Binary { mime: String, data: Vec<u8> },
    Link { uri: String, title: Option<String> },
}

impl Output {
    /// An answer of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text(text.into())], ..Self::default() }
    }

    /// Adds bytes with their MIME type.
    #[must_use]
    pub fn with_binary(mut self, mime: impl Into<String>, data: Vec<u8>) -> Self {
        self.content.push(Content::Binary { mime: mime.into(), data });
        self
    }

    /// Adds a reference.
    #[must_use]
    pub fn with_link(mut self, uri: impl Into<String>, title: Option<String>) -> Self {
        self.content.push(Content::Link { uri: uri.into(), title });
        self
    }

    /// Adds the answer for programs.
    #[must_use]
    pub fn with_structured(mut self, value: Value) -> Self {
        self.structured = Some(value);
        self
    }

    /// Marks the answer as a failure: the tool worked, what it did failed.
    #[must_use]
    pub fn failed_if(mut self, failed: bool) -> Self {
        self.failed = failed;
        self
    }
}

impl From<Output> for wit::ToolOutput {
    fn from(output: Output) -> Self {
        let content = output.content.into_iter().map(|content| match content {
            Content::Text(text) => wit::Content::Text(wit::TextBlock { text, extra: None }),
            Content::Binary { mime, data } => {
                wit::Content::Binary(wit::BinaryBlock { mime, data, extra: None })
            }
            Content::Link { uri, title } => {
                wit::Content::Link(wit::LinkBlock { uri, mime: None, title, extra: None })
            }
        });
        Self {
            content: content.collect(),
            structured: output.structured.map(|value| value.to_string()),
            is_error: output.failed,
            extra: None,
        }
    }
}

/// Shortens a text to its first `head` and last `tail` characters with `notice` between them, if it has
/// more than both. `notice` is told how many characters are left out.
pub fn truncate_middle(
    text: String,
    head: usize,
    tail: usize,
    notice: impl FnOnce(usize) -> String,
) -> String {
    let total = text.chars().count();
    if total <= head + tail {
        return text;
    }
    let at = |chars: usize| text.char_indices().nth(chars).map_or(text.len(), |(byte, _)| byte);
    format!("{}{}{}", &text[..at(head)], notice(total - head - tail), &text[at(total - tail)..])
}

/// A number with a comma between groups of three digits.
#[must_use]
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (k, digit) in digits.chars().enumerate() {
        if k > 0 && (digits.len() - k).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 file`, `2 files`.
#[must_use]
pub fn plural(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A Markdown table. Cells are escaped; rows that are too short are filled up.
#[must_use]
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let line =
        |cells: &mut dyn Iterator<Item = String>| format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "));
    let mut out = line(&mut header.iter().map(|cell| (*cell).to_owned()));
    out.push_str(&line(&mut header.iter().map(|_| "---".to_owned())));
    for row in rows {
        let cell =
            |k: usize| row.get(k).map(|c| c.replace('|', "\\|").replace('\n', " ")).unwrap_or_default();
        out.push_str(&line(&mut (0..header.len()).map(cell)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_counts_characters() {
        let text = "äöü".repeat(10);
        let short = truncate_middle(text.clone(), 3, 3, |left_out| format!("[{left_out}]"));
        assert_eq!(short, "äöü[24]äöü");
        assert_eq!(truncate_middle(text.clone(), 15, 15, |_| unreachable!()), text);
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(plural(1, "replacement"), "1 replacement");
        assert_eq!(plural(2, "replacement"), "2 replacements");
    }

    #[test]
    fn table_cells_are_escaped() {
        let rows = vec![vec!["a|b".to_owned(), "x\ny".to_owned()], vec!["c".to_owned()]];
        assert_eq!(
            table(&["one", "two"], &rows),
            "| one | two |\n| --- | --- |\n| a\\|b | x y |\n| c |  |\n"
        );
    }
}
