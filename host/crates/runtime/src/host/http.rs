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

/// Bytes of a method: the longest that is registered has 17.
const MAX_METHOD_BYTES: usize = 32;

/// Headers of a request, in number and in bytes.
const MAX_HEADERS: usize = 128;
const MAX_HEADER_BYTES: usize = 64 << 10;

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
    let method = Some(request.method.as_bytes()).filter(|method| method.len() <= MAX_METHOD_BYTES);
    let method = method
        .and_then(|method| Method::from_bytes(method).ok())
        .ok_or_else(|| invalid("the method is not one".to_owned()))?;
    let caller = Caller::Plugin(call.plugin.to_string());
    let url = call.egress.url(&caller, &method, &request.url).map_err(|e| refused(&call.egress, &e))?;
    let credential = request.credential.as_deref().map(|handle| call.credential(handle)).transpose()?;
    if let Some(credential) = &credential {
        call.egress.carries(credential, &url).map_err(|e| refused(&call.egress, &e))?;
    }
    let headers = headers(request.headers).map_err(invalid)?;
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
        approved: call.approved.clone(),
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

/// The headers of a request as they are sent.
fn headers(given: Vec<Header>) -> Result<HeaderMap, String> {
    let bytes = given.iter().map(|header| header.name.len() + header.value.len()).sum::<usize>();
    if given.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        let kib = MAX_HEADER_BYTES >> 10;
        return Err(format!("a request has at most {MAX_HEADERS} headers of {kib} KiB together"));
    }
    let mut headers = HeaderMap::new();
    for Header { name, value } in given {
        if manifest::is_hosts_header(&name) || name.eq_ignore_ascii_case("authorization") {
            return Err(format!("the header `{name}` is set by the host"));
        }
        let shown = || line(&name).into_owned();
        let own = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes());
        let own = own.map_err(|_| format!("`{}` is no header", shown()))?;
        let value = HeaderValue::from_bytes(&value);
        let value = value.map_err(|_| format!("the value of `{}` cannot be sent", shown()))?;
        headers.try_append(own, value).map_err(|_| "these are too many headers".to_owned())?;
    }
    Ok(headers)
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
        EgressError::Forbidden { .. } | EgressError::ForbiddenPlace { .. } => {
            (ErrorKind::Denied, "forbidden-by-policy")
        }
        EgressError::Rule { .. } | EgressError::DeniedPlace { .. } => (ErrorKind::Denied, "denied-by-rule"),
        EgressError::NotPublic { .. } => (ErrorKind::Denied, "address-not-public"),
        EgressError::Offline { .. } => (ErrorKind::Denied, "offline"),
        EgressError::Audience { .. } | EgressError::MirrorCredential { .. } => {
            (ErrorKind::Denied, "credential-audience")
        }
        EgressError::Leak { .. } => (ErrorKind::Denied, "secret-in-request"),
        EgressError::Credential { .. } => (ErrorKind::InvalidArgs, "credential"),
        EgressError::Encoded { .. } => (ErrorKind::Upstream, "encoding"),
        EgressError::Url { .. } | EgressError::Header(_) => (ErrorKind::InvalidArgs, "request"),
        EgressError::Timeout { .. } | EgressError::TooSlow { .. } => (ErrorKind::Timeout, "timeout"),
        EgressError::Mirror { .. } | EgressError::Mirrored { .. } => {
            (ErrorKind::Denied, "origin-not-granted")
        }
        EgressError::TooLarge { .. } | EgressError::Bomb(_) => (ErrorKind::TooLarge, "answer"),
        EgressError::HeldBack(_) => (ErrorKind::Denied, "cannot-be-marked"),
        EgressError::TooManyRedirects(_) | EgressError::Elsewhere { .. } => {
            (ErrorKind::Upstream, "redirects")
        }
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
        call.only_looks(&outgoing)?;
        call.reach(&mut outgoing).await?;
        if let Some(handle) = handle {
            call.record_use(handle, &outgoing.url).await?;
        }
        let unmarked = |reason| error(ErrorKind::Denied, "cannot-be-marked", reason);
        let answer = call.answer(outgoing).await;
        // Also where it is a refusal: where a server leads, and how its answer is packed, are its own words.
        if let Some(from) = answer.from {
            call.reads(from).map_err(unmarked)?;
        }
        answer.response.map_err(|reason| {
            call.keep_refusal(&reason);
            refused(&call.egress, &reason)
        })
    }
}

