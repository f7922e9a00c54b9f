use egress::Origin;
use url::Url;

use crate::settings::WireFormat;

/// Where a provider is: a URL without a slash at its end and without a query of our making.
#[derive(Clone, Debug)]
pub(crate) struct Base {
    url: Url,
    pub(crate) origin: String,
}

impl Base {
    /// Reads a base URL. The reason it gives when it cannot holds no credentials.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut url = Url::parse(text.trim()).map_err(|e| e.to_string())?;
        let origin = Origin::of(&url).map_err(|_| NOT_A_BASE.to_owned())?.to_string();
        url.set_fragment(None);
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self { url, origin })
    }

    /// Where completions are asked for. `/v1` is added unless the path has a version already.
    pub(crate) fn completions(&self, wire: WireFormat) -> Url {
        let mut url = self.url.clone();
        let path = url.path().trim_end_matches('/');
        let version = if path.split('/').any(is_version) { "" } else { "/v1" };
        let path = format!("{path}{version}/{}", wire.path());
        url.set_path(&path);
        url
    }

    /// A path beside `/v1`, such as `/props`.
    pub(crate) fn beside(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let root = url.path().trim_end_matches('/');
        let path = format!("{}{path}", root.strip_suffix("/v1").unwrap_or(root));
        url.set_path(&path);
        url
    }
}

const NOT_A_BASE: &str =
    "it has to start with http:// or https://, name a host, and carry no user name or password";

/// `v1`, `v4`, `v1beta`.
fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix('v').and_then(|rest| rest.bytes().next());
    number.is_some_and(|byte| byte.is_ascii_digit()) && segment.bytes().all(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_base_leads_to_the_same_endpoint() {
        for (base, endpoint) in [
            ("http://localhost:11434", "http://localhost:11434/v1/chat/completions"),
            ("http://localhost:11434/", "http://localhost:11434/v1/chat/completions"),
            (" http://localhost:11434/v1// ", "http://localhost:11434/v1/chat/completions"),
            ("https://gate.test/llm", "https://gate.test/llm/v1/chat/completions"),
            ("https://gate.test/llm/v1", "https://gate.test/llm/v1/chat/completions"),
            ("https://gate.test/v1beta/openai/", "https://gate.test/v1beta/openai/chat/completions"),
            ("https://gate.test/api/paas/v4", "https://gate.test/api/paas/v4/chat/completions"),
            ("https://gate.test/vault", "https://gate.test/vault/v1/chat/completions"),
            (
                "https://gate.test/openai?api-version=2",
                "https://gate.test/openai/v1/chat/completions?api-version=2",
            ),
        ] {
            assert_eq!(Base::parse(base).unwrap().completions(WireFormat::Chat).as_str(), endpoint, "{base}");
        }
    }

    #[test]
    fn probes_go_beside_the_version() {
        for base in ["http://h:1/v1", "http://h:1", "http://h:1/v1/"] {
            assert_eq!(Base::parse(base).unwrap().beside("/api/ps").as_str(), "http://h:1/api/ps", "{base}");
        }
    }

    #[test]
    fn what_is_no_base_is_refused_without_its_credentials() {
        for base in ["", "localhost:8080", "ftp://h/", "https://me:hunter2@h/"] {
            let reason = Base::parse(base).unwrap_err();
            assert!(!reason.contains("hunter2"), "{reason}");
        }
    }
}
