use http::HeaderMap;
use http::header;
use url::{Position, Url};

use crate::reach::Reach;
use crate::{NetworkGrant, Origin};

/// Headers that go to a mirror which gets no credentials, beside those that go anywhere.
const OPEN: [header::HeaderName; 2] = [header::CONTENT_TYPE, header::ACCEPT_ENCODING];

/// An origin that is really somewhere else: a mirror, a gateway, a private hub, a fake for tests.
///
/// Who asks names the canonical origin, and grants are matched on it.
#[derive(Clone, Debug)]
pub struct Rewrite {
    from: Origin,
    /// Origin and path of the mirror, no slash at the end.
    to: Url,
    real: Origin,
    trust: MirrorTrust,
}

/// What a mirror gets beyond GET and HEAD at a public address, or at one that is named literally.
#[derive(Clone, Debug, Default)]
pub struct MirrorTrust {
    /// Credentials of the origin that it stands for.
    pub credentials: bool,
    /// Its name may lead to addresses that are not public.
    pub private: bool,
    /// GET and HEAD if none is named.
    pub methods: Vec<String>,
}

/// Why an origin cannot be rewritten like that.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum RewriteError {
    #[error("`{0}` is not an origin; write it like `https://huggingface.co`, without a path")]
    From(String),
    #[error(
        "`{0}` is not where a mirror can be; write it like `https://mirror.example.com` or `http://127.0.0.1:8080/hub`"
    )]
    To(String),
    #[error(
        "`{0}` is not encrypted, so that it gets no credentials; write `https://`, or leave `credentials` out"
    )]
    Plain(String),
    #[error("`{0}` is not a method; methods are words in capitals, such as `POST`")]
    Method(String),
}

impl Rewrite {
    /// Sends what is meant for `from` to `to`, which may have a path.
    ///
    /// # Errors
    /// When one of both is no such URL, a method is not a word in capitals, or credentials would leave this
    /// machine in the clear.
    pub fn new(from: &str, to: &str, trust: MirrorTrust) -> Result<Self, RewriteError> {
        let bare = |url: &Url| url.query().is_none() && url.fragment().is_none();
        // Neither is shown as it stands: it may carry a password.
        let bad_from = || RewriteError::From(crate::origin::place_of(from));
        let bad_to = || RewriteError::To(crate::origin::place_of(to));
        let source =
            Url::parse(from).ok().filter(|url| bare(url) && url.path() == "/").ok_or_else(bad_from)?;
        let mut target = Url::parse(to).ok().filter(bare).ok_or_else(bad_to)?;
        let path = target.path().trim_end_matches('/').to_owned();
        target.set_path(&path);
        let strange = |m: &&String| m.is_empty() || !m.bytes().all(|b| b.is_ascii_uppercase());
        if let Some(method) = trust.methods.iter().find(strange) {
            return Err(RewriteError::Method(method.clone()));
        }
        let from = Origin::of(&source).map_err(|_| bad_from())?;
        let real = Origin::of(&target).map_err(|_| bad_to())?;
        if trust.credentials && !real.is_encrypted() && !real.is_this_machine() {
            return Err(RewriteError::Plain(real.to_string()));
        }
        Ok(Self { from, to: target, real, trust })
    }

    /// The origin that is asked for.
    #[must_use]
    pub fn from(&self) -> &Origin {
        &self.from
    }

    /// Where it really is.
    #[must_use]
    pub fn to(&self) -> &str {
        self.to.as_str().trim_end_matches('/')
    }

    pub(crate) fn real(&self) -> &Origin {
        &self.real
    }

    /// Whether credentials of the origin go to it.
    #[must_use]
    pub fn gets_credentials(&self) -> bool {
        self.trust.credentials
    }

    /// The methods it takes.
    #[must_use]
    pub fn methods(&self) -> Vec<&str> {
        if self.trust.methods.is_empty() {
            return NetworkGrant::DEFAULT_METHODS.to_vec();
        }
        self.trust.methods.iter().map(String::as_str).collect()
    }

    /// Which addresses it may have.
    pub(crate) fn reach(&self) -> Reach {
        if self.trust.private {
            return Reach::Private;
        }
        Reach::to(&self.real, self.real.addresses())
    }

