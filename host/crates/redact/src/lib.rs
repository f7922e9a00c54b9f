//! Secrets in every form in which they come back, and text without them.
//!
//! A [`Redactor`] knows the values that a process holds. What it finds of them – as they are, in base64
//! at any alignment, percent-encoded, in hexadecimal, escaped for JSON, on one line or broken into several –
//! becomes `[redacted:NAME]`; every other byte stays as it is. Not here: which values are secrets, and where they come from.

mod forms;
mod lines;
mod redactor;
mod stream;

pub use redactor::{MIN_BYTES, Redactor};
pub use stream::Scrubber;
