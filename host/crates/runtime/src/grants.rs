//! What plugins were given. A plugin gets what it declares and what is granted, never more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use egress::NetworkGrant;
use manifest::{Capabilities, Manifest, is_credential_name};

use crate::PluginError;
use crate::credentials::{Bound, CredentialSource, Secrets, bind};

/// Grants by plugin id, as they stand in a grants file.
#[derive(Clone, Debug, Default)]
pub struct Grants(BTreeMap<String, Capabilities>);

/// What a plugin may really do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effective {
    pub(crate) capabilities: Capabilities,
    pub(crate) network: Vec<NetworkGrant>,
    /// Every credential that is declared.
    pub(crate) credentials: Arc<BTreeMap<String, Bound>>,
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
            for (name, source) in &capabilities.credentials {
                if !is_credential_name(name) {
                    return Err(refuse(format!("[{id}.credentials]: names hold a-z, 0-9 and `-`")));
                }
                source
                    .parse::<CredentialSource>()
                    .map_err(|e| refuse(format!("[{id}.credentials]: {name}: {e}")))?;
            }
        }
        Ok(Self(grants))
    }

    /// The tables, as they stand in the file.
    #[must_use]
    pub fn into_tables(self) -> BTreeMap<String, Capabilities> {
        self.0
    }

    /// The credentials that are granted, by name, and where they come from.
    #[must_use]
    pub fn sources(&self) -> Vec<(String, CredentialSource)> {
        let sources = self.0.values().flat_map(|granted| &granted.credentials);
        sources.filter_map(|(name, source)| Some((name.clone(), source.parse().ok()?))).collect()
    }

    /// These, with the credentials that `own` gives in place of those here.
    #[must_use]
    pub fn with_credentials_of(&self, own: &Self) -> Self {
        let mut tables = self.0.clone();
        for (id, granted) in tables.iter_mut() {
            if let Some(own) = own.0.get(id) {
                granted.credentials.extend(own.credentials.clone());
            }
        }
        Self(tables)
    }

    /// What a plugin declares and was granted.
    pub(crate) fn effective(&self, manifest: &Manifest, secrets: &Secrets) -> Effective {
        let Some(granted) = self.0.get(&manifest.id) else {
            let credentials = Arc::new(bind(manifest, &BTreeMap::new(), secrets));
            return Effective { credentials, ..Effective::default() };
        };
        let declared = &manifest.capabilities;
        let parse =
            |rules: &[String]| rules.iter().filter_map(|r| NetworkGrant::parse(r).ok()).collect::<Vec<_>>();
        let (declares, grants) = (parse(&declared.network), parse(&granted.network));
        let network: Vec<NetworkGrant> =
            declares.iter().flat_map(|d| grants.iter().filter_map(|g| d.intersection(g))).collect();
        let mut capabilities = declared.intersection(granted);
        capabilities.network = network.iter().map(ToString::to_string).collect();
        let given = |(name, _): &(&String, &String)| manifest.credentials.contains_key(name.as_str());
        let given = granted.credentials.iter().filter(given);
        capabilities.credentials = given.map(|(name, source)| (name.clone(), source.clone())).collect();
        let credentials = Arc::new(bind(manifest, &granted.credentials, secrets));
        Effective { capabilities, network, credentials }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effective(declared: &str, granted: &str) -> Effective {
        let manifest = format!(
            "id = \"p\"\nversion = \"1\"\ndescription = \"\"\n[capabilities]\n{declared}\n[tools.t]\ntier = \"read\"\n"
        );
        let manifest = Manifest::from_toml(&manifest).unwrap();
        Grants::parse(Path::new("grants.toml"), granted).unwrap().effective(&manifest, &Secrets::new())
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
    fn a_broken_file_is_named() {
        let error = |text: &str| Grants::parse(Path::new("/x/grants.toml"), text).unwrap_err().to_string();
        assert!(error("[p]\nexek = true").contains("unknown field `exek`"));
        assert!(
            error("[p]\nnetwork = [\"example.com\"]")
                .starts_with("/x/grants.toml: [p]: network grant `example.com`")
        );
        let credential = error("[p.credentials]\ngithub = \"ghp_0123456789abcdef\"");
        assert!(credential.starts_with("/x/grants.toml: [p.credentials]: github: "), "{credential}");
        assert!(credential.contains("`env:GITHUB_TOKEN`") && !credential.contains("ghp_"), "{credential}");
    }
}
