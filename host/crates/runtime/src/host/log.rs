use protocol::{HostRequest, LogLevel};

use crate::bindings::ml_intern::plugin::log::{Host, Level};
use crate::describe::plain;
use crate::limits::{MAX_LOG_BYTES, MAX_LOG_MESSAGES};
use crate::state::CallState;

impl Host for CallState {
    async fn write(&mut self, level: Level, message: String, fields: Option<String>) {
        let Some(call) = &mut self.call else { return };
        call.log_messages += 1;
        if call.log_messages > MAX_LOG_MESSAGES {
            return;
        }
        let mut message = plain(&message);
        let end = (0..=message.len().min(MAX_LOG_BYTES)).rev().find(|at| message.is_char_boundary(*at));
        message.truncate(end.unwrap_or(0));
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        if level < LogLevel::Info {
            tracing::debug!(plugin = %call.plugin, fields, "{message}");
            return;
        }
        call.ask(HostRequest::Log { level, message }).await;
    }
}
