//! What the administrator of a machine allows.
//!
//! A policy is a file that only root can change. It narrows what users, their settings and their flags may
//! do and never widens it; a file that is broken or that someone else could have written is an error, not
//! an absence. Nothing here reads the environment: where the file lies is said by the binary's build.

mod decide;
mod error;
mod file;
mod plugins;
mod schema;
mod sentences;
mod words;

use std::path::{Path, PathBuf};

pub use egress::{HostRule, Hosts, HostsError};
pub use error::{Forbidden, PolicyError};
pub use file::Owner;
pub use plugins::{PluginFacts, Plugins};
pub use schema::{Commands, Grade, Mode, Schema, WallMode};
pub use words::{Digest, PublisherKey, matches};

/// The format this host reads.
const VERSION: u32 = 1;

/// Bytes of a policy file at most.
const MAX_BYTES: u64 = 1 << 20;

/// A policy that was read, or none: then nothing is forbidden by it.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    path: PathBuf,
    text: String,
    digest: String,
    rules: Schema,
}

impl Policy {
    /// Reads a policy file; nothing if there is none.
    ///
    /// # Errors
    /// When someone beside its owner could have written it, or what stands in it is not a policy.
    pub fn read(path: &Path, owner: Owner<'_>) -> Result<Option<Self>, PolicyError> {
        let Some(text) = file::read(path, owner)? else { return Ok(None) };
        Self::parse(path, &text).map(Some)
    }

    /// Parses a policy. `path` is what messages call it.
    ///
    /// # Errors
    /// Names the line and column of the first thing that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PolicyError> {
        let refuse = |at: Option<std::ops::Range<usize>>, reason: String| {
            let (line, column) = position(text, at.map_or(0, |span| span.start));
            PolicyError::Text { path: path.to_owned(), line, column, reason }
        };
        let rules: Schema =
            toml::from_str(text).map_err(|error| refuse(error.span(), error.message().to_owned()))?;
        rules.check().map_err(|(at, reason)| refuse(Some(at), reason))?;
        let digest = Digest::of(text.as_bytes()).to_string();
        Ok(Self { path: path.to_owned(), text: text.to_owned(), digest, rules })
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_managed(&self) -> bool {
        !self.digest.is_empty()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's text, as it was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `sha256:…` of the file.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// All that stands in it.
    #[must_use]
    pub fn rules(&self) -> &Schema {
        &self.rules
    }

    /// `FILE:LINE` of something that stands in it.
    #[must_use]
    pub fn place<T>(&self, value: &toml::Spanned<T>) -> String {
        format!("{}:{}", self.path.display(), position(&self.text, value.span().start).0)
    }
}

/// Line and column, from 1.
fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (before.matches('\n').count() + 1, column)
}

#[cfg(test)]
mod tests;
