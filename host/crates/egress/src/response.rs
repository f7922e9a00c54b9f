use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use url::Url;

use crate::deadline::Deadline;
use crate::decode::{DecodeError, Decoder};
use crate::ledger::Entry;
use crate::{EgressError, LedgerAct, Limits, Origin};

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Incoming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Url,
    /// Where it sends the request, if it does and redirects are not followed: a place on a mirror as the one
    /// that it stands for.
    pub leads_to: Option<Url>,
    pub(crate) origin: Origin,
    pub(crate) limits: Limits,
    pub(crate) deadline: Deadline,
    /// Bytes that came, and bytes that were handed on.
    pub(crate) read: u64,
    pub(crate) handed: u64,
    pub(crate) decoder: Option<Decoder>,
    pub(crate) body: hyper::body::Incoming,
    pub(crate) entry: Option<Entry>,
    /// Takes secrets out of the body; none for the model's answers, nor for files that commands fetch where no
    /// credential went.
    pub(crate) scrubber: Option<redact::Scrubber>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(entry) = &mut self.entry {
            entry.end(LedgerAct::Answer { status: self.status.as_u16(), received: self.read });
        }
    }
}

impl Incoming {
    /// The next piece of the body, or none at its end.
    ///
    /// # Errors
    /// When the connection breaks, pauses longer than the limit, is too slow, or the body is too large.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        loop {
            let piece = self.piece().await?;
            let Some(scrubber) = &mut self.scrubber else { return Ok(piece) };
            match piece {
                // What is held back may be the beginning of a secret.
                Some(piece) => match scrubber.push(&piece) {
                    clean if clean.is_empty() => {}
                    clean => return Ok(Some(clean.into())),
                },
                None => {
                    let rest = scrubber.end();
                    return Ok((!rest.is_empty()).then(|| rest.into()));
                }
            }
        }
    }

    /// The next piece, as far as the limit of all of them allows it.
    async fn piece(&mut self) -> Result<Option<Bytes>, EgressError> {
        let Some(chunk) = self.unpacked().await? else { return Ok(None) };
        self.handed += chunk.len() as u64;
        if self.handed > self.limits.max_bytes {
            let (origin, limit) = (self.origin.to_string(), self.limits.max_bytes);
            return Err(EgressError::TooLarge { origin, limit });
        }
        Ok(Some(chunk))
    }

    /// The next piece as it was before it was compressed, if that was asked for.
    async fn unpacked(&mut self) -> Result<Option<Bytes>, EgressError> {
        loop {
            let packed = self.received().await?;
            let Some(decoder) = &mut self.decoder else { return Ok(packed) };
            let unpacked = match &packed {
                Some(packed) => decoder.piece(packed),
                None if self.read == 0 => return Ok(None),
                None => decoder.end(),
            };
            let origin = || self.origin.to_string();
            let unpacked = unpacked.map_err(|error| match error {
                DecodeError::Bomb => EgressError::Bomb(origin()),
                DecodeError::Broken(reason) => EgressError::Broken { origin: origin(), reason },
            })?;
            if packed.is_none() {
                self.decoder = None;
            }
            if !unpacked.is_empty() || packed.is_none() {
                return Ok(Some(unpacked).filter(|unpacked| !unpacked.is_empty()));
            }
        }
    }

    /// The next piece as it came; trailers are none.
    async fn received(&mut self) -> Result<Option<Bytes>, EgressError> {
        loop {
            let frame = self.deadline.wait(&self.origin, self.limits.idle, self.body.frame()).await?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|e| EgressError::Broken {
                origin: self.origin.to_string(),
                reason: EgressError::reason(&e),
            })?;
            if let Ok(data) = frame.into_data() {
                self.read += data.len() as u64;
                if !self.body.is_end_stream() {
                    self.deadline.arrived(&self.origin, data.len() as u64)?;
                }
                return Ok(Some(data));
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As for [`Incoming::chunk`].
    pub async fn bytes(mut self) -> Result<Bytes, EgressError> {
        let mut all = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.freeze())
    }
}
