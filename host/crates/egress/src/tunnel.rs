//! A connection that a command encrypts itself: decided like a request, and nothing of it is read.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use http::{Method, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service as _;

use crate::connector::{CONNECT, ConnectError, Wire};
use crate::ledger::Entry;
use crate::reach::Reach;
use crate::{Caller, Egress, EgressError, LedgerAct, NetworkGrant, Origin, Rewrite, rules};

/// What a tunnel may carry as well as anything else. Who allowed an origin for reading has not allowed one.
const CARRIED: [&str; 2] = ["GET", "POST"];

/// A connection to an origin. What went through it is on record when it is dropped.
#[derive(Debug)]
pub struct Tunnel {
    wire: TokioIo<Wire>,
    entry: Option<Entry>,
    moved: Arc<Moved>,
}

/// Bytes that went through a tunnel.
#[derive(Debug, Default)]
pub struct Moved {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Moved {
    /// Bytes to the origin and from it.
    #[must_use]
    pub fn both(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.received.load(Ordering::Relaxed))
    }
}

impl Egress {
    /// Connects to an origin for somebody who talks to it himself, decided as a request would be: any grant of the
    /// origin will do, whatever its methods, and the machine's policy has to allow reading and writing there.
    ///
    /// # Errors
    /// When it is not granted, leads to an address that it may not connect to, or cannot be connected to.
    pub async fn tunnel(
        &self,
        caller: &Caller,
        grants: &[NetworkGrant],
        origin: &Origin,
    ) -> Result<Tunnel, EgressError> {
        let method = Method::CONNECT;
        let on_record =
            |refusal: EgressError| match self.refused(caller, &method, origin.to_string(), &refusal) {
                Ok(()) => refusal,
                Err(unrecorded) => unrecorded,
            };
        let (reach, why) = self.tunnelled(grants, origin).map_err(on_record)?;
        let to = destination(origin).map_err(on_record)?;
        let mut entry = self.record(|| LedgerAct::Request {
            who: self.who(caller),
            method: method.to_string(),
            origin: origin.to_string(),
            real: None,
            why,
            sent: 0,
            credential: None,
        })?;
        let mut tunneller = self.shared.plugins.tunneller(reach);
        let connected = tokio::time::timeout(CONNECT, tunneller.call(to)).await;
        let error = match connected {
            Ok(Ok(wire)) => return Ok(Tunnel { wire: TokioIo::new(wire), entry, moved: Arc::default() }),
            Ok(Err(error)) => EgressError::of_connecting(origin, &*error),
            Err(_) => EgressError::of_connecting(origin, &ConnectError::Timeout),
        };
        if let Some(entry) = &mut entry {
            entry.end(match &error {
                EgressError::Connect { .. } => LedgerAct::Failed { why: error.to_string() },
                _ => self.refusal(caller, &method, origin.to_string(), &error),
            });
        }
        Err(error)
    }

    /// What allows a tunnel, and to which addresses.
    fn tunnelled(&self, grants: &[NetworkGrant], origin: &Origin) -> Result<(Reach, String), EgressError> {
        let config = &self.shared.config;
        let host = origin.host();
        if config.secrets.finds_in_name(&host) || config.secrets.finds(host.as_bytes()) {
            return Err(EgressError::Leak { origin: "an origin that is not named here".to_owned() });
        }
        for carried in CARRIED {
            config.ceiling.check(origin, carried, false)?;
        }
        rules::check(&config.rules, origin, "CONNECT", false)?;
        if config.offline {
            return Err(EgressError::Offline { origin: origin.to_string() });
        }
        if let Some(real) = self.mirror(origin).map(Rewrite::real) {
            return Err(EgressError::Mirrored { origin: origin.to_string(), real: real.to_string() });
        }
        let Some(grant) = grants.iter().find(|grant| grant.is_of(origin)) else {
            return Err(EgressError::NotGranted { origin: origin.to_string(), method: "CONNECT".to_owned() });
        };
        let named = grants.iter().flat_map(|grant| grant.addresses_for_any(origin)).collect();
        Ok((Reach::to(origin, named), grant.to_string()))
    }
}

/// An encrypted origin, port always named: so is every tunnel to a proxy.
fn destination(origin: &Origin) -> Result<Uri, EgressError> {
    let refuse = |reason: String| EgressError::Url { url: origin.to_string(), reason };
    if !origin.is_encrypted() {
        return Err(refuse("a tunnel is for what its ends encrypt".to_owned()));
    }
    let authority = format!("{}:{}", origin.host, origin.port);
    let uri = Uri::builder().scheme("https").authority(authority).path_and_query("/").build();
    uri.map_err(|e| refuse(e.to_string()))
}

impl Tunnel {
    /// Its counters, to be read while it is in use.
    #[must_use]
    pub fn moved(&self) -> Arc<Moved> {
        Arc::clone(&self.moved)
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        if let Some(entry) = &mut self.entry {
            let (sent, received) = self.moved.both();
            entry.end(LedgerAct::Closed { sent, received });
        }
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.wire).poll_read(context, into))?;
        let bytes = (into.filled().len() - before) as u64;
        self.moved.received.fetch_add(bytes, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.wire).poll_write(context, bytes))?;
        self.moved.sent.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(context)
    }
}
