//! `CONNECT` to hosts that were granted.

use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use egress::{EgressError, Origin, Tunnel};
use http::{Method, Request, Response, StatusCode};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use url::Url;

use crate::answer::{Answered, whole};
use crate::gateway::Shared;
use crate::refusal::Refusal;

/// Bytes on the way, in each direction.
const BUFFER: usize = 64 << 10;

/// A tunnel that stands, and the client that will get it once it has its answer.
pub(crate) struct Standing {
    client: OnUpgrade,
    tunnel: Tunnel,
}

impl Shared {
    pub(crate) async fn proxy(
        &self,
        request: Request<hyper::body::Incoming>,
        hand: &mpsc::Sender<Standing>,
    ) -> Result<Response<Answered>, Refusal> {
        if request.method() != Method::CONNECT {
            let reason = "this proxy speaks CONNECT only: nothing leaves unencrypted, write https://";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, reason));
        }
        let origin = destination(request.uri())?;
        let grants = self.tunnels.read().unwrap_or_else(PoisonError::into_inner).clone();
        let tunnel = self.egress.tunnel(&self.caller(), &grants, &origin).await.map_err(|error| {
            let is_not_granted = matches!(error, EgressError::NotGranted { .. });
            let mut refusal = Refusal::from(error);
            if is_not_granted {
                let host = origin.host();
                refusal.reason = format!("{host} is not granted to commands: --allow 'host({host})' would");
            }
            refusal
        })?;
        let standing = Standing { client: hyper::upgrade::on(request), tunnel };
        let full = |_| Refusal::bad("a connection is one tunnel");
        hand.try_send(standing).map_err(full)?;
        Ok(Response::new(whole(Bytes::new())))
    }
}

/// `host:port`, read as the host of a URL is.
fn destination(uri: &http::Uri) -> Result<Origin, Refusal> {
    let refuse = || Refusal::bad("CONNECT names a host and a port, as in `CONNECT github.com:443`");
    let authority = uri.authority().map(http::uri::Authority::as_str).ok_or_else(refuse)?;
    let has_port = authority.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit())
    });
    if !has_port || authority.contains('@') || uri.path_and_query().is_some() || uri.scheme().is_some() {
        return Err(refuse());
    }
    let url = Url::parse(&format!("https://{authority}/")).map_err(|_| refuse())?;
    Origin::of(&url).map_err(|_| refuse())
}

/// Carries bytes both ways until one side ends it, or nothing moves for too long.
pub(crate) async fn carry(standing: Standing, patience: Duration) {
    let Standing { client, mut tunnel } = standing;
    let Ok(client) = client.await else { return };
    let (mut client, moved) = (TokioIo::new(client), tunnel.moved());
    let quiet = async {
        let mut before = moved.both();
        loop {
            tokio::time::sleep(patience).await;
            let now = moved.both();
            if now == before {
                return;
            }
            before = now;
        }
    };
    tokio::select! {
        // Either end may break it.
        _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut tunnel, BUFFER, BUFFER) => {}
        () = quiet => {}
    }
}
