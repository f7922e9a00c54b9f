//! The way out of a run: where requests of the host and of plugins go, as settings and environment say.

use egress::{CertificateFiles, Egress, EgressConfig, Ledger, MirrorTrust, Proxy, ProxyUrls, Rewrite};

use crate::assemble::Setup;
use crate::exit::Failure;
use crate::settings::network::{ProxyEntry, ProxyFields};

/// The origin that `HF_ENDPOINT` stands for.
pub(crate) const HUB: &str = "https://huggingface.co";

impl Setup {
    /// The way out of a run.
    pub(crate) fn egress(&self, offline: bool, run: &str) -> Result<Egress, Failure> {
        Ok(Egress::new(EgressConfig {
            offline: offline || self.policy.is_offline(),
            ceiling: self.policy.ceiling(),
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
        let urls = match &self.settings().proxy {
            None => return Ok(None),
            Some(ProxyEntry::Environment(_)) => self.proxies_of_environment(&[], false),
            Some(ProxyEntry::Named(ProxyFields { url, no_proxy, plugins })) if url == "environment" => {
                self.proxies_of_environment(no_proxy, *plugins)
            }
            Some(ProxyEntry::Named(ProxyFields { url, no_proxy, plugins })) => ProxyUrls {
                http: Some(url.clone()),
                https: Some(url.clone()),
                no_proxy: no_proxy.clone(),
                plugins: *plugins,
            },
        };
        Proxy::new(&urls).map(Some).map_err(|e| Failure::settings(anyhow::anyhow!("proxy: {e}")))
    }

    /// The proxies that other programs would use.
    fn proxies_of_environment(&self, no_proxy: &[String], plugins: bool) -> ProxyUrls {
        let either = |upper: &str, lower: &str| {
            let text = self.environment.text(upper).or_else(|| self.environment.text(lower));
            text.map(str::to_owned)
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
