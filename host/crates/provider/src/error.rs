use std::fmt;
use std::time::Duration;

use crate::route::ROUTER_BILLING;
use crate::target::{LocalServer, Route};

/// Why a completion failed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProviderError {
    /// The credential is missing, wrong, or not allowed to do this.
    #[error("the credential was not accepted by {complaint}")]
    Auth { complaint: Box<Complaint> },
    /// Whoever pays has nothing left.
    #[error("payment was asked for by {complaint}")]
    Billing { complaint: Box<Complaint> },
    /// Too many requests.
    #[error("too many requests, says {complaint}")]
    RateLimited {
        complaint: Box<Complaint>,
        /// What the server asked to wait.
        retry_after: Option<Duration>,
    },
    /// More load than the provider can take.
    #[error("no capacity at {complaint}")]
    Overloaded { complaint: Box<Complaint>, retry_after: Option<Duration> },
    /// The conversation is longer than the model's window.
    #[error("the conversation does not fit the model, says {complaint}")]
    ContextOverflow { complaint: Box<Complaint> },
    /// The effort is not one of the model's.
    #[error("the effort was rejected by {complaint}")]
    EffortRejected { complaint: Box<Complaint> },
    /// The model does not think.
    #[error("thinking is not supported, says {complaint}")]
    ThinkingUnsupported { complaint: Box<Complaint> },
    /// Thinking that was sent back is not what this model made.
    #[error("the signature of earlier thinking was rejected by {complaint}")]
    BadThinkingSignature { complaint: Box<Complaint> },
    /// There is no such model.
    #[error("no such model at {complaint}")]
    ModelNotFound { complaint: Box<Complaint> },
    /// The provider that the id names does not serve the model.
    #[error("the named provider does not serve the model, says {complaint}")]
    ProviderUnsupported { complaint: Box<Complaint> },
    /// The request is larger than the server takes (HTTP 413).
    #[error("the request is too large for {complaint}")]
    TooLarge { complaint: Box<Complaint> },
    /// The model, or its server as it was started, cannot call tools.
    #[error("the model cannot call tools: {complaint}")]
    Unfit {
        complaint: Box<Complaint>,
        /// What to do about it.
        remedy: String,
    },
    /// The server or the way to it failed, and may not fail again.
    #[error("failure at {complaint}")]
    Transient { complaint: Box<Complaint>, retry_after: Option<Duration> },
    /// The stream ended before the answer did.
    #[error("the answer broke off at {complaint}")]
    Truncated { complaint: Box<Complaint> },
    /// The answer is not one.
    #[error("the answer cannot be understood: {complaint}")]
    Protocol { complaint: Box<Complaint> },
    /// No connection.
    #[error("no connection to {complaint}")]
    Connect { complaint: Box<Complaint> },
    /// No answer in time.
    #[error("no answer in time from {complaint}")]
    Timeout { complaint: Box<Complaint> },
    /// Any other refusal.
    #[error("the request was refused by {complaint}")]
    Refused { complaint: Box<Complaint> },
}

/// Who said what.
#[derive(Clone, Eq, PartialEq)]
pub struct Complaint {
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// Where the request went.
    pub origin: String,
    /// The server's own words, or what went wrong on the way: at most 600 characters, without credentials.
    pub message: String,
    pub(crate) model: String,
    pub(crate) wire_name: String,
    pub(crate) route: Route,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if let Some(status) = self.status {
            write!(f, " (HTTP {status})")?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

impl fmt::Debug for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} `{}` {self}", self.route, self.model)
    }
}

/// What is known of the Hugging Face account that pays.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum HfPlan {
    Pro,
    Free,
    #[default]
    Unknown,
}

impl ProviderError {
    /// Who said what.
    #[must_use]
    pub fn complaint(&self) -> &Complaint {
        match self {
            Self::Auth { complaint }
            | Self::Billing { complaint }
            | Self::RateLimited { complaint, .. }
            | Self::Overloaded { complaint, .. }
            | Self::ContextOverflow { complaint }
            | Self::EffortRejected { complaint }
            | Self::ThinkingUnsupported { complaint }
            | Self::BadThinkingSignature { complaint }
            | Self::ModelNotFound { complaint }
            | Self::ProviderUnsupported { complaint }
            | Self::TooLarge { complaint }
            | Self::Unfit { complaint, .. }
            | Self::Transient { complaint, .. }
            | Self::Truncated { complaint }
            | Self::Protocol { complaint }
            | Self::Connect { complaint }
            | Self::Timeout { complaint }
            | Self::Refused { complaint } => complaint,
        }
    }

