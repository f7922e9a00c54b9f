use std::fmt;

use url::{Host, Url};

use crate::EgressError;

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

impl Origin {
    /// The origin of a URL.
    ///
    /// # Errors
    /// When it is not `http` or `https`, has no host, or carries a user name or password.
    pub fn of(url: &Url) -> Result<Self, EgressError> {
        let refuse = |reason: &str| EgressError::Url { url: without_secrets(url), reason: reason.to_owned() };
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(refuse("only http and https are")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refuse("it carries a user name or a password"));
        }
        let host = match url.host().map(|host| host.to_owned()) {
            // A name with a trailing dot is the same host; certificates and grants know it without.
            Some(Host::Domain(name)) => Host::Domain(name.strip_suffix('.').unwrap_or(&name).to_owned()),
            Some(address) => address,
            None => return Err(refuse("it names no host")),
        };
        let port = url.port_or_known_default().ok_or_else(|| refuse("it has no port"))?;
        Ok(Self { scheme, host, port })
    }

    /// Whether connections to it are encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::Https
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, default) = match self.scheme {
            Scheme::Http => ("http", 80),
            Scheme::Https => ("https", 443),
        };
        write!(f, "{scheme}://{}", self.host)?;
        if self.port != default { write!(f, ":{}", self.port) } else { Ok(()) }
    }
}

/// A URL for messages: no credentials, query or fragment.
pub(crate) fn without_secrets(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
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
        let error = origin("https://u:secret@evil.test/?key=secret").unwrap_err();
        assert!(!error.contains("secret"), "{error}");
    }
}
