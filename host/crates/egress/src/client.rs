use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::{ClientConfig, RootCertStore};
use url::Url;

use crate::body::Pieces;
use crate::grant::literal;
use crate::ledger::Entry;
use crate::{
    Body, Caller, Certificates, EgressError, Incoming, Ledger, LedgerAct, Origin, Outgoing, Policy, address,
};

/// Time until a connection stands.
const CONNECT: Duration = Duration::from_secs(10);

/// Headers that go with a redirect to another origin.
const HARMLESS: [header::HeaderName; 3] = [header::ACCEPT, header::ACCEPT_LANGUAGE, header::USER_AGENT];

/// What the whole process may reach.
#[derive(Clone, Debug, Default)]
pub struct EgressConfig {
    /// Nothing but the model's origin.
    pub offline: bool,
    /// Where every request stands before it leaves.
    pub ledger: Option<Ledger>,
}

/// The one way out. Cheap to clone; connections are pooled.
#[derive(Clone, Debug)]
pub struct Egress {
    shared: Arc<Shared>,
    model_tls: Arc<ModelTls>,
}

/// The encrypted way to one model server.
#[derive(Debug, Default)]
struct ModelTls {
    certificates: Certificates,
    client: OnceLock<Client>,
}

#[derive(Debug)]
struct Shared {
    config: EgressConfig,
    /// For the model: any address. Without certificates, so that a plain-http endpoint does not wait for them.
    model_plain: OnceLock<Client>,
    /// For plugins: names resolve to public addresses only.
    public: OnceLock<Client>,
    /// For plugins whose grant names an address literally: names do not resolve at all.
    literal: OnceLock<Client>,
}

/// Which client a request goes through.
#[derive(Clone, Copy)]
enum Route {
    ModelPlain,
    ModelTls,
    Public,
    Literal,
}

impl Egress {
    /// Makes the way out. No certificate is read and no connection made before the first request.
    #[must_use]
    pub fn new(config: EgressConfig) -> Self {
        let shared = Shared {
            config,
            model_plain: OnceLock::new(),
            public: OnceLock::new(),
            literal: OnceLock::new(),
        };
        Self { shared: Arc::new(shared), model_tls: Arc::default() }
    }

    /// The same way out, with certificates of its own towards the model.
    #[must_use]
    pub fn with_certificates(&self, certificates: Certificates) -> Self {
        let model_tls = ModelTls { certificates, client: OnceLock::new() };
        Self { shared: self.shared.clone(), model_tls: Arc::new(model_tls) }
    }

    /// Reads the machine's certificates now, on a thread that can wait, so that the first encrypted
    /// request does not.
    pub fn prepare_tls(&self) {
        // A failure is told by the request that needs the certificates.
        let _ = self.client(Route::ModelTls);
    }

    /// Decides about a request, sends it, and hands back the head of its answer.
    ///
    /// # Errors
    /// When it is not granted, leads to an address that is not public, or the exchange fails.
    pub async fn send(&self, request: Outgoing) -> Result<Incoming, EgressError> {
        let Outgoing { caller, policy, mut method, mut url, mut headers, mut body, limits } = request;
        let mut hops = limits.redirects;
        loop {
            let origin = Origin::of(&url)?;
            let (route, why) = match self.decide(&policy, &origin, &method) {
                Ok(decided) => decided,
                Err(refusal) => {
                    self.refused(&caller, &origin, &method, &refusal)?;
                    return Err(refusal);
                }
            };
            let entry = self.record(|| LedgerAct::Request {
                who: caller.to_string(),
                method: method.to_string(),
                origin: origin.to_string(),
                why,
                sent: body.len(),
            })?;
            let failed = |error: EgressError| {
                if let Some(entry) = &entry {
                    entry.end(LedgerAct::Failed { why: error.to_string() });
                }
                error
            };
            let sent = self
                .client(route)
                .map_err(failed)?
                .request(method.clone(), url.clone())
                .headers(headers.clone())
                .body(reqwest::Body::wrap(Pieces::from(body.clone())))
                .send();
            let response = tokio::time::timeout(limits.head, sent)
                .await
                .map_err(|_| failed(EgressError::Timeout { origin: origin.to_string(), limit: limits.head }))?
                .map_err(|e| failed(told(&origin, &e)))?;
            let status = response.status();
            let Some(next) = redirect(status, response.headers(), &url).filter(|_| limits.redirects > 0)
            else {
                let headers = response.headers().clone();
                return Ok(Incoming {
                    status,
                    headers,
                    url,
                    origin,
                    limits,
                    read: 0,
                    inner: response,
                    entry,
                });
            };
            if let Some(entry) = &entry {
                entry.end(LedgerAct::Answer { status: status.as_u16(), received: 0 });
            }
            hops = hops.checked_sub(1).ok_or_else(|| EgressError::TooManyRedirects(origin.to_string()))?;
            if Origin::of(&next)? != origin {
                headers.retain_harmless();
            }
            if status == StatusCode::SEE_OTHER || (method == Method::POST && status.as_u16() < 303) {
                method = Method::GET;
                body = Body::default();
                headers.remove(header::CONTENT_TYPE);
            }
            url = next;
        }
    }

