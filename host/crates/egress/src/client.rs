use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use redact::Redactor;
use url::Url;

use crate::body::Pieces;
use crate::credential::Watch;
use crate::deadline::Deadline;
use crate::decode::{ACCEPTED, Decoder};
use crate::ledger::Entry;
use crate::origin::place_of;
use crate::pool::{Pools, Trust};
use crate::reach::Reach;
use crate::{
    Body, Caller, Ceiling, CertificateFiles, Certificates, Credential, EgressError, HostRule, Incoming,
    Ledger, LedgerAct, Origin, Outgoing, Policy, Proxy, Rewrite, redirect, rules,
};

/// What the whole process may reach.
#[derive(Clone, Debug, Default)]
pub struct EgressConfig {
    /// Nothing but the model's origin.
    pub offline: bool,
    /// What the machine's policy says, for models and plugins alike.
    pub ceiling: Ceiling,
    /// What the person says about the hosts that plugins reach.
    pub rules: Vec<HostRule>,
    /// Where every request stands before it leaves.
    pub ledger: Option<Ledger>,
    /// What no plugin sends or gets back.
    pub secrets: Redactor,
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
    pub(crate) shared: Arc<Shared>,
    /// Of the host's own requests, with certificates of a model's own if it has some.
    host: Arc<Pools>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: EgressConfig,
    /// Of plugins, and of commands.
    pub(crate) plugins: Pools,
    /// For the model: its answers are its own.
    unwatched: Redactor,
}

