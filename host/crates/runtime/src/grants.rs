//! What plugins were given. A plugin gets what it declares and what is granted, never more.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use egress::NetworkGrant;
use manifest::{Capabilities, Tier, is_credential_name};
use policy::Policy;

use crate::credentials::{Bound, CredentialSource, Secrets, bind};
use crate::{Described, Limits, PluginError};

/// Grants by plugin id, as they stand in a grants file.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    tables: BTreeMap<String, Capabilities>,
    /// Plugins that are given all they declare.
    whole: BTreeSet<String>,
}

/// What a plugin may really do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Effective {
    pub(crate) capabilities: Capabilities,
    pub(crate) network: Vec<NetworkGrant>,
    /// What it declares, granted or not: what can be asked for while a call runs.
    pub(crate) declared: Arc<[NetworkGrant]>,
    /// The lower of what the host allows and what its grant says.
    pub(crate) limits: Limits,
    /// Every credential that is declared.
    pub(crate) credentials: Arc<BTreeMap<String, Bound>>,
    /// What it declares and could be granted, and was not, besides the network, which is asked for.
    pub(crate) lacking: Vec<String>,
}

/// How a table of a grants file is written.
const FORMS: &str = "a table looks like this, each line left out where nothing is given:\n[ID]\nexec = true\nfiles = true\nkv = true\n\
                     paths = [\"workspace\", \"tmp\", \"data\"]\nnetwork = [\"https://api.example.com GET\"]\n[ID.limits]\ncpu_ms = 10000";

impl Grants {
    /// Parses a grants file: one table per plugin id.
    ///
    /// # Errors
    /// Names the file, the line and what is wrong with it.
    pub fn parse(path: &Path, text: &str) -> Result<Self, PluginError> {
        let refuse = |reason: String| PluginError::Grants { path: path.to_owned(), reason };
        let grants: BTreeMap<String, Capabilities> =
            toml::from_str(text).map_err(|e| refuse(format!("{e}\n{FORMS}")))?;
        for (id, capabilities) in &grants {
            for text in &capabilities.network {
                NetworkGrant::parse(text).map_err(|e| refuse(format!("[{id}]: {e}")))?;
            }
            Limits::of_grant(&capabilities.limits).map_err(|e| refuse(format!("[{id}.limits]: {e}")))?;
            for (name, source) in &capabilities.credentials {
                if !is_credential_name(name) {
                    return Err(refuse(format!("[{id}.credentials]: names hold a-z, 0-9 and `-`")));
                }
                source
                    .parse::<CredentialSource>()
                    .map_err(|e| refuse(format!("[{id}.credentials]: {name}: {e}")))?;
            }
        }
        Ok(Self { tables: grants, whole: BTreeSet::new() })
    }

    /// The tables, as they stand in the file.
    #[must_use]
    pub fn into_tables(self) -> BTreeMap<String, Capabilities> {
        self.tables
    }

    /// Gives a plugin all that it declares.
    pub fn give_all(&mut self, id: &str) {
        self.whole.insert(id.to_owned());
    }

    /// What was given for this run alone: no table of a file.
    #[must_use]
    pub(crate) fn of_this_run(&self) -> Self {
        Self { tables: BTreeMap::new(), whole: self.whole.clone() }
    }

    /// Whether a plugin that has no table would have had one, and is given nothing for this run either.
    pub(crate) fn had_table(&self, id: &str) -> bool {
        self.tables.contains_key(id) && !self.whole.contains(id)
    }

    /// The credentials that are granted, by name, and where they come from.
    #[must_use]
    pub fn sources(&self) -> Vec<(String, CredentialSource)> {
        let sources = self.tables.values().flat_map(|granted| &granted.credentials);
        sources.filter_map(|(name, source)| Some((name.clone(), source.parse().ok()?))).collect()
    }

    /// These, with the credentials and limits that `own` gives in place of those here.
    #[must_use]
    pub fn with_choices_of(&self, own: &Self) -> Self {
        let mut tables = self.tables.clone();
        for (id, granted) in tables.iter_mut() {
            if let Some(own) = own.tables.get(id) {
                granted.credentials.extend(own.credentials.clone());
                granted.limits.extend(own.limits.clone());
            }
        }
        Self { tables, whole: self.whole.clone() }
    }

    /// The table of a plugin, if it is for the plugin as it is now.
    fn given(&self, name: &str, described: &Described) -> Option<&Capabilities> {
        self.tables
            .get(name)
            .filter(|given| given.approval.as_ref().is_none_or(|for_| *for_ == described.approval()))
    }

