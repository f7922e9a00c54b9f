use protocol::FileChange;
use protocol::text::{line, plain};

use crate::render::style::Style;

/// Lines of a difference that are shown.
const MAX_LINES: usize = 20;

/// A file's change, as lines.
pub(crate) fn lines(change: &FileChange, style: Style) -> Vec<String> {
    let counts = format!(
        "{} {}",
        style.green(&format!("+{}", change.added)),
        style.red(&format!("-{}", change.removed))
    );
    let mut out = vec![format!("{counts} {}", line(&change.path))];
    let diff = plain(change.diff.as_deref().unwrap_or_default());
    let body: Vec<&str> = diff.lines().filter(|l| !l.starts_with("+++") && !l.starts_with("---")).collect();
    for line in body.iter().take(MAX_LINES) {
        out.push(match line.as_bytes().first() {
            Some(b'+') => style.green(line),
            Some(b'-') => style.red(line),
            _ => style.dim(line),
        });
    }
    if body.len() > MAX_LINES {
        out.push(style.dim(&format!("… {} more lines", body.len() - MAX_LINES)));
    }
    out
}
