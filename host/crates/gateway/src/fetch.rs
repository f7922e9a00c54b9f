//! Requests of the gateway itself: what a command asked for, asked anew.

use std::time::Duration;

use bytes::Bytes;
use egress::{Body, Caller, Credential, Incoming, Limits, NetworkGrant, Origin, Outgoing, Policy};
use http::{HeaderMap, Method};
use url::Url;

use crate::gateway::Shared;
use crate::refusal::Refusal;

/// Redirects that are followed.
const HOPS: usize = 6;

/// Files have no limit of bytes or time: only a pause ends them.
const LIMITS: Limits = Limits {
    head: Duration::from_secs(120),
    idle: Duration::from_secs(120),
    total: None,
    slowest: None,
    max_bytes: u64::MAX,
    // Each hop is looked at here, and decided in the way out like the first.
    redirects: 0,
};

/// What is asked of a mirrored origin.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) grants: &'a [NetworkGrant],
    /// Goes to the origin that is asked first, and no further.
    pub(crate) credential: Option<&'a Credential>,
    /// Ask for a compressed answer, and get it unpacked.
    pub(crate) packed: bool,
}

impl Shared {
    pub(crate) fn caller(&self) -> Caller {
        Caller::Command((self.who)())
    }

    /// Asks, and follows redirects as long as `goes_on` says so of an answer and of where it leads.
    pub(crate) async fn ask(
        &self,
        ask: Ask<'_>,
        mut goes_on: impl FnMut(&Incoming, &Url) -> bool + Send,
    ) -> Result<Incoming, Refusal> {
        let mut request = Outgoing {
            caller: self.caller(),
            policy: Policy::Granted(ask.grants.to_vec()),
            approved: Vec::new(),
            method: ask.method,
            url: ask.url,
            headers: ask.headers,
            body: if ask.body.is_empty() { Body::default() } else { Body::from(ask.body) },
            decompress: ask.packed,
            limits: LIMITS,
            credential: ask.credential.cloned(),
        };
        for _ in 0..HOPS {
            let answer = self.egress.send(request.clone()).await?;
            let next = match &answer.leads_to {
                Some(next) if goes_on(&answer, next) => next.clone(),
                _ => return Ok(answer),
            };
            let from = Origin::of(&request.url)?;
            request.follow(&from, answer.status, next)?;
            if Origin::of(&request.url)? != from {
                request.credential = None;
            }
        }
        Err(Refusal::new(http::StatusCode::BAD_GATEWAY, "the answer redirects too often"))
    }
}

/// A grant of methods at an origin.
pub(crate) fn granted(origins: &[&str], methods: &str) -> Vec<NetworkGrant> {
    origins.iter().filter_map(|origin| NetworkGrant::parse(&format!("{origin} {methods}")).ok()).collect()
}