    fn record(&self, what: impl FnOnce() -> LedgerAct) -> Result<Option<Entry>, EgressError> {
        self.shared.config.ledger.as_ref().map(|ledger| ledger.begin(what())).transpose()
    }

    fn refused(
        &self,
        caller: &Caller,
        origin: &Origin,
        method: &Method,
        refusal: &EgressError,
    ) -> Result<(), EgressError> {
        self.record(|| LedgerAct::Refused {
            who: caller.to_string(),
            method: method.to_string(),
            origin: origin.to_string(),
            why: refusal.to_string(),
        })
        .map(drop)
    }

    /// The client a request goes through, and what allows it.
    fn decide(
        &self,
        policy: &Policy,
        origin: &Origin,
        method: &Method,
    ) -> Result<(Route, String), EgressError> {
        match policy {
            Policy::Model if origin.is_encrypted() => Ok((Route::ModelTls, "model".to_owned())),
            Policy::Model => Ok((Route::ModelPlain, "model".to_owned())),
            Policy::Granted(grants) => {
                let refused =
                    || EgressError::NotGranted { origin: origin.to_string(), method: method.to_string() };
                let grant = grants.iter().find(|g| g.allows(origin, method.as_str())).ok_or_else(refused)?;
                if self.shared.config.offline {
                    return Err(EgressError::Offline { origin: origin.to_string() });
                }
                let route = match literal(&origin.host) {
                    Some(_) if grant.names_address() => Route::Literal,
                    Some(address) if !address::is_public(address) => return Err(not_public(origin, address)),
                    _ => Route::Public,
                };
                Ok((route, grant.to_string()))
            }
        }
    }

    fn client(&self, route: Route) -> Result<&Client, EgressError> {
        let slot = match route {
            Route::ModelPlain => &self.shared.model_plain,
            Route::ModelTls => &self.model_tls.client,
            Route::Public => &self.shared.public,
            Route::Literal => &self.shared.literal,
        };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let none = Certificates::default();
        let client = match route {
            Route::ModelPlain => build(route, RootCertStore::empty(), &none)?,
            Route::ModelTls => {
                let certificates = &self.model_tls.certificates;
                build(route, certificates.roots()?, certificates)?
            }
            Route::Public | Route::Literal => build(route, none.roots()?, &none)?,
        };
        Ok(slot.get_or_init(|| client))
    }
}

fn build(route: Route, roots: RootCertStore, certificates: &Certificates) -> Result<Client, EgressError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| EgressError::Tls(e.to_string()))?
        .with_root_certificates(roots);
    let tls = certificates.authenticate(tls)?;
    let builder = Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .no_proxy()
        .connect_timeout(CONNECT);
    let builder = match route {
        Route::ModelPlain | Route::ModelTls => builder,
        Route::Public => builder.dns_resolver(PublicOnly),
        Route::Literal => builder.dns_resolver(Loopback),
    };
    builder.build().map_err(|e| EgressError::Tls(EgressError::reason(&e)))
}

/// Resolves names and hands on public addresses only. What it hands on is what is connected to, so a
/// second answer of the name server changes nothing.
struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            if let Some(private) = found.iter().find(|a| !address::is_public(a.ip())) {
                return Err(NotPublic(private.ip()).into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Resolves `localhost`, without asking anyone.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(async { Ok(Box::new([SocketAddr::from(([127, 0, 0, 1], 0))].into_iter()) as Addrs) })
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0} is not a public address")]
struct NotPublic(IpAddr);

fn not_public(origin: &Origin, address: IpAddr) -> EgressError {
    EgressError::NotPublic { origin: origin.to_string(), address: address.to_string() }
}

fn told(origin: &Origin, error: &reqwest::Error) -> EgressError {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(inner) = cause {
        if let Some(NotPublic(address)) = inner.downcast_ref() {
            return not_public(origin, *address);
        }
        cause = inner.source();
    }
    let (origin, reason) = (origin.to_string(), EgressError::reason(error));
    if error.is_connect() {
        EgressError::Connect { origin, reason }
    } else {
        EgressError::Broken { origin, reason }
    }
}

fn redirect(status: StatusCode, headers: &HeaderMap, from: &Url) -> Option<Url> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    from.join(headers.get(header::LOCATION)?.to_str().ok()?).ok()
}

trait RetainHarmless {
    fn retain_harmless(&mut self);
}

impl RetainHarmless for HeaderMap {
    fn retain_harmless(&mut self) {
        *self = HARMLESS.iter().filter_map(|name| Some((name.clone(), self.get(name)?.clone()))).collect();
    }
}
