use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use url::Url;

use crate::{Credential, NetworkGrant, Origin};

/// Who makes a request.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Caller {
    /// The host itself, for a purpose such as `provider`.
    Host(&'static str),
    /// A plugin, by its id.
    Plugin(String),
    /// A command behind the wall, by what the host says runs there.
    Command(String),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(purpose) => f.write_str(purpose),
            Self::Plugin(id) => write!(f, "plugin {id}"),
            Self::Command(text) => write!(f, "command {text}"),
        }
    }
}

/// What a request may reach.
#[derive(Clone, Debug)]
pub enum Policy {
    /// The model's origin, which the user named: any address, and the only one left with `--offline`.
    Model,
    /// These grants of a plugin, and public addresses beside those that a grant names itself.
    Granted(Vec<NetworkGrant>),
}

/// What an answer may cost.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time until the head of the answer.
    pub head: Duration,
    /// Time between two pieces of the body.
    pub idle: Duration,
    /// Time of all of it, redirects included. None where the caller has a limit of its own.
    pub total: Option<Duration>,
    /// Below this an answer is given up.
    pub slowest: Option<Pace>,
    /// Bytes of the body.
    pub max_bytes: u64,
    /// Redirects that are followed. With none a redirect is the answer.
    pub redirects: u8,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(60),
            idle: Duration::from_secs(60),
            total: None,
            slowest: None,
            max_bytes: 16 << 20,
            redirects: 0,
        }
    }
}

/// Bytes of a body that arrive in such a time. Twice in a row less is too slow, unless the body is complete.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    pub bytes: u64,
    pub every: Duration,
}

/// A request on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    pub caller: Caller,
    pub policy: Policy,
    /// What a person said yes to while it was made, where a rule asks.
    pub approved: Vec<NetworkGrant>,
    pub method: Method,
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Body,
    /// Ask for a compressed answer, and hand it on unpacked.
    pub decompress: bool,
    pub limits: Limits,
    /// Added for its audience only, hop by hop.
    pub credential: Option<Credential>,
}

impl Outgoing {
    /// Whether a person said yes to an origin while the request was made.
    pub(crate) fn is_approved(&self, origin: &Origin) -> bool {
        self.approved.iter().any(|grant| grant.allows(origin, self.method.as_str()))
    }
}

/// A request's body, in pieces that are sent without being joined.
#[derive(Clone, Debug, Default)]
pub struct Body {
    pub(crate) pieces: Vec<Bytes>,
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl From<Vec<Bytes>> for Body {
    fn from(pieces: Vec<Bytes>) -> Self {
        Self { pieces }
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self { pieces: vec![bytes] }
    }
}
