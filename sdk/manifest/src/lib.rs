//! What a plugin declares about itself.
//!
//! The author writes `plugin.toml` beside `Cargo.toml`; the SDK's export macro checks it, turns it into
//! JSON and puts it into the component's custom section [`SECTION`]. The host reads that section without
//! running anything. What is declared here is a ceiling: what a plugin gets is decided by grants.

mod credential;
mod error;
mod policy;
mod repository;
pub mod text;
mod tier;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use credential::{CredentialUse, is_credential_name, is_hosts_header};
pub use error::ManifestError;
pub use policy::{Cost, Price, TierRule, ToolPolicy, Weight};
pub use repository::{Among, Repository, RepositoryCall, RepositoryUse, When, is_name};
pub use tier::Tier;

/// The custom section of a component that holds its manifest, as JSON.
pub const SECTION: &str = "ml-intern:manifest";

/// Seconds a call may take when a tool says nothing else.
pub const DEFAULT_WALL_TIME_S: u32 = 120;

/// Seconds a call may take at most, whatever a tool says: ten hours and a minute.
pub const MAX_WALL_TIME_S: u32 = 36_060;

/// Characters of a tool's name with its plugin's id: services refuse longer ones.
pub const MAX_FULL_NAME: usize = 64;

/// A plugin's manifest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `[a-z][a-z0-9-]*`, at most 32 characters: the prefix of its tools' names.
    pub id: String,
    /// The plugin's own version, as <https://semver.org> has it: a lower one takes no higher one's place.
    pub version: String,
    /// One line for people.
    pub description: String,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// The most it may ever be granted.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Credentials that its requests can carry. The host adds them; the plugin never sees one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, CredentialUse>,
    /// What the host has to know of each tool before it runs.
    pub tools: BTreeMap<String, ToolPolicy>,
}

/// Kinds of access, as declared by a manifest or given by a grant.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Capabilities {
    /// Run native commands behind the wall.
    #[serde(default)]
    pub exec: bool,
    /// Change files of the writable folders.
    #[serde(default)]
    pub files: bool,
    /// Keep values for the session.
    #[serde(default)]
    pub kv: bool,
    /// Folders to read: `workspace`, `tmp`, `data`.
    #[serde(default)]
    pub paths: Vec<Mount>,
    /// Origins to reach, as `scheme://host[:port|:*|:a-b] METHOD…`; the host is a name, `*.suffix`, an address or a range.
    #[serde(default)]
    pub network: Vec<String>,
    /// Of a grant only: where each credential that the plugin declares comes from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub credentials: BTreeMap<String, String>,
    /// Of a grant only: limits that are lower than the host's, by their names in the settings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub limits: BTreeMap<String, u64>,
    /// Of a grant only: digest of what the plugin asked for and said of itself when it was given. Without it
    /// the grant is for whatever has the id.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

/// A folder a guest can see.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mount {
    /// `/workspace` and the added folders, read-only, also under their real paths.
    Workspace,
    /// `/tmp`: the session's own, shared with its commands, read and write.
    Tmp,
    /// `/data`: the plugin's own, read and write.
    Data,
}

impl Manifest {
    /// Parses `plugin.toml`.
    ///
    /// # Errors
    /// When the text is not TOML, has unknown keys, or breaks a rule of [`Manifest::check`].
    pub fn from_toml(text: &str) -> Result<Self, ManifestError> {
        let manifest: Self = toml::from_str(text).map_err(|e| ManifestError::Syntax(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Parses the custom section.
    ///
    /// # Errors
    /// When the bytes are not JSON, have unknown keys, or break a rule of [`Manifest::check`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|e| ManifestError::Syntax(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks names and limits.
    ///
    /// # Errors
    /// Names the first rule that is broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        if !is_plugin_id(&self.id) {
            return Err(ManifestError::Id(self.id.clone()));
        }
        // Texts are shown to people who decide by them: a line of its own could pass for the host's.
        let publisher = self.publisher.as_deref().unwrap_or_default();
        let texts = [
            ("version", self.version.as_str()),
            ("description", &self.description),
            ("publisher", publisher),
        ];
        let arguments = self.tools.values().flat_map(|t| [&t.timeout_argument, &t.target_argument]);
        let texts_or_files = self.tools.values().flat_map(|t| &t.text_or_file);
        let arguments =
            arguments.flatten().chain(texts_or_files).map(|name| ("the name of an argument", name.as_str()));
        let network = self.capabilities.network.iter().map(|rule| ("network", rule.as_str()));
        if let Some((name, _)) =
            texts.into_iter().chain(arguments).chain(network).find(|(_, text)| !text::is_line(text))
        {
            return Err(ManifestError::Control(name));
        }
        // What cannot be compared would be lower than nothing.
        if semver::Version::parse(&self.version).is_err() {
            return Err(ManifestError::Version(self.version.clone()));
        }
        if let Some(name) = self.capabilities.credentials.keys().next() {
            return Err(ManifestError::CredentialSource(name.clone()));
        }
        if !self.capabilities.limits.is_empty() {
            return Err(ManifestError::Limits);
        }
        if self.capabilities.approval.is_some() {
            return Err(ManifestError::Approval);
        }
        for (name, credential) in &self.credentials {
            credential.check(name)?;
        }
        if self.tools.is_empty() {
            return Err(ManifestError::NoTools);
        }
        for (name, policy) in &self.tools {
            if !is_tool_name(name) {
                return Err(ManifestError::ToolName(name.clone()));
            }
            if self.id.len() + "__".len() + name.len() > MAX_FULL_NAME {
                return Err(ManifestError::FullName(name.clone()));
            }
            if policy.wall_time_s == 0 || policy.wall_time_s > MAX_WALL_TIME_S {
                return Err(ManifestError::WallTime { tool: name.clone(), seconds: policy.wall_time_s });
            }
            policy.check(name)?;
            let reads = [Mount::Workspace, Mount::Tmp].iter().any(|m| self.capabilities.paths.contains(m));
            if !policy.text_or_file.is_empty() && !reads {
                let reason = "`text_or_file` needs `workspace` or `tmp` among the `paths` of [capabilities]";
                return Err(ManifestError::ToolPolicy { tool: name.clone(), reason: reason.to_owned() });
            }
        }
        Ok(())
    }
}

impl Capabilities {
    /// What is both here and there. Credentials are not compared: one side declares them, the other gives them.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self {
            exec: self.exec && other.exec,
            files: self.files && other.files,
            kv: self.kv && other.kv,
            paths: self.paths.iter().filter(|m| other.paths.contains(m)).copied().collect(),
            network: self.network.iter().filter(|n| other.network.contains(n)).cloned().collect(),
            credentials: BTreeMap::new(),
            limits: BTreeMap::new(),
            approval: None,
        }
    }
}

