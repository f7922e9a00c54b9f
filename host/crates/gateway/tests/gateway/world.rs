//! Servers that stand for the origins, a gateway before them, and a client that says what it is told to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use egress::{
    Credential, Egress, EgressConfig, Ledger, LedgerAct, MirrorTrust, NetworkGrant, Placement, Rewrite,
    Secret,
};
use ml_intern_gateway::{AskWrite, Face, Gateway, GatewayConfig, HubConfig, Patience};
use redact::Redactor;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The host's own token, of which commands know nothing.
pub(crate) const TOKEN: &str = "hf_HostHostHostHostHostHostHostHost12";

/// A request as a server got it.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    /// Names of headers in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Got {
    pub(crate) fn line(&self) -> &str {
        self.head.lines().next().unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &str {
        self.line().split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

type Answer = dyn Fn(&Got) -> Vec<u8> + Send + Sync;

/// A server that says what it was told to say, and keeps what it was asked.
pub(crate) struct Server {
    pub(crate) port: u16,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Server {
    pub(crate) async fn start(answer: impl Fn(&Got) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let got = Arc::<Mutex<Vec<Got>>>::default();
        let (kept, answer): (_, Arc<Answer>) = (Arc::clone(&got), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&kept), Arc::clone(&answer)));
            }
        });
        Self { port, got }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.got().iter().map(|got| got.line().to_owned()).collect()
    }
}

