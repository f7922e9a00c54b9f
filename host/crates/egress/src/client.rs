use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, header};
use url::Url;

use crate::body::Pieces;
use crate::deadline::Deadline;
use crate::decode::Decoder;
use crate::ledger::Entry;
use crate::origin::place_of;
use crate::pool::{Pools, Trust};
use crate::reach::Reach;
use crate::{
    Caller, CertificateFiles, Certificates, EgressError, Incoming, Ledger, LedgerAct, Origin, Outgoing,
    Policy, Proxy, Rewrite, redirect,
};

/// What the whole process may reach.
#[derive(Clone, Debug, Default)]
pub struct EgressConfig {
    /// Nothing but the model's origin.
    pub offline: bool,
    /// Where every request stands before it leaves.
    pub ledger: Option<Ledger>,
    /// Origins that are really somewhere else.
    pub rewrites: Vec<Rewrite>,
    /// For the host's own requests, and for plugins' if it says so. The environment's proxies count for nothing.
    pub proxy: Option<Proxy>,
    /// Certificates beside the machine's. The client's own is shown for the host only, never for a plugin.
    pub certificates: CertificateFiles,
}

/// The one way out. Cheap to clone; connections are pooled.
#[derive(Clone, Debug)]
pub struct Egress {
    shared: Arc<Shared>,
    /// Towards the model, with certificates of its own if it has some.
    model: Arc<Pools>,
}

#[derive(Debug)]
struct Shared {
    config: EgressConfig,
    plugins: Pools,
}

/// A request that was decided on: where it goes, and why it may.
struct Hop<'a> {
    origin: Origin,
    /// Stands for the origin.
    mirror: Option<&'a Rewrite>,
    /// What is really asked for.
    url: Url,
    reach: Reach,
    why: String,
}

impl Hop<'_> {
    fn real(&self) -> &Origin {
        self.mirror.map_or(&self.origin, Rewrite::real)
    }
}

impl Egress {
    /// Makes the way out. No certificate is read and no connection made before the first request.
    #[must_use]
    pub fn new(config: EgressConfig) -> Self {
        let authorities =
            CertificateFiles { ca: config.certificates.ca.clone(), ..CertificateFiles::default() };
        let proxy = config.proxy.clone().filter(Proxy::is_for_plugins);
        let plugins = Pools::new(Trust::Files(authorities), proxy);
        let model = Pools::new(Trust::Files(config.certificates.clone()), config.proxy.clone());
        Self { shared: Arc::new(Shared { config, plugins }), model: Arc::new(model) }
    }

    /// The same way out, with certificates of its own towards the model.
    #[must_use]
    pub fn with_certificates(&self, certificates: Certificates) -> Self {
        Self { shared: self.shared.clone(), model: Arc::new(self.model.with_certificates(certificates)) }
    }

    /// Reads the machine's certificates now, on a thread that can wait, so that the first encrypted
    /// request does not.
    pub fn prepare_tls(&self) {
        // A failure is told by the request that needs the certificates.
        let _ = self.model.tls();
    }

    /// Parses the URL of a request, once and for all. One that is none is on record as refused.
    ///
    /// # Errors
    /// When it is not a URL, or nothing can be put on record.
    pub fn url(&self, caller: &Caller, method: &Method, text: &str) -> Result<Url, EgressError> {
        let parsed =
            Url::parse(text).map_err(|e| EgressError::Url { url: place_of(text), reason: e.to_string() });
        if let Err(refusal) = &parsed {
            self.refused(caller, method, place_of(text), refusal)?;
        }
        parsed
    }

    /// Decides about a request, sends it, and hands back the head of its answer.
    ///
    /// # Errors
    /// When it is not granted, leads to an address that it may not connect to, or the exchange fails.
    pub async fn send(&self, mut request: Outgoing) -> Result<Incoming, EgressError> {
        let mut hops = request.limits.redirects;
        let mut deadline = Deadline::start(&request.limits);
        loop {
            let hop = self.decide(&request)?;
            let (answer, entry) = self.exchange(&request, &hop, &deadline).await?;
            let (limits, status) = (request.limits, answer.status());
            let next = redirect::target(status, answer.headers(), &hop.url).filter(|_| limits.redirects > 0);
            let Some(next) = next else {
                let (head, body) = answer.into_parts();
                let (mut headers, url, origin) = (head.headers, request.url, hop.origin);
                let decoder = request.decompress.then(|| Decoder::of(&mut headers)).flatten();
                deadline.body();
                let (read, handed) = (0, 0);
                return Ok(Incoming {
                    status,
                    headers,
                    url,
                    origin,
                    limits,
                    deadline,
                    read,
                    handed,
                    decoder,
                    body,
                    entry,
                });
            };
            if let Some(entry) = &entry {
                entry.end(LedgerAct::Answer { status: status.as_u16(), received: 0 });
            }
            hops =
                hops.checked_sub(1).ok_or_else(|| EgressError::TooManyRedirects(hop.origin.to_string()))?;
            // What stays on a mirror is still of the origin that it stands for.
            let next = hop.mirror.map_or(next.clone(), |mirror| mirror.back(next));
            let place = place_of(next.as_str());
            if let Err(refusal) = request.follow(&hop.origin, status, next) {
                self.refused(&request.caller, &request.method, place, &refusal)?;
                return Err(refusal);
            }
        }
    }

