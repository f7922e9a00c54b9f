//! Credentials: added for their audience, on the last stretch of the way, and nowhere else.

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue};
use redact::Redactor;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::{Host, Url};

use crate::origin::Scheme;
use crate::{Body, EgressError, Origin, Outgoing};

/// Hosts that may get a Hugging Face token, whatever anybody declared or granted.
const HUGGING_FACE: [&str; 5] = [
    "huggingface.co",
    "api-inference.huggingface.co",
    "datasets-server.huggingface.co",
    "endpoints.huggingface.co",
    "router.huggingface.co",
];

/// What tokens of Hugging Face begin with.
const HUGGING_FACE_TOKEN: &str = "hf_";

/// Bytes of a body whose placeholders are filled.
const MAX_FILLED_BYTES: usize = 8 << 20;

/// Where a credential stands in a request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Placement {
    Header {
        name: HeaderName,
        prefix: String,
    },
    /// A parameter of the query.
    Query(String),
    /// Texts of a JSON body in which `{{credential:NAME}}` stands.
    Body,
}

/// The value of a credential.
#[derive(Clone, Debug)]
pub struct Secret {
    pub value: SecretString,
    /// It is a token of Hugging Face, wherever it was found.
    pub hugging_face: bool,
}

/// A credential that goes with a request. The value is wiped from memory with the last copy of this.
#[derive(Clone, Debug)]
pub struct Credential {
    name: String,
    audience: Vec<Origin>,
    placement: Placement,
    secret: Secret,
}