async fn serve(mut stream: TcpStream, kept: Arc<Mutex<Vec<Got>>>, answer: Arc<Answer>) {
    let mut held = Vec::new();
    while let Some(end) = until(&mut stream, &mut held, |held| find(held, b"\r\n\r\n")).await {
        let head = String::from_utf8_lossy(&held[..end]).into_owned();
        held.drain(..end + 4);
        let mut got = Got { head, body: Vec::new() };
        let length: usize = got.header("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
        let Some(_) = until(&mut stream, &mut held, |held| (held.len() >= length).then_some(0)).await else {
            return;
        };
        got.body = held.drain(..length).collect();
        kept.lock().unwrap().push(got.clone());
        if stream.write_all(&answer(&got)).await.is_err() {
            return;
        }
    }
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

async fn until(
    stream: &mut TcpStream,
    held: &mut Vec<u8>,
    is_there: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    loop {
        if let Some(found) = is_there(held) {
            return Some(found);
        }
        let mut piece = [0; 16 << 10];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        held.extend_from_slice(&piece[..n]);
    }
}

/// An answer with some headers, each ended by a line break, and a body.
pub(crate) fn answer(status: u16, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer =
        format!("HTTP/1.1 {status} -\r\n{headers}content-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

/// The answer to a GET or HEAD of a file, ranges too.
pub(crate) fn file(got: &Got, headers: &str, body: &[u8]) -> Vec<u8> {
    let range = got.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (status, headers, part) = match range {
        Some((from, to)) => {
            let last = body.len() - 1;
            let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
                (Ok(from), Ok(to)) => (from, to.min(last)),
                (Ok(from), Err(_)) => (from, last),
                (Err(_), tail) => (body.len().saturating_sub(tail.unwrap_or(0)), last),
            };
            let range = format!("{headers}content-range: bytes {from}-{to}/{}\r\n", body.len());
            (206, range, &body[from..=to])
        }
        None => (200, headers.to_owned(), body),
    };
    let mut whole = answer(status, &format!("{headers}accept-ranges: bytes\r\n"), part);
    if got.line().starts_with("HEAD") {
        whole.truncate(whole.len() - part.len());
    }
    whole
}

/// A gateway with one server for each origin.
pub(crate) struct World {
    pub(crate) pypi: u16,
    pub(crate) hub: u16,
    pub(crate) proxy: u16,
    pub(crate) npm: u16,
    pub(crate) conda: u16,
    pub(crate) gateway: Gateway,
    state: tempfile::TempDir,
}

/// What a world is made of.
#[derive(Default)]
pub(crate) struct Parts {
    /// Origins and what stands for them.
    pub(crate) mirrors: Vec<(&'static str, String)>,
    pub(crate) without_token: bool,
    pub(crate) ask: Option<AskWrite>,
    pub(crate) tunnels: Vec<String>,
    /// What runs, if it is not `pip download x`.
    pub(crate) who: Option<&'static str>,
    pub(crate) more_indexes: bool,
    pub(crate) patience: Option<Patience>,
    pub(crate) config: EgressConfig,
}

impl World {
    pub(crate) async fn start(parts: Parts) -> Self {
        let state = tempfile::tempdir().unwrap();
        let secret = Secret { value: SecretString::from(TOKEN), hugging_face: true };
        let placement = Placement::Header { name: http::header::AUTHORIZATION, prefix: "Bearer ".to_owned() };
        let audience = ["https://huggingface.co".to_owned()];
        let credential = Credential::new("hf", &audience, placement, secret).unwrap();
        let methods = ["GET", "HEAD", "POST", "PUT", "DELETE"].map(str::to_owned).to_vec();
        // Trusted with everything: what does not reach them was not sent.
        let rewrite = |(from, to): &(&str, String)| {
            let trust = MirrorTrust { credentials: true, private: false, methods: methods.clone() };
            Rewrite::new(from, to, trust).unwrap()
        };
        let egress = Egress::new(EgressConfig {
            ledger: Some(Ledger::new(state.path(), "test")),
            secrets: Redactor::new([("hf".to_owned(), SecretString::from(TOKEN))]),
            rewrites: parts.mirrors.iter().map(rewrite).collect(),
            ..parts.config
        });
        let tunnels = parts.tunnels.iter().map(|grant| NetworkGrant::parse(grant).unwrap()).collect();
        let gateway = Gateway::new(GatewayConfig {
            egress,
            who: Arc::new(move || parts.who.unwrap_or("pip download x").to_owned()),
            hub: HubConfig {
                credential: (!parts.without_token).then_some(credential),
                storage: Vec::new(),
                ask: parts.ask,
            },
            tunnels,
            more_indexes: parts.more_indexes,
            patience: parts.patience.unwrap_or_default(),
        });
        let mut ports = Vec::new();
        for face in [Face::Pypi, Face::Hub, Face::Proxy, Face::Npm, Face::Conda] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            ports.push(listener.local_addr().unwrap().port());
            let gateway = gateway.clone();
            tokio::spawn(async move { gateway.serve(face, listener).await });
        }
        Self {
            pypi: ports[0],
            hub: ports[1],
            proxy: ports[2],
            npm: ports[3],
            conda: ports[4],
            gateway,
            state,
        }
    }

    pub(crate) fn ledger(&self) -> Vec<LedgerAct> {
        let (lines, broken) = Ledger::read(self.state.path()).unwrap();
        assert_eq!(broken, 0);
        lines.into_iter().map(|line| line.what).collect()
    }

    /// Why what was refused was.
    pub(crate) fn refusals(&self) -> Vec<String> {
        let why = |act| match act {
            LedgerAct::Refused { why, .. } => Some(why),
            _ => None,
        };
        self.ledger().into_iter().filter_map(why).collect()
    }
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) status: u16,
    pub(crate) head: Got,
    pub(crate) body: Vec<u8>,
}

impl Told {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends bytes and reads until the other side is done. Never for ever.
pub(crate) async fn raw(port: u16, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let mut all = Vec::new();
    let talk = async {
        // It may be turned away before all of it was said.
        let _ = stream.write_all(bytes).await;
        let _ = stream.read_to_end(&mut all).await;
    };
    tokio::time::timeout(Duration::from_secs(60), talk).await.expect("the connection is never closed");
    all
}

/// One request, with its body if it has one.
pub(crate) async fn ask(port: u16, method: &str, path: &str, headers: &str, body: &[u8]) -> Told {
    let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{headers}{length}\r\n"
    );
    let all = raw(port, &[head.as_bytes(), body].concat()).await;
    let end = find(&all, b"\r\n\r\n").unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(&all)));
    let head = Got { head: String::from_utf8_lossy(&all[..end]).into_owned(), body: Vec::new() };
    let status = head.line().split(' ').nth(1).unwrap().parse().unwrap();
    let mut body = all[end + 4..].to_vec();
    if head.header("transfer-encoding").is_some() {
        body = joined(&body);
    }
    Told { status, head, body }
}

pub(crate) async fn get(port: u16, path: &str) -> Told {
    ask(port, "GET", path, "", b"").await
}

/// A body that came in chunks.
fn joined(mut chunked: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = find(chunked, b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&chunked[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            return all;
        }
        all.extend_from_slice(&chunked[end + 2..end + 2 + size]);
        chunked = &chunked[end + 4 + size..];
    }
    panic!("the body ends too early")
}

/// Runs a test to its end. One that waits for what never comes fails, and holds nothing up.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(240), future).await })
        .expect("it hangs")
}
