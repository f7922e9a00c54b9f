use bytes::Bytes;
use egress::EgressError;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;

use crate::Face;
use crate::answer::{Answered, whole};

/// Bytes of a reason that stand in the first line of an answer, where some clients show nothing else.
const REASON_BYTES: usize = 240;

/// Why a command does not get what it asked for.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: String,
    /// The way out has put it on record already.
    pub(crate) is_on_record: bool,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into(), is_on_record: false }
    }

    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    pub(crate) fn forbidden(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason)
    }

    pub(crate) fn missing(reason: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, reason)
    }

    /// The answer, in a form that the face's clients show.
    pub(crate) fn answer(self, face: Face) -> Response<Answered> {
        let line: String =
            self.reason.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
        let line = &line[..line.len().min(REASON_BYTES)];
        let (kind, body) = match face {
            Face::Hub => ("application/json", serde_json::json!({ "error": self.reason }).to_string()),
            _ => ("text/plain; charset=utf-8", format!("{}\n", self.reason)),
        };
        let mut answer = Response::new(whole(Bytes::from(body)));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let (Face::Hub, Ok(line)) = (face, HeaderValue::from_str(line)) {
            headers.insert("x-error-message", line);
        }
        if let Ok(reason) = ReasonPhrase::try_from(line.as_bytes()) {
            answer.extensions_mut().insert(reason);
        }
        answer
    }
}

impl From<EgressError> for Refusal {
    fn from(error: EgressError) -> Self {
        let status = match error.root() {
            EgressError::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            EgressError::Connect { .. } | EgressError::Ledger(_) | EgressError::Tls(_) => {
                StatusCode::BAD_GATEWAY
            }
            refused if refused.is_before_sending() => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_GATEWAY,
        };
        Self { is_on_record: true, ..Self::new(status, error.to_string()) }
    }
}