    /// The URL at the mirror for one of the canonical origin.
    pub(crate) fn there(&self, url: &Url) -> Option<Url> {
        let path = self.to.path().trim_end_matches('/');
        let prefix = &self.to[..Position::BeforePath];
        Url::parse(&format!("{prefix}{path}{}", &url[Position::BeforePath..Position::AfterQuery])).ok()
    }

    /// The canonical URL for one at the mirror; any other stays as it is.
    pub(crate) fn back(&self, url: Url) -> Url {
        let path = self.to.path().trim_end_matches('/');
        let here = Origin::of(&url).is_ok_and(|origin| origin == self.real);
        let rest = url.path().strip_prefix(path).filter(|rest| here && rest.starts_with('/'));
        let Some(rest) = rest else { return url };
        let query = &url[Position::AfterPath..];
        Url::parse(&format!("{}{rest}{query}", self.from)).unwrap_or(url)
    }

    /// Takes out what a mirror without trust must not see.
    pub(crate) fn strip(&self, headers: &mut HeaderMap) {
        if !self.trust.credentials {
            crate::redirect::keep_harmless(headers, &OPEN);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(to: &str) -> Rewrite {
        Rewrite::new("https://huggingface.co", to, MirrorTrust::default()).unwrap()
    }

    #[test]
    fn urls_go_there_and_come_back() {
        for (to, there) in [
            ("http://127.0.0.1:8080", "http://127.0.0.1:8080/a/b?c=d"),
            ("https://art.example/api/hub/", "https://art.example/api/hub/a/b?c=d"),
        ] {
            let mirror = mirror(to);
            let url: Url = "https://huggingface.co/a/b?c=d".parse().unwrap();
            assert_eq!(mirror.there(&url).unwrap().as_str(), there);
            assert_eq!(mirror.back(mirror.there(&url).unwrap()), url);
        }
        let mirror = mirror("https://art.example/hub");
        for elsewhere in
            ["https://art.example/other/x", "https://art.example/hubs", "https://cdn.example/hub/x"]
        {
            assert_eq!(mirror.back(elsewhere.parse().unwrap()).as_str(), elsewhere);
        }
    }

    #[test]
    fn credentials_go_to_a_mirror_encrypted_or_within_this_machine() {
        let with_credentials = |to: &str| {
            let trust = MirrorTrust { credentials: true, ..MirrorTrust::default() };
            Rewrite::new("https://huggingface.co", to, trust).map_err(|e| e.to_string())
        };
        for to in ["https://m.example", "http://127.0.0.1:8080/hub", "http://[::1]:1", "http://localhost:1"] {
            assert!(with_credentials(to).is_ok(), "{to}");
        }
        for to in [
            "http://m.example",
            "http://10.0.0.1",
            "http://localhost.evil.example",
            "http://[::ffff:10.0.0.1]",
        ] {
            assert!(with_credentials(to).unwrap_err().contains("is not encrypted"), "{to}");
            assert!(Rewrite::new("https://huggingface.co", to, MirrorTrust::default()).is_ok(), "{to}");
        }
    }

    #[test]
    fn what_is_no_origin_or_mirror_is_refused_without_its_secrets() {
        let refused = |from: &str, to: &str, method: &str| {
            let trust = MirrorTrust { methods: vec![method.to_owned()], ..MirrorTrust::default() };
            Rewrite::new(from, to, trust).unwrap_err().to_string()
        };
        for (from, to, method, reason) in [
            ("huggingface.co", "http://m", "GET", "is not an origin"),
            ("https://huggingface.co/api", "http://m", "GET", "is not an origin"),
            ("https://u:hunter2@huggingface.co", "http://m", "GET", "is not an origin"),
            ("https://huggingface.co", "m:8080", "GET", "is not where a mirror can be"),
            ("https://huggingface.co", "https://u:hunter2@m", "GET", "is not where a mirror can be"),
            ("https://huggingface.co", "https://m?hunter2", "GET", "is not where a mirror can be"),
            ("https://huggingface.co", "https://m", "get", "is not a method"),
        ] {
            let error = refused(from, to, method);
            assert!(error.contains(reason) && !error.contains("hunter2"), "{error}");
        }
    }
}
