use std::fmt;

use ipnet::IpNet;

use crate::Origin;
use crate::host_pattern::HostPattern;
use crate::origin::Scheme;

/// Methods that make a tunnel or show a request's headers to whoever sent it; no grant gives them.
const NEVER: [&str; 2] = ["CONNECT", "TRACE"];

/// Origins that a plugin may reach, with methods: `scheme://host[:port|:*|:a-b][ METHOD…]`.
///
/// The host is a name, all names below one (`*.example.com`), an address, or a range of addresses
/// (`10.1.0.0/16`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NetworkGrant {
    scheme: Scheme,
    host: HostPattern,
    ports: Ports,
    methods: Vec<String>,
}

/// Why a text is not a network grant.
#[derive(Debug, thiserror::Error)]
#[error(
    "network grant `{text}`: {reason}; write it like `https://api.example.com`, `https://*.example.com GET POST`, \
     `https://example.com:8443`, `http://localhost:*`, `http://10.1.2.3:8000-8080` or `http://10.1.0.0/16:8080`"
)]
pub struct GrantError {
    text: String,
    reason: String,
}

impl NetworkGrant {
    /// Methods a grant gives when it names none.
    pub(crate) const DEFAULT_METHODS: [&'static str; 2] = ["GET", "HEAD"];

    /// Parses a grant. Without a port it is the scheme's own, without methods GET and HEAD.
    ///
    /// # Errors
    /// When it is not of one of the accepted forms, all of which the error shows, or its names belong to strangers.
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        Self::read(text).map_err(|reason| GrantError { text: text.to_owned(), reason })
    }

    fn read(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let origin = words.next().ok_or("it is empty")?;
        let (scheme, rest) = match origin.split_once("://") {
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(("https", rest)) => (Scheme::Https, rest),
            _ => return Err("it has to start with `https://` or `http://`".to_owned()),
        };
        let (host, ports) = split_port(rest);
        if !host.is_ascii() {
            // What is shown is what is reached: an `а` of another script looks like an `a`.
            let ascii = url::Host::parse(host.trim_start_matches("*.")).map(|host| host.to_string());
            let ascii = ascii.unwrap_or_else(|_| "xn--…".to_owned());
            return Err(format!("a host is written as requests have it, here `{ascii}`"));
        }
        let host = HostPattern::parse(host)?;
        let ports = ports.map_or(Ok(Ports::one(scheme.default_port())), Ports::parse)?;
        let mut methods: Vec<String> = words.map(str::to_owned).collect();
        if methods.iter().any(|method| !method.bytes().all(|b| b.is_ascii_uppercase())) {
            return Err("methods are words in capitals".to_owned());
        }
        if let Some(method) = methods.iter().find(|method| NEVER.contains(&method.as_str())) {
            return Err(format!("{method} cannot be granted"));
        }
        if methods.is_empty() {
            methods = Self::DEFAULT_METHODS.map(str::to_owned).to_vec();
        }
        Ok(Self { scheme, host, ports, methods })
    }

    /// Whether a request is covered.
    #[must_use]
    pub fn allows(&self, origin: &Origin, method: &str) -> bool {
        self.allows_except_host(origin, method) && self.host.matches(&origin.host)
    }

    /// Whether it names an origin, with whatever methods.
    #[must_use]
    pub fn is_of(&self, origin: &Origin) -> bool {
        self.scheme == origin.scheme && self.ports.contain(origin.port) && self.host.matches(&origin.host)
    }

    /// The addresses that it names itself, for a request to such a scheme and port with such a method. To
    /// connect there was meant, public or not, also if a name leads there.
    pub(crate) fn addresses(&self, origin: &Origin, method: &str) -> Vec<IpNet> {
        if self.allows_except_host(origin, method) { self.host.addresses() } else { Vec::new() }
    }

    /// The same for a tunnel, which carries any method.
    pub(crate) fn addresses_for_any(&self, origin: &Origin) -> Vec<IpNet> {
        let is_there = self.scheme == origin.scheme && self.ports.contain(origin.port);
        if is_there { self.host.addresses() } else { Vec::new() }
    }

    fn allows_except_host(&self, origin: &Origin, method: &str) -> bool {
        self.scheme == origin.scheme
            && self.ports.contain(origin.port)
            && self.methods.iter().any(|granted| granted == method)
    }

    /// Whether it covers methods that send more than they ask for.
    #[must_use]
    pub fn sends(&self) -> bool {
        !self.methods.iter().all(|method| Self::DEFAULT_METHODS.contains(&method.as_str()))
    }

    /// What both grants give, if it is anything: of all names below one and one of these, that one.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let methods: Vec<String> =
            self.methods.iter().filter(|m| other.methods.contains(m)).cloned().collect();
        if self.scheme != other.scheme || methods.is_empty() {
            return None;
        }
        let host = self.host.intersection(&other.host)?;
        let ports = self.ports.intersection(other.ports)?;
        Some(Self { scheme: self.scheme, host, ports, methods })
    }
}

impl fmt::Display for NetworkGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        if self.ports != Ports::one(self.scheme.default_port()) {
            write!(f, ":{}", self.ports)?;
        }
        write!(f, " {}", self.methods.join(" "))
    }
}

/// What stands before the last colon and after it. The colons of `[::1]` are the address's own.
fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

/// Ports, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    const ALL: Self = Self { first: 1, last: u16::MAX };

    fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let port = |text: &str| -> Result<u16, String> {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            let port = text.parse().ok().filter(|port| digits && *port > 0);
            port.ok_or_else(|| format!("`{text}` is not a port from 1 to 65535"))
        };
        match text.split_once('-') {
            _ if text == "*" => Ok(Self::ALL),
            None => port(text).map(Self::one),
            Some((first, last)) => {
                let (first, last) = (port(first)?, port(last)?);
                if first > last {
                    return Err(format!("the ports {first}-{last} run backwards"));
                }
                Ok(Self { first, last })
            }
        }
    }

    fn contain(self, port: u16) -> bool {
        (self.first..=self.last).contains(&port)
    }

    fn intersection(self, other: Self) -> Option<Self> {
        let (first, last) = (self.first.max(other.first), self.last.min(other.last));
        (first <= last).then_some(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("*"),
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

#[cfg(test)]
mod tests;