/// Whether a request asks for more than an answer.
fn changes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

impl Call {
    /// Whoever looks for an order changes nothing elsewhere, whatever the plugin was granted.
    fn only_looks(&mut self, outgoing: &Outgoing) -> Result<(), Error> {
        if !self.looks || !changes(&outgoing.method) {
            return Ok(());
        }
        let target = format!("{} {}", outgoing.url.origin().ascii_serialization(), outgoing.method);
        self.deny("look-up", &target, "a look-up that only reads", tier(&outgoing.method));
        Err(error(ErrorKind::Denied, "look-up", "refused: whoever looks for an order sends nothing"))
    }

    /// Asks for the origin of a request where the plugin declares it and it was not granted, or a rule wants it
    /// to be asked.
    async fn reach(&mut self, outgoing: &mut Outgoing) -> Result<(), Error> {
        let Ok(origin) = Origin::of(&outgoing.url) else { return Ok(()) };
        let method = outgoing.method.as_str();
        // What no answer could allow is refused, and put on record, where it is sent.
        let Ok(rule) = self.egress.can_be_asked(&origin, method) else { return Ok(()) };
        let covers = |grant: &NetworkGrant| grant.allows(&origin, method);
        let granted = self.network.iter().any(covers) && rule.is_none();
        if granted || self.approved.iter().any(covers) || !self.declared.iter().any(covers) {
            return Ok(());
        }
        let grant = format!("{origin} {method}");
        // Nobody is asked twice by one call.
        if let Some(message) = self.refused.get(&grant) {
            return Err(error(ErrorKind::Denied, "origin-not-granted", message.clone()));
        }
        let need = Need::Network {
            plugin: self.plugin.to_string(),
            grant: grant.clone(),
            host: origin.host(),
            sends: changes(&outgoing.method),
            rule: rule.map(str::to_owned),
            granted: self.network.iter().any(covers),
        };
        match self.ask(HostRequest::Decide(need)).await {
            Some(HostReply::Allowed) => {
                let allowed = NetworkGrant::parse(&grant).ok();
                self.network.extend(allowed.clone());
                self.approved.extend(allowed);
                outgoing.policy = Policy::Granted(self.network.clone());
                outgoing.approved.clone_from(&self.approved);
                Ok(())
            }
            Some(HostReply::Refused { message, rule, remedy }) => {
                self.deny(&rule, &grant, &remedy, tier(&outgoing.method));
                self.refused.insert(grant, message.clone());
                Err(error(ErrorKind::Denied, "origin-not-granted", message))
            }
            Some(HostReply::Noted) | None => {
                Err(error(ErrorKind::Cancelled, "cancelled", "cancelled by the user"))
            }
        }
    }

    /// Keeps what a rule, the machine's policy or a missing grant refused, also behind a redirect. What the
    /// plugin does not even declare nobody could have allowed.
    fn keep_refusal(&mut self, reason: &EgressError) {
        let away = |rule: &str| (format!("rule:{rule}"), format!("taking the rule `{rule}` away"));
        let other = |by: &str| {
            ("policy".to_owned(), format!("another policy, by this machine's administrator ({by})"))
        };
        let ((rule, remedy), target, method) = match reason.root() {
            EgressError::Rule { origin, method, rule, .. } => {
                (away(rule), format!("{origin} {method}"), method)
            }
            EgressError::Forbidden { origin, method, by } => {
                (other(by), format!("{origin} {method}"), method)
            }
            EgressError::DeniedPlace { origin, method, place, rule } => {
                (away(rule), format!("{origin} at {place}"), method)
            }
            EgressError::ForbiddenPlace { origin, method, place, by } => {
                (other(by), format!("{origin} at {place}"), method)
            }
            EgressError::NotGranted { origin, method } if self.declares(origin, method) => {
                let plugin = &self.plugin;
                let remedy = format!("--grant {plugin}, or for good: ml-intern plugin grant {plugin}");
                (("grant".to_owned(), remedy), format!("{origin} {method}"), method)
            }
            _ => return,
        };
        let tier = Method::from_bytes(method.as_bytes()).map_or(Tier::Remote, |method| tier(&method));
        self.deny(&rule, &target, &remedy, tier);
    }

