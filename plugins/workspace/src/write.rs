use std::path::Path;

use schemars::JsonSchema;
use sdk::{Call, ErrorKind, Output, Tool, ToolError, files};
use serde::Deserialize;

use crate::{paths, python, seen};

/// Arguments of `write`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Write {
    /// File to write: absolute, or relative to the working directory.
    path: String,
    /// The whole new content (default: empty).
    #[serde(default)]
    content: String,
}

impl Tool for Write {
    const NAME: &'static str = "write";
    const DESCRIPTION: &'static str = "Writes a whole file, replacing what was there; folders above it are made. An existing file \
        must have been read first. To change part of a file prefer edit.";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        let path = paths::named(call, &self.path)?;
        let known = seen::known(&path)?;
        let expects = match &known {
            // A file that was removed since the model knew it is made anew.
            Some(digest) if !is_gone(&path) => files::Expectation::Sha256(digest.clone()),
            _ => files::Expectation::Absent,
        };
        let written = files::write(&path, self.content.as_bytes(), &expects)
            .map_err(|e| explain(e, &self.path, known.is_some()))?;
        seen::remember(&path, &written.sha256)?;
        let warnings = python::warnings(&self.path, &self.content);
        Ok(Output::text(format!("Wrote {} bytes to {}{warnings}", written.bytes, self.path)))
    }
}

fn is_gone(path: &Path) -> bool {
    std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

/// A conflict means that the file is not what the model knows.
fn explain(error: ToolError, path: &str, was_read: bool) -> ToolError {
    let message = match error.kind {
        ErrorKind::Conflict if was_read => {
            format!(
                "{path} was changed on disk since you read it; you must read it again before you overwrite it"
            )
        }
        ErrorKind::Conflict => {
            format!("{path} exists; you must read it before you overwrite it (use the read tool)")
        }
        ErrorKind::Denied => return error,
        _ => format!("write error: {}", error.message),
    };
    error.with_message(message)
}
