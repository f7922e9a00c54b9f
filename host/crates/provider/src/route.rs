use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use egress::{CertificateError, Certificates, Egress, Origin};
use protocol::Usage;
use secrecy::{ExposeSecret, SecretString};

use crate::catalog::{Catalog, CatalogError, Facts, Price, Suggestion};
use crate::listing::Listing;
use crate::model::Model;
use crate::settings::{CustomProvider, ProviderSettings, Vendor, WireFormat};
use crate::target::{Draft, LocalServer, Route};

const ROUTER: &str = "https://router.huggingface.co/v1";

/// Where the router's bill is paid.
pub(crate) const ROUTER_BILLING: &str = "https://huggingface.co/settings/billing";

const ANTHROPIC: &str = "https://api.anthropic.com";
const OPENAI: &str = "https://api.openai.com";

/// What local servers are given as a key when none is set; some insist on one.
const LOCAL_KEY: &str = "sk-local-no-key-required";

/// Longest session id that the router and prompt caches take, in characters.
pub(crate) const SESSION_ID_CHARS: usize = 256;

/// Names that a provider of the user's settings cannot have.
const RESERVED: [&str; 8] =
    ["huggingface", "anthropic", "openai", "openai-compat", "ollama", "vllm", "lm_studio", "llamacpp"];

/// All the places completions can come from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Providers {
    shared: Arc<Shared>,
    /// The session that completions are for.
    session: Arc<str>,
}

#[derive(Debug)]
struct Shared {
    settings: ProviderSettings,
    catalog: Catalog,
    egress: Egress,
    /// What the router said of its models, by id.
    listed: Mutex<HashMap<String, Listing>>,
}

