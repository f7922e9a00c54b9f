//! What a machine's policy says about every request, whoever makes it.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use url::Host;

use crate::address::is_among;
use crate::{EgressError, HostRule, NetworkGrant, Origin};

/// A bound on all requests. The default is none.
#[derive(Clone, Debug, Default)]
pub struct Ceiling {
    /// What plugins reach at most; none: whatever they were granted.
    pub allow: Option<Vec<NetworkGrant>>,
    /// Where completions are asked for at most, methods not counted; none: wherever the user says.
    pub models: Option<Vec<NetworkGrant>>,
    /// Where an origin may really be, beside the origins that are allowed themselves; methods not counted.
    pub mirrors: Vec<NetworkGrant>,
    /// Hosts and addresses that nothing reaches.
    pub deny: Vec<Hosts>,
    /// The file that says so.
    pub by: String,
}

/// What is not connected to, whatever name leads there, and who says so.
#[derive(Clone, Debug, Default)]
pub(crate) struct Denials(Vec<(Hosts, By)>);

/// Who denies something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum By {
    /// The machine's policy, for everybody: its file.
    Policy(String),
    /// A person, for plugins: the rule as it was written, and where it stands.
    Rule(String),
}

impl Denials {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and what rules deny to plugins.
    pub(crate) fn and(mut self, rules: &[HostRule]) -> Self {
        let denying = rules.iter().filter(|rule| !rule.asks);
        self.0.extend(denying.map(|rule| (rule.hosts.clone(), By::Rule(rule.text.clone()))));
        self
    }

    /// Those of the machine's policy. A proxy is the user's own: no rule on plugins is about it.
    pub(crate) fn of_policy(&self) -> Self {
        Self(self.0.iter().filter(|(_, by)| matches!(by, By::Policy(_))).cloned().collect())
    }

    /// Who denies a host of a URL, as a name or as an address.
    pub(crate) fn of_host(&self, host: &str) -> Option<&By> {
        let host = Host::parse(host).ok()?;
        self.0.iter().find(|(denied, _)| denied.covers(&host)).map(|(_, by)| by)
    }

    /// Who denies an address, in this or another dress.
    pub(crate) fn of_address(&self, address: IpAddr) -> Option<&By> {
        let is_denied = |denied: &Hosts| match denied.0 {
            Denied::Addresses(net) => is_among(&[net], address),
            Denied::Name { .. } => false,
        };
        self.0.iter().find(|(denied, _)| is_denied(denied)).map(|(_, by)| by)
    }
}

impl Ceiling {
    pub(crate) fn check(&self, origin: &Origin, method: &str, is_model: bool) -> Result<(), EgressError> {
        if self.denies(origin) || !self.permits(origin, method, is_model) {
            return Err(self.forbidden(origin.to_string(), method));
        }
        Ok(())
    }

    /// A mirror that a user names is bound like any origin: else an entry of the settings would lift the bound.
    pub(crate) fn check_mirror(
        &self,
        origin: &Origin,
        real: &Origin,
        method: &str,
        is_model: bool,
    ) -> Result<(), EgressError> {
        let is_named = self.mirrors.iter().any(|mirror| mirror.is_of(real));
        if self.denies(real) || !(is_named || self.permits(real, method, is_model)) {
            return Err(self.forbidden(format!("{real} (in place of {origin})"), method));
        }
        Ok(())
    }

    pub(crate) fn denials(&self) -> Denials {
        Denials(self.deny.iter().map(|hosts| (hosts.clone(), By::Policy(self.by.clone()))).collect())
    }

    fn denies(&self, origin: &Origin) -> bool {
        self.deny.iter().any(|denied| denied.covers(&origin.host))
    }

    fn permits(&self, origin: &Origin, method: &str, is_model: bool) -> bool {
        match (is_model, &self.models, &self.allow) {
            (true, Some(models), _) => models.iter().any(|grant| grant.is_of(origin)),
            (false, _, Some(allow)) => allow.iter().any(|grant| grant.allows(origin, method)),
            _ => true,
        }
    }

