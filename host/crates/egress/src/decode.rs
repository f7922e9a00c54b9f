//! Bodies that arrive compressed, for those who ask the host to unpack them.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

/// Bytes that a body may unpack to whatever it was packed in.
const FREE_BYTES: u64 = 1 << 20;

/// Times its own size that a body may unpack to beyond. Text and JSON stay below 50.
const MAX_RATIO: u64 = 200;

/// Unpacks a body piece by piece.
pub(crate) enum Decoder {
    Gzip(MultiGzDecoder<Capped>),
    Deflate(ZlibDecoder<Capped>),
}

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
        let capped = Capped { out: Vec::new(), left: FREE_BYTES };
        let decoder = match packed.as_str() {
            "gzip" | "x-gzip" => Self::Gzip(MultiGzDecoder::new(capped)),
            "deflate" => Self::Deflate(ZlibDecoder::new(capped)),
            _ => return None,
        };
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_LENGTH);
        Some(decoder)
    }

    /// What a piece unpacks to.
    pub(crate) fn piece(&mut self, packed: &[u8]) -> Result<Bytes, DecodeError> {
        self.capped().left += packed.len() as u64 * MAX_RATIO;
        let done = match self {
            Self::Gzip(decoder) => decoder.write_all(packed).and_then(|()| decoder.flush()),
            Self::Deflate(decoder) => decoder.write_all(packed).and_then(|()| decoder.flush()),
        };
        done.map_err(told)?;
        Ok(std::mem::take(&mut self.capped().out).into())
    }

    /// What was held back until the end. A body that ends too early is broken.
    pub(crate) fn end(&mut self) -> Result<Bytes, DecodeError> {
        match self {
            Self::Gzip(decoder) => decoder.try_finish(),
            Self::Deflate(decoder) => decoder.try_finish(),
        }
        .map_err(told)?;
        Ok(std::mem::take(&mut self.capped().out).into())
    }

    fn capped(&mut self) -> &mut Capped {
        match self {
            Self::Gzip(decoder) => decoder.get_mut(),
            Self::Deflate(decoder) => decoder.get_mut(),
        }
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
