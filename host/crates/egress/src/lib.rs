//! The one way out: every connection of the host and of plugins is decided and made here.
//!
//! A request names who makes it ([`Caller`]) and under which [`Policy`]. The URL is parsed once; what was
//! parsed is what is matched and what is connected to. Redirects are decided anew at every hop, with the
//! caller's headers dropped across origins. Nothing is taken from the environment: no proxy, no cookie,
//! no referer; answers are not decoded.
//!
//! A [`Credential`] is added on the last stretch, for its audience alone. A plugin's request that holds a
//! secret of its own accord is refused, and what comes back is searched for secrets.

mod address;
mod body;
mod ceiling;
mod certificates;
mod client;
mod connector;
mod credential;
mod deadline;
mod decode;
mod error;
mod grant;
mod host_pattern;
mod ledger;
mod origin;
mod pool;
mod proxy;
mod reach;
mod redirect;
mod request;
mod response;
mod rewrite;
mod rules;
mod strangers;
mod tunnel;

pub use ceiling::{Ceiling, Hosts, HostsError};
pub use certificates::{CertificateError, CertificateFiles, Certificates};
pub use client::{Egress, EgressConfig};
pub use credential::{Credential, Placement, Secret, may_have_hub_token};
pub use error::EgressError;
pub use grant::{GrantError, NetworkGrant};
pub use ledger::{Ledger, LedgerAct, LedgerLine};
pub use origin::Origin;
pub use proxy::{Proxy, ProxyError, ProxyUrls};
pub use request::{Body, Caller, Limits, Outgoing, Pace, Policy};
pub use response::Incoming;
pub use rewrite::{MirrorTrust, Rewrite, RewriteError};
pub use rules::HostRule;
pub use tunnel::{Moved, Tunnel};