/// Why an id leads to no model.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ResolveError {
    /// It has not the form of a model id.
    #[error("`{id}` is not a model id: {reason}")]
    Malformed { id: String, reason: &'static str },
    /// It names a local server, but no model that could be there.
    #[error("Unsupported local model id `{id}`: {reason}")]
    UnsupportedLocal { id: String, reason: &'static str },
    /// Its first part is nearly the name of a local server.
    #[error("`{prefix}/` in `{id}` is not known; did you mean `{meant}/`?")]
    UnknownPrefix { id: String, prefix: String, meant: String },
    /// The credential for its provider is not set.
    #[error("`{id}` needs {variable}; {what_else}")]
    MissingKey { id: String, variable: String, what_else: String },
    /// The URL set for its provider cannot be used.
    #[error("the base URL set for `{id}` cannot be used: {reason}")]
    BadBaseUrl { id: String, reason: String },
    /// A header or key set for its provider cannot be sent.
    #[error("`{header}` as set for `{id}` cannot be sent: it has characters that no header can carry")]
    BadHeader { id: String, header: String },
    /// A file of certificates set for its provider cannot be used.
    #[error("the certificates set for `{id}` cannot be used: {source}")]
    BadCertificates { id: String, source: CertificateError },
    /// The machine's policy does not allow it, or not there.
    #[error(transparent)]
    Forbidden(#[from] policy::Forbidden),
}

impl Providers {
    /// Sets the providers up; nothing is connected.
    ///
    /// # Errors
    /// When `models_toml` cannot be read or a provider of the user's settings has a reserved name.
    pub fn new(settings: ProviderSettings, models_toml: &str, egress: Egress) -> Result<Self, CatalogError> {
        if let Some(name) = settings.custom.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(CatalogError::ReservedName(name.clone()));
        }
        let catalog = Catalog::parse(models_toml)?;
        let session = settings.session_id.as_str().into();
        Ok(Self { shared: Arc::new(Shared { settings, catalog, egress, listed: Mutex::default() }), session })
    }

    /// The same providers for another session. Models have to be resolved anew.
    #[must_use]
    pub fn with_session(&self, id: &str) -> Self {
        Self { shared: Arc::clone(&self.shared), session: id.into() }
    }

    /// Models worth naming to someone who has to choose one.
    #[must_use]
    pub fn suggestions(&self) -> &[Suggestion] {
        &self.shared.catalog.suggestions
    }

    /// Decides where an id goes. There is no second choice: a route whose credential is missing is an error.
    ///
    /// # Errors
    /// When the id is malformed, a credential is missing, what is set for its provider cannot be used, or
    /// the machine's policy forbids it.
    pub fn resolve(&self, id: &str) -> Result<Model, ResolveError> {
        let model = self.find(id)?;
        let bad = |reason: String| ResolveError::BadBaseUrl { id: id.to_owned(), reason };
        let url = url::Url::parse(model.route()).map_err(|e| bad(e.to_string()))?;
        let origin = Origin::of(&url).map_err(|e| bad(e.to_string()))?;
        self.shared.settings.policy.model(model.id(), &origin)?;
        Ok(match self.listed().get(model.id()) {
            Some(listing) => model.with_listing(listing),
            None => model,
        })
    }

    /// Asks the router what a model costs, where nothing else says it. That it does not say it is no failure: then
    /// the model has no price.
    pub async fn learn_price(&self, id: &str) {
        let Ok(model) = self.resolve(id) else { return };
        if model.cost_usd(&Usage::default()).is_some() {
            return;
        }
        if let Some(listing) = model.listing().await {
            self.listed().insert(model.id().to_owned(), listing);
        }
    }

    fn listed(&self) -> MutexGuard<'_, HashMap<String, Listing>> {
        self.shared.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, id: &str) -> Result<Model, ResolveError> {
        let id = id.trim();
        let id = id.strip_prefix("huggingface/").unwrap_or(id);
        let settings = &self.shared.settings;
        let malformed = |reason| ResolveError::Malformed { id: id.to_owned(), reason };
        let (prefix, name) = id
            .split_once('/')
            .ok_or_else(|| malformed("write `<org>/<model>[:<provider>]` or `ollama/<model>`"))?;
        if prefix == "openai-compat" {
            return Err(ResolveError::UnsupportedLocal {
                id: id.to_owned(),
                reason: "name the server: `ollama/`, `vllm/`, `lm_studio/`, `llamacpp/` or a provider of your settings",
            });
        }
        if let Some(server) = LocalServer::of(prefix) {
            return self.local(id, server, name);
        }
        let (base_id, provider) = match id.split_once(':') {
            Some((base_id, provider)) => (base_id, Some(provider)),
            None => (id, None),
        };
        if name.is_empty() || base_id.split('/').any(str::is_empty) {
            return Err(malformed("a part of it is empty"));
        }
        if let Some(custom) = settings.custom.get(prefix) {
            return self.custom(id, prefix, name, custom);
        }
        match (provider, prefix) {
            (Some(""), _) => Err(malformed("the provider after `:` is missing")),
            (Some(_), _) => self.router(id, base_id),
            (None, _) if self.shared.catalog.is_router_only(id) => self.router(id, base_id),
            (None, "anthropic") => self.anthropic(id, name),
            (None, "openai") => self.openai(id, name),
            (None, _) => match self.shared.catalog.meant(prefix) {
                Some(meant) => Err(ResolveError::UnknownPrefix {
                    id: id.to_owned(),
                    prefix: prefix.to_owned(),
                    meant: meant.to_owned(),
                }),
                None => self.router(id, base_id),
            },
        }
    }

    fn router(&self, id: &str, base_id: &str) -> Result<Model, ResolveError> {
        let key = required(id, self.shared.settings.hf_token.as_ref(), "HF_TOKEN", "or run `hf auth login`")?;
        let facts = self.shared.catalog.facts(base_id).unwrap_or_default().without_price();
        let mut draft = Draft::new(id, id, WireFormat::Chat, Route::Router, ROUTER)?;
        draft.bearer(key)?;
        let session: String = self.session.chars().take(SESSION_ID_CHARS).collect();
        if !session.is_empty() {
            draft.header("x-hf-session-id", &session)?;
        }
        Ok(self.finish(draft, facts, "your Hugging Face account".to_owned()))
    }

    fn anthropic(&self, id: &str, name: &str) -> Result<Model, ResolveError> {
        let vendor = &self.shared.settings.anthropic;
        let key = required(id, vendor.key.as_ref(), "ANTHROPIC_API_KEY", &through_the_router(id))?;
        let mut draft = Draft::new(
            id,
            self.vendor_name(id, name),
            WireFormat::Messages,
            Route::Anthropic,
            vendor.base(ANTHROPIC),
        )?;
        draft.api_key(key)?;
        let payer = draft.payer(ANTHROPIC, "your Anthropic account");
        Ok(self.finish(draft, self.vendor_facts(id, "anthropic"), payer))
    }

    fn openai(&self, id: &str, name: &str) -> Result<Model, ResolveError> {
        let vendor = &self.shared.settings.openai;
        let key = required(id, vendor.key.as_ref(), "OPENAI_API_KEY", &through_the_router(id))?;
        let mut draft = Draft::new(
            id,
            self.vendor_name(id, name),
            WireFormat::Responses,
            Route::OpenAi,
            vendor.base(OPENAI),
        )?;
        draft.bearer(key)?;
        let payer = draft.payer(OPENAI, "your OpenAI account");
        Ok(self.finish(draft, self.vendor_facts(id, "openai"), payer))
    }

    fn local(&self, id: &str, server: LocalServer, name: &str) -> Result<Model, ResolveError> {
        let unsupported = |reason| ResolveError::UnsupportedLocal { id: id.to_owned(), reason };
        if name.is_empty() {
            return Err(unsupported("the name of a model has to follow the `/`"));
        }
        if name.contains(char::is_whitespace) {
            return Err(unsupported("names of models have no spaces"));
        }
        let settings = &self.shared.settings;
        let vendor = server.settings(settings);
        let shared = settings.local_base_url.as_deref().filter(|url| !url.trim().is_empty());
        let base = vendor.base(shared.unwrap_or(server.default_base()));
        let mut draft = Draft::new(id, name, WireFormat::Chat, Route::Local(server), base)?;
        match vendor.key().or(settings.local_api_key.as_ref()) {
            Some(key) => draft.bearer(key)?,
            None => draft.header("authorization", &format!("Bearer {LOCAL_KEY}"))?,
        }
        let facts = Facts::free();
        Ok(self.finish(draft, facts, "nobody (local)".to_owned()))
    }

    fn custom(
        &self,
        id: &str,
        prefix: &str,
        name: &str,
        custom: &CustomProvider,
    ) -> Result<Model, ResolveError> {
        let route = Route::Custom { name: prefix.to_owned(), key_variable: custom.key_variable.clone() };
        let mut draft = Draft::new(id, name, custom.wire, route, &custom.base_url)?;
        if let Some(variable) = &custom.key_variable {
            let what_else = format!("the provider `{prefix}` in your settings takes its key from it");
            required(id, custom.key.as_ref(), variable, &what_else)?;
        }
        match (&custom.key, custom.wire) {
            (Some(key), WireFormat::Messages) => draft.api_key(key)?,
            (Some(key), _) => draft.bearer(key)?,
            (None, _) => {}
        }
        for (header, value) in &custom.headers {
            draft.own_header(header, value)?;
        }
        let vendor = match custom.wire {
            WireFormat::Messages => "anthropic",
            WireFormat::Chat | WireFormat::Responses => "openai",
        };
        let catalog = &self.shared.catalog;
        let known = catalog.facts(name).or_else(|| catalog.facts(&format!("{vendor}/{name}")));
        let mut facts = known.unwrap_or_default().without_price();
        // The user knows better than a list what was configured there.
        facts.context = custom.context_window.or(facts.context);
        facts.price = custom.price.map(|(input, output)| Price::of_tokens(input, output)).or(facts.price);
        let payer = custom.payer.clone();
        let payer = payer.unwrap_or_else(|| format!("your account at {}", draft.origin()));
        let mut egress = self.shared.egress.clone();
        if !custom.certificates.is_empty() {
            let certificates = Certificates::read(&custom.certificates)
                .map_err(|source| ResolveError::BadCertificates { id: id.to_owned(), source })?;
            egress = egress.with_certificates(certificates);
        }
        Ok(Model::new(draft.finish(facts, payer, self.session.to_string(), egress)))
    }

    /// The vendor's own spelling of a model's name.
    fn vendor_name<'a>(&'a self, id: &str, name: &'a str) -> &'a str {
        match self.shared.catalog.find(id) {
            Some((known, facts)) if facts.is_spelt(id) => {
                known.split_once('/').map_or(name, |(_, name)| name)
            }
            _ => name,
        }
    }

    fn vendor_facts(&self, id: &str, vendor: &str) -> Facts {
        let catalog = &self.shared.catalog;
        catalog.facts(id).unwrap_or_else(|| catalog.unknown(vendor))
    }

    fn finish(&self, draft: Draft, facts: Facts, payer: String) -> Model {
        Model::new(draft.finish(facts, payer, self.session.to_string(), self.shared.egress.clone()))
    }
}

impl Vendor {
    fn base<'a>(&'a self, default: &'a str) -> &'a str {
        self.base_url.as_deref().filter(|url| !url.trim().is_empty()).unwrap_or(default)
    }

    fn key(&self) -> Option<&SecretString> {
        self.key.as_ref().filter(|key| !key.expose_secret().is_empty())
    }
}

fn required<'a>(
    id: &str,
    key: Option<&'a SecretString>,
    variable: &str,
    what_else: &str,
) -> Result<&'a SecretString, ResolveError> {
    key.filter(|key| !key.expose_secret().is_empty()).ok_or_else(|| ResolveError::MissingKey {
        id: id.to_owned(),
        variable: variable.to_owned(),
        what_else: what_else.to_owned(),
    })
}

fn through_the_router(id: &str) -> String {
    format!(
        "`{id}:<provider>` would go through the Hugging Face router instead, billed to your Hugging Face account"
    )
}

#[cfg(test)]
mod tests;
