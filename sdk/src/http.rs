//! HTTP requests through the host's one way out.

use serde::de::DeserializeOwned;

use crate::bindings::ml_intern::plugin::http as wit;
use crate::{ErrorKind, ToolError};

/// A request to be sent.
#[derive(Clone, Debug)]
pub struct Request {
    request: wit::Request,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Where the answer came from, after redirects.
    pub url: String,
    /// The body, as it came: nothing is decompressed unless [`Request::decompress`] was asked for.
    pub body: Vec<u8>,
    headers: Vec<wit::Header>,
}

impl Request {
    /// A GET request.
    pub fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// A POST request with a JSON body.
    pub fn post_json(url: impl Into<String>, body: &serde_json::Value) -> Self {
        let mut request = Self::new("POST", url).header("content-type", "application/json");
        request.request.body = Some(body.to_string().into_bytes());
        request
    }

    /// A request with any method.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Self {
        Self {
            request: wit::Request {
                method: method.into(),
                url: url.into(),
                headers: Vec::new(),
                body: None,
                timeout_ms: None,
                max_bytes: None,
                follow: 5,
                credential: None,
                extra: None,
            },
        }
    }

    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Vec<u8>>) -> Self {
        self.request.headers.push(wit::Header { name: name.into(), value: value.into() });
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.request.body = Some(body.into());
        self
    }

    /// Asks the host to add a credential that the manifest declares as `[credentials.HANDLE]` and the user
    /// granted. It goes to its audience only and is never seen here: what comes back has
    /// `[redacted:HANDLE]` in its place. One that belongs into the body stands there as
    /// `{{credential:HANDLE}}`, inside a string of JSON.
    ///
    /// ```toml
    /// [credentials.github]
    /// description = "Reads your private repositories."
    /// audience = ["https://api.github.com"]
    /// header = "Authorization"
    /// prefix = "Bearer "
    /// ```
    #[must_use]
    pub fn credential(mut self, handle: impl Into<String>) -> Self {
        self.request.credential = Some(handle.into());
        self
    }

    /// Asks for a compressed answer; the host unpacks it, with a limit on what it unpacks to.
    #[must_use]
    pub fn decompress(mut self) -> Self {
        self.request.extra = Some("{\"decompress\": true}".to_owned());
        self
    }

    /// Total time in milliseconds, redirects and the body included: 60,000 if none is given, at most 300,000.
    #[must_use]
    pub fn timeout_ms(mut self, milliseconds: u32) -> Self {
        self.request.timeout_ms = Some(milliseconds);
        self
    }

    /// Sends it and reads the whole answer.
    ///
    /// # Errors
    /// `Denied` without a grant for the origin and method, `Timeout`, `TooLarge`, `Upstream`.
    pub fn send(&self) -> Result<Response, ToolError> {
        let wit::Response { head, body } = wit::fetch(&self.request)?;
        Ok(Response { status: head.status, url: head.final_url, body, headers: head.headers })
    }
}

impl Response {
    /// A header's value, if it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(&header.value).ok()
    }

    /// The body as text, with replacement characters where it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// `Upstream` when the status is not a success or the body is not that JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ToolError> {
        if !(200..300).contains(&self.status) {
            return Err(ToolError::new(
                ErrorKind::Upstream,
                format!("{} answered {}", self.url, self.status),
            ));
        }
        serde_json::from_slice(&self.body).map_err(|e| {
            ToolError::new(
                ErrorKind::Upstream,
                format!("{} answered something else than expected: {e}", self.url),
            )
        })
    }
}