/// A request that was decided on: where it goes, and why it may.
struct Hop<'a> {
    origin: Origin,
    /// Stands for the origin.
    mirror: Option<&'a Rewrite>,
    /// What is really asked for: the request with what the host adds to it.
    url: Url,
    headers: HeaderMap,
    body: Body,
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
        let denied = Arc::new(config.ceiling.denials());
        // What rules deny is denied to plugins: the host's own requests are the person's.
        let denied_to_plugins = Arc::new(config.ceiling.denials().and(&config.rules));
        let plugins = Pools::new(Trust::Files(authorities), proxy, denied_to_plugins);
        let host = Pools::new(Trust::Files(config.certificates.clone()), config.proxy.clone(), denied);
        Self {
            shared: Arc::new(Shared { config, plugins, unwatched: Redactor::default() }),
            host: Arc::new(host),
        }
    }

    /// The same way out, with certificates of its own towards the model.
    #[must_use]
    pub fn with_certificates(&self, certificates: Certificates) -> Self {
        Self { shared: self.shared.clone(), host: Arc::new(self.host.with_certificates(certificates)) }
    }

    /// Reads the machine's certificates now, on a thread that can wait, so that the first encrypted
    /// request does not.
    pub fn prepare_tls(&self) {
        // A failure is told by the request that needs the certificates.
        let _ = self.host.tls();
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

    /// Whether a person could let a plugin reach an origin, and the rule that wants one to be asked although
    /// it was granted.
    ///
    /// # Errors
    /// When it is refused whatever anyone says: by the machine's policy, a rule, or `--offline`.
    pub fn can_be_asked(&self, origin: &Origin, method: &str) -> Result<Option<&str>, EgressError> {
        let config = &self.shared.config;
        config.ceiling.check(origin, method, false)?;
        if config.offline {
            return Err(EgressError::Offline { origin: origin.to_string() });
        }
        rules::check(&config.rules, origin, method, true)?;
        let mut asks = rules::about(&config.rules, origin);
        // What it is asked of in its place is asked about, too.
        if let Some(real) = self.mirror(origin).map(Rewrite::real) {
            config.ceiling.check_mirror(origin, real, method, false)?;
            rules::check(&config.rules, real, method, true)?;
            asks = asks.or_else(|| rules::about(&config.rules, real));
        }
        Ok(asks.map(|rule| rule.text.as_str()))
    }

    /// What stands for an origin.
    pub(crate) fn mirror(&self, origin: &Origin) -> Option<&Rewrite> {
        self.shared.config.rewrites.iter().find(|rewrite| rewrite.from() == origin)
    }

    /// Checks that a credential would go along with a request to this URL: that it is for its origin, and
    /// that what stands for that origin gets credentials.
    ///
    /// # Errors
    /// When it would not. A request that names a credential is never sent without it.
    pub fn carries(&self, credential: &Credential, url: &Url) -> Result<(), EgressError> {
        credential.goes_to(url)?;
        self.not_withheld(credential, &Origin::of(url)?)
    }

    fn not_withheld(&self, credential: &Credential, origin: &Origin) -> Result<(), EgressError> {
        match self.mirror(origin) {
            Some(mirror) if credential.is_for(origin) && !mirror.gets_credentials() => {
                Err(EgressError::MirrorCredential {
                    origin: origin.to_string(),
                    real: mirror.real().to_string(),
                    name: credential.name().to_owned(),
                })
            }
            _ => Ok(()),
        }
    }

    /// Where an origin's links may point to: itself, and what stands for it, each without a slash at the end.
    #[must_use]
    pub fn places_of(&self, origin: &Origin) -> Vec<String> {
        let mirror = self.mirror(origin).map(|mirror| mirror.to().to_owned());
        std::iter::once(origin.to_string()).chain(mirror).collect()
    }

    /// A URL at a mirror as the canonical one that it stands for; any other stays as it is.
    #[must_use]
    pub fn canonical(&self, url: Url) -> Url {
        self.shared.config.rewrites.iter().fold(url, |url, rewrite| rewrite.back(url))
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
    pub async fn send(&self, request: Outgoing) -> Result<Incoming, EgressError> {
        self.send_after(request, || Ok(())).await
    }

    /// The same. `ready` is called once it is decided that the request may leave, and before anything of it does:
    /// where it fails, nothing is sent. Of a request that is refused by its origin it is not called; where its name
    /// leads is known only later.
    ///
    /// # Errors
    /// Those of [`Self::send`], and what `ready` says.
    pub async fn send_after(
        &self,
        mut request: Outgoing,
        ready: impl FnOnce() -> Result<(), String>,
    ) -> Result<Incoming, EgressError> {
        let mut hops = request.limits.redirects;
        let mut deadline = Deadline::start(&request.limits);
        let mut first = Some(ready);
        loop {
            let redirected = hops < request.limits.redirects;
            let behind = |error: EgressError| error.behind(redirected);
            let hop = self.decide(&request, first.is_some()).map_err(behind)?;
            if let Some(Err(reason)) = first.take().map(|ready| ready()) {
                let refusal = EgressError::HeldBack(reason);
                self.refused(&request.caller, &request.method, hop.origin.to_string(), &refusal)?;
                return Err(refusal);
            }
            let (origin, mirror, real) = (hop.origin.clone(), hop.mirror, hop.url.clone());
            let (answer, mut entry) = self.exchange(&request, hop, &deadline).await.map_err(behind)?;
            let (limits, status) = (request.limits, answer.status());
            let watch = self.watch(&request);
            // What stays on a mirror is still of the origin that it stands for.
            let next = redirect::target(status, answer.headers(), &real)
                .map(|next| mirror.map_or(next.clone(), |mirror| mirror.back(next)));
            let (leads_to, next) = if limits.redirects > 0 { (None, next) } else { (next, None) };
            let Some(mut next) = next else {
                let leads_to = leads_to.map(|mut next| {
                    watch.redirected(&mut next);
                    next
                });
                let (head, body) = answer.into_parts();
                let mut headers = head.headers;
                // Unpacked first, so that what comes out can be searched.
                let decoder = request.decompress.then(|| Decoder::of(&mut headers)).flatten();
                if let Err(error) = watch.received(&origin, &mut headers) {
                    if let Some(entry) = &mut entry {
                        entry.end(LedgerAct::Failed { why: error.to_string() });
                    }
                    return Err(error);
                }
                // Files that commands fetch are theirs byte by byte, unless whoever sends them knows the credential.
                let is_file = matches!(request.caller, Caller::Command(_)) && watch.handle(&origin).is_none();
                let scrubber = if is_file { None } else { watch.scrubber() };
                let url = request.url;
                deadline.body();
                let (read, handed) = (0, 0);
                return Ok(Incoming {
                    status,
                    headers,
                    url,
                    leads_to,
                    origin,
                    limits,
                    deadline,
                    read,
                    handed,
                    decoder,
                    body,
                    entry,
                    scrubber,
                });
            };
            if let Some(entry) = &mut entry {
                entry.end(LedgerAct::Answer { status: status.as_u16(), received: 0 });
            }
            hops = hops.checked_sub(1).ok_or_else(|| EgressError::TooManyRedirects(origin.to_string()))?;
            watch.redirected(&mut next);
            let place = place_of(next.as_str());
            if let Err(refusal) = request.follow(&origin, status, next) {
                self.refused(&request.caller, &request.method, place, &refusal)?;
                return Err(refusal.behind(true));
            }
        }
    }

    /// Where a request goes and what allows it. What is refused is on record.
    fn decide(&self, request: &Outgoing, first: bool) -> Result<Hop<'_>, EgressError> {
        let decided = Origin::of(&request.url).and_then(|origin| self.hop(request, origin, first));
        if let Err(refusal) = &decided {
            self.refused(&request.caller, &request.method, place_of(request.url.as_str()), refusal)?;
        }
        decided
    }

    fn hop(&self, request: &Outgoing, origin: Origin, first: bool) -> Result<Hop<'_>, EgressError> {
        let mirror = self.mirror(&origin);
        let watch = self.watch(request);
        watch.refuse_leaks(&origin, request)?;
        let (reach, why) = self.allowed(request, &origin)?;
        if let Some(credential) = &request.credential {
            self.not_withheld(credential, &origin)?;
        }
        if first {
            watch.begin(request)?;
        }
        let (url, headers, body) = watch.attach(&origin, request)?;
        let Some(mirror) = mirror else {
            return Ok(Hop { origin, mirror: None, url, headers, body, reach, why });
        };
        if let Policy::Granted(_) = request.policy {
            // Whoever said yes to the origin was asked by what a rule says of its mirror.
            let is_approved = request.is_approved(&origin);
            rules::check(&self.shared.config.rules, mirror.real(), request.method.as_str(), is_approved)?;
        }
        let (ceiling, is_model) = (&self.shared.config.ceiling, matches!(request.policy, Policy::Model));
        ceiling.check_mirror(&origin, mirror.real(), request.method.as_str(), is_model)?;
        let methods = mirror.methods();
        if !methods.contains(&request.method.as_str()) {
            return Err(EgressError::Mirror {
                origin: origin.to_string(),
                real: mirror.real().to_string(),
                methods: methods.join(" and "),
                method: request.method.to_string(),
            });
        }
        let url = mirror.there(&url).ok_or_else(|| EgressError::Url {
            url: origin.to_string(),
            reason: "its mirror has no such path".to_owned(),
        })?;
        Ok(Hop { origin, mirror: Some(mirror), url, headers, body, reach: mirror.reach(), why })
    }

    /// What allows a request to an origin, and which addresses it may connect to there.
    fn allowed(&self, request: &Outgoing, origin: &Origin) -> Result<(Reach, String), EgressError> {
        let method = request.method.as_str();
        let is_model = matches!(request.policy, Policy::Model);
        self.shared.config.ceiling.check(origin, method, is_model)?;
        let grants = match &request.policy {
            Policy::Model => return Ok((Reach::Any, "model".to_owned())),
            Policy::Granted(grants) => grants,
        };
        rules::check(&self.shared.config.rules, origin, method, request.is_approved(origin))?;
        // Before what is not granted: no grant would help.
        if self.shared.config.offline {
            return Err(EgressError::Offline { origin: origin.to_string() });
        }
        let Some(grant) = grants.iter().find(|grant| grant.allows(origin, method)) else {
            return Err(EgressError::NotGranted { origin: origin.to_string(), method: method.to_owned() });
        };
        // A name leads to public addresses, and to those that the plugin could as well have asked for.
        let named = grants.iter().flat_map(|grant| grant.addresses(origin, method)).collect();
        Ok((Reach::to(origin, named), grant.to_string()))
    }

    /// Sends a request that was decided on and waits for the head of the answer.
    async fn exchange(
        &self,
        request: &Outgoing,
        hop: Hop<'_>,
        deadline: &Deadline,
    ) -> Result<(Response<hyper::body::Incoming>, Option<Entry>), EgressError> {
        let pools = match &request.caller {
            Caller::Host(_) => &*self.host,
            Caller::Plugin(_) | Caller::Command(_) => &self.shared.plugins,
        };
        let (origin, real) = (hop.origin.clone(), hop.real().clone());
        let (mirror, reach, why, bytes) = (hop.mirror, hop.reach.clone(), hop.why.clone(), hop.body.len());
        let sent = match prepared(request, hop, pools) {
            Ok(sent) => sent,
            Err(refusal) => {
                self.refused(&request.caller, &request.method, origin.to_string(), &refusal)?;
                return Err(refusal);
            }
        };
        let mut entry = self.record(|| LedgerAct::Request {
            who: self.who(&request.caller),
            method: request.method.to_string(),
            origin: origin.to_string(),
            real: mirror.map(|mirror| mirror.real().to_string()),
            why,
            sent: bytes,
            credential: self.watch(request).handle(&origin),
        })?;
        let answered = async {
            let client = pools.client(&request.caller, reach, real.is_encrypted())?;
            let answer = deadline.wait(&origin, request.limits.head, client.request(sent)).await?;
            answer.map_err(|e| EgressError::of_exchange(&real, &request.method, &e))
        };
        match answered.await {
            Ok(answer) => Ok((answer, entry)),
            Err(error) => {
                if let Some(entry) = &mut entry {
                    entry.end(match &error {
                        // Decided late: only when the name was resolved.
                        EgressError::NotPublic { .. }
                        | EgressError::ForbiddenPlace { .. }
                        | EgressError::DeniedPlace { .. } => {
                            self.refusal(&request.caller, &request.method, origin.to_string(), &error)
                        }
                        _ => LedgerAct::Failed { why: error.to_string() },
                    });
                }
                Err(error)
            }
        }
    }

    /// Who asks, as it stands in the ledger. What a command says of itself may hold anything.
    pub(crate) fn who(&self, caller: &Caller) -> String {
        match caller {
            Caller::Command(_) => self.without_secrets(&caller.to_string()),
            Caller::Host(_) | Caller::Plugin(_) => caller.to_string(),
        }
    }

    pub(crate) fn record(&self, what: impl FnOnce() -> LedgerAct) -> Result<Option<Entry>, EgressError> {
        self.shared.config.ledger.as_ref().map(|ledger| ledger.begin(what())).transpose()
    }

    /// Puts on record what was refused before it became a request.
    ///
    /// # Errors
    /// When the ledger cannot be written.
    pub fn note_refusal(
        &self,
        caller: &Caller,
        method: &Method,
        origin: &str,
        why: &str,
    ) -> Result<(), EgressError> {
        self.refused(caller, method, origin.to_owned(), &EgressError::HeldBack(why.to_owned()))
    }

    pub(crate) fn refused(
        &self,
        caller: &Caller,
        method: &Method,
        origin: String,
        refusal: &EgressError,
    ) -> Result<(), EgressError> {
        let Some(ledger) = &self.shared.config.ledger else { return Ok(()) };
        ledger.note(self.refusal(caller, method, origin, refusal))
    }

    pub(crate) fn refusal(
        &self,
        caller: &Caller,
        method: &Method,
        origin: String,
        refusal: &EgressError,
    ) -> LedgerAct {
        let (who, method) = (self.who(caller), method.to_string());
        let secrets = &self.shared.config.secrets;
        let why = secrets.text(&refusal.to_string()).into_owned();
        let origin = if secrets.finds_in_name(&origin) { "(withheld)".to_owned() } else { origin };
        LedgerAct::Refused { who, method, origin, why }
    }
}

/// The request as it leaves.
fn prepared(request: &Outgoing, hop: Hop<'_>, pools: &Pools) -> Result<Request<Pieces>, EgressError> {
    let uri = hop.real().uri(&hop.url)?;
    let authorization = pools.proxy_authorization(&uri);
    let Hop { mirror, headers, body, .. } = hop;
    let mut sent = Request::new(Pieces::from(body));
    *sent.method_mut() = request.method.clone();
    *sent.uri_mut() = uri;
    *sent.headers_mut() = headers;
    let headers = sent.headers_mut();
    if let Some(mirror) = mirror {
        mirror.strip(headers);
    }
    if request.decompress {
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(ACCEPTED));
    }
    if let Some(authorization) = authorization {
        headers.insert(header::PROXY_AUTHORIZATION, authorization);
    }
    Ok(sent)
}
