//! What a machine's policy says about every request, whoever makes it.

use std::fmt;

use crate::{EgressError, NetworkGrant, Origin};

/// A bound on all requests. The default is none.
#[derive(Clone, Debug, Default)]
pub struct Ceiling {
    /// What plugins reach at most; none: whatever they were granted.
    pub allow: Option<Vec<NetworkGrant>>,
    /// Hosts that nothing reaches.
    pub deny: Vec<Hosts>,
    /// The file that says so.
    pub by: String,
}

impl Ceiling {
    pub(crate) fn check(&self, origin: &Origin, method: &str, is_model: bool) -> Result<(), EgressError> {
        let host = origin.host.to_string();
        let allowed = |grants: &Vec<NetworkGrant>| grants.iter().any(|g| g.allows(origin, method));
        if self.deny.iter().any(|pattern| pattern.covers(&host))
            || !(is_model || self.allow.as_ref().is_none_or(allowed))
        {
            return Err(EgressError::Forbidden {
                origin: origin.to_string(),
                method: method.to_owned(),
                by: self.by.clone(),
            });
        }
        Ok(())
    }
}

/// A host, or `*.` and the end of hosts: then that host and all below it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hosts {
    host: String,
    below: bool,
}

/// Why a text names no hosts.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` names no host; write it like `example.com`, or `*.example.com` for it and all below it")]
pub struct HostsError(String);

impl Hosts {
    /// Parses a host or the end of hosts.
    ///
    /// # Errors
    /// When it is not a host as URLs have it.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        let refuse = || HostsError(text.to_owned());
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        let host = url::Host::parse(name).map_err(|_| refuse())?;
        if name.is_empty() || name.contains('*') || (below && !matches!(host, url::Host::Domain(_))) {
            return Err(refuse());
        }
        Ok(Self { host: host.to_string().trim_end_matches('.').to_owned(), below })
    }

    /// Whether it names a host, given as an origin shows it.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        host == self.host
            || (self.below && host.strip_suffix(&self.host).is_some_and(|rest| rest.ends_with('.')))
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.below { "*." } else { "" }, self.host)
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn check(ceiling: &Ceiling, method: &str, url: &str, is_model: bool) -> bool {
        let origin = Origin::of(&Url::parse(url).unwrap()).unwrap();
        ceiling.check(&origin, method, is_model).is_ok()
    }

    #[test]
    fn denied_hosts_are_reached_by_nothing_in_any_spelling() {
        let deny = ["*.evil.example", "10.0.0.1"].map(|text| Hosts::parse(text).unwrap()).to_vec();
        let ceiling = Ceiling { deny, ..Ceiling::default() };
        for url in [
            "https://evil.example/",
            "https://EVIL.example:8443/",
            "http://a.b.evil.example./x",
            "http://10.1",
            "http://0x0a000001/",
        ] {
            for is_model in [true, false] {
                assert!(!check(&ceiling, "GET", url, is_model), "{url}");
            }
        }
        assert!(check(&ceiling, "GET", "https://notevil.example/", false));
    }

    #[test]
    fn what_is_allowed_bounds_plugins_and_not_the_model() {
        let allow = Some(vec![NetworkGrant::parse("https://huggingface.co GET").unwrap()]);
        let ceiling = Ceiling { allow, ..Ceiling::default() };
        assert!(check(&ceiling, "GET", "https://huggingface.co/x", false));
        assert!(!check(&ceiling, "POST", "https://huggingface.co/x", false));
        assert!(!check(&ceiling, "GET", "https://example.com/", false));
        assert!(check(&ceiling, "POST", "https://example.com/", true));
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in ["", "*", "*.", "a.*.b", "https://a.b", "a b", "*.10.0.0.1", "a.b/c"] {
            assert!(Hosts::parse(text).is_err(), "{text}");
        }
    }
}
