//! What plugins were given. A plugin gets what it declares and what is granted, never more.

use std::collections::BTreeMap;
use std::path::Path;

use egress::NetworkGrant;
use manifest::{Capabilities, Manifest, Tier};
use policy::Policy;

use crate::PluginError;

/// Grants by plugin id, as they stand in a grants file.
#[derive(Clone, Debug, Default)]
pub struct Grants(BTreeMap<String, Capabilities>);

/// What a plugin may really do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effective {
    pub(crate) capabilities: Capabilities,
    pub(crate) network: Vec<NetworkGrant>,
}

impl Grants {
    /// Parses a grants file: one table per plugin id.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PluginError> {
        let refuse = |reason: String| PluginError::Grants { path: path.to_owned(), reason };
        let grants: BTreeMap<String, Capabilities> =
            toml::from_str(text).map_err(|e| refuse(e.to_string()))?;
        for (id, capabilities) in &grants {
            for text in &capabilities.network {
                NetworkGrant::parse(text).map_err(|e| refuse(format!("[{id}]: {e}")))?;
            }
        }
        Ok(Self(grants))
    }

    /// The tables, as they stand in the file.
    #[must_use]
    pub fn into_tables(self) -> BTreeMap<String, Capabilities> {
        self.0
    }

    /// What a plugin declares, was granted, and may have by the machine's policy.
    pub(crate) fn effective(&self, manifest: &Manifest, policy: &Policy) -> Effective {
        let Some(granted) = self.0.get(&manifest.id) else {
            return Effective::default();
        };
        let declared = &manifest.capabilities;
        let parse =
            |rules: &[String]| rules.iter().filter_map(|r| NetworkGrant::parse(r).ok()).collect::<Vec<_>>();
        let (declares, grants) = (parse(&declared.network), parse(&granted.network));
        let network: Vec<NetworkGrant> =
            declares.iter().flat_map(|d| grants.iter().filter_map(|g| d.intersection(g))).collect();
        let network = match policy.ceiling().allow {
            Some(most) => {
                network.iter().flat_map(|n| most.iter().filter_map(|m| n.intersection(m))).collect()
            }
            None => network,
        };
        let mut capabilities = declared.intersection(granted);
        capabilities.exec &= policy.tier(Tier::Execute).is_ok();
        capabilities.files &= policy.tier(Tier::Write).is_ok();
        capabilities.network = network.iter().map(ToString::to_string).collect();
        Effective { capabilities, network }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(declared: &str, granted: &str) -> Effective {
        under("", declared, granted)
    }

    fn under(policy: &str, declared: &str, granted: &str) -> Effective {
        let policy = Policy::parse(Path::new("policy.toml"), &format!("version = 1\n{policy}")).unwrap();
        let manifest = format!(
            "id = \"p\"\nversion = \"1\"\ndescription = \"\"\n[capabilities]\n{declared}\n[tools.t]\ntier = \"read\"\n"
        );
        let manifest = Manifest::from_toml(&manifest).unwrap();
        Grants::parse(Path::new("grants.toml"), granted).unwrap().effective(&manifest, &policy)
    }

    #[test]
    fn nothing_is_given_that_is_not_both_declared_and_granted() {
        let both = effective("exec = true\nkv = true", "[p]\nkv = true\nfiles = true\n[q]\nexec = true");
        assert_eq!(both.capabilities, Capabilities { kv: true, ..Capabilities::default() });
        assert_eq!(effective("exec = true", "").capabilities, Capabilities::default());
    }

    #[test]
    fn network_grants_meet_method_by_method() {
        let both = effective(
            "network = [\"https://a.example GET POST\", \"https://b.example\"]",
            "[p]\nnetwork = [\"https://A.example:443 POST PUT\", \"https://c.example\"]",
        );
        assert_eq!(both.capabilities.network, ["https://a.example POST"]);
    }

    #[test]
    fn a_policy_takes_from_what_was_granted_and_adds_nothing() {
        let all =
            "exec = true\nfiles = true\nnetwork = [\"https://a.example GET POST\", \"https://b.example\"]";
        let policy = "[tiers]\ndeny = [\"execute\"]\n[network]\nallow = [\"https://a.example GET\", \"https://c.example\"]";
        let left = under(policy, all, &format!("[p]\n{all}"));
        assert_eq!((left.capabilities.exec, left.capabilities.files), (false, true));
        assert_eq!(left.capabilities.network, ["https://a.example GET"]);
        assert_eq!(left.network.len(), 1);
        let nothing =
            under("[tiers]\ndeny = [\"write\"]\n[network]\nallow = []", all, &format!("[p]\n{all}"));
        assert!(nothing.network.is_empty() && !nothing.capabilities.files && nothing.capabilities.exec);
    }

    #[test]
    fn a_broken_file_is_named() {
        let error = |text: &str| Grants::parse(Path::new("/x/grants.toml"), text).unwrap_err().to_string();
        assert!(error("[p]\nexek = true").contains("unknown field `exek`"));
        assert!(
            error("[p]\nnetwork = [\"example.com\"]")
                .starts_with("/x/grants.toml: [p]: network grant `example.com`")
        );
    }
}
