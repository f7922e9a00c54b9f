use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use egress::{Egress, NetworkGrant};
use http::{Request, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::answer::Answered;
use crate::hub::{Hub, HubConfig};
use crate::packages::Indexes;
use crate::patient::Patient;
use crate::proxy::{Standing, carry};

/// Connections at a time, of all faces together.
const CONNECTIONS: usize = 512;

/// Connections beyond these, each of which is told so.
const TURNED_AWAY: usize = 64;

/// Headers of a request, in number and in bytes.
const MAX_HEADERS: usize = 64;
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Bytes of an answer that wait for the client.
const BUFFER: usize = 256 << 10;

/// Time after which one that could not be accepted is followed by the next: most often files are short.
const PAUSE: Duration = Duration::from_millis(100);

/// Says what runs behind the wall, for the ledger.
pub type Who = Arc<dyn Fn() -> String + Send + Sync>;

/// What a listener serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Face {
    Pypi,
    Hub,
    Proxy,
    Npm,
    Conda,
}

/// What a gateway serves, and for whom.
pub struct GatewayConfig {
    pub egress: Egress,
    pub who: Who,
    pub hub: HubConfig,
    /// Hosts to which commands get tunnels, whatever the methods of a grant.
    pub tunnels: Vec<NetworkGrant>,
    /// Whether [`Face::Npm`] and [`Face::Conda`] are served too.
    pub more_indexes: bool,
    pub patience: Patience,
}

/// How long a connection may do nothing.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Until the head of a request is there, also of the next one on the same connection.
    pub head: Duration,
    /// Until a client takes the next piece of an answer, or sends the next of a body.
    pub stall: Duration,
    /// A tunnel through which nothing goes.
    pub tunnel: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let (head, minutes) = (Duration::from_secs(30), |minutes: u64| Duration::from_secs(60 * minutes));
        Self { head, stall: minutes(5), tunnel: minutes(15) }
    }
}

/// Serves the loopback of commands. Cheap to clone.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

/// What all connections have in common.
pub(crate) struct Shared {
    pub(crate) egress: Egress,
    pub(crate) who: Who,
    pub(crate) hub: Hub,
    pub(crate) indexes: Indexes,
    pub(crate) tunnels: RwLock<Vec<NetworkGrant>>,
    pub(crate) more_indexes: bool,
    pub(crate) patience: Patience,
    open: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").finish_non_exhaustive()
    }
}

impl Gateway {
    /// Makes a gateway. Nothing is asked of anybody before a command asks.
    #[must_use]
    pub fn new(config: GatewayConfig) -> Self {
        let shared = Shared {
            egress: config.egress,
            who: config.who,
            hub: Hub::new(config.hub),
            indexes: Indexes::new(),
            tunnels: RwLock::new(config.tunnels),
            more_indexes: config.more_indexes,
            patience: config.patience,
            open: Arc::new(Semaphore::new(CONNECTIONS)),
            turned_away: Arc::new(Semaphore::new(TURNED_AWAY)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets commands have tunnels to one more host from now on.
    pub fn grant(&self, host: NetworkGrant) {
        self.shared.tunnels.write().unwrap_or_else(PoisonError::into_inner).push(host);
    }

    /// Serves what comes to a listener, which may lie in a network namespace of its own. With this future all its
    /// connections end, tunnels included.
    pub async fn serve(&self, face: Face, listener: TcpListener) -> Infallible {
        let mut connections = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(_) => {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                Some(_) = connections.join_next() => continue,
            };
            if let Ok(permit) = Arc::clone(&self.shared.open).try_acquire_owned() {
                let shared = Arc::clone(&self.shared);
                connections.spawn(async move {
                    shared.connection(face, stream).await;
                    drop(permit);
                });
            } else if let Ok(permit) = Arc::clone(&self.shared.turned_away).try_acquire_owned() {
                connections.spawn(async move {
                    let _ = tokio::time::timeout(PAUSE * 10, turn_away(stream)).await;
                    drop(permit);
                });
            }
        }
    }
}

/// Tells a client that there are too many. What it sent is read first: else it may not see the answer.
async fn turn_away(mut stream: TcpStream) -> io::Result<()> {
    let mut head = [0; 4096];
    let _ = stream.read(&mut head).await?;
    stream
        .write_all(
            b"HTTP/1.1 503 too many connections at a time\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n",
        )
        .await?;
    stream.shutdown().await?;
    while stream.read(&mut head).await? > 0 {}
    Ok(())
}

impl Shared {
    async fn connection(self: Arc<Self>, face: Face, stream: TcpStream) {
        let Ok(here) = stream.local_addr() else { return };
        // Small answers are not waited with until there are more.
        let _ = stream.set_nodelay(true);
        let here: Arc<str> = format!("http://{here}").into();
        let client = TokioIo::new(Patient::new(stream, self.patience.stall));
        let (hand, mut handed) = mpsc::channel::<Standing>(1);
        let service = service_fn(|request| {
            let (shared, here, hand) = (Arc::clone(&self), Arc::clone(&here), hand.clone());
            async move { Ok::<_, Infallible>(shared.answer(face, &here, request, hand).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.patience.head)
            .max_headers(MAX_HEADERS)
            .max_header_size(MAX_HEAD_BYTES)
            .max_buf_size(BUFFER)
            .serve_connection(client, service)
            .with_upgrades();
        // What fails is the client's own connection; what was asked stands in the ledger.
        let _ = connection.await;
        if let Ok(standing) = handed.try_recv() {
            carry(standing, self.patience.tunnel).await;
        }
    }

    async fn answer(
        &self,
        face: Face,
        here: &str,
        request: Request<hyper::body::Incoming>,
        hand: mpsc::Sender<Standing>,
    ) -> Response<Answered> {
        let method = request.method().clone();
        let answered = match face {
            Face::Pypi | Face::Npm | Face::Conda => self.packages(face, here, request).await,
            Face::Hub => self.hub(here, request).await,
            Face::Proxy => self.proxy(request, &hand).await,
        };
        answered.unwrap_or_else(|refusal| {
            if !refusal.is_on_record {
                // It is refused either way.
                let _ = self.egress.note_refusal(&self.caller(), &method, face.origin(), &refusal.reason);
            }
            refusal.answer(face)
        })
    }
}
