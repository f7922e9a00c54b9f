//! What a command asks for, as far as it goes out: its method, a checked path, a checked query, a few headers.

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use url::Url;

use crate::refusal::Refusal;
use crate::{Face, tokens};

/// Bytes of a path and its query.
const TARGET_BYTES: usize = 8 << 10;

/// Bytes of a header that goes out.
const HEADER_BYTES: usize = 512;

/// Bytes of the name of a client, of which the rest describes the machine it runs on.
const AGENT_BYTES: usize = 64;

/// Headers that go out as they came, if they are short and hold nothing that looks like a token.
const PASSED: [HeaderName; 4] =
    [header::ACCEPT, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_RANGE];

/// A request that can be understood in one way only.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// As it was written, beginning with a slash.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// The path taken apart at every slash, those too that were written with a percent sign.
    pub(crate) parts: Vec<String>,
    /// Those that go out.
    pub(crate) headers: HeaderMap,
}

impl Asked {
    /// Reads the head of a request to a mirror.
    pub(crate) fn read(head: &Parts, face: Face) -> Result<Self, Refusal> {
        check_host(&head.headers)?;
        if head.uri.scheme().is_some() || head.uri.authority().is_some() {
            return Err(Refusal::bad("this is a mirror and no proxy: ask it for a path"));
        }
        let (path, query) = (head.uri.path(), head.uri.query());
        if path.len() + query.map_or(0, str::len) > TARGET_BYTES {
            return Err(Refusal::new(http::StatusCode::URI_TOO_LONG, "the path is longer than 8 KiB"));
        }
        let parts = taken_apart(path, face)?;
        if query.is_some_and(|query| !query.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(Refusal::bad("the query has characters that no URL has"));
        }
        if query.is_some_and(tokens::are_in_query) || tokens::are_in_encoded(path) {
            return Err(Refusal::forbidden(
                "the URL holds what looks like a token; no token of a command goes out, and the host adds its own",
            ));
        }
        Ok(Self {
            method: head.method.clone(),
            path: path.to_owned(),
            query: query.map(str::to_owned),
            parts,
            headers: passed(&head.headers),
        })
    }

    /// The parts of the path, to be matched against.
    pub(crate) fn parts(&self) -> Vec<&str> {
        self.parts.iter().map(String::as_str).collect()
    }

    /// Whether it only reads.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.method, Method::GET | Method::HEAD)
    }

    /// The URL of this path, or of what follows `prefix` in it, at an origin.
    pub(crate) fn url(&self, origin: &str, prefix: &str) -> Result<Url, Refusal> {
        let rest = self.path.strip_prefix(prefix).unwrap_or(&self.path);
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        Url::parse(&format!("{origin}{rest}{query}"))
            .map_err(|e| Refusal::bad(format!("the path cannot be asked for: {e}")))
    }
}

/// Only this loopback's own names are answered.
fn check_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let mut all = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (all.next(), all.next()) else {
        return Err(Refusal::bad("a request names one host"));
    };
    let host = host.to_str().unwrap_or_default();
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, "0"),
    };
    let is_ours = ["127.0.0.1", "localhost", "[::1]"].contains(&name.to_ascii_lowercase().as_str());
    if !is_ours || port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        let status = http::StatusCode::MISDIRECTED_REQUEST;
        return Err(Refusal::new(
            status,
            "this is a mirror and no proxy: it answers to 127.0.0.1 and localhost only",
        ));
    }
    Ok(())
}

/// A path in parts, if there is only one way to read it.
fn taken_apart(path: &str, face: Face) -> Result<Vec<String>, Refusal> {
    let refuse = |why: &str| Refusal::bad(format!("the path {why}"));
    // As the way out will spell it: what it would change can be read in two ways.
    let respelt = Url::parse(&format!("https://mirror.invalid{path}")).map_err(|_| refuse("is none"))?;
    if !path.starts_with('/') || respelt.path() != path || path.contains("//") {
        return Err(refuse("has parts that could be read in two ways"));
    }
    let decoded = decoded(path).ok_or_else(|| refuse("has a percent sign that stands for nothing"))?;
    let lower = path.to_ascii_lowercase();
    // A revision such as `refs/pr/1` is one part of the Hub's paths.
    if lower.contains("%2f") && face != Face::Hub && face != Face::Npm {
        return Err(refuse("has a slash with a percent sign"));
    }
    let again = decoded.to_ascii_lowercase();
    if ["%2e", "%2f", "%5c", "%25"].iter().any(|twice| again.contains(twice)) {
        return Err(refuse("is encoded twice"));
    }
    if decoded.chars().any(|c| c.is_control() || c == '\\') {
        return Err(refuse("has characters that no path has"));
    }
    let parts: Vec<&str> = decoded.split('/').skip(1).collect();
    let (last, inner) = parts.split_last().ok_or_else(|| refuse("is empty"))?;
    if inner.iter().any(|part| part.is_empty()) || parts.iter().any(|part| *part == "." || *part == "..") {
        return Err(refuse("has parts that could be read in two ways"));
    }
    let last = (!last.is_empty()).then_some(last);
    Ok(inner.iter().chain(last).map(|part| (*part).to_owned()).collect())
}

/// A path without percent signs, if each of them stands for a byte of UTF-8.
fn decoded(path: &str) -> Option<String> {
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let digits = rest.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        out.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(out).ok()
}

