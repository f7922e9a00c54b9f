use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use egress::CertificateFiles;
use policy::Policy;
use secrecy::SecretString;

/// The three ways of asking for a completion.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WireFormat {
    /// `POST /v1/chat/completions`
    Chat,
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/responses`
    Responses,
}

impl WireFormat {
    /// Its name in settings and transcripts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }
}

impl fmt::Display for WireFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no wire format.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a wire format: write `chat`, `messages` or `responses`")]
pub struct UnknownWire(String);

impl FromStr for WireFormat {
    type Err = UnknownWire;

    fn from_str(text: &str) -> Result<Self, UnknownWire> {
        match text {
            "chat" => Ok(Self::Chat),
            "messages" => Ok(Self::Messages),
            "responses" => Ok(Self::Responses),
            _ => Err(UnknownWire(text.to_owned())),
        }
    }
}

/// Everything that decides where completions go and who pays for them.
#[derive(Clone, Debug, Default)]
pub struct ProviderSettings {
    /// For the Hugging Face router.
    pub hf_token: Option<SecretString>,
    pub anthropic: Vendor,
    pub openai: Vendor,
    /// Where every kind of local server is, unless its own setting says otherwise.
    pub local_base_url: Option<String>,
    pub local_api_key: Option<SecretString>,
    pub ollama: Vendor,
    pub vllm: Vendor,
    pub lm_studio: Vendor,
    pub llamacpp: Vendor,
    /// The user's own providers, by the first part of their model ids.
    pub custom: BTreeMap<String, CustomProvider>,
    /// Names the session to the router and to prompt caches.
    pub session_id: String,
    /// What the machine's policy says about models.
    pub policy: Arc<Policy>,
}

/// What is set for one vendor or one kind of local server.
#[derive(Clone, Debug, Default)]
pub struct Vendor {
    /// Replaces the default; with or without `/v1`.
    pub base_url: Option<String>,
    pub key: Option<SecretString>,
}

/// A provider from the user's settings.
#[derive(Clone)]
pub struct CustomProvider {
    pub wire: WireFormat,
    /// With or without `/v1`.
    pub base_url: String,
    pub key: Option<SecretString>,
    /// The variable the key is taken from, for messages.
    pub key_variable: Option<String>,
    /// Sent with every request; they replace headers of the same name.
    pub headers: BTreeMap<String, String>,
    /// For a server with certificates of its own.
    pub certificates: CertificateFiles,
    /// Tokens.
    pub context_window: Option<u64>,
    /// USD per million tokens of input and of output.
    pub price: Option<(f64, f64)>,
    /// Who pays, if the user says so.
    pub payer: Option<String>,
}

impl fmt::Debug for CustomProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Header values are often credentials.
        f.debug_struct("CustomProvider")
            .field("wire", &self.wire)
            .field("base_url", &self.base_url)
            .field("key_variable", &self.key_variable)
            .field("headers", &self.headers.keys())
            .field("certificates", &self.certificates)
            .field("context_window", &self.context_window)
            .finish_non_exhaustive()
    }
}
