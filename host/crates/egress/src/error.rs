use std::time::Duration;

/// Why a request was not sent, or its answer not read to the end.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("`{url}` is not a URL that can be requested: {reason}")]
    Url { url: String, reason: String },
    #[error("header `{0}` cannot be sent")]
    Header(String),
    #[error("{method} {origin} is not granted")]
    NotGranted { origin: String, method: String },
    #[error("{origin} leads to {address}, which is not a public address")]
    NotPublic { origin: String, address: String },
    #[error("{origin} is not reachable with --offline: only the model's origin is")]
    Offline { origin: String },
    #[error("{0} redirects more often than the request allows")]
    TooManyRedirects(String),
    #[error("no answer from {origin} within {} s", limit.as_secs())]
    Timeout { origin: String, limit: Duration },
    #[error("cannot connect to {origin}: {reason}")]
    Connect { origin: String, reason: String },
    #[error("the connection to {origin} failed: {reason}")]
    Broken { origin: String, reason: String },
    #[error("the answer of {origin} is larger than {limit} bytes")]
    TooLarge { origin: String, limit: u64 },
    #[error("nothing is sent that is not on record, and the ledger cannot be written: {0}")]
    Ledger(String),
    #[error(
        "no encrypted connection can be made with the certificates of this machine and of the settings: {0}"
    )]
    Tls(String),
}

impl EgressError {
    /// The innermost cause of a client error, without the URL, which may carry a secret.
    pub(crate) fn reason(error: &reqwest::Error) -> String {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        cause.to_string()
    }
}
