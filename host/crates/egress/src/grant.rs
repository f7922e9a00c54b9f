use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

use crate::Origin;

/// Methods a grant gives when it names none.
const DEFAULT_METHODS: [&str; 2] = ["GET", "HEAD"];

/// An origin that a plugin may reach, with methods: `https://host[:port] METHOD…`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetworkGrant {
    origin: Origin,
    methods: Vec<String>,
}

/// Why a text is not a network grant.
#[derive(Debug, thiserror::Error)]
#[error("network grant `{text}`: {reason}; write it like `https://api.example.com GET POST`")]
pub struct GrantError {
    text: String,
    reason: String,
}

impl NetworkGrant {
    /// Parses `scheme://host[:port] METHOD…`. Without methods it is GET and HEAD.
    ///
    /// # Errors
    /// When the origin has a path, query or user, a wildcard, or a method is not upper-case letters.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        let refuse = |reason: &str| GrantError { text: text.to_owned(), reason: reason.to_owned() };
        let mut words = text.split_whitespace();
        let url = words.next().ok_or_else(|| refuse("it is empty"))?;
        if url.contains('*') {
            return Err(refuse("hosts are named one by one"));
        }
        let parsed = Url::parse(url).map_err(|e| refuse(&e.to_string()))?;
        if parsed.path() != "/"
            || url.ends_with('/')
            || parsed.query().is_some()
            || parsed.fragment().is_some()
        {
            return Err(refuse("it is an origin, without a path"));
        }
        let origin = Origin::of(&parsed).map_err(|e| refuse(&e.to_string()))?;
        let methods: Vec<String> = words.map(str::to_owned).collect();
        if methods.iter().any(|m| m.is_empty() || !m.bytes().all(|b| b.is_ascii_uppercase())) {
            return Err(refuse("methods are words in capitals"));
        }
        let methods = if methods.is_empty() { DEFAULT_METHODS.map(str::to_owned).to_vec() } else { methods };
        Ok(Self { origin, methods })
    }

    /// Whether a request is covered.
    #[must_use]
    pub fn allows(&self, origin: &Origin, method: &str) -> bool {
        self.origin == *origin && self.methods.iter().any(|m| m == method)
    }

    /// Whether it covers methods that send more than they ask for.
    #[must_use]
    pub fn sends(&self) -> bool {
        !self.methods.iter().all(|method| DEFAULT_METHODS.contains(&method.as_str()))
    }

    /// What both grants give, if it is anything.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let methods: Vec<String> =
            self.methods.iter().filter(|m| other.methods.contains(m)).cloned().collect();
        (self.origin == other.origin && !methods.is_empty())
            .then(|| Self { origin: self.origin.clone(), methods })
    }

    /// Whether the grant names a private address itself, so that connecting there was meant.
    pub(crate) fn names_address(&self) -> bool {
        match &self.origin.host {
            Host::Ipv4(_) | Host::Ipv6(_) => true,
            Host::Domain(name) => name == "localhost",
        }
    }
}

impl fmt::Display for NetworkGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.origin, self.methods.join(" "))
    }
}

/// The address that a host names literally.
pub(crate) fn literal(host: &Host<String>) -> Option<std::net::IpAddr> {
    match host {
        Host::Ipv4(v4) => Some((*v4).into()),
        Host::Ipv6(v6) => Some((*v6).into()),
        Host::Domain(name) if name == "localhost" || name.ends_with(".localhost") => {
            Some(Ipv4Addr::LOCALHOST.into())
        }
        Host::Domain(name) if name == "ip6-localhost" => Some(Ipv6Addr::LOCALHOST.into()),
        Host::Domain(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(grant: &str, method: &str, url: &str) -> bool {
        let origin = Origin::of(&Url::parse(url).unwrap()).unwrap();
        NetworkGrant::parse(grant).unwrap().allows(&origin, method)
    }

    #[test]
    fn a_grant_is_one_origin_and_its_methods() {
        assert!(allows("https://api.example.com", "GET", "https://API.example.com:443/x?y"));
        assert!(allows("https://api.example.com GET POST", "POST", "https://api.example.com/"));
        for (method, url) in [
            ("POST", "https://api.example.com/"),
            ("GET", "http://api.example.com/"),
            ("GET", "https://api.example.com:8443/"),
            ("GET", "https://example.com/"),
            ("GET", "https://api.example.com.evil.test/"),
            ("GET", "https://evil.test/api.example.com"),
        ] {
            assert!(!allows("https://api.example.com", method, url), "{method} {url}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        for text in [
            "",
            "*",
            "https://*.example.com",
            "example.com",
            "https://a.b/c",
            "https://a.b/",
            "https://u@a.b",
            "https://a.b get",
        ] {
            assert!(NetworkGrant::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_literal_addresses_and_localhost_name_private_places() {
        let names = |text: &str| NetworkGrant::parse(text).unwrap().names_address();
        assert!(names("http://127.0.0.1:8080") && names("http://[::1]") && names("http://localhost:1"));
        assert!(!names("http://intranet:80"));
    }
}