impl Credential {
    /// A credential for origins that are encrypted or on this machine.
    ///
    /// # Errors
    /// When an origin of the audience is neither, or is none.
    pub fn new(
        name: impl Into<String>,
        audience: &[String],
        placement: Placement,
        secret: Secret,
    ) -> Result<Self, EgressError> {
        let name = name.into();
        let audience: Vec<Origin> =
            audience.iter().map(|text| origin(&name, text)).collect::<Result<_, _>>()?;
        Ok(Self { name, audience, placement, secret })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is for this origin.
    pub(crate) fn is_for(&self, origin: &Origin) -> bool {
        self.audience.contains(origin) && (!self.is_hugging_faces() || is_hugging_face(origin))
    }

    fn is_hugging_faces(&self) -> bool {
        self.secret.hugging_face || self.value().starts_with(HUGGING_FACE_TOKEN)
    }

    fn value(&self) -> &str {
        self.secret.value.expose_secret()
    }

    fn refuse(&self, reason: &str) -> EgressError {
        EgressError::Credential { name: self.name.clone(), reason: reason.to_owned() }
    }

    /// Checks that a URL leads to its audience.
    ///
    /// # Errors
    /// When it leads elsewhere.
    pub fn goes_to(&self, url: &Url) -> Result<(), EgressError> {
        let origin = Origin::of(url)?;
        if self.is_for(&origin) {
            return Ok(());
        }
        let audience: Vec<String> = self.audience.iter().map(ToString::to_string).collect();
        let mut audience = audience.join(", ");
        if self.is_hugging_faces() {
            audience = format!("Hugging Face's own hosts among {audience}");
        }
        Err(EgressError::Audience { name: self.name.clone(), origin: origin.to_string(), audience })
    }

    /// What can be said before anything is sent. `known` is what answers are searched for.
    fn begin(&self, known: &Redactor, url: &Url, headers: &HeaderMap) -> Result<(), EgressError> {
        self.goes_to(url)?;
        // What an answer cannot be searched for is not sent.
        if !known.finds(self.value().as_bytes()) {
            return Err(self.refuse(&format!("its value is shorter than {} characters", redact::MIN_BYTES)));
        }
        match &self.placement {
            Placement::Header { name, .. } if headers.contains_key(name) => {
                return Err(self.refuse(&format!("the request has a header `{name}` already")));
            }
            Placement::Query(name) if url.query_pairs().any(|(other, _)| other == name.as_str()) => {
                return Err(self.refuse(&format!("the query has a parameter `{name}` already")));
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts the value into a request to its audience.
    fn attach(&self, url: &mut Url, headers: &mut HeaderMap, body: &mut Body) -> Result<(), EgressError> {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        match &self.placement {
            Placement::Header { name, prefix } => {
                let mut value = HeaderValue::from_str(&format!("{prefix}{}", self.value()))
                    .map_err(|_| self.refuse("its value cannot stand in a header"))?;
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            Placement::Query(name) => {
                without_parameter(url, name);
                url.query_pairs_mut().append_pair(name, self.value());
            }
            // A redirect may have dropped the body.
            Placement::Body if body.len() == 0 => {}
            Placement::Body => *body = self.filled(headers, body)?,
        }
        Ok(())
    }

    /// The body with the value in place of its placeholder.
    fn filled(&self, headers: &HeaderMap, body: &Body) -> Result<Body, EgressError> {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/json" && !kind.ends_with("+json") {
            return Err(self.refuse("the body is not announced as application/json"));
        }
        let text =
            String::from_utf8(body.pieces.concat()).map_err(|_| self.refuse("the body is not JSON"))?;
        let json: Value = serde_json::from_str(&text).map_err(|_| self.refuse("the body is not JSON"))?;
        let placeholder = format!("{{{{credential:{}}}}}", self.name);
        // Outside of strings JSON has no two braces in a row, so each place in the text is inside of one.
        let (mut keys, mut values) = (0, 0);
        count(&json, &placeholder, &mut keys, &mut values);
        if values == 0 || keys > 0 || text.matches(&placeholder).count() != values {
            return Err(
                self.refuse(&format!("`{placeholder}` must stand in a text of the JSON body, and in no key"))
            );
        }
        let quoted = Value::from(self.value()).to_string();
        let value = &quoted[1..quoted.len() - 1];
        let filled =
            (text.len() - values * placeholder.len()).saturating_add(values.saturating_mul(value.len()));
        if filled > MAX_FILLED_BYTES {
            return Err(
                self.refuse(&format!("with it the body would be larger than {} MiB", MAX_FILLED_BYTES >> 20))
            );
        }
        Ok(Body::from(bytes::Bytes::from(text.replace(&placeholder, value))))
    }
}

/// How often a text stands in the keys and in the string values of a JSON document.
fn count(json: &Value, text: &str, keys: &mut usize, values: &mut usize) {
    match json {
        Value::String(value) => *values += value.matches(text).count(),
        Value::Array(items) => items.iter().for_each(|item| count(item, text, keys, values)),
        Value::Object(fields) => {
            for (key, field) in fields {
                *keys += key.matches(text).count();
                count(field, text, keys, values);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn without_parameter(url: &mut Url, name: &str) {
    let kept: Vec<&str> =
        url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).collect();
    let is_other = |pair: &&str| {
        url::form_urlencoded::parse(pair.as_bytes()).next().is_none_or(|(other, _)| other != name)
    };
    let kept = kept.into_iter().filter(is_other).collect::<Vec<_>>().join("&");
    url.set_query((!kept.is_empty()).then_some(&kept));
}

fn origin(name: &str, text: &str) -> Result<Origin, EgressError> {
    let refuse = |reason: &str| EgressError::Credential {
        name: name.to_owned(),
        reason: format!("its audience `{text}` {reason}"),
    };
    let origin =
        Url::parse(text).ok().and_then(|url| Origin::of(&url).ok()).ok_or_else(|| refuse("is no origin"))?;
    let local = match &origin.host {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => *address == std::net::Ipv4Addr::LOCALHOST,
        Host::Ipv6(address) => *address == std::net::Ipv6Addr::LOCALHOST,
    };
    if origin.to_string() != text || !(local || origin.is_encrypted()) {
        return Err(refuse("is not an encrypted origin, as `https://api.example.com` is"));
    }
    Ok(origin)
}

/// Whether an origin may get a token of Hugging Face.
#[must_use]
pub fn may_have_hub_token(origin: &str) -> bool {
    Url::parse(origin)
        .ok()
        .and_then(|url| Origin::of(&url).ok())
        .is_some_and(|origin| is_hugging_face(&origin))
}

fn is_hugging_face(origin: &Origin) -> bool {
    let named = matches!(&origin.host, Host::Domain(name) if HUGGING_FACE.contains(&name.as_str()));
    named && origin.scheme == Scheme::Https && origin.port == 443
}

/// What is watched over a request: that no secret goes where it must not, and none comes back.
pub(crate) struct Watch<'a> {
    pub(crate) secrets: &'a Redactor,
    pub(crate) credential: Option<&'a Credential>,
}

impl Watch<'_> {
    /// Decides about the first stretch.
    pub(crate) fn begin(&self, request: &Outgoing) -> Result<(), EgressError> {
        let begin = |credential: &Credential| credential.begin(self.secrets, &request.url, &request.headers);
        self.credential.map_or(Ok(()), begin)
    }

    /// What the body of the answer is read through.
    pub(crate) fn scrubber(&self) -> Option<redact::Scrubber> {
        (!self.secrets.is_empty()).then(|| self.secrets.scrubber())
    }

    /// Where a redirect leads. A server that redirects within the audience hands the parameter back.
    pub(crate) fn redirected(&self, url: &mut Url) {
        let Ok(origin) = Origin::of(url) else { return };
        if let Some(Credential { placement: Placement::Query(name), .. }) = self.carried(&origin) {
            without_parameter(url, name);
        }
    }

    /// Refuses a request that holds a secret of its own accord.
    pub(crate) fn refuse_leaks(&self, origin: &Origin, request: &Outgoing) -> Result<(), EgressError> {
        let Outgoing { method, url, headers, body, .. } = request;
        let host = url.host_str().unwrap_or_default();
        if self.secrets.finds_in_name(host) {
            return Err(EgressError::Leak { origin: "an origin that is not named here".to_owned() });
        }
        let header = |(name, value): (&HeaderName, &HeaderValue)| {
            self.secrets.finds_in_name(name.as_str()) || self.secrets.finds(value.as_bytes())
        };
        let leaks = self.secrets.finds(url.as_str().as_bytes())
            || self.secrets.finds(method.as_str().as_bytes())
            || headers.iter().any(header)
            || match &body.pieces[..] {
                [one] => self.secrets.finds(one),
                pieces => self.secrets.finds(&pieces.concat()),
            };
        if leaks { Err(EgressError::Leak { origin: origin.to_string() }) } else { Ok(()) }
    }

    /// The credential that goes to this origin.
    fn carried(&self, origin: &Origin) -> Option<&Credential> {
        self.credential.filter(|credential| credential.is_for(origin))
    }

    /// The name of the credential that goes to this origin.
    pub(crate) fn handle(&self, origin: &Origin) -> Option<String> {
        self.carried(origin).map(|credential| credential.name.clone())
    }

    /// The request as it is sent to this origin.
    pub(crate) fn attach(
        &self,
        origin: &Origin,
        request: &Outgoing,
    ) -> Result<(Url, HeaderMap, Body), EgressError> {
        let (mut url, mut headers, mut body) =
            (request.url.clone(), request.headers.clone(), request.body.clone());
        if let Some(credential) = self.carried(origin) {
            credential.attach(&mut url, &mut headers, &mut body)?;
        }
        Ok((url, headers, body))
    }

    /// The head of an answer without secrets.
    pub(crate) fn received(&self, origin: &Origin, headers: &mut HeaderMap) -> Result<(), EgressError> {
        let encoding = headers.get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
        if let (Some(_), Some(encoding)) = (self.carried(origin), encoding) {
            let encoding = self.secrets.text(&String::from_utf8_lossy(encoding.as_bytes())).into_owned();
            return Err(EgressError::Encoded { origin: origin.to_string(), encoding });
        }
        let names: Vec<HeaderName> =
            headers.keys().filter(|name| self.secrets.finds_in_name(name.as_str())).cloned().collect();
        for name in names {
            headers.remove(name);
        }
        for value in headers.values_mut() {
            if let std::borrow::Cow::Owned(clean) = self.secrets.bytes(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&clean)
                    .unwrap_or_else(|_| HeaderValue::from_static("[redacted]"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUE: &str = "s3cret\"value";

    fn credential(placement: Placement, audience: &str, value: &str) -> Credential {
        let secret = Secret { value: SecretString::from(value), hugging_face: false };
        Credential::new("key", &[audience.to_owned()], placement, secret).unwrap()
    }

    fn origin_of(url: &str) -> Origin {
        Origin::of(&Url::parse(url).unwrap()).unwrap()
    }

    fn filled(body: &str, kind: &str) -> Result<String, String> {
        let credential = credential(Placement::Body, "https://a.example", VALUE);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap())]);
        let body = Body::from(bytes::Bytes::from(body.to_owned()));
        let filled = credential.filled(&headers, &body).map_err(|e| e.to_string())?;
        Ok(String::from_utf8(filled.pieces.concat()).unwrap())
    }

    #[test]
    fn a_placeholder_is_filled_in_texts_of_json_only() {
        let kind = "application/json; charset=utf-8";
        assert_eq!(
            filled(r#"{"a": 1.50, "b": ["x {{credential:key}}"]}"#, kind).unwrap(),
            r#"{"a": 1.50, "b": ["x s3cret\"value"]}"#
        );
        for body in [
            r#"{"{{credential:key}}": 1}"#,
            r#"{"a": "\u007b{credential:key}}", "{{credential:key}}": 1}"#,
            r#"{"a": "{{credential:other}}"}"#,
            "{{credential:key}}",
            "a={{credential:key}}",
        ] {
            assert!(filled(body, kind).is_err(), "{body}");
        }
        assert!(filled(r#""{{credential:key}}""#, "text/plain").unwrap_err().contains("application/json"));
    }

    #[test]
    fn a_body_grows_to_a_limit_by_what_is_filled_in() {
        let value = "v".repeat(1 << 20);
        let credential = credential(Placement::Body, "https://a.example", &value);
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let filled = |times: usize| {
            let body = serde_json::json!(["{{credential:key}}"; 1].repeat(times)).to_string();
            credential.filled(&headers, &Body::from(bytes::Bytes::from(body)))
        };
        assert!(filled(7).is_ok_and(|body| body.len() > 7 << 20));
        for times in [8, 100_000] {
            assert!(filled(times).unwrap_err().to_string().contains("larger than 8 MiB"), "{times}");
        }
    }

    #[test]
    fn a_parameter_takes_the_place_of_its_namesakes() {
        let credential = credential(Placement::Query("k".to_owned()), "https://a.example", "a b&c=d-e");
        let (mut headers, mut body) = (HeaderMap::new(), Body::default());
        for (from, to) in [
            ("https://a.example/x", "https://a.example/x?k=a+b%26c%3Dd-e"),
            ("https://a.example/x?y=1&%6b=2&z", "https://a.example/x?y=1&z&k=a+b%26c%3Dd-e"),
        ] {
            let mut url = Url::parse(from).unwrap();
            credential.attach(&mut url, &mut headers, &mut body).unwrap();
            assert_eq!(url.as_str(), to);
        }
    }

    #[test]
    fn an_audience_is_compared_whole() {
        let credential = credential(Placement::Body, "https://api.example.com", VALUE);
        assert!(credential.is_for(&origin_of("https://API.example.com:443/x")));
        for other in [
            "http://api.example.com",
            "https://api.example.com:8443",
            "https://x.api.example.com",
            "https://example.com",
            "https://api.example.com.evil.test",
        ] {
            assert!(!credential.is_for(&origin_of(other)), "{other}");
        }
    }

    #[test]
    fn an_audience_is_encrypted_or_on_this_machine() {
        let made = |audience: &str| {
            let secret = Secret { value: SecretString::from(VALUE), hugging_face: false };
            Credential::new("key", &[audience.to_owned()], Placement::Body, secret).is_ok()
        };
        for audience in ["https://a.example", "http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"] {
            assert!(made(audience), "{audience}");
        }
        for audience in
            ["http://a.example", "http://127.0.0.2", "http://10.0.0.1", "https://a.example/x", "a.example"]
        {
            assert!(!made(audience), "{audience}");
        }
    }

    #[test]
    fn a_hugging_face_token_goes_to_hugging_face_whatever_was_granted() {
        let goes = |value: &str, hugging_face: bool, audience: &str| {
            let secret = Secret { value: SecretString::from(value), hugging_face };
            let credential = Credential::new("hf", &[audience.to_owned()], Placement::Body, secret).unwrap();
            credential.is_for(&origin_of(audience))
        };
        for host in HUGGING_FACE {
            assert!(goes("hf_0123456789", true, &format!("https://{host}")), "{host}");
        }
        for audience in [
            "https://api.github.com",
            "https://evil-huggingface.co",
            "https://huggingface.co.evil.test",
            "https://x.huggingface.co",
            "https://hf.space",
            "https://huggingface.co:8443",
            "http://127.0.0.1:1",
        ] {
            assert!(!goes("hf_0123456789", false, audience), "by its shape: {audience}");
            assert!(!goes("0123456789", true, audience), "by its source: {audience}");
            assert!(goes("0123456789", false, audience), "{audience}");
        }
    }
}