    fn forbidden(&self, origin: String, method: &str) -> EgressError {
        EgressError::Forbidden { origin, method: method.to_owned(), by: self.by.clone() }
    }
}

/// A host, `*.` and the end of hosts (then that host and all below it), an address or a range of addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Hosts(Denied);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Denied {
    Name { host: String, below: bool },
    Addresses(IpNet),
}

/// Why a text names no hosts.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` names no host; write it like `example.com`, `*.example.com` for it and all below it, `10.0.0.1` or `10.0.0.0/8`"
)]
pub struct HostsError(String);

impl Hosts {
    /// Parses a host, the end of hosts, an address or a range.
    ///
    /// # Errors
    /// When it is not a host as URLs have it, nor a range without bits beyond its prefix.
    pub fn parse(text: &str) -> Result<Self, HostsError> {
        let refuse = || HostsError(text.to_owned());
        if text.contains('/') {
            let net: IpNet = text.parse().map_err(|_| refuse())?;
            return if net.trunc() == net { Ok(Self(Denied::Addresses(net))) } else { Err(refuse()) };
        }
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(Denied::Addresses(address.to_canonical().into())));
        }
        if !text.is_ascii() {
            return Err(refuse());
        }
        let (name, below) = text.strip_prefix("*.").map_or((text, false), |rest| (rest, true));
        if name.is_empty() || name.contains('*') {
            return Err(refuse());
        }
        match Host::parse(name).map_err(|_| refuse())? {
            Host::Domain(host) => {
                Ok(Self(Denied::Name { host: host.trim_end_matches('.').to_owned(), below }))
            }
            _ if below => Err(refuse()),
            Host::Ipv4(v4) => Ok(Self(Denied::Addresses(IpAddr::from(v4).into()))),
            Host::Ipv6(v6) => Ok(Self(Denied::Addresses(IpAddr::from(v6).to_canonical().into()))),
        }
    }

    /// Whether it covers a host, given as an origin shows it.
    #[must_use]
    pub fn names(&self, host: &str) -> bool {
        Host::parse(host).is_ok_and(|host| self.covers(&host))
    }

    /// Whether it covers the host of an origin.
    pub(crate) fn covers(&self, host: &Host<String>) -> bool {
        match (&self.0, host) {
            (Denied::Name { host, below }, Host::Domain(name)) => {
                // Of an origin the last dot is gone already, of a proxy's place it is not.
                let name = name.trim_end_matches('.');
                name == host || (*below && name.strip_suffix(host).is_some_and(|rest| rest.ends_with('.')))
            }
            (Denied::Addresses(net), Host::Ipv4(v4)) => is_among(&[*net], (*v4).into()),
            (Denied::Addresses(net), Host::Ipv6(v6)) => is_among(&[*net], (*v6).into()),
            _ => false,
        }
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Denied::Name { host, below } => write!(f, "{}{host}", if *below { "*." } else { "" }),
            Denied::Addresses(net) if net.prefix_len() == net.max_prefix_len() => write!(f, "{}", net.addr()),
            Denied::Addresses(net) => write!(f, "{net}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn origin(url: &str) -> Origin {
        Origin::of(&Url::parse(url).unwrap()).unwrap()
    }

    fn check(ceiling: &Ceiling, method: &str, url: &str, is_model: bool) -> bool {
        ceiling.check(&origin(url), method, is_model).is_ok()
    }

    fn denying(deny: &[&str]) -> Ceiling {
        let deny = deny.iter().map(|text| Hosts::parse(text).unwrap()).collect();
        Ceiling { deny, ..Ceiling::default() }
    }

    fn grants(grants: &[&str]) -> Vec<NetworkGrant> {
        grants.iter().map(|grant| NetworkGrant::parse(grant).unwrap()).collect()
    }

    #[test]
    fn denied_hosts_are_reached_by_nothing_in_any_spelling() {
        let ceiling = denying(&["*.evil.example", "10.0.0.1", "192.168.0.0/16", "fd00:1::/32"]);
        for url in [
            "https://evil.example/",
            "https://EVIL.example:8443/",
            "http://a.b.evil.example./x",
            "http://10.1",
            "http://0x0a000001/",
            "http://[::ffff:10.0.0.1]/",
            "http://[::10.0.0.1]/",
            "http://[64:ff9b::a00:1]/",
            "http://[64:ff9b:1:a00:0:100::]/",
            "http://[2002:a00:1::]/",
            "http://192.168.7.9/",
            "http://[::ffff:c0a8:1]/",
            "http://[fd00:1::9]/",
        ] {
            for is_model in [true, false] {
                assert!(!check(&ceiling, "GET", url, is_model), "{url}");
            }
        }
        for url in ["https://notevil.example/", "http://10.0.0.2/", "http://[fd00:2::9]/"] {
            assert!(check(&ceiling, "GET", url, false), "{url}");
        }
        assert!(!check(&denying(&["::ffff:10.0.0.1"]), "GET", "http://10.0.0.1/", true));
        // As the settings write the place of a proxy.
        let denials = ceiling.denials();
        for host in ["proxy.evil.example.", "evil.example.", "proxy.evil.example", "10.0.0.1."] {
            assert!(denials.of_host(host).is_some(), "{host}");
        }
        assert!(denials.of_host("notevil.example.").is_none());
    }

    #[test]
    fn what_is_allowed_bounds_plugins_and_not_the_model() {
        let allow = Some(grants(&["https://huggingface.co GET"]));
        let ceiling = Ceiling { allow, ..Ceiling::default() };
        assert!(check(&ceiling, "GET", "https://huggingface.co/x", false));
        assert!(!check(&ceiling, "POST", "https://huggingface.co/x", false));
        assert!(!check(&ceiling, "GET", "https://example.com/", false));
        assert!(check(&ceiling, "POST", "https://example.com/", true));
    }

    #[test]
    fn a_mirror_lifts_no_bound_unless_the_policy_names_it() {
        let hub = origin("https://huggingface.co");
        let ceiling = Ceiling {
            allow: Some(grants(&["https://huggingface.co GET"])),
            models: Some(grants(&["https://router.huggingface.co"])),
            mirrors: grants(&["https://hub.corp.example", "https://*.pastebin.com"]),
            ..denying(&["*.pastebin.com"])
        };
        let check = |real: &str, is_model: bool| {
            ceiling.check_mirror(&hub, &origin(real), "GET", is_model).map_err(|e| e.to_string())
        };
        for is_model in [true, false] {
            assert_eq!(check("https://hub.corp.example/x", is_model), Ok(()));
            let refusal = check("https://evil.example", is_model).unwrap_err();
            assert!(
                refusal.contains("https://evil.example (in place of https://huggingface.co)"),
                "{refusal}"
            );
            assert!(check("https://hub.corp.example:8443", is_model).is_err());
            // What is denied is not even a named mirror.
            assert!(check("https://a.pastebin.com", is_model).is_err());
        }
        assert!(
            check("https://huggingface.co", false).is_ok() && check("https://huggingface.co", true).is_err()
        );
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in
            ["", "*", "*.", "a.*.b", "https://a.b", "a b", "*.10.0.0.1", "a.b/c", "10.0.0.1/8", "10.0.0.0/99"]
        {
            assert!(Hosts::parse(text).is_err(), "{text}");
        }
        for text in ["a.b", "*.a.b", "10.0.0.1", "10.0.0.0/8", "::1", "fd00::/8"] {
            assert_eq!(Hosts::parse(text).unwrap().to_string(), text);
        }
    }
}
