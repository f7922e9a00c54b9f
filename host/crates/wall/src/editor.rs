//! The person's own editor, at the person's own terminal.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

/// Runs the command line of an editor on a file and waits for it. Returns whether it ended well.
///
/// It is the person's program, so that no wall is around it. It starts in the file's folder, never in a
/// workspace: editors obey files of the folder they start in.
///
/// # Errors
/// When the shell that reads the command line cannot be started.
pub fn run_editor(editor: &str, file: &Path, environment: &[(OsString, OsString)]) -> std::io::Result<bool> {
    let status = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("{editor} \"$1\""))
        .arg("sh")
        .arg(file)
        .current_dir(file.parent().unwrap_or(Path::new("/")))
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .status()?;
    Ok(status.success())
}
