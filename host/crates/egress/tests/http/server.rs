//! A server that says what it was told to say, byte by byte, and keeps what it was asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method};
use ml_intern_egress::{
    Body, Caller, Egress, EgressConfig, EgressError, Ledger, LedgerAct, LedgerLine, Limits, NetworkGrant,
    Outgoing, Policy,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Gives each request what `answer` says to its head; connections are kept.
    pub(crate) async fn start(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (connections, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (count, heads, answer) = (Arc::clone(&connections), Arc::clone(&asked), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(serve(stream, Arc::clone(&heads), Arc::clone(&answer)));
            }
        });
        Self { port, connections, asked }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// The heads of all requests, names of headers in lower case.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    asked: Arc<Mutex<Vec<String>>>,
    answer: Arc<impl Fn(&str) -> Vec<u8> + Send + Sync + 'static>,
) {
    let mut held = Vec::new();
    loop {
        let Some(end) = held.windows(4).position(|w| w == b"\r\n\r\n") else {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(n) if n > 0 => held.extend_from_slice(&piece[..n]),
                _ => return,
            }
            continue;
        };
        let head = String::from_utf8_lossy(&held[..end]).into_owned();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        held.drain(..end + 4);
        while held.len() < length.unwrap_or(0) {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            held.extend_from_slice(&piece[..n]);
        }
        held.drain(..length.unwrap_or(0));
        asked.lock().unwrap().push(head.clone());
        if stream.write_all(&answer(&head)).await.is_err() {
            return;
        }
    }
}

/// An answer with some headers and a body.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} -\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A way out with a ledger of its own.
pub(crate) struct Out {
    pub(crate) egress: Egress,
    state: tempfile::TempDir,
}

impl Out {
    pub(crate) fn new(config: EgressConfig) -> Self {
        let state = tempfile::tempdir().unwrap();
        let ledger = Some(Ledger::new(state.path(), "test"));
        Self { egress: Egress::new(EgressConfig { ledger, ..config }), state }
    }

    /// A GET of `p`, read to its end.
    pub(crate) async fn get(&self, grants: &[&str], url: &str) -> Result<String, EgressError> {
        self.send(request(grants, url)).await
    }

    pub(crate) async fn send(&self, request: Outgoing) -> Result<String, EgressError> {
        let body = self.egress.send(request).await?.bytes().await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    pub(crate) fn ledger(&self) -> Vec<LedgerAct> {
        let (lines, broken) = Ledger::read(self.state.path()).unwrap();
        assert_eq!(broken, 0);
        lines.into_iter().map(|LedgerLine { what, .. }| what).collect()
    }

    /// Origins and reasons of what was refused.
    pub(crate) fn refused(&self) -> Vec<(String, String)> {
        let refused = |act| match act {
            LedgerAct::Refused { origin, why, .. } => Some((origin, why)),
            _ => None,
        };
        self.ledger().into_iter().filter_map(refused).collect()
    }
}

/// A GET by plugin `p`.
pub(crate) fn request(grants: &[&str], url: &str) -> Outgoing {
    Outgoing {
        caller: Caller::Plugin("p".to_owned()),
        policy: Policy::Granted(grants.iter().map(|grant| NetworkGrant::parse(grant).unwrap()).collect()),
        approved: Vec::new(),
        method: Method::GET,
        url: url.parse().unwrap(),
        headers: HeaderMap::new(),
        body: Body::default(),
        decompress: false,
        limits: Limits { max_bytes: 1 << 20, redirects: 5, ..Limits::default() },
        credential: None,
    }
}

/// A request of the host itself, to an origin that the user named.
pub(crate) fn by_host(url: &str) -> Outgoing {
    Outgoing { caller: Caller::Host("test"), policy: Policy::Model, ..request(&[], url) }
}

/// The machine's own name, which its hosts file has; else one that every hosts file has.
pub(crate) fn own_name() -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let names = hosts.lines().filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    let mut names = names.flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned));
    names.find(|name| !name.ends_with("localhost")).unwrap_or_else(|| "ip6-loopback".to_owned())
}

pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
