//! `POST /v1/responses`: OpenAI and whoever speaks its format. Nothing is stored there: every request
//! carries the whole conversation.

mod answer;
mod prompt;

pub(crate) use answer::ResponsesAnswer;
pub(crate) use prompt::{ResponsesPrompt, efforts};