    /// HTTP status, if there was an answer.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        self.complaint().status
    }

    /// Whether another credential would help.
    #[must_use]
    pub fn is_credentials(&self) -> bool {
        matches!(self, Self::Auth { .. })
    }

    /// Whether a shorter conversation would help.
    #[must_use]
    pub fn is_overflow(&self) -> bool {
        matches!(self, Self::ContextOverflow { .. } | Self::TooLarge { .. })
    }

    /// What to tell the person who waits for the answer.
    #[must_use]
    pub fn user_message(&self) -> String {
        self.user_message_for(HfPlan::Unknown)
    }

    /// The same, where the plan of the Hugging Face account is known.
    #[must_use]
    pub fn user_message_for(&self, plan: HfPlan) -> String {
        let complaint = self.complaint();
        let model = &complaint.model;
        match self {
            Self::Auth { .. } => complaint.auth_message(),
            Self::Billing { .. } => complaint.billing_message(plan),
            Self::ProviderUnsupported { .. } => complaint.unsupported_message(),
            Self::ModelNotFound { .. } => complaint.not_found_message(),
            Self::Unfit { remedy, .. } => {
                format!("`{model}` cannot be used here: {}\n{remedy}", complaint.message)
            }
            Self::Connect { .. } => complaint.connect_message(),
            _ => format!("`{model}`: {self}"),
        }
    }
}

impl Complaint {
    fn auth_message(&self) -> String {
        let fix = match &self.route {
            Route::Router => {
                "The Hugging Face token is missing or invalid. Set HF_TOKEN=hf_... (a .env file will do) or run \
                 `hf auth login`; the token needs permission to call Inference Providers."
                    .to_owned()
            }
            Route::Anthropic => "Set ANTHROPIC_API_KEY to a valid key.".to_owned(),
            Route::OpenAi => "Set OPENAI_API_KEY to a valid key.".to_owned(),
            Route::Local(server) => format!("Set {} to the key that {} wants.", server.key_variable(), server.name()),
            Route::Custom { key_variable: Some(variable), .. } => format!("Set {variable} to a valid key."),
            Route::Custom { name, .. } => format!("Check the key and headers of the provider `{name}` in your settings."),
        };
        format!(
            "Authentication failed for `{}`.\n{fix} /model switches to another model.\n{self}",
            self.model
        )
    }

    fn billing_message(&self, plan: HfPlan) -> String {
        const PRO: &str = "https://huggingface.co/subscribe/pro";
        let billing = ROUTER_BILLING;
        match (&self.route, plan) {
            (Route::Router, HfPlan::Pro) => {
                format!("Your Hugging Face inference credits are used up.\nAdd credits: {billing}\n{self}")
            }
            (Route::Router, HfPlan::Free) => format!(
                "Your Hugging Face inference credits are used up.\nSubscribe to PRO for more: {PRO}\nAdd credits: {billing}\n{self}"
            ),
            (Route::Router, HfPlan::Unknown) => format!(
                "Your Hugging Face inference credits appear to be exhausted.\n\
                 If this is a free account, PRO includes more: {PRO}\nAdd credits: {billing}\n{self}"
            ),
            (Route::Anthropic, _) => {
                format!(
                    "Your Anthropic account has no credit left: https://console.anthropic.com/settings/billing\n{self}"
                )
            }
            (Route::OpenAi, _) => {
                format!(
                    "Your OpenAI account has no credit left: https://platform.openai.com/settings/organization/billing\n{self}"
                )
            }
            (Route::Local(_) | Route::Custom { .. }, _) => format!("Payment is asked for by {self}"),
        }
    }

    fn unsupported_message(&self) -> String {
        let Self { model, .. } = self;
        match model.split_once(':') {
            Some((plain, provider)) => format!(
                "The provider `{provider}` does not serve `{plain}`.\n\
                 Drop the suffix (`{plain}`) to let the router choose, or pick another model with /model.\n{self}"
            ),
            None => format!("No provider serves `{model}`. Pick another model with /model.\n{self}"),
        }
    }

    fn not_found_message(&self) -> String {
        let Self { model, wire_name, .. } = self;
        let fix = match &self.route {
            Route::Router => "Use /model, or give an id such as `MiniMaxAI/MiniMax-M2.7`.".to_owned(),
            Route::Local(LocalServer::Ollama) => format!("Get it with `ollama pull {wire_name}`."),
            Route::Local(LocalServer::LmStudio) => format!("Get it with `lms get {wire_name}`."),
            Route::Local(server) => {
                format!("{} serves another model: use the name it was started with.", server.name())
            }
            Route::Anthropic | Route::OpenAi | Route::Custom { .. } => {
                "Use /model to choose another.".to_owned()
            }
        };
        format!("There is no model `{model}`. {fix}\n{self}")
    }

    fn connect_message(&self) -> String {
        match &self.route {
            Route::Local(server) => format!(
                "Nothing answers at {}. Is {} running? Start it with `{}`, or set {} to where it is.\n{}",
                self.origin,
                server.name(),
                server.start(&self.wire_name),
                server.base_variable(),
                self.message
            ),
            _ => format!("Cannot connect to {} for `{}`: {}", self.origin, self.model, self.message),
        }
    }
}
