//! Host calls: each checks its grant before its first side effect.

mod exec;
mod files;
mod http;
mod kv;
mod log;

use crate::bindings::ml_intern::plugin::types;
use crate::state::{Call, CallState};

impl types::Host for CallState {}

/// An error for a guest.
fn error(kind: types::ErrorKind, code: &str, message: impl Into<String>) -> types::Error {
    types::Error {
        kind,
        code: Some(code.to_owned()),
        message: message.into(),
        retry_after_ms: None,
        extra: None,
    }
}

impl CallState {
    /// The call, if it has a capability. A plugin that describes itself has none.
    fn granted(&mut self, name: &str, has: impl Fn(&Call) -> bool) -> Result<&mut Call, types::Error> {
        match &mut self.call {
            Some(call) if has(call) => Ok(call),
            _ => Err(error(
                types::ErrorKind::Denied,
                "not-granted",
                format!("this plugin has no grant for `{name}`; the user can give it in grants.toml"),
            )),
        }
    }
}