/// Whether `id` can be a plugin's id.
#[must_use]
pub fn is_plugin_id(id: &str) -> bool {
    id.len() <= 32
        && id.starts_with(|c: char| c.is_ascii_lowercase())
        && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Whether `name` can be a tool's name.
#[must_use]
pub fn is_tool_name(name: &str) -> bool {
    name.len() <= 48
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        id = "greeter"
        version = "1.0.0"
        description = "Greets."
        [capabilities]
        paths = ["workspace"]
        [tools.greet]
        tier = "read"
    "#;

    #[test]
    fn toml_and_json_carry_the_same_manifest() {
        let manifest = Manifest::from_toml(GOOD).unwrap();
        let json = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::from_json(&json).unwrap(), manifest);
        assert_eq!(manifest.tools["greet"].wall_time_s, DEFAULT_WALL_TIME_S);
    }

    #[test]
    fn unknown_keys_are_named() {
        let text = GOOD.replace("[capabilities]", "[capabilities]\nexce = true");
        let error = Manifest::from_toml(&text).unwrap_err().to_string();
        assert!(error.contains("unknown field `exce`"), "{error}");
        let own = GOOD.replace("[capabilities]", "[capabilities.limits]\ncpu_ms = 1\n[capabilities]");
        assert!(matches!(Manifest::from_toml(&own).unwrap_err(), ManifestError::Limits));
    }

    #[test]
    fn names_and_limits_are_checked() {
        let refused =
            |from: &str, to: &str| Manifest::from_toml(&GOOD.replace(from, to)).unwrap_err().to_string();
        assert!(refused("greeter", "Greeter").contains("`Greeter`"));
        assert!(refused("tools.greet", "tools.\"greet-me\"").contains("`greet-me`"));
        assert!(refused("tier = \"read\"", "tier = \"read\"\nwall_time_s = 0").contains("wall_time_s"));
        assert!(refused("[tools.greet]\n        tier = \"read\"", "[tools]").contains("no tools"));
        assert!(refused("\"read\"", "\"harmless\"").contains("harmless"));
    }

    #[test]
    fn a_version_is_one_that_can_be_compared() {
        let with = |version: &str| Manifest::from_toml(&GOOD.replace("1.0.0", version));
        for good in ["0.1.0", "2.10.3", "1.0.0-rc.1", "1.0.0+build.7"] {
            assert_eq!(with(good).unwrap().version, good);
        }
        for bad in ["", "1", "1.0", "v1.0.0", "newest", "2026.01.05", "1.0.0.0"] {
            let error = with(bad).unwrap_err();
            assert!(matches!(error, ManifestError::Version(_)), "{bad}");
            assert!(error.to_string().contains("as in `1.0.0`"), "{error}");
        }
    }

    #[test]
    fn a_name_that_services_would_refuse_is_refused_first() {
        let with = |id: usize, tool: usize| {
            let text = GOOD
                .replace("greeter", &"g".repeat(id))
                .replace("tools.greet", &format!("tools.{}", "t".repeat(tool)));
            Manifest::from_toml(&text)
        };
        assert!(with(32, 30).is_ok() && with(14, 48).is_ok());
        assert!(matches!(with(32, 31), Err(ManifestError::FullName(_))));
    }

    #[test]
    fn texts_are_one_line() {
        let with = |line: &str| Manifest::from_toml(&GOOD.replace("description = \"Greets.\"", line));
        for line in [
            "description = \"Greets.\\nGranted: nothing\"",
            "description = \"\\u001b[2J\"",
            "description = \"\"\npublisher = \"me\\rthem\"",
            "description = \"a\\u202eb\"",
        ] {
            assert!(matches!(with(line), Err(ManifestError::Control(_))), "{line}");
        }
        assert!(with("description = \"Grüßt – freundlich.\"").is_ok());
    }

    #[test]
    fn an_intersection_has_what_both_have() {
        let declared = Capabilities {
            exec: true,
            kv: true,
            paths: vec![Mount::Tmp, Mount::Workspace],
            ..Default::default()
        };
        let granted =
            Capabilities { kv: true, files: true, paths: vec![Mount::Workspace], ..Default::default() };
        let both = Capabilities { kv: true, paths: vec![Mount::Workspace], ..Default::default() };
        assert_eq!(declared.intersection(&granted), both);
    }
}
