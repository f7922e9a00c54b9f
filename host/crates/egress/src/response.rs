use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use url::Url;

use crate::ledger::Entry;
use crate::{EgressError, LedgerAct, Limits, Origin};

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Incoming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Url,
    pub(crate) origin: Origin,
    pub(crate) limits: Limits,
    pub(crate) read: u64,
    pub(crate) inner: reqwest::Response,
    pub(crate) entry: Option<Entry>,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            entry.end(LedgerAct::Answer { status: self.status.as_u16(), received: self.read });
        }
    }
}

impl Incoming {
    /// The next piece of the body, or none at its end.
    ///
    /// # Errors
    /// When the connection breaks, pauses longer than the limit, or the body is too large.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, EgressError> {
        let next = tokio::time::timeout(self.limits.idle, self.inner.chunk()).await;
        let chunk = next
            .map_err(|_| EgressError::Timeout { origin: self.origin.to_string(), limit: self.limits.idle })?
            .map_err(|e| EgressError::Broken {
                origin: self.origin.to_string(),
                reason: EgressError::reason(&e),
            })?;
        if let Some(chunk) = &chunk {
            self.read += chunk.len() as u64;
            if self.read > self.limits.max_bytes {
                return Err(EgressError::TooLarge {
                    origin: self.origin.to_string(),
                    limit: self.limits.max_bytes,
                });
            }
        }
        Ok(chunk)
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
