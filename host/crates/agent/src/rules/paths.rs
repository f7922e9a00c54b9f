//! Rules on paths: as they are written, and as the paths they name really are.

use std::path::{Component, Path, PathBuf};

use glob::{MatchOptions, Pattern};
use runtime::DeniedPath;

/// Paths that a rule is about.
#[derive(Clone, Debug)]
pub(super) struct PathRule {
    /// The path as it stands in the rule, and where that leads if a link is on the way. Absolute.
    patterns: Vec<Pattern>,
    /// The same as guests are held to it, if the rule denies.
    denied: Vec<DeniedPath>,
}

impl PathRule {
    /// Parses a path with or without `*`, from the root or from the workspace. What of it exists is looked up.
    pub(super) fn parse(path: &str, workspace: &Path) -> Result<Self, String> {
        if path.starts_with('~') {
            return Err("`~` is not expanded here; write the whole path".to_owned());
        }
        let (mut fixed, mut rest) =
            (workspace.join(if path.starts_with('/') { "/" } else { "" }), Vec::new());
        for part in Path::new(path).components() {
            let text = part.as_os_str().to_string_lossy();
            match part {
                _ if !rest.is_empty() || text.contains(['*', '?', '[']) => rest.push(text.into_owned()),
                Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
                Component::ParentDir => {
                    fixed.pop();
                }
                Component::Normal(name) => fixed.push(name),
            }
        }
        if rest.iter().any(|part| part == "..") {
            return Err("`..` stands only before what is left open".to_owned());
        }
        let mut patterns = vec![whole(&fixed, &rest)?];
        let really = real(&fixed);
        if really != fixed {
            patterns.push(whole(&really, &rest)?);
        }
        let denied = patterns.iter().map(DeniedPath::new).collect();
        Ok(Self { patterns, denied })
    }

    /// What no guest sees or changes under such a rule.
    pub(super) fn denied(&self) -> impl Iterator<Item = DeniedPath> {
        self.denied.iter().cloned()
    }

    /// Whether a path is denied: what a call names and what guests see is held to the same.
    pub(super) fn denies(&self, path: &Path) -> bool {
        self.denied.iter().any(|denied| denied.covers(path))
    }

    /// Whether a rule that allows or asks is about a path.
    pub(super) fn is_about(&self, path: &Path) -> bool {
        let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
        let (itself, inside) = (path.to_string_lossy(), path.join("x"));
        self.patterns.iter().any(|pattern| {
            // The folder itself is meant by `folder/**` too.
            pattern.matches_with(&itself, options)
                || (pattern.as_str().ends_with("/**")
                    && pattern.matches_with(&inside.to_string_lossy(), options))
        })
    }
}

/// What is fixed of a path, taken word by word, and what is left open.
fn whole(fixed: &Path, rest: &[String]) -> Result<Pattern, String> {
    let mut text = Pattern::escape(&fixed.to_string_lossy());
    for part in rest {
        if !text.ends_with('/') {
            text.push('/');
        }
        text.push_str(part);
    }
    Pattern::new(&text).map_err(|e| format!("`{}`: {}", rest.join("/"), e.msg))
}

/// The path with the links of what exists of it followed.
fn real(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|above| Some((above.canonicalize().ok()?, above)));
    match existing {
        Some((real, above)) => match path.strip_prefix(above) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => path.to_owned(),
    }
}