    /// Where a request goes and what allows it. What is refused is on record.
    fn decide(&self, request: &Outgoing) -> Result<Hop<'_>, EgressError> {
        let decided = Origin::of(&request.url).and_then(|origin| self.hop(request, origin));
        if let Err(refusal) = &decided {
            self.refused(&request.caller, &request.method, place_of(request.url.as_str()), refusal)?;
        }
        decided
    }

    fn hop(&self, request: &Outgoing, origin: Origin) -> Result<Hop<'_>, EgressError> {
        let (reach, why) = self.allowed(request, &origin)?;
        let Some(mirror) = self.shared.config.rewrites.iter().find(|rewrite| *rewrite.from() == origin)
        else {
            return Ok(Hop { origin, mirror: None, url: request.url.clone(), reach, why });
        };
        let methods = mirror.methods();
        if !methods.contains(&request.method.as_str()) {
            return Err(EgressError::Mirror {
                origin: origin.to_string(),
                real: mirror.real().to_string(),
                methods: methods.join(" and "),
                method: request.method.to_string(),
            });
        }
        let url = mirror.there(&request.url).ok_or_else(|| EgressError::Url {
            url: origin.to_string(),
            reason: "its mirror has no such path".to_owned(),
        })?;
        Ok(Hop { origin, mirror: Some(mirror), url, reach: mirror.reach(), why })
    }

    /// What allows a request to an origin, and which addresses it may connect to there.
    fn allowed(&self, request: &Outgoing, origin: &Origin) -> Result<(Reach, String), EgressError> {
        let method = request.method.as_str();
        let grants = match &request.policy {
            Policy::Model => return Ok((Reach::Any, "model".to_owned())),
            Policy::Granted(grants) => grants,
        };
        let Some(grant) = grants.iter().find(|grant| grant.allows(origin, method)) else {
            return Err(EgressError::NotGranted { origin: origin.to_string(), method: method.to_owned() });
        };
        if self.shared.config.offline {
            return Err(EgressError::Offline { origin: origin.to_string() });
        }
        // A name leads to public addresses, and to those that the plugin could as well have asked for.
        let named = grants.iter().flat_map(|grant| grant.addresses(origin, method)).collect();
        Ok((Reach::to(origin, named), grant.to_string()))
    }

    /// Sends a request that was decided on and waits for the head of the answer.
    async fn exchange(
        &self,
        request: &Outgoing,
        hop: &Hop<'_>,
        deadline: &Deadline,
    ) -> Result<(Response<hyper::body::Incoming>, Option<Entry>), EgressError> {
        let pools = match &request.policy {
            Policy::Model => &*self.model,
            Policy::Granted(_) => &self.shared.plugins,
        };
        let sent = match prepared(request, hop, pools) {
            Ok(sent) => sent,
            Err(refusal) => {
                self.refused(&request.caller, &request.method, hop.origin.to_string(), &refusal)?;
                return Err(refusal);
            }
        };
        let entry = self.record(|| LedgerAct::Request {
            who: request.caller.to_string(),
            method: request.method.to_string(),
            origin: hop.origin.to_string(),
            real: hop.mirror.map(|mirror| mirror.real().to_string()),
            why: hop.why.clone(),
            sent: request.body.len(),
        })?;
        let failed = |error: EgressError| {
            if let Some(entry) = &entry {
                entry.end(LedgerAct::Failed { why: error.to_string() });
            }
            error
        };
        let client = pools.client(&request.caller, hop.reach.clone(), hop.real().is_encrypted());
        let answer = deadline
            .wait(&hop.origin, request.limits.head, client.map_err(failed)?.request(sent))
            .await
            .map_err(failed)?
            .map_err(|e| failed(EgressError::of_exchange(hop.real(), &e)))?;
        Ok((answer, entry))
    }

    fn record(&self, what: impl FnOnce() -> LedgerAct) -> Result<Option<Entry>, EgressError> {
        self.shared.config.ledger.as_ref().map(|ledger| ledger.begin(what())).transpose()
    }

    fn refused(
        &self,
        caller: &Caller,
        method: &Method,
        origin: String,
        refusal: &EgressError,
    ) -> Result<(), EgressError> {
        let (who, method, why) = (caller.to_string(), method.to_string(), refusal.to_string());
        self.record(|| LedgerAct::Refused { who, method, origin, why }).map(drop)
    }
}

/// The request as it leaves.
fn prepared(request: &Outgoing, hop: &Hop<'_>, pools: &Pools) -> Result<Request<Pieces>, EgressError> {
    let mut sent = Request::new(Pieces::from(request.body.clone()));
    *sent.method_mut() = request.method.clone();
    *sent.uri_mut() = hop.real().uri(&hop.url)?;
    let authorization = pools.proxy_authorization(sent.uri());
    let headers = sent.headers_mut();
    *headers = request.headers.clone();
    if let Some(mirror) = hop.mirror {
        mirror.strip(headers);
    }
    if request.decompress {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    }
    if let Some(authorization) = authorization {
        headers.insert(header::PROXY_AUTHORIZATION, authorization);
    }
    Ok(sent)
}
