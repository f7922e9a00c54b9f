use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Method};
use bytes::Bytes;
use egress::{
    Body, Caller, Credential, Egress, EgressError, Limits, NetworkGrant, Origin, Outgoing, Pace, Policy,
};
use protocol::{HostReply, HostRequest, Need, Tier};
use url::Url;

use crate::bindings::ml_intern::plugin::http::{Head, Header, Host, Request, Response};
use crate::bindings::ml_intern::plugin::types::{Error, ErrorKind};
use crate::credentials::{Bound, CredentialSource};
use crate::host::error;
use crate::limits::{MAX_HTTP_BYTES, MAX_HTTP_REQUESTS};
use crate::state::{Call, CallState};
use protocol::text::line;

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
        self.granted("network", |call| !call.network.is_empty() || !call.declared.is_empty())
    }
}

impl Call {
    /// The credential that the plugin names, if it was granted.
    fn credential(&mut self, handle: &str) -> Result<Credential, Error> {
        let plugin = &self.plugin;
        let (message, remedy) = match self.credentials.get(handle) {
            Some(Bound::Ready(credential)) => return Ok(credential.clone()),
            Some(Bound::Broken(reason)) => {
                return Err(error(ErrorKind::Denied, "credential-not-granted", reason.clone()));
            }
            Some(Bound::NotGranted) => (
                format!("the credential `{handle}` is not granted to this plugin"),
                format!(
                    "ml-intern plugin grant {plugin} --credential {handle}=env:NAME (or =hf, or =stored:NAME)"
                ),
            ),
            Some(Bound::NoValue(source)) => (
                format!("the credential `{handle}` is granted from `{source}`, where there is none"),
                missing(source),
            ),
            None => (
                "this plugin does not declare a credential of that name".to_owned(),
                "a plugin whose manifest declares it under [credentials]".to_owned(),
            ),
        };
        let target = format!("credential {}", line(handle).chars().take(64).collect::<String>());
        self.deny("grant", &target, &remedy, Tier::Remote);
        Err(error(
            ErrorKind::Denied,
            "credential-not-granted",
            format!("{message}; the user can change that: {remedy}"),
        ))
    }

    /// Puts the use of a credential on record. What cannot be recorded is not used.
    async fn record_use(&self, handle: String, url: &Url) -> Result<(), Error> {
        let origin = url.origin().ascii_serialization();
        let request =
            HostRequest::UseCredential { plugin: self.plugin.to_string(), credential: handle, origin };
        match self.ask(request).await {
            Some(HostReply::Noted | HostReply::Allowed) => Ok(()),
            Some(HostReply::Refused { message, .. }) => {
                Err(error(ErrorKind::Denied, "credential-not-granted", message))
            }
            None => Err(error(ErrorKind::Cancelled, "cancelled", "cancelled by the user")),
        }
    }
}

fn missing(source: &CredentialSource) -> String {
    match source {
        CredentialSource::Environment(name) => {
            format!("set {name} in the environment or in ~/.config/ml-intern/.env")
        }
        CredentialSource::HuggingFace => "ml-intern login".to_owned(),
        CredentialSource::Stored(name) => format!("ml-intern login {name}"),
    }
}

fn outgoing(call: &mut Call, request: Request) -> Result<Outgoing, Error> {
    let invalid = |message: String| error(ErrorKind::InvalidArgs, "request", message);
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| invalid("the method is not one".to_owned()))?;
    let caller = Caller::Plugin(call.plugin.to_string());
    let url = call.egress.url(&caller, &method, &request.url).map_err(|e| refused(&call.egress, &e))?;
    let credential = request.credential.as_deref().map(|handle| call.credential(handle)).transpose()?;
    if let Some(credential) = &credential {
        credential.goes_to(&url).map_err(|e| refused(&call.egress, &e))?;
    }
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
        credential,
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

