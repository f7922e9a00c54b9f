//! Texts of a call that a person changes before saying yes, in an editor of their own.

use std::ffi::OsString;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use crate::assemble::Setup;
use crate::paths::make_private;

/// What is used where the environment names none.
const USUAL: &str = "vi";

/// The person's editor.
#[derive(Debug)]
pub(crate) struct Editor {
    command: String,
    /// Where the text lies meanwhile.
    folder: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl Editor {
    /// The editor that `$VISUAL` or `$EDITOR` of the process names. No file of a project counts.
    pub(crate) fn of(setup: &Setup) -> Self {
        let named = ["VISUAL", "EDITOR"].iter().find_map(|name| setup.environment.of_process(name));
        let redactor = &setup.held().redactor;
        // It gets what any program of the person gets, but no credential that is kept here.
        let harmless = |(name, value): &&(OsString, OsString)| {
            !redactor.finds(value.as_encoded_bytes()) && !wall::names_a_credential(&name.to_string_lossy())
        };
        let environment = setup.environment.user.iter().filter(harmless).cloned();
        Self {
            command: named.unwrap_or(USUAL).to_owned(),
            folder: setup.paths.state.join("edit"),
            environment: environment.collect(),
        }
    }

    /// Lets the person edit a text, and gives it as it is then. Blocks.
    pub(crate) fn edit(&self, text: &str) -> anyhow::Result<String> {
        make_private(&self.folder)?;
        let path = self.folder.join(format!("{}.txt", uuid::Uuid::new_v4().simple()));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let edited = file
            .write_all(text.as_bytes())
            .map_err(anyhow::Error::from)
            .and_then(|()| self.edited(&path, text));
        // Editors leave other files beside it only if they end badly.
        let _ = std::fs::remove_file(&path);
        edited
    }

    fn edited(&self, path: &std::path::Path, text: &str) -> anyhow::Result<String> {
        let ended_well = wall::run_editor(&self.command, path, &self.environment)?;
        anyhow::ensure!(ended_well, "`{}` failed ($VISUAL or $EDITOR names another editor)", self.command);
        let bytes = std::fs::read(path)?;
        anyhow::ensure!(
            bytes.len() <= runtime::MAX_TEXT_BYTES,
            "the text has more than {} KiB",
            runtime::MAX_TEXT_BYTES >> 10
        );
        let edited = String::from_utf8(bytes).map_err(|_| anyhow::anyhow!("the text is not UTF-8"))?;
        // Many editors end a last line that had no end.
        let unchanged = edited.strip_suffix('\n') == Some(text) && !text.ends_with('\n');
        Ok(if unchanged { text.to_owned() } else { edited })
    }
}
