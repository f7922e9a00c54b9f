use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use egress::{Body, Caller, Incoming, Limits, Outgoing, Policy};
use http::{HeaderValue, Method, header};
use protocol::ToolSpec;

use crate::catalog::Price;
use crate::classify::{answered, complaint, on_the_way};
use crate::completion::CompletionOptions;
use crate::effort::Effort;
use crate::error::ProviderError;
use crate::prompt::Prompt;
use crate::server_error::ServerError;
use crate::settings::WireFormat;
use crate::stream::CompletionStream;
use crate::target::{Route, Target};
use crate::{chat, messages, responses};

/// Tokens that a model is taken to hold when nobody knows.
const CONTEXT_WINDOW: u64 = 200_000;

/// Time until the head of an answer, and between two pieces of it.
const PATIENCE: Duration = Duration::from_secs(600);

/// Bytes of a whole answer, and of an error.
const MAX_ANSWER: u64 = 64 << 20;
const MAX_ERROR: usize = 64 << 10;

/// A model at the provider that its id leads to. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) target: Arc<Target>,
    /// What was found out about it since it was resolved.
    pub(crate) window: Option<u64>,
    pub(crate) price: Option<Price>,
}

impl Model {
    pub(crate) fn new(target: Target) -> Self {
        Self { target: Arc::new(target), window: None, price: None }
    }

    /// Its id, without `huggingface/`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.target.id
    }

    /// Its name in requests.
    #[must_use]
    pub fn wire_name(&self) -> &str {
        &self.target.wire_name
    }

    /// Where requests go: an origin.
    #[must_use]
    pub fn route(&self) -> &str {
        self.target.origin()
    }

    /// Who pays, such as `your Hugging Face account`.
    #[must_use]
    pub fn payer(&self) -> &str {
        &self.target.payer
    }

    #[must_use]
    pub fn wire(&self) -> WireFormat {
        self.target.wire
    }

    /// Whether it is one of the kinds of server on the user's own machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        matches!(self.target.route, Route::Local(_))
    }

    /// Tokens that it holds: what was set, else what is known, else 200,000.
    #[must_use]
    pub fn context_window(&self) -> u64 {
        self.window.or(self.target.facts.context).unwrap_or(CONTEXT_WINDOW)
    }

    /// The same model, taken to hold so many tokens.
    #[must_use]
    pub fn with_context_window(mut self, tokens: u64) -> Self {
        self.window = Some(tokens);
        self
    }

    /// The efforts that can be sent to it as they are; empty if it is told none. A completion fits any
    /// other effort to these.
    #[must_use]
    pub fn efforts(&self) -> &[Effort] {
        match self.target.wire {
            WireFormat::Chat => chat::efforts(&self.target),
            WireFormat::Messages => messages::efforts(&self.target),
            WireFormat::Responses => responses::efforts(&self.target),
        }
    }

    /// An empty conversation for this model.
    #[must_use]
    pub fn prompt(&self, system: &str, tools: &[ToolSpec]) -> Prompt {
        Prompt::new(&self.target, system, tools)
    }

    /// Asks for the next answer of a conversation. One attempt; see [`crate::retry_wait`].
    ///
    /// # Errors
    /// When there is no answer, it is an error, or, without streaming, it cannot be understood.
    pub async fn complete(
        &self,
        prompt: &Prompt,
        options: &CompletionOptions,
    ) -> Result<CompletionStream, ProviderError> {
        let target = &self.target;
        if !prompt.fits(target) {
            let message = "the conversation was written for another model: make a prompt with this one";
            return Err(ProviderError::Refused { complaint: complaint(target, None, message) });
        }
        let request = self.request(prompt.body(target, options), options.stream);
        let mut incoming = target.egress.send(request).await.map_err(|error| on_the_way(target, &error))?;
        let status = incoming.status;
        if !status.is_success() {
            let body = error_body(&mut incoming).await;
            let error = ServerError::read(&body);
            return Err(answered(target, status.as_u16(), &incoming.headers, &error));
        }
        let kind = content_type(&incoming);
        let is_document = kind.contains("json") || kind.contains("html");
        let in_pieces = kind.contains("event-stream") || (options.stream && !is_document);
        if in_pieces {
            return Ok(CompletionStream::of_events(Arc::clone(target), prompt, options.tools, incoming));
        }
        let body = incoming.bytes().await.map_err(|error| on_the_way(target, &error))?;
        CompletionStream::of_whole(Arc::clone(target), prompt, options.tools, &body)
    }

    fn request(&self, body: Vec<Bytes>, stream: bool) -> Outgoing {
        let mut headers = self.target.headers.clone();
        let accept = if stream { "text/event-stream" } else { "application/json" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        Outgoing {
            caller: Caller::Host("provider"),
            policy: Policy::Model,
            approved: Vec::new(),
            method: Method::POST,
            url: self.target.url.clone(),
            headers,
            body: Body::from(body),
            decompress: false,
            // A redirect would take the conversation somewhere that nobody named.
            limits: Limits { head: PATIENCE, idle: PATIENCE, max_bytes: MAX_ANSWER, ..Limits::default() },
            credential: None,
        }
    }
}

fn content_type(incoming: &Incoming) -> String {
    let value = incoming.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_ascii_lowercase()
}

/// The beginning of an error's body, or what could be had of it.
async fn error_body(incoming: &mut Incoming) -> Bytes {
    let mut body = BytesMut::new();
    while let Ok(Some(chunk)) = incoming.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_ERROR {
            body.truncate(MAX_ERROR);
            break;
        }
    }
    body.freeze()
}
