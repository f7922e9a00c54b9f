use serde::{Deserialize, Serialize};

use crate::ManifestError;

/// A credential that the plugin's requests can carry and the plugin never sees.
///
/// Exactly one of `header`, `query` and `body` says where the host puts it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialUse {
    /// What it is for, in one line.
    pub description: String,
    /// Origins that get it, `https://host[:port]`; `http://` for this machine only.
    pub audience: Vec<String>,
    /// The header that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// What stands before it in the header, such as `Bearer `.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The parameter of the query that carries it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// It replaces `{{credential:NAME}}` in texts of a JSON body.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub body: bool,
}

/// Whether `name` can be a credential's name.
#[must_use]
pub fn is_credential_name(name: &str) -> bool {
    crate::is_plugin_id(name)
}

impl CredentialUse {
    /// Where the host puts it, in words.
    #[must_use]
    pub fn place(&self) -> String {
        match (&self.header, &self.query) {
            (Some(header), _) => format!("header {header}"),
            (None, Some(query)) => format!("query parameter {query}"),
            (None, None) => "the JSON body".to_owned(),
        }
    }

    pub(crate) fn check(&self, name: &str) -> Result<(), ManifestError> {
        let refuse =
            |reason: &str| ManifestError::Credential { name: name.to_owned(), reason: reason.to_owned() };
        if !is_credential_name(name) {
            return Err(refuse(
                "a name must start with a-z and hold only a-z, 0-9 and `-`, at most 32 characters",
            ));
        }
        let texts = [
            Some(self.description.as_str()),
            self.header.as_deref(),
            self.prefix.as_deref(),
            self.query.as_deref(),
        ];
        let texts = texts.into_iter().flatten().chain(self.audience.iter().map(String::as_str));
        if texts.clone().any(|text| !crate::text::is_line(text)) {
            return Err(refuse("its texts are one line of plain text each"));
        }
        if self.description.trim().is_empty() {
            return Err(refuse("`description` says what it is for, in one line"));
        }
        let places = [self.header.is_some(), self.query.is_some(), self.body];
        if places.into_iter().filter(|given| *given).count() != 1 {
            return Err(refuse(
                "say where it goes by one of `header = \"Authorization\"`, `query = \"api_key\"`, `body = true`",
            ));
        }
        if self.prefix.is_some() && self.header.is_none() {
            return Err(refuse("`prefix` goes with `header`"));
        }
        if self.header.as_deref().is_some_and(|name| !is_header(name)) {
            return Err(refuse("`header` is the name of a header, and none that frames or routes a request"));
        }
        if self.prefix.as_deref().is_some_and(|prefix| !prefix.bytes().all(|b| matches!(b, b' '..=b'~'))) {
            return Err(refuse("`prefix` holds ASCII only"));
        }
        if self.query.as_deref().is_some_and(|name| !is_parameter(name)) {
            return Err(refuse("`query` holds only letters, digits, `_`, `-` and `.`"));
        }
        if self.audience.is_empty() {
            return Err(refuse(
                "`audience` names the origins that get it, such as `https://api.example.com`",
            ));
        }
        match self.audience.iter().find(|origin| !is_audience(origin)) {
            Some(origin) => Err(refuse(&format!(
                "`{origin}` is no audience; write `https://host[:port]` in lower case, without path and wildcard (`http://` \
                 only for localhost, 127.0.0.1 and [::1])"
            ))),
            None => Ok(()),
        }
    }
}

/// Whether a header frames, routes or keeps a request, in any letter case: neither a plugin nor a
/// credential stands there.
#[must_use]
pub fn is_hosts_header(name: &str) -> bool {
    const OWN: [&str; 11] = [
        "connection",
        "content-length",
        "cookie",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let lower = name.to_ascii_lowercase();
    OWN.contains(&lower.as_str()) || lower.starts_with("proxy-")
}

fn is_header(name: &str) -> bool {
    /// What decides how a body is read, or which part of it is meant.
    const BODY: [&str; 4] = ["accept-encoding", "content-encoding", "content-type", "range"];
    !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        && !BODY.contains(&name.to_ascii_lowercase().as_str())
        && !is_hosts_header(name)
}

fn is_parameter(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
}

/// An origin, written the way origins are compared.
fn is_audience(origin: &str) -> bool {
    let (authority, encrypted) = match (origin.strip_prefix("https://"), origin.strip_prefix("http://")) {
        (Some(authority), _) => (authority, true),
        (None, Some(authority)) => (authority, false),
        (None, None) => return false,
    };
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some(("::1", port)) => ("[::1]", port),
            _ => return false,
        },
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port_is_one = port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| {
            digits.bytes().all(|b| b.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port > 0)
        });
    let local = ["localhost", "127.0.0.1", "[::1]"].contains(&host);
    let named = host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    });
    let is_public_name = named && host.contains('.') && !host.ends_with(|c: char| c.is_ascii_digit());
    port_is_one && (local || (encrypted && is_public_name))
}

