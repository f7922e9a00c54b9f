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
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tower_service::Service;

use crate::reach::Reach;

/// Time until a connection stands: name, socket and TLS.
const CONNECT: Duration = Duration::from_secs(10);

/// A silent connection is asked so often whether the other side still lives, and so many times.
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_TRIES: u32 = 3;

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
    #[error("the name cannot be resolved: {0}")]
    Name(String),
    #[error("no connection within {} s", CONNECT.as_secs())]
    Timeout,
}

impl Connector {
    /// Connects to what `reach` permits. SNI and `Host` stay the name that was asked for.
    pub(crate) fn new(reach: Arc<Reach>, tls: ClientConfig) -> Self {
        let tls = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(Checked { reach });
        Self { tls }
    }
}

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

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

/// Connects to addresses that were checked, whatever the name server says a second time.
#[derive(Clone, Debug)]
struct Checked {
    reach: Arc<Reach>,
}

impl Service<Uri> for Checked {
    type Response = TokioIo<TcpStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let reach = Arc::clone(&self.reach);
        Box::pin(async move {
            let host = to.host().unwrap_or_default();
            let addresses = resolve(host).await.map_err(|e| ConnectError::Name(e.to_string()))?;
            if let Some(address) = addresses.iter().find(|address| !reach.permits(**address)) {
                return Err(ConnectError::NotPermitted(*address).into());
            }
            let mut tcp = HttpConnector::new_with_resolver(Resolved(addresses));
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            tcp.set_keepalive(Some(KEEPALIVE));
            tcp.set_keepalive_interval(Some(KEEPALIVE));
            tcp.set_keepalive_retries(Some(KEEPALIVE_TRIES));
            tcp.call(to).await.map_err(BoxError::from)
        })
    }
}

/// All addresses of a host: its own if it is one, and `localhost` without asking anyone.
async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    if let Ok(address) = bare.parse() {
        return Ok(vec![address]);
    }
    if is_loopback_name(host) {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect())
}

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
