use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use egress::{Body, Caller, Egress, EgressError, Limits, Outgoing, Pace, Policy};

use crate::bindings::ml_intern::plugin::http::{Head, Header, Host, Request, Response};
use crate::bindings::ml_intern::plugin::types::{Error, ErrorKind};
use crate::host::error;
use crate::limits::{MAX_HTTP_BYTES, MAX_HTTP_REQUESTS};
use crate::state::{Call, CallState};

/// Time of a request, redirects and the whole answer included: where the guest names none, and at most.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// A server that sends less only drips.
const SLOWEST: Pace = Pace { bytes: 2_000, every: Duration::from_secs(20) };

/// Redirects that are followed at most.
const MAX_REDIRECTS: u8 = 5;

/// Bytes of a request's body.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Headers that are the host's own.
const RESERVED: [&str; 12] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl CallState {
    fn http_call(&mut self) -> Result<&mut Call, Error> {
        self.granted("network", |call| !call.network.is_empty())
    }
}

fn outgoing(call: &Call, request: Request) -> Result<Outgoing, Error> {
    let invalid = |message: String| error(ErrorKind::InvalidArgs, "request", message);
    if let Some(handle) = &request.credential {
        let message = format!("no credential `{handle}` is granted to this plugin");
        return Err(error(ErrorKind::Denied, "credential-not-granted", message));
    }
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| invalid("the method is not one".to_owned()))?;
    let caller = Caller::Plugin(call.plugin.to_string());
    let url = call.egress.url(&caller, &method, &request.url).map_err(|e| refused(&e))?;
    let mut headers = HeaderMap::new();
    for Header { name, value } in request.headers {
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) || lower.starts_with("proxy-") {
            return Err(invalid(format!("the header `{name}` is set by the host")));
        }
        let name = HeaderName::from_bytes(lower.as_bytes())
            .map_err(|_| invalid(format!("`{name}` is no header")))?;
        let value = HeaderValue::from_bytes(&value)
            .map_err(|_| invalid(format!("the value of `{name}` cannot be sent")))?;
        headers.append(name, value);
    }
    let body = request.body.unwrap_or_default();
    if body.len() > MAX_BODY_BYTES {
        return Err(error(
            ErrorKind::TooLarge,
            "body",
            format!("the body is larger than {} MiB", MAX_BODY_BYTES >> 20),
        ));
    }
    let timeout =
        request.timeout_ms.map_or(DEFAULT_TIMEOUT, |ms| Duration::from_millis(ms.into()).min(MAX_TIMEOUT));
    Ok(Outgoing {
        caller,
        policy: Policy::Granted(call.network.clone()),
        method,
        url,
        headers,
        body: Body::from(Bytes::from(body)),
        decompress: wants_unpacked(request.extra.as_deref()),
        limits: Limits {
            head: timeout,
            idle: timeout,
            total: Some(timeout),
            slowest: Some(SLOWEST),
            max_bytes: request.max_bytes.unwrap_or(MAX_HTTP_BYTES).min(MAX_HTTP_BYTES),
            redirects: request.follow.min(MAX_REDIRECTS),
        },
    })
}

/// Whether a request says `{"decompress": true}`. Other keys are for hosts to come.
fn wants_unpacked(extra: Option<&str>) -> bool {
    #[derive(serde::Deserialize)]
    struct Extra {
        #[serde(default)]
        decompress: bool,
    }
    extra.and_then(|text| serde_json::from_str::<Extra>(text).ok()).is_some_and(|extra| extra.decompress)
}

fn refused(reason: &EgressError) -> Error {
    let (kind, code) = match reason {
        EgressError::NotGranted { .. } | EgressError::Downgrade { .. } => {
            (ErrorKind::Denied, "origin-not-granted")
        }
        EgressError::NotPublic { .. } => (ErrorKind::Denied, "address-not-public"),
        EgressError::Offline { .. } => (ErrorKind::Denied, "offline"),
        EgressError::Url { .. } | EgressError::Header(_) => (ErrorKind::InvalidArgs, "request"),
        EgressError::Timeout { .. } | EgressError::TooSlow { .. } => (ErrorKind::Timeout, "timeout"),
        EgressError::Mirror { .. } => (ErrorKind::Denied, "origin-not-granted"),
        EgressError::TooLarge { .. } | EgressError::Bomb(_) => (ErrorKind::TooLarge, "answer"),
        EgressError::TooManyRedirects(_) => (ErrorKind::Upstream, "redirects"),
        EgressError::Connect { .. }
        | EgressError::Broken { .. }
        | EgressError::Tls(_)
        | EgressError::Ledger(_) => (ErrorKind::Upstream, "connection"),
    };
    error(kind, code, reason.to_string())
}

impl Host for CallState {
    async fn fetch(&mut self, request: Request) -> Result<Response, Error> {
        let call = self.http_call()?;
        call.http_requests += 1;
        if call.http_requests > MAX_HTTP_REQUESTS {
            let message = format!("a call may make {MAX_HTTP_REQUESTS} requests");
            return Err(error(ErrorKind::RateLimited, "requests", message));
        }
        let outgoing = outgoing(call, request)?;
        answer(&call.egress, outgoing).await
    }
}

/// Sends a request and reads the whole answer.
async fn answer(egress: &Egress, outgoing: Outgoing) -> Result<Response, Error> {
    let incoming = egress.send(outgoing).await.map_err(|e| refused(&e))?;
    let head = Head {
        status: incoming.status.as_u16(),
        headers: incoming
            .headers
            .iter()
            .filter(|(name, _)| *name != ::http::header::SET_COOKIE)
            .map(|(name, value)| Header { name: name.to_string(), value: value.as_bytes().to_vec() })
            .collect(),
        final_url: incoming.url.to_string(),
        extra: None,
    };
    let body = incoming.bytes().await.map_err(|e| refused(&e))?;
    Ok(Response { head, body: body.into() })
}