    fn declares(&self, origin: &str, method: &str) -> bool {
        let origin = Url::parse(origin).ok().and_then(|url| Origin::of(&url).ok());
        origin.is_some_and(|origin| self.declared.iter().any(|declared| declared.allows(&origin, method)))
    }
}

/// What a request counts as.
fn tier(method: &Method) -> Tier {
    if changes(method) { Tier::Remote } else { Tier::Read }
}

/// What came of a request.
struct Answer {
    response: Result<Response, EgressError>,
    /// The origin whose words are in it, also if they are in the reason of a refusal.
    from: Option<String>,
}

impl Call {
    /// Sends a request and reads the whole answer. A redirect may have changed the origin it comes from. While it
    /// is on its way, and if nobody can tell what came of it, it counts as open.
    async fn answer(&self, outgoing: Outgoing) -> Answer {
        let sent = changes(&outgoing.method).then(|| self.sent.clone());
        if let Some(sent) = &sent {
            sent.leaves();
        }
        let settled = |accepted| {
            if let Some(sent) = &sent {
                sent.settles(accepted);
            }
        };
        let url = outgoing.url.clone();
        let origin = url.origin().ascii_serialization();
        // Before it leaves: an answer that the guest may not have would leave it without knowing what it did. Not of
        // what is refused: nobody says anything then, and a mark stays as long as the plugin.
        let incoming = match self.egress.send_after(outgoing, || self.marks(&origin)).await {
            Ok(incoming) => incoming,
            Err(reason) => {
                if reason.is_before_sending() {
                    settled(false);
                }
                let from = reason.may_quote_server().then_some(origin);
                return Answer { response: Err(reason), from };
            }
        };
        // A server that failed may have done it nevertheless, and so may whoever led elsewhere before that.
        let (status, led_elsewhere) = (incoming.status, incoming.url != url);
        let accepted = status.is_success() || status.is_redirection();
        if status.is_client_error() && !led_elsewhere {
            settled(false);
        }
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
        let from = Some(incoming.url.origin().ascii_serialization());
        let body = match incoming.bytes().await {
            Ok(body) => body,
            Err(reason) => return Answer { response: Err(reason), from },
        };
        // Whoever reads half of an answer does not know what was ordered under which name.
        if accepted {
            settled(true);
        }
        Answer { response: Ok(Response { head, body: body.into() }), from }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> Header {
        Header { name: name.to_owned(), value: value.as_bytes().to_vec() }
    }

    #[test]
    fn headers_have_a_limit_before_any_of_them_is_kept() {
        let many = |n: usize| (0..n).map(|k| header(&format!("x-{k}"), "")).collect();
        assert_eq!(headers(many(MAX_HEADERS)).unwrap().len(), MAX_HEADERS);
        // As many as a map of headers cannot hold.
        for n in [MAX_HEADERS + 1, 24_577, 40_000] {
            assert!(headers(many(n)).unwrap_err().contains("at most 128 headers"), "{n}");
        }
        assert!(headers(vec![header("x", &"y".repeat(MAX_HEADER_BYTES - 1))]).is_ok());
        assert!(headers(vec![header("x", &"y".repeat(MAX_HEADER_BYTES))]).unwrap_err().contains("64 KiB"));
    }

    #[test]
    fn headers_of_the_host_are_refused_in_any_letter_case() {
        for name in ["Host", "authorization", "AUTHORIZATION", "Proxy-Anything", "http2-settings", "COOKIE"] {
            assert!(headers(vec![header(name, "x")]).unwrap_err().contains("is set by the host"), "{name}");
        }
        assert!(headers(vec![header("x\r\nHost", "x")]).unwrap_err().contains("`x\\r\\nHost` is no header"));
        assert_eq!(headers(vec![header("X-A", "1"), header("x-a", "2")]).unwrap().len(), 2);
    }
}
