use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::Request;

/// What the server does with one request for a completion.
#[derive(Clone, Default)]
pub struct Step {
    pub(crate) text: String,
    pub(crate) thinking: String,
    pub(crate) calls: Vec<(String, String)>,
    pub(crate) call_ids: Vec<String>,
    pub(crate) finish: Option<String>,
    pub(crate) usage: Option<[u64; 4]>,
    pub(crate) error: Option<(u16, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) raw: Option<Vec<Vec<u8>>>,
    pub(crate) stream_error: Option<(usize, String)>,
    pub(crate) cut_after: Option<usize>,
    pub(crate) hang_up: bool,
    pub(crate) stall: Option<(usize, Gate)>,
    pub(crate) omit_done: bool,
    pub(crate) omit_usage: bool,
    pub(crate) always_plain: bool,
    pub(crate) piece_chars: Option<usize>,
    pub(crate) repeat: usize,
    pub(crate) only_if: Option<String>,
    pub(crate) check: Option<Check>,
    pub(crate) reply: Option<Reply>,
}

type Check = Arc<dyn Fn(&Request) + Send + Sync>;
type Reply = Arc<dyn Fn(&Request) -> Step + Send + Sync>;

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step").field("text", &self.text).field("calls", &self.calls).finish_non_exhaustive()
    }
}

impl Step {
    /// Answers with a text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), repeat: 1, ..Self::default() }
    }

    /// Calls tools, all in one answer. A string is taken as the arguments' own text, which need not be JSON.
    pub fn calls<N: Into<String>>(calls: impl IntoIterator<Item = (N, Value)>) -> Self {
        let written = |arguments: Value| match arguments {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let calls = calls.into_iter().map(|(name, arguments)| (name.into(), written(arguments))).collect();
        Self { calls, ..Self::text("") }
    }

    /// Answers with an error.
    pub fn error(status: u16, body: impl Into<String>) -> Self {
        Self { error: Some((status, body.into())), ..Self::text("") }
    }

    /// Sends these bytes as the whole stream, each item as one piece.
    pub fn raw_sse<P: Into<Vec<u8>>>(pieces: impl IntoIterator<Item = P>) -> Self {
        Self { raw: Some(pieces.into_iter().map(Into::into).collect()), ..Self::text("") }
    }

    /// Closes the connection without an answer.
    #[must_use]
    pub fn hang_up() -> Self {
        Self { hang_up: true, ..Self::text("") }
    }

    /// Makes the step when the request is there.
    pub fn reply(make: impl Fn(&Request) -> Self + Send + Sync + 'static) -> Self {
        Self { reply: Some(Arc::new(make)), ..Self::text("") }
    }

    /// Says this beside its calls.
    #[must_use]
    pub fn saying(mut self, text: impl Into<String>) -> Self {
        self.text = text.into();
        self
    }

    /// Thinks before it answers.
    #[must_use]
    pub fn thinking(mut self, thinking: impl Into<String>) -> Self {
        self.thinking = thinking.into();
        self
    }

    /// Gives the calls these ids; an empty one is left out.
    #[must_use]
    pub fn call_ids<I: Into<String>>(mut self, ids: impl IntoIterator<Item = I>) -> Self {
        self.call_ids = ids.into_iter().map(Into::into).collect();
        self
    }

    /// Ends for this reason: `stop`, `length`, `tool_calls`, `content_filter`, or a word of its own.
    #[must_use]
    pub fn finish(mut self, reason: impl Into<String>) -> Self {
        self.finish = Some(reason.into());
        self
    }

    /// Reports these tokens: input without cached ones, output, read from the cache, written to it.
    #[must_use]
    pub fn usage(mut self, input: u64, output: u64, cache_read: u64, cache_write: u64) -> Self {
        self.usage = Some([input, output, cache_read, cache_write]);
        self
    }

    /// Sends a header with the answer.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Breaks the connection after so many pieces.
    #[must_use]
    pub fn cut_after(mut self, pieces: usize) -> Self {
        self.cut_after = Some(pieces);
        self
    }

    /// Sends an error event after so many pieces, and ends the stream.
    #[must_use]
    pub fn stream_error(mut self, pieces: usize, body: impl Into<String>) -> Self {
        self.stream_error = Some((pieces, body.into()));
        self
    }

    /// Waits at the gate after so many pieces.
    #[must_use]
    pub fn stall_after(mut self, pieces: usize, gate: &Gate) -> Self {
        self.stall = Some((pieces, gate.clone()));
        self
    }

    /// Ends the stream without its end mark.
    #[must_use]
    pub fn omit_done(mut self) -> Self {
        self.omit_done = true;
        self
    }

    /// Reports no tokens.
    #[must_use]
    pub fn omit_usage(mut self) -> Self {
        self.omit_usage = true;
        self
    }

    /// Answers as a whole even if pieces are wanted.
    #[must_use]
    pub fn always_plain(mut self) -> Self {
        self.always_plain = true;
        self
    }

    /// Characters per piece of a stream; 8 if nothing is said.
    #[must_use]
    pub fn piece_chars(mut self, chars: usize) -> Self {
        self.piece_chars = Some(chars.max(1));
        self
    }

    /// Is played so many times in a row.
    #[must_use]
    pub fn repeat(mut self, times: usize) -> Self {
        self.repeat = times;
        self
    }

    /// Is for requests only whose body holds this text; such steps are looked at first, wherever they stand.
    #[must_use]
    pub fn only_if(mut self, text: impl Into<String>) -> Self {
        self.only_if = Some(text.into());
        self
    }

    /// Looks at the request; a panic is told by [`super::ModelServer::violations`].
    #[must_use]
    pub fn check(mut self, check: impl Fn(&Request) + Send + Sync + 'static) -> Self {
        self.check = Some(Arc::new(check));
        self
    }
}