    /// What a plugin declares, was granted, and may have by the machine's policy. `name` is that of its table.
    pub(crate) fn effective(
        &self,
        name: &str,
        described: &Described,
        secrets: &Secrets,
        policy: &Policy,
    ) -> Effective {
        let (manifest, own) = (&described.manifest, self.given(name, described));
        let parse =
            |rules: &[String]| rules.iter().filter_map(|r| NetworkGrant::parse(r).ok()).collect::<Vec<_>>();
        let declared = &manifest.capabilities;
        let declares = parse(&declared.network);
        // Also of a grant that is not for it any more: what bounds does not end with what it bounded.
        let bounds = self.tables.get(name).map(|table| &table.limits);
        let limits = bounds.and_then(|given| Limits::of_grant(given).ok()).unwrap_or_default();
        let whole = self.whole.contains(&manifest.id).then_some(declared);
        let Some(granted) = whole.or(own) else {
            let credentials = Arc::new(bind(manifest, &BTreeMap::new(), secrets));
            let lacking = lacking(declared, &Capabilities::default(), policy);
            let limits_given = bounds.cloned().unwrap_or_default();
            let capabilities = Capabilities { limits: limits_given, ..Capabilities::default() };
            return Effective {
                capabilities,
                declared: declares.into(),
                limits,
                credentials,
                lacking,
                ..Effective::default()
            };
        };
        let grants = parse(&granted.network);
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
        let sources = own.map_or(&granted.credentials, |own| &own.credentials);
        let given = sources.iter().filter(|(name, _)| manifest.credentials.contains_key(name.as_str()));
        capabilities.credentials = given.map(|(name, source)| (name.clone(), source.clone())).collect();
        let credentials = Arc::new(bind(manifest, sources, secrets));
        let lacking = lacking(declared, &capabilities, policy);
        capabilities.limits = bounds.cloned().unwrap_or_default();
        Effective { capabilities, network, declared: declares.into(), limits, credentials, lacking }
    }
}

/// What is declared, not there, and would be after `plugin grant`.
fn lacking(declared: &Capabilities, has: &Capabilities, policy: &Policy) -> Vec<String> {
    if policy.flag("--grant", "`plugin grant`").is_err() {
        return Vec::new();
    }
    let may = |tier| policy.tier(tier).is_ok();
    let flags = [
        ("exec", declared.exec && !has.exec && may(Tier::Execute)),
        ("files", declared.files && !has.files && may(Tier::Write)),
        ("kv", declared.kv && !has.kv),
    ];
    let flags = flags.into_iter().filter(|(_, lacks)| *lacks).map(|(name, _)| name.to_owned());
    let paths = declared.paths.iter().filter(|mount| !has.paths.contains(mount));
    flags.chain(paths.map(|mount| format!("paths {}", format!("{mount:?}").to_lowercase()))).collect()
}

#[cfg(test)]
mod tests {
    use manifest::Manifest;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn effective(declared: &str, granted: &str) -> Effective {
        under("", declared, granted)
    }

    fn under(policy: &str, declared: &str, granted: &str) -> Effective {
        let policy = Policy::parse(Path::new("policy.toml"), &format!("version = 1\n{policy}")).unwrap();
        let manifest = format!(
            "id = \"p\"\nversion = \"1.0.0\"\ndescription = \"\"\n[capabilities]\n{declared}\n[tools.t]\ntier = \"read\"\n"
        );
        let manifest = Manifest::from_toml(&manifest).unwrap();
        let granted = Grants::parse(Path::new("grants.toml"), granted).unwrap();
        granted.effective("p", &described(manifest), &Secrets::new(), &policy)
    }

    fn described(manifest: Manifest) -> Described {
        Described {
            digest: String::new(),
            manifest,
            imports: Vec::new(),
            tools: Vec::new(),
            unseen: String::new(),
            publisher: None,
        }
    }

    #[test]
    fn a_grant_is_for_the_plugin_that_it_was_given_to() {
        let manifest = |tier: &str| {
            let text = format!(
                "id = \"p\"\nversion = \"1.0.0\"\ndescription = \"\"\n[capabilities]\nexec = true\n[tools.t]\ntier = \"{tier}\"\n"
            );
            described(Manifest::from_toml(&text).unwrap())
        };
        let (was, is) = (manifest("read"), manifest("write"));
        let grants = |for_: &str| {
            Grants::parse(Path::new("grants.toml"), &format!("[p]\nexec = true\n{for_}")).unwrap()
        };
        let exec = |grants: &Grants, described: &Described, name: &str| {
            grants.effective(name, described, &Secrets::new(), &Policy::default()).capabilities.exec
        };
        let bound = grants(&format!("for = \"{}\"", was.approval()));
        assert!(exec(&bound, &was, "p") && !exec(&bound, &is, "p"));
        // Written by hand, for whatever has the id; never for a project's.
        let by_hand = grants("");
        assert!(
            exec(&by_hand, &was, "p") && exec(&by_hand, &is, "p") && !exec(&by_hand, &was, "p@/w/p.wasm")
        );
    }

    #[test]
    fn nothing_is_given_that_is_not_both_declared_and_granted() {
        let both = effective("exec = true\nkv = true", "[p]\nkv = true\nfiles = true\n[q]\nexec = true");
        assert_eq!(both.capabilities, Capabilities { kv: true, ..Capabilities::default() });
        assert_eq!(effective("exec = true", "").capabilities, Capabilities::default());
    }

