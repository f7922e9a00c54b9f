//! The way out of a run: where requests of the host and of plugins go, as settings and environment say.

use egress::{
    CertificateFiles, Egress, EgressConfig, HostRule, Ledger, MirrorTrust, Proxy, ProxyUrls, Rewrite,
};

use crate::assemble::Setup;
use crate::environment::Environment;
use crate::exit::Failure;
use crate::settings::Settings;
use crate::settings::network::{ProxyEntry, ProxyFields};

/// The origin that `HF_ENDPOINT` stands for.
pub(crate) const HUB: &str = "https://huggingface.co";

impl Setup {
    /// The way out of a run. `rules` are on the hosts that plugins reach.
    pub(crate) fn egress(&self, offline: bool, run: &str, rules: Vec<HostRule>) -> Result<Egress, Failure> {
        Ok(Egress::new(EgressConfig {
            offline: offline || self.policy.is_offline(),
            ceiling: self.policy.ceiling(),
            rules,
            ledger: Some(Ledger::new(&self.paths.state, run)),
            rewrites: self.rewrites()?,
            proxy: self.proxy()?,
            certificates: self.certificates(),
            secrets: self.held().redactor.clone(),
        }))
    }

    /// Origins that are really somewhere else: those of the settings, and the Hub where the environment says so.
    pub(crate) fn rewrites(&self) -> Result<Vec<Rewrite>, Failure> {
        let mut rewrites = Vec::new();
        for (from, entry) in &self.settings().origins {
            let trust = MirrorTrust {
                credentials: entry.credentials,
                private: entry.private,
                methods: entry.methods.clone(),
            };
            let rewrite = Rewrite::new(from, &entry.to, trust);
            rewrites.push(rewrite.map_err(|e| Failure::settings(anyhow::anyhow!("settings: origins: {e}")))?);
        }
        if let Some(endpoint) = self.hub_of_environment(&rewrites) {
            let rewrite = Rewrite::new(HUB, endpoint, MirrorTrust::default());
            rewrites.push(rewrite.map_err(|e| Failure::settings(anyhow::anyhow!("HF_ENDPOINT: {e}")))?);
        }
        Ok(rewrites)
    }

    /// What is to be said about a Hub that only the environment names.
    pub(crate) fn hub_notice(&self) -> Option<String> {
        let named = self.rewrites().ok()?;
        let hub = named.iter().find(|rewrite| rewrite.from().to_string() == HUB)?;
        let settings = &self.settings().origins;
        (!settings.keys().any(|origin| origin.trim_end_matches('/') == HUB)).then(|| {
            format!(
                "HF_ENDPOINT: {HUB} is reached at {}, with GET and HEAD and without credentials; an entry under \
                 `origins` in your settings can give it more",
                hub.to()
            )
        })
    }

    fn hub_of_environment(&self, named: &[Rewrite]) -> Option<&str> {
        let endpoint = self.environment.text("HF_ENDPOINT")?;
        let already = named.iter().any(|rewrite| rewrite.from().to_string() == HUB);
        (!already && endpoint.trim_end_matches('/') != HUB).then_some(endpoint)
    }

    fn proxy(&self) -> Result<Option<Proxy>, Failure> {
        let urls = proxy_urls(&self.environment, self.settings());
        let proxy = urls.map(|urls| Proxy::new(&urls)).transpose();
        proxy.map_err(|e| Failure::settings(anyhow::anyhow!("proxy: {e}")))
    }

    /// Certificates that count for all of the host's requests. None is read before it is needed.
    pub(crate) fn certificates(&self) -> CertificateFiles {
        let settings = self.settings();
        let file = |text: &Option<String>| text.as_deref().map(|text| self.paths.expand(text));
        CertificateFiles {
            ca: file(&settings.ca),
            client: file(&settings.client_certificate),
            client_key: file(&settings.client_key),
        }
    }
}

/// The proxies that settings name, or say that the environment names.
pub(crate) fn proxy_urls(environment: &Environment, settings: &Settings) -> Option<ProxyUrls> {
    Some(match settings.proxy.as_ref()? {
        ProxyEntry::Environment(_) => proxies_of(environment, &[], false),
        ProxyEntry::Named(ProxyFields { url, no_proxy, plugins }) if url == "environment" => {
            proxies_of(environment, no_proxy, *plugins)
        }
        ProxyEntry::Named(ProxyFields { url, no_proxy, plugins }) => ProxyUrls {
            http: Some(url.clone()),
            https: Some(url.clone()),
            no_proxy: no_proxy.clone(),
            plugins: *plugins,
        },
    })
}

/// The proxies that other programs would use.
fn proxies_of(environment: &Environment, no_proxy: &[String], plugins: bool) -> ProxyUrls {
    let either = |upper: &str, lower: &str| {
        environment.text(upper).or_else(|| environment.text(lower)).map(str::to_owned)
    };
    let all = either("ALL_PROXY", "all_proxy");
    let around = either("NO_PROXY", "no_proxy");
    ProxyUrls {
        http: either("HTTP_PROXY", "http_proxy").or_else(|| all.clone()),
        https: either("HTTPS_PROXY", "https_proxy").or(all),
        no_proxy: no_proxy.iter().cloned().chain(around).collect(),
        plugins,
    }
}
