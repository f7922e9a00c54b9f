//! One call: a store of its own, on a thread of its own, within its times.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use protocol::{ToolResult, text};
use tokio_util::sync::CancellationToken;

use crate::bindings::ml_intern::plugin::types::{Content, Error, ErrorKind, ToolCall, ToolOutput};
use crate::bindings::{Plugin, PluginPre};
use crate::engine::Shared;
use crate::limits::Limits;
use crate::state::{Call, CallState};
use crate::stop::Stop;

/// The wall time of a call: it begins when the call has its thread, and stands still while the call waits
/// for a person.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    started: OnceLock<Instant>,
    waits: AtomicUsize,
    waiting_since: Mutex<Option<Instant>>,
    waited_us: AtomicU64,
}

impl Clock {
    pub(crate) fn start(&self) {
        self.started.get_or_init(Instant::now);
    }

    /// Stops the clock until the guard is dropped.
    pub(crate) fn pause(self: &Arc<Self>) -> Pause {
        if self.waits.fetch_add(1, Ordering::SeqCst) == 0 {
            *self.since() = Some(Instant::now());
        }
        Pause(self.clone())
    }

    fn since(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.waiting_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn waited(&self) -> Duration {
        let now = self.since().map_or(Duration::ZERO, |since| since.elapsed());
        Duration::from_micros(self.waited_us.load(Ordering::SeqCst)) + now
    }

    /// Returns when `limit` has passed, waits not counted.
    pub(crate) async fn run_out(&self, limit: Duration) {
        loop {
            let used = self.started.get().map_or(Duration::ZERO, Instant::elapsed);
            let used = used.saturating_sub(self.waited());
            match limit.checked_sub(used) {
                None | Some(Duration::ZERO) => return,
                Some(left) => tokio::time::sleep(left.max(Duration::from_millis(1))).await,
            }
        }
    }
}

/// The clock of a call stands still while this is held.
pub(crate) struct Pause(Arc<Clock>);

impl Drop for Pause {
    fn drop(&mut self) {
        if self.0.waits.fetch_sub(1, Ordering::SeqCst) == 1
            && let Some(since) = self.0.since().take()
        {
            let waited = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.0.waited_us.fetch_add(waited, Ordering::SeqCst);
        }
    }
}

/// What a call needs besides its plugin.
pub(crate) struct Task {
    pub(crate) call: Call,
    /// The tool's bare name.
    pub(crate) tool: String,
    pub(crate) arguments: String,
    pub(crate) limits: Limits,
    pub(crate) wall_time: Duration,
}

/// Runs a call on the current thread, which may block.
pub(crate) async fn run(shared: &Shared, pre: &PluginPre<CallState>, task: Task) -> ToolResult {
    let Task { call, tool, arguments, limits, wall_time } = task;
    let (cancel, clock) = (call.cancel.clone(), call.clock.clone());
    let wit_call = ToolCall {
        id: call.id.to_string(),
        name: tool,
        arguments,
        deadline_ms: u32::try_from(wall_time.as_millis()).unwrap_or(u32::MAX),
        extra: Some(session_facts(&call)),
    };
    let state = match CallState::for_call(&limits, call) {
        Ok(state) => state,
        Err(reason) => return ToolResult::failed(format!("the call could not be set up: {reason}")),
    };
    let _running = shared.running();
    let mut store = state.into_store(&shared.engine, limits.cpu_ms);
    let answer = tokio::select! {
        biased;
        () = cancelled(&cancel) => Err(Stop::Cancelled),
        () = clock.run_out(wall_time) => Err(Stop::wall(wall_time)),
        answer = invoke(pre, &mut store, &wit_call) => Ok(answer),
    };
    let answer = match answer {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Stop::of(&error, store.data())),
        Err(stop) => Err(stop),
    };
    let state = store.into_data();
    if let (Err(stop), Some(call)) = (&answer, &state.call)
        && stop.is_fault()
    {
        call.session.faults.count(&call.plugin, Instant::now());
    }
    result(answer, state)
}

async fn cancelled(token: &CancellationToken) {
    token.cancelled().await;
}

async fn invoke(
    pre: &PluginPre<CallState>,
    store: &mut wasmtime::Store<CallState>,
    call: &ToolCall,
) -> wasmtime::Result<Result<ToolOutput, Error>> {
    let plugin: Plugin = pre.instantiate_async(&mut *store).await?;
    plugin.ml_intern_plugin_tools().call_invoke(store, call).await
}

fn session_facts(call: &Call) -> String {
    let folders = &call.session.folders;
    let dirs: Vec<_> =
        folders.read.iter().chain(&folders.write).map(|folder| folder.to_string_lossy()).collect();
    serde_json::json!({
        "session": call.session.id.as_str(),
        "workspace": folders.workspace.to_string_lossy(),
        "dirs": dirs,
        "tmp": "/tmp",
        "order": call.order,
    })
    .to_string()
}

fn result(answer: Result<Result<ToolOutput, Error>, Stop>, state: CallState) -> ToolResult {
    if let Some((text, dropped)) = state.output.take() {
        tracing::debug!(dropped, "guest output: {}", text::line(&text));
    }
    let limit = state.limits.output_bytes;
    // A guest cannot say that the person stopped it.
    let interrupted = state.call.as_ref().is_some_and(|call| call.cancel.is_cancelled());
    let told = state.call.map(|call| (call.changes, call.denial));
    let (changes, denial) = told.unwrap_or_default();
    let cancelled = matches!(&answer, Err(Stop::Cancelled))
        || matches!(&answer, Ok(Err(error)) if interrupted && error.kind == ErrorKind::Cancelled);
    let mut result = match answer {
        Ok(Ok(output)) => from_output(output, limit),
        Ok(Err(error)) => ToolResult::failed(shown(&error.message, limit)),
        Err(stop) => ToolResult::failed(shown(&stop.to_string(), limit)),
    };
    result.cancelled = cancelled;
    result.changes = changes;
    // Also if the guest kept quiet about it.
    result.denial = denial;
    result
}

fn from_output(output: ToolOutput, limit: usize) -> ToolResult {
    if output.structured.as_ref().is_some_and(|structured| structured.len() > limit) {
        let message = format!("the plugin's answer for programs is larger than {limit} bytes");
        return ToolResult::failed(message);
    }
    let structured = match output.structured.as_deref().map(serde_json::from_str).transpose() {
        Ok(structured) => structured,
        Err(error) => return ToolResult::failed(format!("the plugin answered with broken JSON: {error}")),
    };
    let texts: Vec<String> = output.content.into_iter().map(text_of).collect();
    let text = shown(&texts.join("\n"), limit);
    ToolResult { text, success: !output.is_error, structured, ..ToolResult::default() }
}

fn text_of(content: Content) -> String {
    match content {
        Content::Text(block) => block.text,
        Content::Binary(block) if block.mime.starts_with("image/") => {
            format!("[Image: {}]", text::line(&block.mime))
        }
        Content::Binary(block) => format!("[Binary data: {}]", text::line(&block.mime)),
        Content::Link(block) => format!("[Resource: {}]", text::line(&block.uri)),
    }
}

/// What a guest wrote as the model and people get it: without what acts, no longer than a call may answer.
fn shown(text: &str, limit: usize) -> String {
    let mut text = text::plain(text).into_owned();
    if text.len() > limit {
        let total = text.len();
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(&format!("\n[cut by the host: {limit} of {total} bytes]"));
    }
    text
}
