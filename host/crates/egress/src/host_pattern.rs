use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

use crate::connector::{LOOPBACK, is_loopback_name};
use crate::origin::name_of;
use crate::strangers;

/// Shortest prefix of a range: the largest private networks are that large.
const MIN_PREFIX: u8 = 8;

/// Names that lead to the credentials of a cloud's machine. They are granted one by one.
const METADATA: [&str; 3] = ["metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"];

/// The host of a grant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum HostPattern {
    Name(String),
    /// All names below this one.
    Below(String),
    /// An address, or all of a range.
    Addresses(IpNet),
}

impl HostPattern {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if let Some(suffix) = text.strip_prefix("*.") {
            return match host(suffix)? {
                Host::Domain(name) if strangers::are_given_names_below(&name) => {
                    Err(format!("anyone can get a name below `{name}`, so its names are granted one by one"))
                }
                Host::Domain(name) => Ok(Self::Below(name)),
                Host::Ipv4(_) | Host::Ipv6(_) => Err("a name follows `*.`".to_owned()),
            };
        }
        if text.contains('/') {
            return range(text).map(Self::Addresses);
        }
        Ok(match host(text)? {
            Host::Domain(name) => Self::Name(name),
            Host::Ipv4(v4) => Self::Addresses(IpAddr::from(v4).into()),
            Host::Ipv6(v6) => Self::Addresses(IpAddr::from(v6).into()),
        })
    }

    pub(crate) fn matches(&self, host: &Host<String>) -> bool {
        match (self, host) {
            (Self::Name(granted), Host::Domain(name)) => granted == name,
            (Self::Below(suffix), Host::Domain(name)) => is_below(name, suffix),
            (Self::Addresses(net), Host::Ipv4(v4)) => net.contains(&IpAddr::from(*v4)),
            (Self::Addresses(net), Host::Ipv6(v6)) => net.contains(&IpAddr::from(*v6)),
            (Self::Addresses(_), Host::Domain(_)) | (_, Host::Ipv4(_) | Host::Ipv6(_)) => false,
        }
    }

    /// The addresses that it names; a name other than `localhost` names none.
    pub(crate) fn addresses(&self) -> Vec<IpNet> {
        match self {
            Self::Addresses(net) => vec![*net],
            Self::Name(name) if is_loopback_name(name) => LOOPBACK.map(IpNet::from).into(),
            Self::Name(_) | Self::Below(_) => Vec::new(),
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        let narrower = match (self, other) {
            (Self::Below(a), Self::Below(b)) if a == b || is_below(b, a) => other,
            (Self::Below(a), Self::Below(b)) if is_below(a, b) => self,
            (Self::Below(suffix), Self::Name(name)) if is_below(name, suffix) => other,
            (Self::Name(name), Self::Below(suffix)) if is_below(name, suffix) => self,
            (Self::Name(a), Self::Name(b)) if a == b => self,
            (Self::Addresses(a), Self::Addresses(b)) if a.contains(b) => other,
            (Self::Addresses(a), Self::Addresses(b)) if b.contains(a) => self,
            _ => return None,
        };
        Some(narrower.clone())
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Below(name) => write!(f, "*.{name}"),
            Self::Addresses(net) => match (net.prefix_len() == net.max_prefix_len(), net) {
                (true, IpNet::V4(net)) => write!(f, "{}", net.addr()),
                (true, IpNet::V6(net)) => write!(f, "[{}]", net.addr()),
                (false, IpNet::V4(net)) => write!(f, "{net}"),
                (false, IpNet::V6(net)) => write!(f, "[{net}]"),
            },
        }
    }
}

fn is_below(name: &str, suffix: &str) -> bool {
    let rest = name.strip_suffix(suffix).and_then(|rest| rest.strip_suffix('.'));
    rest.is_some_and(|rest| !rest.is_empty()) && !METADATA.contains(&name)
}

fn host(text: &str) -> Result<Host<String>, String> {
    if text.contains('*') {
        return Err("a `*` stands only at the beginning, for all names below one".to_owned());
    }
    let refuse = || format!("`{text}` is not a host");
    match Host::parse(text).map_err(|_| refuse())? {
        Host::Domain(name) => name_of(&name).map(Host::Domain).ok_or_else(refuse),
        address => Ok(address),
    }
}

/// `10.1.0.0/16` or `[fd12::/32]`.
fn range(text: &str) -> Result<IpNet, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let net: IpNet =
        bare.parse().map_err(|_| format!("`{text}` is no range of addresses, and a grant has no path"))?;
    let bracketed = bare.len() != text.len();
    if bracketed != net.addr().is_ipv6() {
        return Err(format!("`{text}` is no range of addresses: IPv6 stands in brackets, IPv4 does not"));
    }
    if net.trunc() != net {
        return Err(format!("`{text}` has bits beyond its prefix; write `{}`", net.trunc()));
    }
    if net.prefix_len() < MIN_PREFIX {
        return Err(format!("`{text}` is more than a /{MIN_PREFIX}"));
    }
    Ok(net)
}