fn refused(egress: &Egress, reason: &EgressError) -> Error {
    let (kind, code) = match reason.root() {
        EgressError::NotGranted { .. } | EgressError::Downgrade { .. } => {
            (ErrorKind::Denied, "origin-not-granted")
        }
        EgressError::Forbidden { .. } => (ErrorKind::Denied, "forbidden-by-policy"),
        EgressError::NotPublic { .. } => (ErrorKind::Denied, "address-not-public"),
        EgressError::Offline { .. } => (ErrorKind::Denied, "offline"),
        EgressError::Audience { .. } => (ErrorKind::Denied, "credential-audience"),
        EgressError::Leak { .. } => (ErrorKind::Denied, "secret-in-request"),
        EgressError::Credential { .. } => (ErrorKind::InvalidArgs, "credential"),
        EgressError::Encoded { .. } => (ErrorKind::Upstream, "encoding"),
        EgressError::Url { .. } | EgressError::Header(_) => (ErrorKind::InvalidArgs, "request"),
        EgressError::Timeout { .. } | EgressError::TooSlow { .. } => (ErrorKind::Timeout, "timeout"),
        EgressError::Mirror { .. } => (ErrorKind::Denied, "origin-not-granted"),
        EgressError::TooLarge { .. } | EgressError::Bomb(_) => (ErrorKind::TooLarge, "answer"),
        EgressError::TooManyRedirects(_) => (ErrorKind::Upstream, "redirects"),
        EgressError::Connect { .. }
        | EgressError::Broken { .. }
        | EgressError::Tls(_)
        | EgressError::Ledger(_)
        | EgressError::Behind(_) => (ErrorKind::Upstream, "connection"),
    };
    error(kind, code, egress.without_secrets(&reason.to_string()))
}

impl Host for CallState {
    async fn fetch(&mut self, request: Request) -> Result<Response, Error> {
        let call = self.http_call()?;
        call.http_requests += 1;
        if call.http_requests > MAX_HTTP_REQUESTS {
            let message = format!("a call may make {MAX_HTTP_REQUESTS} requests");
            return Err(error(ErrorKind::RateLimited, "requests", message));
        }
        let handle = request.credential.clone();
        let mut outgoing = outgoing(call, request)?;
        call.reach(&mut outgoing).await?;
        if let Some(handle) = handle {
            call.record_use(handle, &outgoing.url).await?;
        }
        let origin = outgoing.url.origin().ascii_serialization();
        let unanswered = changes(&outgoing.method).then(|| call.unanswered.clone());
        let answered = answer(&call.egress, outgoing, unanswered.as_deref()).await;
        if answered.is_ok() {
            call.has_read(&origin);
        }
        answered
    }
}

/// Whether a request asks for more than an answer.
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl Call {
    /// Asks for the origin of a request where the plugin declares it and it was not granted.
    async fn reach(&mut self, outgoing: &mut Outgoing) -> Result<(), Error> {
        let Ok(origin) = Origin::of(&outgoing.url) else { return Ok(()) };
        let method = outgoing.method.as_str();
        let covers = |grant: &NetworkGrant| grant.allows(&origin, method);
        if self.network.iter().any(covers) || !self.declared.iter().any(covers) {
            return Ok(());
        }
        let grant = format!("{origin} {method}");
        let need = Need::Network { plugin: self.plugin.to_string(), grant: grant.clone() };
        match self.ask(HostRequest::Decide(need)).await {
            Some(HostReply::Allowed) => {
                self.network.extend(NetworkGrant::parse(&grant).ok());
                outgoing.policy = Policy::Granted(self.network.clone());
                Ok(())
            }
            Some(HostReply::Refused { message, rule, remedy }) => {
                self.deny(&rule, &grant, &remedy, Tier::Read);
                Err(error(ErrorKind::Denied, "origin-not-granted", message))
            }
            Some(HostReply::Noted) | None => {
                Err(error(ErrorKind::Cancelled, "cancelled", "cancelled by the user"))
            }
        }
    }
}

/// Sends a request and reads the whole answer. While it is on its way, and if nobody can tell what came of
/// it, it is counted as unanswered.
async fn answer(
    egress: &Egress,
    outgoing: Outgoing,
    unanswered: Option<&AtomicUsize>,
) -> Result<Response, Error> {
    if let Some(unanswered) = unanswered {
        unanswered.fetch_add(1, Ordering::SeqCst);
    }
    let sent = egress.send(outgoing).await;
    let settled = match &sent {
        // Whoever answers so may have done it nevertheless.
        Ok(incoming) => !incoming.status.is_server_error(),
        Err(reason) => reason.is_before_sending(),
    };
    if let Some(unanswered) = unanswered.filter(|_| settled) {
        unanswered.fetch_sub(1, Ordering::SeqCst);
    }
    let incoming = sent.map_err(|e| refused(egress, &e))?;
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
    let body = incoming.bytes().await.map_err(|e| refused(egress, &e))?;
    Ok(Response { head, body: body.into() })
}
