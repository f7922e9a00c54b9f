//! The process environment and the settings folder's `.env`, read once. Nothing else reads them. Below them
//! the credentials of a trusted project.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use secrecy::zeroize::Zeroizing;

use crate::exit::Failure;
use crate::paths::read_own;

/// Values by name, wiped when they are dropped: some are credentials.
type Variables = BTreeMap<String, Zeroizing<String>>;

/// Variables of the process, with those of `.env` below them.
#[derive(Clone, Default)]
pub(crate) struct Environment {
    process: Variables,
    dotenv: Variables,
    /// Credentials of a project that a person trusts, and where they stand.
    project: Variables,
    project_file: PathBuf,
    /// The environment as it was, for the wall to choose from. Of credentials it has those that are paths of files:
    /// what lies there is kept from commands.
    pub(crate) user: Vec<(OsString, OsString)>,
    /// The flags of the command line, in their long form.
    pub(crate) flags: Vec<String>,
}

impl Environment {
    /// Reads the process environment.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the environment")]
    pub(crate) fn read() -> Self {
        let mut read = Self::default();
        for (name, value) in std::env::vars_os() {
            let (known, text) = (name.to_string_lossy(), value.to_string_lossy());
            if !wall::is_credential(&known, &text) || text.starts_with('/') {
                read.user.push((name.clone(), value.clone()));
            }
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                read.process.insert(name, Zeroizing::new(value));
            }
        }
        read
    }

    #[cfg(test)]
    pub(crate) fn of(variables: &[(&str, &str)]) -> Self {
        let process =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned().into())).collect();
        Self { process, ..Self::default() }
    }

    /// Adds the `.env` of the settings folder. The process environment wins.
    pub(crate) fn add_dotenv(&mut self, path: &Path) -> Result<(), Failure> {
        let Some(text) = read_own(path).map_err(Failure::settings)? else { return Ok(()) };
        for entry in dotenvy::from_read_iter(text.as_bytes()) {
            let (name, value) = entry.map_err(|error| broken_line(path, &text, &error))?;
            self.dotenv.insert(name, value.into());
        }
        Ok(())
    }

    /// Adds credentials of the working folder's `.env`, below all others. No command gets them.
    pub(crate) fn add_project(&mut self, variables: Vec<(String, String)>, file: PathBuf) {
        self.project.extend(variables.into_iter().map(|(name, value)| (name, value.into())));
        self.project_file = file;
    }

    /// A variable, also if it is empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.own(name).or_else(|| self.project.get(name).map(|value| value.as_str()))
    }

    /// A variable that is set to something, white space trimmed.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.get(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// A variable of the process itself: no file can name a program that is started.
    pub(crate) fn of_process(&self, name: &str) -> Option<&str> {
        self.process.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// A credential: line ends and white space around it are mistakes of copying.
    pub(crate) fn secret(&self, name: &str) -> Option<SecretString> {
        clean(self.get(name)?)
    }

    /// A credential of the person, whatever a project says.
    pub(crate) fn own_secret(&self, name: &str) -> Option<SecretString> {
        clean(self.own(name)?)
    }

    /// A credential that a project gives and the person does not, and the project's file.
    pub(crate) fn project_secret(&self, name: &str) -> Option<(SecretString, &Path)> {
        let value = self.project.get(name).filter(|_| self.own(name).is_none())?;
        Some((clean(value)?, &self.project_file))
    }

    fn own(&self, name: &str) -> Option<&str> {
        self.process.get(name).or_else(|| self.dotenv.get(name)).map(|value| value.as_str())
    }
}

/// Names alone: any value may be a credential.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("process", &self.process.keys())
            .field("dotenv", &self.dotenv.keys())
            .field("project", &self.project.keys())
            .field("project_file", &self.project_file)
            .finish_non_exhaustive()
    }
}

/// Where a `.env` is broken. What stands there is not told: it may be a secret.
fn broken_line(path: &Path, text: &str, error: &dotenvy::Error) -> Failure {
    let place = match error {
        dotenvy::Error::LineParse(line, _) => text.find(line.trim_end()),
        _ => None,
    };
    let line = place.map(|at| format!(":{}", text[..at].matches('\n').count() + 1)).unwrap_or_default();
    let path = path.display();
    Failure::settings(anyhow::anyhow!(
        "{path}{line}: this is not `NAME=value`; a value with blanks or `#` is put in single quotes"
    ))
}

/// A credential without line ends and white space around it; nothing if it is empty.
pub(crate) fn clean(value: &str) -> Option<SecretString> {
    let cleaned: String = value.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    let cleaned = cleaned.trim();
    (!cleaned.is_empty()).then(|| SecretString::from(cleaned.to_owned()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn a_broken_line_is_named_and_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Environment::default().add_dotenv(&path).unwrap_err().to_string()
        };
        assert!(refused("A=1\nHF_TOKEN=hf_secret extra\nB=2\n").contains(".env:2: this is not `NAME=value`"));
        for text in ["HF_TOKEN=hf_secret extra\n", "HF_TOKEN='hf_secret\nB=2\n", "hf_secret\n"] {
            let error = refused(text);
            assert!(error.contains(".env") && !error.contains("hf_secret"), "{error}");
        }
    }

    #[test]
    fn the_process_environment_wins_over_dotenv() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, "A=file\nB='two words'\n# C=no\nexport D=4\n").unwrap();
        let mut environment = Environment::of(&[("A", "process"), ("E", "")]);
        environment.add_dotenv(&path).unwrap();
        assert_eq!(environment.get("A"), Some("process"));
        assert_eq!(
            (environment.get("B"), environment.get("C"), environment.get("D")),
            (Some("two words"), None, Some("4"))
        );
        assert_eq!((environment.get("E"), environment.text("E")), (Some(""), None));
    }

    #[test]
    fn no_value_is_printed() {
        let environment = Environment::of(&[("HF_TOKEN", "hf_secret")]);
        let printed = format!("{environment:?}");
        assert!(printed.contains("HF_TOKEN") && !printed.contains("hf_secret"), "{printed}");
    }

    #[test]
    fn credentials_are_cleaned() {
        let environment = Environment::of(&[("HF_TOKEN", " hf_x\r\n"), ("EMPTY", " \n")]);
        assert_eq!(environment.secret("HF_TOKEN").unwrap().expose_secret(), "hf_x");
        assert!(environment.secret("EMPTY").is_none());
    }
}
