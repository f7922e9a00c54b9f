use schemars::JsonSchema;
use sdk::{Call, ErrorKind, Output, Tool, ToolError, files, plural, thousands};
use serde::Deserialize;

use crate::replace::{Mode, replace};
use crate::{paths, python, read, seen};

/// Arguments of `edit`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Edit {
    /// File to edit: absolute, or relative to the working directory.
    path: String,
    /// Text to find, with its indentation, without line numbers.
    old_str: String,
    /// Text to put there; empty to delete.
    new_str: String,
    /// Replace every occurrence (default false).
    replace_all: Option<bool>,
    /// replace (default), replace_all, or insert new_str after or before old_str.
    mode: Option<Mode>,
}

impl Tool for Edit {
    const NAME: &'static str = "edit";
    const DESCRIPTION: &'static str = "Replaces a piece of a file that was read before. old_str must occur exactly once unless \
        replace_all is set. Modes: replace, replace_all, append_after (insert new_str after old_str), prepend_before.";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        let path = paths::named(call, &self.path)?;
        if self.old_str == self.new_str {
            return Err(ToolError::invalid("old_str and new_str must differ"));
        }
        let file = read::open(call, &path, &self.path)?;
        if let Some(size) = read::too_large(&file)? {
            let message = format!(
                "{} has {} bytes; files above {} MiB are changed with bash, for example with sed or a script",
                self.path,
                thousands(size),
                files::MAX_BYTES >> 20
            );
            return Err(ToolError::new(ErrorKind::TooLarge, message));
        }
        let content = read::read_all(file)?;
        let digest = seen::digest(&content);
        match seen::known(&path)? {
            Some(known) if known == digest => {}
            Some(_) => {
                let message = format!(
                    "{} was changed on disk since you read it; you must read it again before editing",
                    self.path
                );
                return Err(ToolError::new(ErrorKind::Conflict, message));
            }
            None => {
                let message = format!("you must read {} before editing it (use the read tool)", self.path);
                return Err(ToolError::new(ErrorKind::Conflict, message));
            }
        }
        let mode = self.mode.unwrap_or_default();
        let all = self.replace_all.unwrap_or(false);
        let edited = replace(read::as_text(&content)?, &self.old_str, &self.new_str, mode, all)
            .map_err(|e| ToolError::invalid(format!("{}: {e}", self.path)))?;
        let written = files::write(&path, edited.text.as_bytes(), &files::Expectation::Sha256(digest))
            .map_err(|e| match e.kind {
                ErrorKind::Denied => e,
                ErrorKind::Conflict => {
                    e.with_message(format!("{} was changed during the edit; read it again", self.path))
                }
                _ => {
                    let message = format!("edit write error: {}", e.message);
                    e.with_message(message)
                }
            })?;
        seen::remember(&path, &written.sha256)?;
        let note = edited.note.map(|note| format!(" {note}")).unwrap_or_default();
        let warnings = python::warnings(&self.path, &edited.text);
        Ok(Output::text(format!(
            "Edited {} ({}){note}{warnings}",
            self.path,
            plural(edited.count, "replacement")
        )))
    }
}
