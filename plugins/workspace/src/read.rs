use std::fs::File;
use std::io::{BufRead, BufReader, Read as _};
use std::path::Path;

use schemars::JsonSchema;
use sdk::{Call, Output, Tool, ToolError, files, thousands};
use serde::Deserialize;

use crate::read::lines::Lines;
use crate::{paths, seen};

mod lines;

/// Lines shown when no limit is given.
const DEFAULT_LINES: usize = 2_000;

/// Characters of a line that are shown.
const LINE_CHARS: usize = 4_000;

/// Characters shown in all; what follows is asked for with `offset`.
const OUTPUT_CHARS: usize = 200_000;

/// Arguments of `read`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Read {
    /// File to read: absolute, or relative to the working directory.
    path: String,
    /// First line to show, counted from 1.
    offset: Option<i64>,
    /// Number of lines to show (default 2000).
    limit: Option<i64>,
}

impl Tool for Read {
    const NAME: &'static str = "read";
    const DESCRIPTION: &'static str = "Shows a text file with line numbers. Up to 2000 lines from the start unless offset and \
        limit say otherwise; lines are cut after 4000 characters. A file must be read before it is edited or overwritten. \
        Several files can be read at once with parallel calls. For a directory use bash with ls.";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        let path = paths::named(call, &self.path)?;
        let first = usize::try_from(self.offset.unwrap_or(1)).unwrap_or(1).max(1);
        let count =
            self.limit.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(DEFAULT_LINES);
        let file = open(call, &path, &self.path)?;
        if too_large(&file)?.is_some() {
            // Such a file cannot be edited, so it is shown as it is read and its content is not hashed.
            return Ok(Output::text(page(BufReader::new(file), first, count)?));
        }
        let content = read_all(file)?;
        let text = as_text(&content)?;
        let shown = page(text.as_bytes(), first, count)?;
        seen::remember(&path, &seen::digest(&content))?;
        Ok(Output::text(shown))
    }
}

/// Opens a regular file. Anything else could block for ever or has no lines.
pub(crate) fn open(call: &Call, path: &Path, given: &str) -> Result<File, ToolError> {
    let metadata = std::fs::metadata(path).map_err(|e| paths::not_opened(call, path, given, &e))?;
    if metadata.is_dir() {
        return Err(ToolError::invalid(format!("{given} is a directory; list it with bash: ls -la {given}")));
    }
    if !metadata.is_file() {
        return Err(ToolError::invalid(format!("{given} is not a regular file")));
    }
    File::open(path).map_err(|e| failed(&format!("{given}: {e}")))
}

/// The bytes of a file that is too large to be changed by a tool, or none.
pub(crate) fn too_large(file: &File) -> Result<Option<u64>, ToolError> {
    let size = file.metadata().map_err(|e| failed(&e))?.len();
    Ok((size > files::MAX_BYTES as u64).then_some(size))
}

pub(crate) fn read_all(mut file: File) -> Result<Vec<u8>, ToolError> {
    let mut content = Vec::new();
    file.read_to_end(&mut content).map_err(|e| failed(&e))?;
    Ok(content)
}

/// The content as text; bytes that are not would be lost by an edit.
pub(crate) fn as_text(content: &[u8]) -> Result<&str, ToolError> {
    std::str::from_utf8(content).map_err(|e| {
        failed(&format!(
            "not UTF-8 text (byte {}); look at it with bash, e.g. file, xxd or iconv",
            e.valid_up_to()
        ))
    })
}

fn failed(reason: &dyn std::fmt::Display) -> ToolError {
    ToolError::new(sdk::ErrorKind::Unavailable, format!("read error: {reason}"))
}

/// Numbers `count` lines from line `first`.
fn page(input: impl BufRead, first: usize, count: usize) -> Result<String, ToolError> {
    let mut out = String::new();
    let mut chars = 0;
    let mut lines = Lines::new(input, LINE_CHARS * 4 + 8);
    let mut line = Vec::new();
    let mut number = 0;
    while number < first.saturating_add(count) - 1 {
        if !lines.next(&mut line).map_err(|e| failed(&e))? {
            break;
        }
        number += 1;
        if number < first {
            continue;
        }
        let text = String::from_utf8_lossy(&line);
        let cut = text.char_indices().nth(LINE_CHARS).map(|(at, _)| at);
        let (shown, mark) = cut.map_or((&*text, ""), |at| (&text[..at], "..."));
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&format!("{number:6}\t{shown}{mark}"));
        chars += shown.chars().count() + 8;
        if chars > OUTPUT_CHARS {
            out.push_str(&format!(
                "\n... (cut after {} characters; go on with offset={})",
                thousands(OUTPUT_CHARS as u64),
                number + 1
            ));
            break;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, first: usize, count: usize) -> String {
        page(text.as_bytes(), first, count).unwrap()
    }

    #[test]
    fn lines_are_numbered_from_one() {
        assert_eq!(shown("a\nb\n", 1, 10), "     1\ta\n     2\tb");
        assert_eq!(shown("a\r\n\r\nb", 1, 10), "     1\ta\n     2\t\n     3\tb");
        assert_eq!(shown(" 10%\r 20%\r\ndone", 1, 10), "     1\t 10%\n     2\t 20%\n     3\tdone");
    }

    #[test]
    fn offset_and_limit_choose_lines() {
        assert_eq!(shown("a\nb\nc\nd\n", 3, 1), "     3\tc");
        assert_eq!(shown("a\nb\n", 3, 5), "");
        assert_eq!(shown("a\nb\n", usize::MAX, usize::MAX), "");
    }

    #[test]
    fn long_lines_are_cut_by_characters() {
        let line = "ä".repeat(5_000);
        assert_eq!(shown(&line, 1, 1), format!("     1\t{}...", "ä".repeat(4_000)));
        let many_bytes = format!("{}\nnext\n", "x".repeat(1_000_000));
        assert!(shown(&many_bytes, 1, 2).ends_with("...\n     2\tnext"));
    }

    #[test]
    fn a_huge_answer_is_cut_with_the_way_to_go_on() {
        let text = format!("{}\n", "y".repeat(100)).repeat(3_000);
        let out = shown(&text, 1, 3_000);
        assert!(
            out.ends_with("(cut after 200,000 characters; go on with offset=1853)"),
            "{}",
            &out[out.len() - 80..]
        );
        // Characters count, not bytes: the same number of lines is shown.
        let text = format!("{}\n", "ä".repeat(100)).repeat(3_000);
        assert!(shown(&text, 1, 3_000).ends_with("go on with offset=1853)"));
    }

    #[test]
    fn binary_content_is_refused_with_a_way_out() {
        let error = as_text(b"ok\xff\xfe").unwrap_err();
        assert!(error.message.starts_with("read error: not UTF-8 text (byte 2)"), "{}", error.message);
    }
}
