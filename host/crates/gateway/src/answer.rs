//! Answers, built anew: a status, headers of a list, and the body as it comes.

use bytes::{Bytes, BytesMut};
use egress::{EgressError, Incoming};
use futures_util::stream;
use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;

use crate::gateway::Shared;
use crate::links::Links;
use crate::refusal::Refusal;

/// The body of an answer to a command.
pub(crate) type Answered = UnsyncBoxBody<Bytes, EgressError>;

/// Headers of an answer that a client gets. `Location` is none of them, nor are cookies, nor what belongs to a
/// connection, nor what leads to other services.
const KEPT: [&str; 26] = [
    "accept-ranges",
    "age",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "expires",
    "last-modified",
    "ratelimit",
    "ratelimit-policy",
    "retry-after",
    "x-error-code",
    "x-error-message",
    "x-linked-etag",
    "x-linked-size",
    "x-pypi-file-python-version",
    "x-pypi-file-version",
    "x-pypi-last-serial",
    "x-repo-commit",
    "x-request-id",
    "x-total-count",
];

/// Bytes of one of them.
const HEADER_BYTES: usize = 8 << 10;

/// A body that is there already.
pub(crate) fn whole(bytes: Bytes) -> Answered {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// A body that is handed on as it comes, no faster than it is taken.
pub(crate) fn streamed(answer: Incoming) -> Answered {
    let pieces = stream::try_unfold(answer, |mut answer| async move {
        Ok(answer.chunk().await?.map(|piece| (Frame::data(piece), answer)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// The same, with its links made to lead back.
pub(crate) fn relinked(answer: Incoming, links: Links) -> Answered {
    let pieces = stream::try_unfold(Some((answer, links)), |state| async move {
        let Some((mut answer, mut links)) = state else { return Ok(None) };
        while let Some(piece) = answer.chunk().await? {
            let decided = links.push(&piece);
            if !decided.is_empty() {
                return Ok(Some((Frame::data(decided), Some((answer, links)))));
            }
        }
        Ok(Some((Frame::data(links.end()), None)))
    });
    StreamBody::new(pieces).boxed_unsync()
}

/// An answer with the headers of the list.
pub(crate) fn with_head(status: StatusCode, headers: &HeaderMap, body: Answered) -> Response<Answered> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let one = |name: &&'static str| {
        let value = headers.get(*name).filter(|value| value.len() <= HEADER_BYTES)?;
        Some((header::HeaderName::from_static(name), value.clone()))
    };
    answer.headers_mut().extend(KEPT.iter().filter_map(one));
    answer
}

/// Refuses a body where none belongs.
pub(crate) fn without_body(body: &hyper::body::Incoming) -> Result<(), Refusal> {
    if body.is_end_stream() { Ok(()) } else { Err(Refusal::bad("a request that only reads has no body")) }
}

impl Shared {
    /// The whole body of a request, if it is not too large.
    pub(crate) async fn body(&self, mut body: hyper::body::Incoming, limit: usize) -> Result<Bytes, Refusal> {
        let too_large = || {
            let reason = format!(
                "a body of more than {} MiB does not go through the gateway in one request",
                limit >> 20
            );
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, reason)
        };
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let mut all = BytesMut::new();
        loop {
            let frame = tokio::time::timeout(self.patience.stall, body.frame()).await;
            let late = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body of the request did not come");
            let Some(frame) = frame.map_err(late)? else { return Ok(all.freeze()) };
            let frame = frame.map_err(|e| Refusal::bad(format!("the body of the request is broken: {e}")))?;
            if let Ok(piece) = frame.into_data() {
                if all.len() + piece.len() > limit {
                    return Err(too_large());
                }
                all.extend_from_slice(&piece);
            }
        }
    }
}
