//! A model's server on loopback that plays a script, in all three wire formats.
//!
//! It runs on a thread of its own, so tests that start the real binary and wait for it can use it too. It
//! never sleeps; a step that has to wait does so at a [`Gate`]. What it is asked is kept as bytes and read
//! only when somebody looks, so an answer takes no longer because a conversation has grown.

mod chat;
mod http;
mod messages;
mod responses;
mod script;
mod step;
mod violations;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use script::Script;
pub use step::{Gate, Step};

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    state: Arc<State>,
    _stop: oneshot::Sender<()>,
}

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// By name in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as it was sent.
    pub raw: Bytes,
}

#[derive(Debug)]
pub(crate) struct State {
    inner: Mutex<Inner>,
    records: bool,
}

#[derive(Debug, Default)]
struct Inner {
    script: Script,
    /// Requests for completions, and all others.
    completions: Vec<Request>,
    others: Vec<Request>,
    count: usize,
    connections: usize,
    /// Answers to everything that is no completion, by path.
    pages: BTreeMap<String, (u16, Value)>,
    failed_checks: Vec<String>,
}

impl ModelServer {
    /// Starts a server that plays these steps, one per completion; after the last it says `Done.`
    #[must_use]
    pub fn start(steps: Vec<Step>) -> Self {
        Self::start_with(steps, true)
    }

    /// The same, but it forgets what it was asked: for long benchmarks.
    #[must_use]
    pub fn start_forgetful(steps: Vec<Step>) -> Self {
        Self::start_with(steps, false)
    }

    #[expect(clippy::expect_used, reason = "a test without its server cannot go on")]
    fn start_with(steps: Vec<Step>, records: bool) -> Self {
        let models = json!({"object": "list", "data": [{"id": "scripted-model", "object": "model"}]});
        let inner = Inner {
            script: Script::new(steps),
            pages: BTreeMap::from([("/v1/models".to_owned(), (200, models))]),
            ..Inner::default()
        };
        let state = Arc::new(State { inner: Mutex::new(inner), records });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on loopback");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (stop, stopped) = oneshot::channel();
        let served = Arc::clone(&state);
        std::thread::Builder::new()
            .name("model-server".to_owned())
            .spawn(move || http::serve(listener, served, stopped))
            .expect("a thread for the server");
        Self { address, state, _stop: stop }
    }

    /// `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a step to the end of the script.
    pub fn push(&self, step: Step) {
        self.state.lock().script.push(step);
    }

    /// Answers a path that is no completion, such as `/props` or `/api/ps`.
    pub fn serve(&self, path: &str, page: Value) {
        self.serve_status(path, 200, page);
    }

    /// The same with another status than 200.
    pub fn serve_status(&self, path: &str, status: u16, page: Value) {
        self.state.lock().pages.insert(path.to_owned(), (status, page));
    }

    /// The requests for completions so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.lock().completions.clone()
    }

    /// All other requests so far.
    #[must_use]
    pub fn other_requests(&self) -> Vec<Request> {
        self.state.lock().others.clone()
    }

    /// How many completions were asked for, also by a server that forgets.
    #[must_use]
    pub fn completions(&self) -> usize {
        self.state.lock().count
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.lock().connections
    }

    /// What a real server would have refused in the requests so far, and checks of steps that failed.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        let (requests, failed) = {
            let inner = self.state.lock();
            (inner.completions.clone(), inner.failed_checks.clone())
        };
        let found = requests.iter().enumerate().flat_map(|(number, request)| {
            violations::of(request).into_iter().map(move |what| format!("request {number}: {what}"))
        });
        found.chain(failed).collect()
    }
}

impl Request {
    /// The body as JSON; null if it is not.
    #[must_use]
    pub fn body(&self) -> Value {
        serde_json::from_slice(&self.raw).unwrap_or_default()
    }

    /// A header by its name in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// Whether the body holds this text, as it is written there.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.raw.windows(text.len().max(1)).any(|window| window == text.as_bytes())
    }

    /// Whether an answer in pieces is wanted. Quotes in strings are escaped, so this is the field itself.
    pub(crate) fn wants_stream(&self) -> bool {
        self.contains(r#""stream":true"#) || self.contains(r#""stream": true"#)
    }

    pub(crate) fn wire(&self) -> Option<Wire> {
        let path = self.path.split('?').next().unwrap_or_default();
        match path.rsplit('/').next() {
            Some("completions") if path.ends_with("/chat/completions") => Some(Wire::Chat),
            Some("messages") => Some(Wire::Messages),
            Some("responses") => Some(Wire::Responses),
            _ => None,
        }
    }
}

/// The dialect that a request speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wire {
    Chat,
    Messages,
    Responses,
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connected(&self) {
        self.lock().connections += 1;
    }

    /// Notes a request for a completion and picks the step for it, with the request's number.
    pub(crate) fn next_step(&self, request: &Request) -> (Step, usize) {
        let mut inner = self.lock();
        let number = inner.count;
        inner.count += 1;
        if self.records {
            inner.completions.push(request.clone());
        }
        (inner.script.next(request), number)
    }

    pub(crate) fn check_failed(&self, number: usize, why: &str) {
        self.lock().failed_checks.push(format!("request {number}: {why}"));
    }

    /// Notes any other request and finds the page for it.
    pub(crate) fn page(&self, request: &Request) -> (u16, Value) {
        let mut inner = self.lock();
        inner.others.push(request.clone());
        let path = request.path.split('?').next().unwrap_or_default();
        let missing =
            || (404, json!({"error": {"message": format!("no route {path}"), "type": "not_found"}}));
        inner.pages.get(path).cloned().unwrap_or_else(missing)
    }
}
