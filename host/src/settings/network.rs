//! What settings say about mirrors and the proxy.

use serde::Deserialize;

/// Where an origin really is, and what goes there.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MirrorEntry {
    pub(crate) to: String,
    #[serde(default)]
    pub(crate) credentials: bool,
    #[serde(default)]
    pub(crate) private: bool,
    #[serde(default)]
    pub(crate) methods: Vec<String>,
}

/// `"environment"`, or where it is.
#[derive(Clone, Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "`proxy` is \"environment\" or {\"url\": \"http://proxy.example.com:3128\", \"no_proxy\": [\".corp\"], \
                 \"plugins\": false}, with \"environment\" as the url too"
)]
pub(crate) enum ProxyEntry {
    Environment(EnvironmentWord),
    Named(ProxyFields),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EnvironmentWord {
    Environment,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyFields {
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) no_proxy: Vec<String>,
    /// Whether requests of plugins go through it too.
    #[serde(default)]
    pub(crate) plugins: bool,
}

impl std::fmt::Debug for ProxyFields {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL may carry a password.
        f.debug_struct("ProxyFields").field("plugins", &self.plugins).finish_non_exhaustive()
    }
}
