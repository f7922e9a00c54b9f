use std::sync::Arc;

use http::{HeaderMap, Method, Request, Response};
use redact::Redactor;
use url::{Host, Url};

use crate::body::Pieces;
use crate::connector::is_loopback_name;
use crate::credential::Watch;
use crate::deadline::Deadline;
use crate::ledger::Entry;
use crate::origin::place_of;
use crate::pool::Pools;
use crate::reach::Reach;
use crate::{
    Body, Caller, Ceiling, Certificates, EgressError, Incoming, Ledger, LedgerAct, NetworkGrant, Origin,
    Outgoing, Policy, redirect,
};

/// What the whole process may reach.
#[derive(Clone, Debug, Default)]
pub struct EgressConfig {
    /// Nothing but the model's origin.
    pub offline: bool,
    /// What the machine's policy says, for models and plugins alike.
    pub ceiling: Ceiling,
    /// Where every request stands before it leaves.
    pub ledger: Option<Ledger>,
    /// What no plugin sends or gets back.
    pub secrets: Redactor,
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
    /// Of the model's requests nothing is watched: they carry its key.
    unwatched: Redactor,
}

/// A request that was decided on: where it goes, and why it may.
struct Hop {
    origin: Origin,
    reach: Reach,
    why: String,
    /// The request with what the host adds to it.
    sent: (Url, HeaderMap, Body),
}

impl Egress {
    /// Makes the way out. No certificate is read and no connection made before the first request.
    #[must_use]
    pub fn new(config: EgressConfig) -> Self {
        let shared = Shared { config, plugins: Pools::default(), unwatched: Redactor::default() };
        Self { shared: Arc::new(shared), model: Arc::default() }
    }

