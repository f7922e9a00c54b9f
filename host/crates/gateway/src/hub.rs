//! The Hugging Face Hub: read with the host's credential, written to once somebody said yes.

mod objects;
mod reads;
mod route;
mod writes;

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use egress::{Credential, NetworkGrant};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use url::Url;

use crate::Face;
use crate::answer::{Answered, without_body};
use crate::asked::Asked;
use crate::fetch::granted;
use crate::gateway::Shared;
use crate::hub::objects::Objects;
use crate::hub::route::Route;
use crate::refusal::Refusal;
use crate::tokens;

pub use writes::{AskWrite, HubFile, HubWrite, HubWriteKind};

pub(crate) const HUB: &str = "https://huggingface.co";

/// Where the Hub's answers may lead for files.
const STORAGE: [&str; 2] = ["https://*.hf.co", "https://*.huggingface.co"];

/// Bytes of a question that only reads.
const QUESTION_BYTES: usize = 1 << 20;

/// Bytes of what `git fetch` asks for, as sent and unpacked.
const GIT_BYTES: usize = 16 << 20;

/// Bytes of a write: what a person says yes to is held whole.
const WRITE_BYTES: usize = 64 << 20;

/// Kinds of bodies that go out by their names.
const KINDS: [&str; 6] = [
    "application/json",
    "application/x-ndjson",
    "application/x-www-form-urlencoded",
    "application/vnd.git-lfs+json",
    "application/x-git-receive-pack-request",
    "application/x-git-upload-pack-request",
];

/// What commands get of the Hub.
#[derive(Clone, Default)]
pub struct HubConfig {
    /// Added to reads of repositories and to writes that somebody said yes to. For `https://huggingface.co`.
    pub credential: Option<Credential>,
    /// Where files of a private hub are, beside its own origin: answers may lead there.
    pub storage: Vec<NetworkGrant>,
    /// Asked before each write. Without it all writes are refused.
    pub ask: Option<AskWrite>,
}

pub(crate) struct Hub {
    credential: Option<Credential>,
    ask: Option<AskWrite>,
    /// The Hub itself and its storage, for reading.
    reads: Vec<NetworkGrant>,
    /// Questions that are asked by POST.
    questions: Vec<NetworkGrant>,
    writes: Vec<NetworkGrant>,
    objects: Mutex<Objects>,
}

impl Hub {
    pub(crate) fn new(config: HubConfig) -> Self {
        let mut reads = granted(&[HUB, STORAGE[0], STORAGE[1]], "GET HEAD");
        reads.extend(config.storage);
        Self {
            credential: config.credential,
            ask: config.ask,
            reads,
            questions: granted(&[HUB], "POST"),
            writes: granted(&[HUB], "POST PUT PATCH DELETE"),
            objects: Mutex::default(),
        }
    }
}

impl Shared {
    pub(crate) async fn hub(
        &self,
        here: &str,
        request: Request<hyper::body::Incoming>,
    ) -> Result<Response<Answered>, Refusal> {
        let (head, body) = request.into_parts();
        let mut asked = Asked::read(&head, Face::Hub)?;
        match route::of(&asked)? {
            Route::Read { of_repository } => {
                without_body(&body)?;
                git_protocol(&head, &mut asked.headers);
                self.read(here, asked, of_repository).await
            }
            Route::Question => {
                content_type(&head, &mut asked.headers);
                let body = self.body(body, QUESTION_BYTES).await?;
                self.question(here, asked, checked(body)?).await
            }
            Route::GitFetch => {
                content_type(&head, &mut asked.headers);
                git_protocol(&head, &mut asked.headers);
                let body = unpacked(&head, self.body(body, GIT_BYTES).await?, GIT_BYTES)?;
                self.question(here, asked, checked(body)?).await
            }
            Route::Batch(repository) => {
                content_type(&head, &mut asked.headers);
                let body = checked(self.body(body, QUESTION_BYTES).await?)?;
                self.batch(here, asked, repository, body).await
            }
            Route::Object(id) => {
                let object = self.hub.objects.lock().unwrap_or_else(PoisonError::into_inner).get(id);
                let object =
                    object.ok_or_else(|| Refusal::missing("this link is not known here, or not any more"))?;
                let limit = if asked.reads() { 0 } else { WRITE_BYTES };
                let body = if limit == 0 {
                    without_body(&body)?;
                    Bytes::new()
                } else {
                    self.may_be_asked()?;
                    self.body(body, limit).await?
                };
                content_type(&head, &mut asked.headers);
                self.object(asked, object, body).await
            }
            Route::Write(kind, repository) => {
                // Not a byte is held of what nobody will be asked about.
                self.may_be_asked()?;
                content_type(&head, &mut asked.headers);
                let body = unpacked(&head, self.body(body, WRITE_BYTES).await?, WRITE_BYTES)?;
                self.write(asked, kind, repository, checked(body)?).await
            }
        }
    }

    /// The host's credential, if it goes along to this URL: not to a mirror that gets none.
    fn credential(&self, url: &Url) -> Option<&Credential> {
        self.hub.credential.as_ref().filter(|credential| self.egress.carries(credential, url).is_ok())
    }
}

/// Refuses a body that holds what looks like a token.
fn checked(body: Bytes) -> Result<Bytes, Refusal> {
    if tokens::are_in(&body) {
        return Err(Refusal::forbidden(
            "the body holds what looks like a token; no token of a command goes out, and the host adds its own",
        ));
    }
    Ok(body)
}

fn content_type(head: &Parts, headers: &mut HeaderMap) {
    let kind = head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if let Some(known) = KINDS.iter().find(|known| **known == kind) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(known));
    }
}

fn git_protocol(head: &Parts, headers: &mut HeaderMap) {
    let name = HeaderName::from_static("git-protocol");
    let version =
        head.headers.get(&name).filter(|version| ["version=1", "version=2"].iter().any(|v| version == v));
    if let Some(version) = version {
        headers.insert(name, version.clone());
    }
}

/// A body without the packing that git gives it.
fn unpacked(head: &Parts, body: Bytes, limit: usize) -> Result<Bytes, Refusal> {
    use std::io::Read as _;
    let Some(encoding) = head.headers.get(header::CONTENT_ENCODING) else { return Ok(body) };
    if !["gzip", "x-gzip"].iter().any(|known| encoding == known) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body comes as it is, or with gzip"));
    }
    let mut out = Vec::new();
    let read = flate2::read::GzDecoder::new(&body[..]).take(limit as u64 + 1).read_to_end(&mut out);
    read.map_err(|e| Refusal::bad(format!("the body is not what gzip makes: {e}")))?;
    if out.len() > limit {
        return Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "the body unpacks to more than is taken"));
    }
    Ok(out.into())
}

/// What a request that sends says it is not.
fn is_method(asked: &Asked, method: &Method) -> bool {
    asked.method == *method
}
