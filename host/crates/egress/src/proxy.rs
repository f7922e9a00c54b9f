use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use secrecy::SecretString;
use url::Url;

use crate::origin::place_of;

/// What never goes through a proxy: this machine.
const NEVER: &str = "localhost,127.0.0.0/8,::1";

/// A proxy between this machine and others, as settings name it.
#[derive(Clone)]
pub struct Proxy {
    matcher: Arc<Matcher>,
    plugins: bool,
}

/// Where it is, for each kind of origin, and who goes around it.
#[derive(Clone, Default)]
pub struct ProxyUrls {
    /// For `http` origins: `http://[user:password@]host:port`.
    pub http: Option<String>,
    /// For `https` origins, through a tunnel.
    pub https: Option<String>,
    /// Names (with all below them), addresses and ranges that are reached without it.
    pub no_proxy: Vec<String>,
    /// Whether requests of plugins go through it too.
    pub plugins: bool,
}

impl ProxyUrls {
    /// The passwords in its URLs, as they stand there and as proxies are shown them.
    #[must_use]
    pub fn passwords(&self) -> Vec<SecretString> {
        let urls = self.http.iter().chain(&self.https);
        let parsed = urls.filter_map(|url| Url::parse(&with_scheme(url.trim())).ok());
        let written = parsed.filter_map(|url| url.password().map(str::to_owned));
        written.flat_map(|written| [decoded(&written), written]).map(SecretString::from).collect()
    }
}

/// A part of a URL without percent signs. No other sign means anything there.
fn decoded(text: &str) -> String {
    let text = text.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(text.as_bytes()).map(|(text, _)| text).collect()
}

/// As everywhere, `host:port` alone is a URL of a proxy.
fn with_scheme(text: &str) -> String {
    if text.contains("://") { text.to_owned() } else { format!("http://{text}") }
}

/// A URL that cannot be a proxy's. What it carries beside its place is not shown.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not a proxy that can be used; write it like `http://proxy.example.com:3128`")]
pub struct ProxyError(String);

impl Proxy {
    /// Checks the URLs; nothing is connected.
    ///
    /// # Errors
    /// When one is not `http` or names no host.
    pub fn new(urls: &ProxyUrls) -> Result<Self, ProxyError> {
        let mut matcher = Matcher::builder();
        if let Some(url) = &urls.http {
            matcher = matcher.http(checked(url)?);
        }
        if let Some(url) = &urls.https {
            matcher = matcher.https(checked(url)?);
        }
        let around: Vec<&str> =
            std::iter::once(NEVER).chain(urls.no_proxy.iter().map(String::as_str)).collect();
        let matcher = Arc::new(matcher.no(around.join(",")).build());
        Ok(Self { matcher, plugins: urls.plugins })
    }

    pub(crate) fn is_for_plugins(&self) -> bool {
        self.plugins
    }

    /// The proxy for a destination, if it has one.
    pub(crate) fn on_the_way_to(&self, to: &Uri) -> Option<Intercept> {
        self.matcher.intercept(to)
    }

    /// What a request that is not tunnelled shows to the proxy.
    pub(crate) fn authorization(&self, to: &Uri) -> Option<HeaderValue> {
        if to.scheme_str() != Some("http") {
            return None;
        }
        let mut value = self.on_the_way_to(to)?.basic_auth()?.clone();
        value.set_sensitive(true);
        Some(value)
    }
}

fn checked(text: &str) -> Result<String, ProxyError> {
    let text = text.trim();
    let refuse = || ProxyError(place_of(text));
    let url = with_scheme(text);
    let parsed = Url::parse(&url).map_err(|_| refuse())?;
    let is_proxy = parsed.scheme() == "http" && parsed.host().is_some() && parsed.path() == "/";
    if is_proxy { Ok(url) } else { Err(refuse()) }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its URL may carry a password.
        f.debug_struct("Proxy").field("plugins", &self.plugins).finish_non_exhaustive()
    }
}

impl fmt::Debug for ProxyUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyUrls").field("no_proxy", &self.no_proxy).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(url: &str) -> Result<Proxy, ProxyError> {
        let url = Some(url.to_owned());
        let no_proxy = vec![".corp".to_owned(), "10.0.0.0/8".to_owned()];
        Proxy::new(&ProxyUrls { http: url.clone(), https: url, no_proxy, plugins: false })
    }

    #[test]
    fn this_machine_and_what_is_excepted_is_reached_without_it() {
        let proxy = proxy("proxy.example:3128").unwrap();
        let uses = |to: &str| proxy.on_the_way_to(&to.parse().unwrap()).map(|via| via.uri().to_string());
        assert_eq!(uses("https://huggingface.co/").as_deref(), Some("http://proxy.example:3128/"));
        for direct in [
            "http://localhost:1",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "https://a.corp",
            "http://10.1.1.1",
        ] {
            assert_eq!(uses(direct), None, "{direct}");
        }
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_its_password_never_shown() {
        for url in [
            "https://u:hunter2@proxy",
            "socks5://u:hunter2@proxy:1080",
            "http://u:hunter2@proxy/hunter2",
            "http://",
        ] {
            let error = proxy(url).unwrap_err().to_string();
            assert!(error.contains("is not a proxy") && !error.contains("hunter2"), "{error}");
        }
        let proxy = proxy("http://u:hunter2@proxy").unwrap();
        assert!(!format!("{proxy:?}").contains("hunter2"));
        let shown = proxy.authorization(&"http://a.test".parse().unwrap()).unwrap();
        assert!(shown.is_sensitive() && proxy.authorization(&"https://a.test".parse().unwrap()).is_none());
    }
}
