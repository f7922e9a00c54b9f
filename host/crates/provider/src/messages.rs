//! `POST /v1/messages`: Anthropic and whoever speaks its format.

mod answer;
mod prompt;

pub(crate) use answer::MessagesAnswer;
pub(crate) use prompt::{MessagesPrompt, efforts};