    /// The same way out, with certificates of its own towards the model.
    #[must_use]
    pub fn with_certificates(&self, certificates: Certificates) -> Self {
        Self { shared: self.shared.clone(), model: Arc::new(Pools::new(certificates)) }
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

    /// A text without the secrets that no plugin gets.
    #[must_use]
    pub fn without_secrets(&self, text: &str) -> String {
        self.shared.config.secrets.text(text).into_owned()
    }

    fn watch<'a>(&'a self, request: &'a Outgoing) -> Watch<'a> {
        let secrets = match &request.policy {
            Policy::Model => &self.shared.unwatched,
            Policy::Granted(_) => &self.shared.config.secrets,
        };
        Watch { secrets, credential: request.credential.as_ref() }
    }

    /// Decides about a request, sends it, and hands back the head of its answer.
    ///
    /// # Errors
    /// When it is not granted, leads to an address that it may not connect to, or the exchange fails.
    pub async fn send(&self, mut request: Outgoing) -> Result<Incoming, EgressError> {
        let mut hops = request.limits.redirects;
        let mut deadline = Deadline::start(&request.limits);
        let mut first = true;
        loop {
            let redirected = hops < request.limits.redirects;
            let behind = |error: EgressError| error.behind(redirected);
            let hop = self.decide(&request, std::mem::take(&mut first)).map_err(behind)?;
            let origin = hop.origin.clone();
            let (answer, entry) = self.exchange(&request, hop, &deadline).await.map_err(behind)?;
            let (limits, status) = (request.limits, answer.status());
            let next =
                redirect::target(status, answer.headers(), &request.url).filter(|_| limits.redirects > 0);
            let Some(mut next) = next else {
                let (head, body) = answer.into_parts();
                let mut headers = head.headers;
                let watch = self.watch(&request);
                if let Err(error) = watch.received(&origin, &mut headers) {
                    if let Some(entry) = &entry {
                        entry.end(LedgerAct::Failed { why: error.to_string() });
                    }
                    return Err(error);
                }
                let scrubber = watch.scrubber();
                let url = request.url;
                deadline.body();
                return Ok(Incoming {
                    status,
                    headers,
                    url,
                    origin,
                    limits,
                    deadline,
                    read: 0,
                    body,
                    entry,
                    scrubber,
                });
            };
            if let Some(entry) = &entry {
                entry.end(LedgerAct::Answer { status: status.as_u16(), received: 0 });
            }
            hops = hops.checked_sub(1).ok_or_else(|| EgressError::TooManyRedirects(origin.to_string()))?;
            self.watch(&request).redirected(&mut next);
            let place = place_of(next.as_str());
            if let Err(refusal) = request.follow(&origin, status, next) {
                self.refused(&request.caller, &request.method, place, &refusal)?;
                return Err(refusal.behind(true));
            }
        }
    }

    /// Where a request goes and what allows it. What is refused is on record.
    fn decide(&self, request: &Outgoing, first: bool) -> Result<Hop, EgressError> {
        let watch = self.watch(request);
        let decided = Origin::of(&request.url).and_then(|origin| {
            watch.refuse_leaks(&origin, request)?;
            let (reach, why) = self.granted(request, &origin)?;
            if first {
                watch.begin(request)?;
            }
            Ok(Hop { sent: watch.attach(&origin, request)?, origin, reach, why })
        });
        if let Err(refusal) = &decided {
            self.refused(&request.caller, &request.method, place_of(request.url.as_str()), refusal)?;
        }
        decided
    }

    /// What a request may connect to, and why.
    fn granted(&self, request: &Outgoing, origin: &Origin) -> Result<(Reach, String), EgressError> {
        let method = request.method.as_str();
        let is_model = matches!(request.policy, Policy::Model);
        self.shared.config.ceiling.check(origin, method, is_model)?;
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
        Ok((granted(grants, origin, method), grant.to_string()))
    }

    /// Sends a request that was decided on and waits for the head of the answer.
    async fn exchange(
        &self,
        request: &Outgoing,
        Hop { origin, reach, why, sent: (url, headers, body) }: Hop,
        deadline: &Deadline,
    ) -> Result<(Response<hyper::body::Incoming>, Option<Entry>), EgressError> {
        let bytes = body.len();
        let pools = match &request.policy {
            Policy::Model => &*self.model,
            Policy::Granted(_) => &self.shared.plugins,
        };
        let mut sent = Request::new(Pieces::from(body));
        *sent.method_mut() = request.method.clone();
        *sent.uri_mut() = origin.uri(&url)?;
        *sent.headers_mut() = headers;
        let entry = self.record(|| LedgerAct::Request {
            who: request.caller.to_string(),
            method: request.method.to_string(),
            origin: origin.to_string(),
            why,
            sent: bytes,
            credential: self.watch(request).handle(&origin),
        })?;
        let failed = |error: EgressError| {
            if let Some(entry) = &entry {
                entry.end(LedgerAct::Failed { why: error.to_string() });
            }
            error
        };
        let client = pools.client(&request.caller, reach, origin.is_encrypted()).map_err(failed)?;
        let answer = deadline
            .wait(&origin, request.limits.head, client.request(sent))
            .await
            .map_err(failed)?
            .map_err(|e| failed(EgressError::of_exchange(&origin, &e)))?;
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
        let (who, method) = (caller.to_string(), method.to_string());
        let secrets = &self.shared.config.secrets;
        let why = secrets.text(&refusal.to_string()).into_owned();
        let origin = if secrets.finds_in_name(&origin) { "(withheld)".to_owned() } else { origin };
        self.record(|| LedgerAct::Refused { who, method, origin, why }).map(drop)
    }
}

/// The addresses that grants let a request connect to. A name leads to public ones, and to those that the
/// plugin could as well have asked for by themselves.
fn granted(grants: &[NetworkGrant], origin: &Origin, method: &str) -> Reach {
    let public = matches!(&origin.host, Host::Domain(name) if !is_loopback_name(name));
    let named = grants.iter().flat_map(|grant| grant.addresses(origin, method)).collect();
    Reach::Granted { public, named }
}