#[cfg(test)]
mod tests {
    use crate::Manifest;

    fn parse(credential: &str) -> Result<Manifest, String> {
        let text = format!(
            "id = \"p\"\nversion = \"1.0.0\"\ndescription = \"\"\n{credential}\n[tools.t]\ntier = \"read\"\n"
        );
        Manifest::from_toml(&text).map_err(|e| e.to_string())
    }

    fn with(lines: &str) -> Result<Manifest, String> {
        parse(&format!("[credentials.github]\ndescription = \"Reads issues.\"\n{lines}"))
    }

    const AUDIENCE: &str = "audience = [\"https://api.github.com\"]\n";

    #[test]
    fn each_place_can_be_declared() {
        for place in
            ["header = \"Authorization\"\nprefix = \"Bearer \"", "query = \"api_key\"", "body = true"]
        {
            let manifest = with(&format!("{AUDIENCE}{place}")).unwrap();
            let json = serde_json::to_vec(&manifest).unwrap();
            assert_eq!(Manifest::from_json(&json).unwrap(), manifest, "{place}");
        }
    }

    #[test]
    fn what_is_not_one_place_is_refused() {
        for place in [
            "",
            "body = false",
            "header = \"A\"\nbody = true",
            "header = \"A\"\nquery = \"b\"",
            "query = \"a&b\"",
            "query = \"a\"\nprefix = \"b\"",
            "header = \"Host\"",
            "header = \"Proxy-Authorization\"",
            "header = \"Trailer\"",
            "header = \"Keep-Alive\"",
            "header = \"HTTP2-Settings\"",
            "header = \"Accept-Encoding\"",
            "header = \"Content-Encoding\"",
            "header = \"Range\"",
            "header = \"a b\"",
            "header = \"A\"\nprefix = \"b\\r\\nC: d\"",
            "body = true\nwhere = \"x\"",
        ] {
            assert!(with(&format!("{AUDIENCE}{place}")).is_err(), "{place}");
        }
    }

    #[test]
    fn an_audience_is_an_exact_origin() {
        let audience = |origin: &str| with(&format!("audience = [\"{origin}\"]\nbody = true"));
        for origin in [
            "https://api.github.com",
            "https://api.github.com:8443",
            "http://localhost:8080",
            "http://127.0.0.1:1",
            "http://[::1]:1",
            "https://localhost",
        ] {
            assert!(audience(origin).is_ok(), "{origin}");
        }
        for origin in [
            "http://api.github.com",
            "https://*.github.com",
            "https://api.github.com/",
            "https://api.github.com/v3",
            "https://API.github.com",
            "https://api.github.com.",
            "https://u@api.github.com",
            "https://api.github.com:0",
            "https://api.github.com:",
            "https://github",
            "https://10.0.0.1",
            "https://[fe80::1]",
            "http://127.1",
            "http://localhost.evil.example",
            "ftp://localhost",
            "api.github.com",
            "",
        ] {
            assert!(audience(origin).unwrap_err().contains("github"), "{origin}");
        }
        assert!(with("audience = []\nbody = true").is_err());
    }

    #[test]
    fn names_and_descriptions_are_checked() {
        let named = |name: &str| {
            parse(&format!("[credentials.\"{name}\"]\ndescription = \"d\"\n{AUDIENCE}body = true"))
        };
        assert!(named("hub-2").is_ok());
        for name in ["GitHub", "2hub", "", "a_b", "a.b"] {
            assert!(named(name).is_err(), "{name}");
        }
        assert!(parse(&format!("[credentials.a]\ndescription = \" \"\n{AUDIENCE}body = true")).is_err());
        assert!(
            parse(&format!("[credentials.a]\ndescription = \"a\\u001bb\"\n{AUDIENCE}body = true")).is_err()
        );
    }

    #[test]
    fn where_a_credential_comes_from_is_no_matter_of_the_plugin() {
        let error = parse("[capabilities.credentials]\ngithub = \"env:X\"").unwrap_err();
        assert!(error.contains("[credentials.github]"), "{error}");
    }
}
