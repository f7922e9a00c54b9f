//! Where the credentials of plugins come from, and which of them a plugin has.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use egress::{Credential, Placement, Secret};
use http::HeaderName;
use manifest::{CredentialUse, Manifest, is_credential_name};

/// Where the value of a credential comes from. Grants name this and never a value.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum CredentialSource {
    /// A variable of the environment or of the settings folder's `.env`.
    Environment(String),
    /// The Hugging Face token, wherever it is found.
    HuggingFace,
    /// What `ml-intern login NAME` put there.
    Stored(String),
}

/// Why a text is no source. What it is instead is not told: it may be the value itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "where a credential comes from is written `env:GITHUB_TOKEN`, `hf` or `stored:NAME`; a value itself is put there by `ml-intern login NAME`"
)]
pub struct SourceError;

impl FromStr for CredentialSource {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let is_variable = |name: &str| {
            name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        match text.split_once(':') {
            None if text == "hf" => Ok(Self::HuggingFace),
            Some(("env", name)) if is_variable(name) => Ok(Self::Environment(name.to_owned())),
            Some(("stored", name)) if is_credential_name(name) => Ok(Self::Stored(name.to_owned())),
            _ => Err(SourceError),
        }
    }
}

impl fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::HuggingFace => f.write_str("hf"),
            Self::Stored(name) => write!(f, "stored:{name}"),
        }
    }
}

/// The values of granted credentials, by where they come from.
pub type Secrets = BTreeMap<CredentialSource, Secret>;

/// A credential that a plugin declares, as it was granted.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    NotGranted,
    /// Granted from where there is nothing.
    NoValue(CredentialSource),
    Ready(Credential),
    /// It cannot be used as it is declared.
    Broken(String),
}

/// What a plugin declares, with what it was granted.
pub(crate) fn bind(
    manifest: &Manifest,
    granted: &BTreeMap<String, String>,
    secrets: &Secrets,
) -> BTreeMap<String, Bound> {
    let one = |(name, declared): (&String, &CredentialUse)| {
        let source = granted.get(name).and_then(|text| text.parse::<CredentialSource>().ok());
        let bound = match source {
            None => Bound::NotGranted,
            Some(source) => match secrets.get(&source) {
                None => Bound::NoValue(source),
                Some(secret) => ready(name, declared, secret),
            },
        };
        (name.clone(), bound)
    };
    manifest.credentials.iter().map(one).collect()
}

fn ready(name: &str, declared: &CredentialUse, secret: &Secret) -> Bound {
    let placement = match (&declared.header, &declared.query) {
        (Some(header), _) => match HeaderName::from_bytes(header.to_ascii_lowercase().as_bytes()) {
            Ok(name) => Placement::Header { name, prefix: declared.prefix.clone().unwrap_or_default() },
            Err(error) => return Bound::Broken(error.to_string()),
        },
        (None, Some(query)) => Placement::Query(query.clone()),
        (None, None) => Placement::Body,
    };
    match Credential::new(name, &declared.audience, placement, secret.clone()) {
        Ok(credential) => Bound::Ready(credential),
        Err(error) => Bound::Broken(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_and_values_are_not_repeated() {
        for text in ["env:GITHUB_TOKEN", "env:_x1", "hf", "stored:github-2"] {
            assert_eq!(text.parse::<CredentialSource>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "ghp_0123456789abcdef",
            "env:",
            "env:A B",
            "env:1A",
            "env:A=b",
            "stored:",
            "stored:../x",
            "stored:A",
            "hf:x",
            "hf_0123456789",
            "file:/etc/passwd",
            "ENV:A",
            " hf",
        ] {
            let error = text.parse::<CredentialSource>().unwrap_err().to_string();
            assert!(error.contains("env:GITHUB_TOKEN") && !error.contains("0123456789"), "{text}: {error}");
        }
    }
}
