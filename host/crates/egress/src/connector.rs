//! Connections: a name is resolved once, every address it has is checked, and a checked one is connected to.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::Proxy;
use crate::ceiling::{By, Denials};
use crate::reach::Reach;

/// Time until a connection stands: name, socket and TLS.
pub(crate) const CONNECT: Duration = Duration::from_secs(10);

/// A silent connection is asked so often whether the other side still lives, and so many times.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;

type Connecting<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Makes the connections of one pool.
#[derive(Clone, Debug)]
pub(crate) struct Connector {
    tls: HttpsConnector<Checked>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{0} is not an address that may be connected to")]
    NotPermitted(IpAddr),
    #[error("{what} is denied")]
    Denied { what: String, by: By },
    #[error("the name cannot be resolved: {0}")]
    Name(String),
    #[error("no connection within {} s", CONNECT.as_secs())]
    Timeout,
}

impl Connector {
    /// Connects to what the gate lets through, by the proxy if there is one. SNI and `Host` stay the name that
    /// was asked for.
    pub(crate) fn new(gate: Gate, tls: ClientConfig, proxy: Option<Proxy>) -> Self {
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Checked { gate, proxy });
        Self { tls }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<Wire>;
    type Error = BoxError;
    type Future = Connecting<Self::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tls.poll_ready(context)
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let connecting = self.tls.call(to);
        Box::pin(async move {
            tokio::time::timeout(CONNECT, connecting).await.map_err(|_| ConnectError::Timeout)?
        })
    }
}

/// Which addresses are let through.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) reach: Arc<Reach>,
    pub(crate) denied: Arc<Denials>,
    /// For requests of the host itself, to origins that the user or the host named.
    pub(crate) is_own: bool,
}

/// Connects to addresses that were checked, whatever the name server says a second time.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    pub(crate) gate: Gate,
    pub(crate) proxy: Option<Proxy>,
}

impl Service<Uri> for Checked {
    type Response = Wire;
    type Error = BoxError;
    type Future = Connecting<Wire>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let Self { gate, proxy } = self.clone();
        Box::pin(async move {
            let via = proxy.and_then(|proxy| proxy.on_the_way_to(&to));
            let Some(via) = via else {
                return Ok(Wire { tcp: gate.connect(to).await?, proxied: false });
            };
            // The proxy asks for the name once more; at least nothing is asked of it that was not decided.
            gate.check_behind_proxy(&to).await?;
            let denied = Arc::new(gate.denied.of_policy());
            let gate = Gate { reach: Arc::new(Reach::Any), denied, ..gate };
            if to.scheme_str() != Some("https") {
                return Ok(Wire { tcp: gate.connect(via.uri().clone()).await?, proxied: true });
            }
            let mut tunnel = Tunnel::new(via.uri().clone(), Self { gate, proxy: None });
            if let Some(authorization) = via.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            tunnel.call(to).await.map_err(BoxError::from)
        })
    }
}

impl Gate {
    /// Resolves a destination, and hands on its addresses if all of them are let through.
    async fn checked(&self, to: &Uri) -> Result<Vec<IpAddr>, ConnectError> {
        let host = to.host().unwrap_or_default();
        let denied = |what: String, by: &By| ConnectError::Denied { what, by: by.clone() };
        if let Some(by) = self.denied.of_host(host) {
            return Err(denied(host.to_owned(), by));
        }
        let addresses = resolve(host).await.map_err(|e| ConnectError::Name(e.to_string()))?;
        for address in &addresses {
            if let Some(by) = self.denied.of_address(*address) {
                return Err(denied(address.to_string(), by));
            }
            if !self.reach.permits(*address) {
                return Err(ConnectError::NotPermitted(*address));
            }
        }
        Ok(addresses)
    }

    /// Checks a destination that a proxy will connect to.
    async fn check_behind_proxy(&self, to: &Uri) -> Result<(), ConnectError> {
        if *self.reach == Reach::Any && self.denied.is_empty() {
            return Ok(());
        }
        match self.checked(to).await {
            // Where names are known to the proxy alone, those of the host's own requests are its affair.
            Err(ConnectError::Name(_)) if self.is_own => Ok(()),
            checked => checked.map(drop),
        }
    }

    /// Connects to a destination, at an address that was checked.
    async fn connect(&self, to: Uri) -> Result<TokioIo<TcpStream>, BoxError> {
        let mut tcp = HttpConnector::new_with_resolver(Resolved(self.checked(&to).await?));
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
        tcp.call(to).await.map_err(BoxError::from)
    }
}

/// A connection, to the destination or to a proxy that is told the whole URL of each request.
#[derive(Debug)]
pub(crate) struct Wire {
    tcp: TokioIo<TcpStream>,
    proxied: bool,
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        self.tcp.connected().proxy(self.proxied)
    }
}

impl rt::Read for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(context, into)
    }
}

impl rt::Write for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(context)
    }
}

/// All addresses of a host: its own if it is one, and `localhost` without asking anyone.
async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    if is_loopback_name(host) {
        return Ok(LOOPBACK.into());
    }
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

/// This machine, from inside.
pub(crate) const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// `localhost` and every name below it.
pub(crate) fn is_loopback_name(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// The answer to the question for a name: what was found and checked before.
#[derive(Clone)]
struct Resolved(Vec<IpAddr>);

impl Service<Name> for Resolved {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        // The port is put in by who asks.
        let addresses: Vec<SocketAddr> = self.0.iter().map(|address| SocketAddr::new(*address, 0)).collect();
        ready(Ok(addresses.into_iter()))
    }
}