/// The headers that go out.
fn passed(headers: &HeaderMap) -> HeaderMap {
    let harmless = |value: &&HeaderValue| {
        value.len() <= HEADER_BYTES && value.to_str().is_ok() && !tokens::are_in(value.as_bytes())
    };
    let one = |name: &HeaderName| Some((name.clone(), headers.get(name).filter(harmless)?.clone()));
    let mut out: HeaderMap = PASSED.iter().filter_map(one).collect();
    if let Some(range) = headers.get(header::RANGE).filter(|range| is_range(range)) {
        out.insert(header::RANGE, range.clone());
    }
    if let Some(agent) = headers.get(header::USER_AGENT).and_then(agent) {
        out.insert(header::USER_AGENT, agent);
    }
    out
}

/// `bytes=` and places.
fn is_range(range: &HeaderValue) -> bool {
    let places = range.to_str().ok().and_then(|range| range.strip_prefix("bytes="));
    places.is_some_and(|places| {
        (2..64).contains(&places.len()) && places.bytes().all(|b| b.is_ascii_digit() || b"-, ".contains(&b))
    })
}

/// The name of a client with its version: servers answer `git/…` otherwise than others.
fn agent(agent: &HeaderValue) -> Option<HeaderValue> {
    let is_part = |b: &u8| b.is_ascii_alphanumeric() || b"._/+-".contains(b);
    let name: Vec<u8> = agent.as_bytes().iter().copied().take_while(is_part).take(AGENT_BYTES).collect();
    if name.is_empty() || tokens::are_in(&name) {
        return None;
    }
    HeaderValue::from_bytes(&name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(face: Face, target: &str, headers: &[(&str, &str)]) -> Result<Asked, u16> {
        let mut request = http::Request::builder().uri(target).header("host", "127.0.0.1:8001");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, ()) = request.body(()).unwrap().into_parts();
        Asked::read(&head, face).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn a_path_that_could_be_read_in_two_ways_is_refused() {
        for target in [
            "/simple/../x",
            "/simple/./x",
            "/simple/%2e%2e/x",
            "/simple/.%2e/x",
            "/simple/%2E/x",
            "/simple//x",
            "//pypi.org/x",
            "/simple/%2f/x",
            "/simple/a%2f..%2fb",
            "/simple/a%5cb",
            "/simple/a\\b",
            "/simple/%00",
            "/simple/%0d%0ax",
            "/simple/%252e%252e/x",
            "/simple/%zz",
            "/simple/%",
            "/simple/%ff",
            "/simple/\"x",
            "http://127.0.0.1:8001/simple/",
            "http://elsewhere.test/simple/",
            "/a%2f..%2fb",
            "/a%2f%2fb",
        ] {
            for face in [Face::Pypi, Face::Hub] {
                assert_eq!(read(face, target, &[]).map(|asked| asked.path), Err(400), "{face:?} {target}");
            }
        }
        let asked = read(Face::Hub, "/a/b/resolve/refs%2Fpr%2F1/x%20y.bin?download=true", &[]).unwrap();
        assert_eq!(asked.parts(), ["a", "b", "resolve", "refs", "pr", "1", "x y.bin"]);
        let url = asked.url("https://huggingface.co", "").unwrap();
        assert_eq!(url.as_str(), "https://huggingface.co/a/b/resolve/refs%2Fpr%2F1/x%20y.bin?download=true");
        let asked = read(Face::Pypi, "/simple/torch/", &[]).unwrap();
        assert_eq!(asked.parts(), ["simple", "torch"]);
    }

    #[test]
    fn a_token_in_the_url_is_refused() {
        let token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567";
        for target in ["/api/models?token=x".to_owned(), format!("/{token}/x"), format!("/x?q={token}")] {
            assert_eq!(read(Face::Hub, &target, &[]).map(|asked| asked.path), Err(403), "{target}");
        }
    }

    #[test]
    fn only_short_headers_of_the_list_go_out() {
        let token = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567";
        let long = "x".repeat(600);
        let asked = read(
            Face::Hub,
            "/x",
            &[
                ("authorization", "Bearer mine"),
                ("cookie", "a=b"),
                ("x-anything", "y"),
                ("x-http-method-override", "DELETE"),
                ("accept", "application/json"),
                ("range", "bytes=1-2"),
                ("if-none-match", token),
                ("if-modified-since", &long),
                ("user-agent", "pip/24.0 {\"ci\":null,\"cpu\":\"x86_64\"}"),
            ],
        )
        .unwrap();
        let left: Vec<(&str, &str)> =
            asked.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(
            left,
            [("accept", "application/json"), ("range", "bytes=1-2"), ("user-agent", "pip/24.0")]
        );
        assert!(read(Face::Hub, "/x", &[("range", "bytes=1-2; secret")]).unwrap().headers.is_empty());
    }

    #[test]
    fn only_this_loopbacks_own_names_are_answered() {
        let status = |hosts: &[&str]| {
            let mut request = http::Request::builder().uri("/simple/");
            for host in hosts {
                request = request.header("host", *host);
            }
            let (head, ()) = request.body(()).unwrap().into_parts();
            Asked::read(&head, Face::Pypi).map_or_else(|refusal| refusal.status.as_u16(), |_| 200)
        };
        for host in ["127.0.0.1:80", "127.0.0.1", "localhost:8001", "LOCALHOST", "[::1]:8001", "[::1]"] {
            assert_eq!(status(&[host]), 200, "{host}");
        }
        for host in ["pypi.org", "127.0.0.1.evil.test", "localhost:", "user@localhost", "localhost:80x", ""] {
            assert_eq!(status(&[host]), 421, "{host}");
        }
        assert_eq!((status(&[]), status(&["localhost", "localhost"])), (400, 400));
    }
}
