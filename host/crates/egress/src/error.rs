use std::time::Duration;

use http::Method;
use hyper_util::client::legacy;

use crate::ceiling::By;
use crate::connector::ConnectError;
use crate::{Origin, Pace};

/// Why a request was not sent, or its answer not read to the end.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("`{url}` is not a URL that can be requested: {reason}")]
    Url { url: String, reason: String },
    #[error("header `{0}` cannot be sent")]
    Header(String),
    #[error("{method} {origin} is not granted")]
    NotGranted { origin: String, method: String },
    #[error("{method} {origin} is forbidden by {by}")]
    Forbidden { origin: String, method: String, by: String },
    #[error(
        "{method} {origin} is {}: the rule `{rule}` {}",
        if *asks { "not sent unasked" } else { "refused" },
        if *asks { "asks about it first" } else { "denies it" },
    )]
    Rule { origin: String, method: String, rule: String, asks: bool },
    #[error("{origin} leads to {address}, which is not a public address and not granted as such")]
    NotPublic { origin: String, address: String },
    #[error("{origin} leads to {place}, which is forbidden by {by}")]
    ForbiddenPlace { origin: String, method: String, place: String, by: String },
    #[error("{origin} leads to {place}, which is refused: the rule `{rule}` denies it")]
    DeniedPlace { origin: String, method: String, place: String, rule: String },
    #[error(
        "{real}, which stands for {origin}, gets no credentials, so that `{name}` cannot go along: see its entry under `origins` in the settings"
    )]
    MirrorCredential { origin: String, real: String, name: String },
    #[error(
        "{real}, which stands for {origin}, takes {methods} and not {method}: see its entry under `origins` in the settings"
    )]
    Mirror { origin: String, real: String, methods: String, method: String },
    #[error(
        "{origin} is asked of {real} by an entry under `origins` in the settings, and a tunnel would go around that"
    )]
    Mirrored { origin: String, real: String },
    #[error("{origin} is not reachable with --offline: only the model's origin is")]
    Offline { origin: String },
    #[error("{origin} redirects to {to}, which is not encrypted")]
    Downgrade { origin: String, to: String },
    #[error("{origin} redirects to {to}, and a {method} is not taken along to another origin")]
    Elsewhere { origin: String, to: String, method: String },
    #[error("{0} redirects more often than the request allows")]
    TooManyRedirects(String),
    #[error("{origin} had not answered in full after {} ms", limit.as_millis())]
    Timeout { origin: String, limit: Duration },
    #[error("cannot connect to {origin}: {reason}")]
    Connect { origin: String, reason: String },
    #[error("the connection to {origin} failed: {reason}")]
    Broken { origin: String, reason: String },
    #[error("{origin} sends less than {} bytes in {} s", pace.bytes, pace.every.as_secs_f32())]
    TooSlow { origin: String, pace: Pace },
    #[error("the answer of {origin} is larger than {limit} bytes")]
    TooLarge { origin: String, limit: u64 },
    #[error("the credential `{name}` goes to {audience} only, not to {origin}")]
    Audience { name: String, origin: String, audience: String },
    #[error("the credential `{name}` cannot be sent: {reason}")]
    Credential { name: String, reason: String },
    #[error(
        "the request to {origin} holds a secret of this machine, which only the host sends; nothing was sent"
    )]
    Leak { origin: String },
    #[error(
        "{origin} answered a request with a credential in an encoding ({encoding}) that cannot be searched"
    )]
    Encoded { origin: String, encoding: String },
    #[error("the answer of {0} unpacks to far more than was sent")]
    Bomb(String),
    #[error("nothing is sent that is not on record, and the ledger cannot be written: {0}")]
    Ledger(String),
    /// Whoever wanted it sent could not make ready for its answer.
    #[error("{0}")]
    HeldBack(String),
    #[error(
        "no encrypted connection can be made with the certificates of this machine and of the settings: {0}"
    )]
    Tls(String),
    /// It happened behind a redirect: the other side had the request already.
    #[error(transparent)]
    Behind(Box<Self>),
}

impl EgressError {
    /// Whether nothing of the request can have reached the other side.
    #[must_use]
    pub fn is_before_sending(&self) -> bool {
        matches!(
            self,
            Self::Url { .. }
                | Self::Header(_)
                | Self::NotGranted { .. }
                | Self::Forbidden { .. }
                | Self::Rule { .. }
                | Self::Mirror { .. }
                | Self::MirrorCredential { .. }
                | Self::Mirrored { .. }
                | Self::NotPublic { .. }
                | Self::ForbiddenPlace { .. }
                | Self::DeniedPlace { .. }
                | Self::Offline { .. }
                | Self::Connect { .. }
                | Self::Audience { .. }
                | Self::Credential { .. }
                | Self::Leak { .. }
                | Self::Ledger(_)
                | Self::HeldBack(_)
                | Self::Tls(_)
        )
    }

    /// Whether it may hold words that a server chose: where it leads, how its answer is packed, whom its
    /// certificate is for. Of what comes after the head of an answer whoever reads it knows that.
    #[must_use]
    pub fn may_quote_server(&self) -> bool {
        match self {
            Self::Behind(_)
            | Self::Downgrade { .. }
            | Self::Elsewhere { .. }
            | Self::TooManyRedirects(_)
            | Self::Encoded { .. } => true,
            Self::Connect { reason, .. } | Self::Broken { reason, .. } => reason.contains("certificate"),
            _ => false,
        }
    }

    /// What happened, wherever it did.
    #[must_use]
    pub fn root(&self) -> &Self {
        match self {
            Self::Behind(inner) => inner.root(),
            other => other,
        }
    }

    /// The same, behind a redirect if it was one.
    pub(crate) fn behind(self, redirected: bool) -> Self {
        if redirected { Self::Behind(Box::new(self)) } else { self }
    }

    /// The innermost cause of a client's error, without the URL, which may carry a secret.
    pub(crate) fn reason(error: &(dyn std::error::Error + 'static)) -> String {
        causes(error).last().unwrap_or(error).to_string()
    }

    /// Why no answer came.
    pub(crate) fn of_exchange(origin: &Origin, method: &Method, error: &legacy::Error) -> Self {
        if let Some(refusal) = Self::of_gate(origin, method.as_str(), error) {
            return refusal;
        }
        let (origin, reason) = (origin.to_string(), Self::reason(error));
        if error.is_connect() { Self::Connect { origin, reason } } else { Self::Broken { origin, reason } }
    }

    /// Why there is no connection.
    pub(crate) fn of_connecting(origin: &Origin, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::of_gate(origin, "CONNECT", error).unwrap_or_else(|| {
            let reason = Self::reason(error);
            Self::Connect { origin: origin.to_string(), reason }
        })
    }

    /// What was decided only when the name was resolved.
    fn of_gate(origin: &Origin, method: &str, error: &(dyn std::error::Error + 'static)) -> Option<Self> {
        causes(error).find_map(|cause| {
            let origin = origin.to_string();
            match cause.downcast_ref()? {
                ConnectError::NotPermitted(address) => {
                    Some(Self::NotPublic { origin, address: address.to_string() })
                }
                ConnectError::Denied { what, by } => {
                    let (method, place) = (method.to_owned(), what.clone());
                    Some(match by.clone() {
                        By::Policy(by) => Self::ForbiddenPlace { origin, method, place, by },
                        By::Rule(rule) => Self::DeniedPlace { origin, method, place, rule },
                    })
                }
                _ => None,
            }
        })
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}
