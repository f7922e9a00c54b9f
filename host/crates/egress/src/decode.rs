//! Bodies that arrive compressed, for those who ask the host to unpack them.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header};

/// Bytes that a body may unpack to whatever it was packed in.
const FREE_BYTES: u64 = 1 << 20;

/// Times its own size that a body may unpack to beyond. Text and JSON stay below 50.
const MAX_RATIO: u64 = 200;

/// The encoding that is asked for. `deflate` is none of them: servers mean two different things by it.
pub(crate) const ACCEPTED: &str = "gzip";

/// Unpacks a body piece by piece.
pub(crate) struct Decoder(MultiGzDecoder<Capped>);

/// Why a body cannot be unpacked.
#[derive(Debug)]
pub(crate) enum DecodeError {
    Bomb,
    Broken(String),
}

/// Holds what was unpacked of a piece, and stops when it is too much.
pub(crate) struct Capped {
    out: Vec<u8>,
    /// Bytes that may still be unpacked, with what has arrived so far.
    left: u64,
}

impl Write for Capped {
    fn write(&mut self, unpacked: &[u8]) -> io::Result<usize> {
        let bytes = unpacked.len() as u64;
        self.left = self.left.checked_sub(bytes).ok_or(io::ErrorKind::QuotaExceeded)?;
        self.out.extend_from_slice(unpacked);
        Ok(unpacked.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decoder {
    /// A decoder for an answer with these headers, which then speak of the body that is handed on.
    pub(crate) fn of(headers: &mut HeaderMap) -> Option<Self> {
        let packed = headers.get(header::CONTENT_ENCODING)?.to_str().ok()?.trim().to_ascii_lowercase();
        if !matches!(packed.as_str(), ACCEPTED | "x-gzip") {
            return None;
        }
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        Some(Self(MultiGzDecoder::new(Capped { out: Vec::new(), left: FREE_BYTES })))
    }

    /// What a piece unpacks to.
    pub(crate) fn piece(&mut self, packed: &[u8]) -> Result<Bytes, DecodeError> {
        self.0.get_mut().left += packed.len() as u64 * MAX_RATIO;
        self.0.write_all(packed).and_then(|()| self.0.flush()).map_err(told)?;
        Ok(std::mem::take(&mut self.0.get_mut().out).into())
    }

    /// What was held back until the end. A body that ends too early is broken.
    pub(crate) fn end(&mut self) -> Result<Bytes, DecodeError> {
        self.0.try_finish().map_err(told)?;
        Ok(std::mem::take(&mut self.0.get_mut().out).into())
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Decoder")
    }
}

fn told(error: io::Error) -> DecodeError {
    match error.kind() {
        io::ErrorKind::QuotaExceeded => DecodeError::Bomb,
        _ => DecodeError::Broken(error.to_string()),
    }
}
