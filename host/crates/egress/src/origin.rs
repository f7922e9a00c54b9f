use std::fmt;
use std::net::IpAddr;

use http::Uri;
use ipnet::IpNet;
use url::{Host, Position, Url};

use crate::EgressError;
use crate::connector::{LOOPBACK, is_loopback_name};

/// Scheme, host and port, the way connections are decided.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Origin {
    pub(crate) scheme: Scheme,
    pub(crate) host: Host<String>,
    pub(crate) port: u16,
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

/// Characters of a name that name servers can be asked for.
const MAX_NAME: usize = 253;

impl Origin {
    /// The origin of a URL.
    ///
    /// # Errors
    /// When it is not `http` or `https`, has no host or one that is too long, or carries a user name or password.
    pub fn of(url: &Url) -> Result<Self, EgressError> {
        let refuse =
            |reason: &str| EgressError::Url { url: place_of(url.as_str()), reason: reason.to_owned() };
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(refuse("only http and https are")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it carries a user name or a password"));
        }
        let host = match url.host().map(|host| host.to_owned()) {
            Some(Host::Domain(name)) => {
                let name = name_of(&name).ok_or_else(|| refuse("a part of its name is empty"))?;
                if name.len() > MAX_NAME {
                    return Err(refuse("its name is longer than names can be"));
                }
                Host::Domain(name)
            }
            Some(address) => address,
            None => return Err(refuse("it names no host")),
        };
        let port = url.port().unwrap_or(scheme.default_port());
        if port == 0 {
            return Err(refuse("there is no port 0"));
        }
        Ok(Self { scheme, host, port })
    }

    /// What is connected to for a URL of this origin, spelt from the parts that were decided on and not from
    /// the text once more.
    ///
    /// # Errors
    /// When the path is longer than a client can send.
    pub fn uri(&self, url: &Url) -> Result<Uri, EgressError> {
        let refuse = |e: http::Error| EgressError::Url { url: self.to_string(), reason: e.to_string() };
        Uri::builder()
            .scheme(self.scheme.as_str())
            .authority(self.authority())
            .path_and_query(&url[Position::BeforePath..Position::AfterQuery])
            .build()
            .map_err(refuse)
    }

    /// Its host, as messages and rules have it.
    #[must_use]
    pub fn host(&self) -> String {
        self.host.to_string()
    }

    /// The addresses that it names itself. A name other than `localhost` names none.
    pub(crate) fn addresses(&self) -> Vec<IpNet> {
        match &self.host {
            Host::Ipv4(v4) => vec![IpAddr::from(*v4).into()],
            Host::Ipv6(v6) => vec![IpAddr::from(*v6).into()],
            Host::Domain(name) if is_loopback_name(name) => LOOPBACK.map(IpNet::from).into(),
            Host::Domain(_) => Vec::new(),
        }
    }

    fn authority(&self) -> String {
        let default = self.port == self.scheme.default_port();
        if default { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether it is this machine, by a name that nobody else answers.
    pub(crate) fn is_this_machine(&self) -> bool {
        match &self.host {
            Host::Domain(name) => is_loopback_name(name),
            Host::Ipv4(v4) => v4.is_loopback(),
            Host::Ipv6(v6) => v6.is_loopback(),
        }
    }

    /// Whether connections to it are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::Https
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl Scheme {
    pub(crate) fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A name as grants and certificates know it: a dot at its end changes nothing. None if a part is empty.
pub(crate) fn name_of(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    (!name.split('.').any(str::is_empty)).then(|| name.to_owned())
}

/// Characters that are shown of a text that may be no URL.
const SHOWN: usize = 200;

/// Scheme, host and port of a text that should have been a URL, for messages: nothing that may be a secret.
pub(crate) fn place_of(text: &str) -> String {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let host = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let place = if scheme.is_empty() { host.to_owned() } else { format!("{scheme}://{host}") };
    place.chars().filter(|c| c.is_ascii_graphic()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Result<String, String> {
        Origin::of(&Url::parse(url).unwrap()).map(|o| o.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn spellings_of_one_origin_are_one() {
        for url in ["https://Example.COM/a?b", "https://example.com.:443/", "https://example.com#x"] {
            assert_eq!(origin(url).unwrap(), "https://example.com");
        }
        assert_eq!(origin("http://127.1:8080/").unwrap(), "http://127.0.0.1:8080");
        assert_eq!(origin("http://0x7f.0.0.1/").unwrap(), "http://127.0.0.1");
        assert_eq!(origin("https://bücher.example/").unwrap(), "https://xn--bcher-kva.example");
    }

    #[test]
    fn what_cannot_be_decided_is_refused() {
        assert!(origin("ftp://example.com/").unwrap_err().contains("only http and https"));
        assert!(origin("https://example.com@evil.test/").unwrap_err().contains("user name"));
        assert!(origin("https://example..com/").unwrap_err().contains("is empty"));
        assert!(origin("https://example.com:0/").unwrap_err().contains("no port 0"));
        let label = "a".repeat(63);
        let long =
            origin(&format!("https://{}.example/", vec![label.as_str(); 20_000].join("."))).unwrap_err();
        assert!(long.contains("longer than names can be") && long.len() < 400, "{long}");
        assert!(origin(&format!("https://{label}.{label}.{label}.example.com/")).is_ok());
        let error = origin("https://u:secret@evil.test/?key=secret").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