/// Where a step waits until the test lets it go on.
#[derive(Clone, Debug)]
pub struct Gate {
    state: watch::Sender<GateState>,
}

#[derive(Clone, Copy, Debug, Default)]
struct GateState {
    reached: bool,
    open: bool,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    #[must_use]
    pub fn new() -> Self {
        Self { state: watch::Sender::new(GateState::default()) }
    }

    /// Lets the step go on, and every later one.
    pub fn open(&self) {
        self.state.send_modify(|state| state.open = true);
    }

    /// Waits until a step waits here.
    pub async fn reached(&self) {
        // The sender lives as long as this gate.
        let _ = self.state.subscribe().wait_for(|state| state.reached).await;
    }

    /// The same for tests without a runtime.
    #[expect(clippy::expect_used, reason = "a test without a runtime cannot go on")]
    pub fn wait_reached(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(self.reached());
    }

    pub(crate) async fn pass(&self) {
        self.state.send_modify(|state| state.reached = true);
        let _ = self.state.subscribe().wait_for(|state| state.open).await;
    }
}

impl Step {
    pub(crate) fn finish_reason(&self) -> &str {
        match &self.finish {
            Some(reason) => reason,
            None if self.calls.is_empty() => "stop",
            None => "tool_calls",
        }
    }

    /// Input, output, read from the cache, written to it.
    pub(crate) fn tokens(&self) -> [u64; 4] {
        self.usage.unwrap_or([100, 10, 0, 0])
    }

    /// Ids, names and arguments of the calls.
    pub(crate) fn numbered_calls(
        &self,
        number: usize,
        prefix: &str,
    ) -> impl Iterator<Item = (String, String, String)> {
        self.calls.iter().enumerate().map(move |(index, (name, arguments))| {
            let id = self.call_ids.get(index).cloned();
            (id.unwrap_or_else(|| format!("{prefix}_{number}_{index}")), name.clone(), arguments.clone())
        })
    }
}

/// A text in pieces of the length that the step wants.
pub(crate) fn chunks<'a>(text: &'a str, step: &Step) -> impl Iterator<Item = &'a str> + use<'a> {
    let size = step.piece_chars.unwrap_or(PIECE_CHARS);
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = rest.char_indices().nth(size).map_or(rest.len(), |(at, _)| at);
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Small, so that every answer really comes in pieces.
const PIECE_CHARS: usize = 8;
