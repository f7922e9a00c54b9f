//! Credentials against a server that reflects what it gets, in every form and in pieces.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use ml_intern_egress::{
    Body, Caller, Credential, Egress, EgressConfig, EgressError, Limits, NetworkGrant, Outgoing, Placement,
    Policy, Secret,
};
use redact::Redactor;
use secrecy::SecretString;

const TOKEN: &str = "ghp_A1b2C3+d4/e5=f6?g7~h8";

/// A loopback server that keeps what it gets and answers as it is told.
struct Recorder {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    fn start(answer: impl Fn(&str) -> Vec<u8> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(request) = read(stream.as_ref().unwrap()) else { continue };
                let bytes = answer(&request);
                kept.lock().unwrap().push(request);
                let _ = stream.unwrap().write_all(&bytes);
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn read(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(format!("{head}\r\n{}", String::from_utf8_lossy(&body)))
}

/// An answer whose body comes in pieces of `size` bytes.
fn chunked(head: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ntransfer-encoding: chunked\r\n{head}\r\n")
            .into_bytes();
    for piece in body.chunks(size) {
        answer.extend(format!("{:x}\r\n", piece.len()).bytes());
        answer.extend_from_slice(piece);
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"0\r\n\r\n");
    answer
}

fn redirect(status: u16, to: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} Moved\r\nconnection: close\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
        .into_bytes()
}

fn egress() -> Egress {
    let secrets = Redactor::new([("github".to_owned(), SecretString::from(TOKEN))]);
    Egress::new(EgressConfig { secrets, ..EgressConfig::default() })
}

fn header() -> Placement {
    Placement::Header { name: AUTHORIZATION, prefix: "Bearer ".to_owned() }
}

fn credential(audience: &str, placement: Placement) -> Credential {
    let secret = Secret { value: SecretString::from(TOKEN), hugging_face: false };
    Credential::new("github", &[audience.to_owned()], placement, secret).unwrap()
}

fn request(url: &str, granted: &[&str], credential: Option<Credential>) -> Outgoing {
    let patience = Duration::from_secs(20);
    Outgoing {
        caller: Caller::Plugin("test".to_owned()),
        policy: Policy::Granted(
            granted.iter().map(|o| NetworkGrant::parse(&format!("{o} GET POST")).unwrap()).collect(),
        ),
        approved: Vec::new(),
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Body::default(),
        limits: Limits {
            head: patience,
            idle: patience,
            max_bytes: 1 << 20,
            redirects: 5,
            ..Limits::default()
        },
        credential,
        decompress: false,
    }
}

fn posted(mut request: Outgoing, body: &str) -> Outgoing {
    request.method = Method::POST;
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.body = Body::from(Bytes::from(body.to_owned()));
    request
}

fn hex(text: &str, upper: bool) -> String {
    text.bytes().map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
}

fn percent(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// All that a server may make of the token.
fn reflections() -> Vec<String> {
    let mut all = vec![TOKEN.to_owned(), hex(TOKEN, false), hex(TOKEN, true), percent(TOKEN)];
    for before in ["", "u:", "user:"] {
        all.extend([
            STANDARD.encode(format!("{before}{TOKEN}.")),
            URL_SAFE.encode(format!("{before}{TOKEN}.")),
        ]);
    }
    all
}

fn holds_token(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    // The middle of each reflection: its ends depend on what stands beside it.
    reflections().iter().any(|form| text.contains(&form[8..form.len() - 8]))
}

#[tokio::test]
async fn what_a_server_reflects_comes_back_without_the_value_in_any_form_and_any_pieces() {
    for size in [1, 2, 3, 7, 4_096] {
        let server = Recorder::start(move |request| {
            assert!(request.contains(&format!("authorization: Bearer {TOKEN}\r\n")), "{request}");
            let body = format!("before|{}|after", reflections().join("|"));
            let head = format!(
                "x-echo: a {TOKEN} b\r\nwww-authenticate: Basic {}\r\nx-plain: same\r\n",
                STANDARD.encode(TOKEN)
            );
            chunked(&head, body.as_bytes(), size)
        });
        let request =
            request(&format!("{}/x", server.url), &[&server.url], Some(credential(&server.url, header())));
        let answer = egress().send(request).await.unwrap();
        let header = |name: &str| answer.headers[name].to_str().unwrap().to_owned();
        assert_eq!(header("x-echo"), "a [redacted:github] b");
        assert!(header("www-authenticate").starts_with("Basic [redacted:github]"));
        assert_eq!(header("x-plain"), "same");
        let body = answer.bytes().await.unwrap();
        assert!(!holds_token(&body), "{}", String::from_utf8_lossy(&body));
        assert!(body.starts_with(b"before|[redacted:github]|") && body.ends_with(b"|after"));
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn each_place_carries_it_and_nothing_else_changes() {
    let server = Recorder::start(|_| chunked("", b"ok", 10));
    let send = async |placement: Placement, body: Option<&str>| {
        let request = request(
            &format!("{}/x?a=1", server.url),
            &[&server.url],
            Some(credential(&server.url, placement)),
        );
        let request = match body {
            Some(body) => posted(request, body),
            None => request,
        };
        egress().send(request).await.unwrap().bytes().await.unwrap();
        server.requests().pop().unwrap()
    };
    let named = Placement::Header { name: HeaderName::from_static("x-api-key"), prefix: String::new() };
    assert!(send(named, None).await.contains(&format!("x-api-key: {TOKEN}\r\n")));
    let query = send(Placement::Query("key".to_owned()), None).await;
    assert!(query.starts_with(&format!("GET /x?a=1&key={} HTTP/1.1", percent(TOKEN))), "{query}");
    let body = send(Placement::Body, Some(r#"{"secrets": {"T": "{{credential:github}}"}, "n": 1.0}"#)).await;
    assert!(body.ends_with(&format!(r#"{{"secrets": {{"T": "{TOKEN}"}}, "n": 1.0}}"#)), "{body}");
}

#[tokio::test]
async fn it_is_dropped_when_a_redirect_leaves_the_audience() {
    let other = Recorder::start(|_| chunked("", b"other", 10));
    let target = format!("{}/elsewhere", other.url);
    let server = Recorder::start(move |request| {
        redirect(if request.starts_with("GET /x?kept") { 307 } else { 303 }, &target)
    });
    let granted = [server.url.as_str(), other.url.as_str()];
    for (placement, body) in [
        (header(), None),
        (Placement::Query("key".to_owned()), None),
        (Placement::Body, Some(r#"{"a": "{{credential:github}}"}"#)),
    ] {
        let path = if body.is_some() { "x" } else { "x?kept" };
        let request =
            request(&format!("{}/{path}", server.url), &granted, Some(credential(&server.url, placement)));
        let request = match body {
            Some(body) => posted(request, body),
            None => request,
        };
        let answer = egress().send(request).await.unwrap();
        assert_eq!(answer.bytes().await.unwrap(), "other");
    }
    assert!(server.requests().iter().all(|r| r.contains(TOKEN) || r.contains(&percent(TOKEN))));
    assert_eq!(other.requests().len(), 3);
    for request in other.requests() {
        assert!(!holds_token(request.as_bytes()) && !request.contains("authorization"), "{request}");
    }
}

#[tokio::test]
async fn within_the_audience_it_goes_along_once() {
    let server = Recorder::start(|request| match request.starts_with("GET /new") {
        true => chunked("", b"there", 10),
        false => redirect(301, &format!("/new?key={}&b=2", percent(TOKEN))),
    });
    let placement = Placement::Query("key".to_owned());
    let request =
        request(&format!("{}/old", server.url), &[&server.url], Some(credential(&server.url, placement)));
    let answer = egress().send(request).await.unwrap();
    assert!(!holds_token(answer.url.as_str().as_bytes()), "{}", answer.url);
    assert_eq!(answer.bytes().await.unwrap(), "there");
    assert!(server.requests()[1].starts_with(&format!("GET /new?b=2&key={} HTTP", percent(TOKEN))));
}

#[tokio::test]
async fn a_redirect_that_carries_the_value_elsewhere_is_not_followed() {
    let other = Recorder::start(|_| chunked("", b"got it", 10));
    for place in ["/?q=", "/", "/#"] {
        for form in [percent(TOKEN), hex(TOKEN, false), URL_SAFE.encode(TOKEN)] {
            let target = format!("{}{place}{form}", other.url);
            let server = Recorder::start(move |_| redirect(302, &target));
            let granted = [server.url.as_str(), other.url.as_str()];
            let request = request(&server.url, &granted, Some(credential(&server.url, header())));
            let error = egress().send(request).await.unwrap_err();
            assert!(matches!(error.root(), EgressError::Leak { .. }), "{error}");
            assert!(!holds_token(error.to_string().as_bytes()), "{error}");
        }
    }
    assert_eq!(other.requests().len(), 0);
    // Not followed because the request said so: the address is shown without it.
    let server = Recorder::start(|_| redirect(302, &format!("https://a.example/?q={TOKEN}")));
    let mut request = request(&server.url, &[&server.url], Some(credential(&server.url, header())));
    request.limits.redirects = 0;
    let answer = egress().send(request).await.unwrap();
    assert_eq!(answer.headers["location"], "https://a.example/?q=[redacted:github]");
}

#[tokio::test]
async fn a_plugin_that_has_a_secret_cannot_send_it() {
    let server = Recorder::start(|_| chunked("", b"got it", 10));
    let base = || request(&server.url, &[&server.url], None);
    let mut in_header = base();
    in_header.headers.insert("x-a", HeaderValue::from_str(&STANDARD.encode(TOKEN)).unwrap());
    let mut in_name = base();
    in_name
        .headers
        .insert(HeaderName::from_bytes(hex(TOKEN, false).as_bytes()).unwrap(), HeaderValue::from_static("1"));
    let mut in_pieces = base();
    in_pieces.method = Method::POST;
    let (left, right) = TOKEN.split_at(5);
    in_pieces.body = Body::from(vec![Bytes::from(left), Bytes::from(right)]);
    let mut in_host = request("http://127.0.0.1/", &[], None);
    in_host.url = format!("http://{}.example/", hex(TOKEN, true)).parse().unwrap();
    let in_path = request(&format!("{}/a/{}", server.url, percent(TOKEN)), &[&server.url], None);
    for request in
        [in_header, in_name, in_pieces, in_host, in_path, posted(base(), &format!("{{\"a\": \"{TOKEN}\"}}"))]
    {
        let error = egress().send(request).await.unwrap_err();
        assert!(matches!(error, EgressError::Leak { .. }), "{error}");
        assert!(!error.to_string().contains(&hex(TOKEN, false)), "{error}");
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn what_is_not_for_the_audience_or_cannot_be_protected_is_not_sent() {
    let server = Recorder::start(|_| chunked("", b"got it", 10));
    let granted = [server.url.as_str()];
    // Another port of the same host is another origin.
    let elsewhere = request(&server.url, &granted, Some(credential("http://127.0.0.1:1", header())));
    let mut given = request(&server.url, &granted, Some(credential(&server.url, header())));
    given.headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer mine"));
    let url = format!("{}/?%6bey=mine", server.url);
    let doubled = request(&url, &granted, Some(credential(&server.url, Placement::Query("key".to_owned()))));
    let unfilled =
        posted(request(&server.url, &granted, Some(credential(&server.url, Placement::Body))), "{}");
    let short = Secret { value: SecretString::from("short"), hugging_face: false };
    let short = Credential::new("github", std::slice::from_ref(&server.url), header(), short).unwrap();
    let short = request(&server.url, &granted, Some(short));
    for request in [elsewhere, given, doubled, unfilled, short] {
        let error = egress().send(request).await.unwrap_err();
        assert!(matches!(error, EgressError::Audience { .. } | EgressError::Credential { .. }), "{error}");
        assert!(!error.to_string().contains(TOKEN));
    }
    assert_eq!(server.requests().len(), 0);
}

#[tokio::test]
async fn an_answer_that_cannot_be_searched_is_refused() {
    let server = Recorder::start(|request| {
        assert!(request.contains("accept-encoding: identity\r\n"), "{request}");
        chunked("content-encoding: gzip\r\n", b"\x1f\x8b...", 10)
    });
    let mut request = request(&server.url, &[&server.url], Some(credential(&server.url, header())));
    request.headers.insert("accept-encoding", HeaderValue::from_static("gzip"));
    let error = egress().send(request).await.unwrap_err();
    assert!(matches!(error, EgressError::Encoded { .. }), "{error}");
}
