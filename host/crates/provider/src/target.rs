use egress::Egress;
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::base::Base;
use crate::catalog::Facts;
use crate::route::ResolveError;
use crate::settings::{ProviderSettings, Vendor, WireFormat};

/// The Messages API's version, which has not changed since.
const ANTHROPIC_VERSION: &str = "2023-06-01";

const USER_AGENT: &str = concat!("ml-intern/", env!("CARGO_PKG_VERSION"));

/// Who serves a model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Route {
    Router,
    Anthropic,
    OpenAi,
    Local(LocalServer),
    Custom { name: String, key_variable: Option<String> },
}

/// The kinds of server on the user's own machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LocalServer {
    Ollama,
    Vllm,
    LmStudio,
    LlamaCpp,
}

impl LocalServer {
    pub(crate) fn of(prefix: &str) -> Option<Self> {
        match prefix {
            "ollama" => Some(Self::Ollama),
            "vllm" => Some(Self::Vllm),
            "lm_studio" => Some(Self::LmStudio),
            "llamacpp" => Some(Self::LlamaCpp),
            _ => None,
        }
    }

    pub(crate) fn settings(self, settings: &ProviderSettings) -> &Vendor {
        match self {
            Self::Ollama => &settings.ollama,
            Self::Vllm => &settings.vllm,
            Self::LmStudio => &settings.lm_studio,
            Self::LlamaCpp => &settings.llamacpp,
        }
    }

    pub(crate) fn default_base(self) -> &'static str {
        match self {
            Self::Ollama => "http://localhost:11434",
            Self::Vllm => "http://localhost:8000",
            Self::LmStudio => "http://127.0.0.1:1234",
            Self::LlamaCpp => "http://localhost:8080",
        }
    }

    pub(crate) fn base_variable(self) -> &'static str {
        match self {
            Self::Ollama => "OLLAMA_BASE_URL",
            Self::Vllm => "VLLM_BASE_URL",
            Self::LmStudio => "LMSTUDIO_BASE_URL",
            Self::LlamaCpp => "LLAMACPP_BASE_URL",
        }
    }

    pub(crate) fn key_variable(self) -> &'static str {
        match self {
            Self::Ollama => "OLLAMA_API_KEY",
            Self::Vllm => "VLLM_API_KEY",
            Self::LmStudio => "LMSTUDIO_API_KEY",
            Self::LlamaCpp => "LLAMACPP_API_KEY",
        }
    }

    /// How people call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ollama => "Ollama",
            Self::Vllm => "vLLM",
            Self::LmStudio => "LM Studio",
            Self::LlamaCpp => "llama-server",
        }
    }

    /// The command that starts it.
    pub(crate) fn start(self, model: &str) -> String {
        match self {
            Self::Ollama => "ollama serve".to_owned(),
            Self::Vllm => format!("vllm serve {model}"),
            Self::LmStudio => "lms server start".to_owned(),
            Self::LlamaCpp => "llama-server -m MODEL.gguf --jinja".to_owned(),
        }
    }
}

/// A resolved id: everything that stays the same between its completions.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) id: String,
    pub(crate) wire_name: String,
    pub(crate) wire: WireFormat,
    pub(crate) route: Route,
    pub(crate) base: Base,
    pub(crate) url: Url,
    pub(crate) payer: String,
    pub(crate) facts: Facts,
    pub(crate) headers: HeaderMap,
    /// Values that must not come back in a message.
    pub(crate) secrets: Vec<SecretString>,
    pub(crate) session_id: String,
    pub(crate) egress: Egress,
}

impl Target {
    pub(crate) fn origin(&self) -> &str {
        &self.base.origin
    }

    /// Whether its server may leave it to us to find tool calls and reasoning in the text.
    pub(crate) fn is_rough(&self) -> bool {
        self.wire == WireFormat::Chat && matches!(self.route, Route::Local(_) | Route::Custom { .. })
    }
}

/// A target in the making: where it is and what is sent with every request.
pub(crate) struct Draft {
    id: String,
    wire_name: String,
    wire: WireFormat,
    route: Route,
    base: Base,
    headers: HeaderMap,
    secrets: Vec<SecretString>,
}

impl Draft {
    pub(crate) fn new(
        id: &str,
        wire_name: &str,
        wire: WireFormat,
        route: Route,
        base: &str,
    ) -> Result<Self, ResolveError> {
        let base =
            Base::parse(base).map_err(|reason| ResolveError::BadBaseUrl { id: id.to_owned(), reason })?;
        let mut draft = Self {
            id: id.to_owned(),
            wire_name: wire_name.to_owned(),
            wire,
            route,
            base,
            headers: HeaderMap::new(),
            secrets: Vec::new(),
        };
        draft.header("content-type", "application/json")?;
        draft.header("user-agent", USER_AGENT)?;
        if wire == WireFormat::Messages {
            draft.header("anthropic-version", ANTHROPIC_VERSION)?;
        }
        Ok(draft)
    }

    pub(crate) fn origin(&self) -> &str {
        &self.base.origin
    }

    /// Who pays: the vendor's customer, unless the base URL was pointed at someone else.
    pub(crate) fn payer(&self, vendor: &str, customer: &str) -> String {
        match Base::parse(vendor) {
            Ok(vendor) if vendor.origin == self.base.origin => customer.to_owned(),
            _ => format!("your account at {}", self.base.origin),
        }
    }

    pub(crate) fn bearer(&mut self, key: &SecretString) -> Result<(), ResolveError> {
        self.secrets.push(key.clone());
        self.header("authorization", &format!("Bearer {}", key.expose_secret()))
    }

    pub(crate) fn api_key(&mut self, key: &SecretString) -> Result<(), ResolveError> {
        self.secrets.push(key.clone());
        self.header("x-api-key", key.expose_secret())
    }

    /// A header from the user's settings, whose value may be a credential.
    pub(crate) fn own_header(&mut self, name: &str, value: &str) -> Result<(), ResolveError> {
        self.secrets.push(value.to_owned().into());
        self.header(name, value)
    }

    pub(crate) fn header(&mut self, name: &str, value: &str) -> Result<(), ResolveError> {
        let refuse = || ResolveError::BadHeader { id: self.id.clone(), header: name.to_owned() };
        let header = HeaderName::try_from(name).map_err(|_| refuse())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| refuse())?;
        // Whatever it is, no debug output is to show it.
        value.set_sensitive(true);
        self.headers.insert(header, value);
        Ok(())
    }

    pub(crate) fn finish(self, facts: Facts, payer: String, session_id: String, egress: Egress) -> Target {
        let Self { id, wire_name, wire, route, base, headers, secrets } = self;
        let url = base.completions(wire);
        Target { id, wire_name, wire, route, base, url, payer, facts, headers, secrets, session_id, egress }
    }
}