    #[test]
    fn a_grant_lowers_limits_whether_or_not_it_gives_anything() {
        let own = effective(
            "kv = true",
            "[p]\nkv = true\n[p.limits]\ncpu_ms = 7\nkv_bytes = 9\n[q.limits]\ncpu_ms = 3",
        );
        let expected = Limits { cpu_ms: 7, kv_bytes: 9, ..Limits::default() };
        assert_eq!((own.limits, own.capabilities.limits.len()), (expected, 2));
        let nothing = effective("kv = true", "[p]\nfor = \"another\"\n[p.limits]\ncpu_ms = 7");
        assert_eq!((nothing.limits.cpu_ms, nothing.capabilities.kv), (7, false));
        assert_eq!(nothing.capabilities.limits["cpu_ms"], 7);
        let bundled = Grants::parse(Path::new("a"), "[p]\nkv = true\n[p.limits]\ndata_files = 5").unwrap();
        let users = Grants::parse(Path::new("b"), "[p]\nexec = true\n[p.limits]\ndata_files = 2").unwrap();
        let table = &bundled.with_choices_of(&users).into_tables()["p"];
        assert_eq!((table.exec, table.limits["data_files"]), (false, 2));
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
        let limits = error("[p.limits]\ncpu = 3");
        assert!(
            limits.contains("/x/grants.toml: [p.limits]: `cpu` is none of cpu_ms, memory_bytes"),
            "{limits}"
        );
        assert!(error("[p.limits]\ntmp_bytes = 3").contains("`tmp_bytes` is none of"));
        assert!(error("[p.limits]\ncpu_ms = 0").ends_with("[p.limits]: cpu_ms is from 1 to 30000"));
        assert!(error("[p.limits]\nwall_time_s = 4294967296").contains("wall_time_s is from 1 to "));
        assert!(error("[p.limits]\ncpu_ms = -1").contains("cpu_ms"));
        let credential = error("[p.credentials]\ngithub = \"ghp_0123456789abcdef\"");
        assert!(credential.starts_with("/x/grants.toml: [p.credentials]: github: "), "{credential}");
        assert!(credential.contains("`env:GITHUB_TOKEN`") && !credential.contains("ghp_"), "{credential}");
    }

    /// A start for what breaks it: one of everything.
    const GRANTS: &str = "[p]\nexec = true\nfiles = true\nkv = false\npaths = [\"workspace\", \"tmp\"]\n\
        network = [\"https://a.example:8443 GET POST\"]\n[p.credentials]\ngithub = \"env:GITHUB_TOKEN\"\n[p.limits]\ncpu_ms = 7\n";
    const MANIFEST: &str = r#"{"id":"p","version":"1.0.0","description":"d","publisher":"me","capabilities":{"exec":true,"files":false,"kv":true,"paths":["data"],"network":["https://a.example GET"]},"tools":{"t":{"tier":"read","wall_time_s":5,"timeout_argument":"timeout"}}}"#;

    /// A text with a piece replaced by bytes of any kind.
    fn broken(text: &str, at: &Index, cut: usize, put: &[u8]) -> Vec<u8> {
        let mut bytes = text.as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes.splice(at..(at + cut).min(text.len()), put.iter().copied());
        bytes
    }

    #[test]
    fn what_is_broken_was_whole() {
        Grants::parse(Path::new("grants.toml"), GRANTS).unwrap();
        Manifest::from_json(MANIFEST.as_bytes()).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn broken_grants_and_manifests_are_read_or_refused(
            at in any::<Index>(), cut in 0..24_usize, put in prop::collection::vec(any::<u8>(), 0..16),
        ) {
            let path = Path::new("grants.toml");
            let _ = Grants::parse(path, &String::from_utf8_lossy(&put));
            let _ = Manifest::from_json(&put);
            let _ = Manifest::from_toml(&String::from_utf8_lossy(&put));
            let grants = Grants::parse(path, &String::from_utf8_lossy(&broken(GRANTS, &at, cut, &put)));
            let manifest = Manifest::from_json(&broken(MANIFEST, &at, cut, &put));
            // Each broken one meets a whole one, and both each other.
            let whole_grants = Grants::parse(path, GRANTS).unwrap();
            let whole_manifest = Manifest::from_json(MANIFEST.as_bytes()).unwrap();
            for (grants, manifest) in [
                (grants.as_ref().ok(), Some(&whole_manifest)),
                (Some(&whole_grants), manifest.as_ref().ok()),
                (grants.as_ref().ok(), manifest.as_ref().ok()),
            ] {
                let (Some(grants), Some(manifest)) = (grants, manifest) else { continue };
                let described = described(manifest.clone());
                let given = grants.effective("p", &described, &Secrets::new(), &Policy::default()).capabilities;
                let declared = &manifest.capabilities;
                prop_assert!((declared.exec || !given.exec) && (declared.files || !given.files));
                prop_assert!((declared.kv || !given.kv) && given.network.len() <= declared.network.len());
            }
        }
    }
}
