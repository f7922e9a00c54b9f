use protocol::{HostRequest, LogLevel, text};

use crate::bindings::ml_intern::plugin::log::{Host, Level};
use crate::limits::{MAX_LOG_BYTES, MAX_LOG_MESSAGES};
use crate::state::CallState;

impl Host for CallState {
    async fn write(&mut self, level: Level, message: String, fields: Option<String>) {
        let Some(call) = &mut self.call else { return };
        call.log_messages += 1;
        if call.log_messages > MAX_LOG_MESSAGES {
            return;
        }
        let message = harmless(&message);
        let fields = fields.map(|fields| harmless(&fields));
        let level = match level {
            Level::Trace => LogLevel::Trace,
            Level::Debug => LogLevel::Debug,
            Level::Info => LogLevel::Info,
            Level::Warn => LogLevel::Warn,
            Level::Error => LogLevel::Error,
        };
        if level < LogLevel::Info || fields.is_some() {
            let fields = fields.as_deref().map(text::line);
            tracing::debug!(plugin = %call.plugin, fields = fields.as_deref(), "{}", text::line(&message));
        }
        if level >= LogLevel::Info {
            call.ask(HostRequest::Log { level, message }).await;
        }
    }
}

/// A text without what acts on a terminal, as long as a message may be.
fn harmless(text: &str) -> String {
    // Cut before it is filtered: what is thrown away is not worth a copy.
    text::plain(&text[..text.floor_char_boundary(MAX_LOG_BYTES)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_logs_is_cut_and_acts_on_nothing() {
        assert_eq!(harmless("{\"a\": \"\u{1b}[2J\u{202e}b\"}"), "{\"a\": \"b\"}");
        assert_eq!(harmless(&"ä".repeat(MAX_LOG_BYTES)), "ä".repeat(MAX_LOG_BYTES / 2));
    }
}
