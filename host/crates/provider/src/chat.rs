//! `POST /v1/chat/completions`: the Hugging Face router, local servers, and whoever imitates them.

mod answer;
mod prompt;

pub(crate) use answer::ChatAnswer;
pub(crate) use prompt::{ChatPrompt, efforts};
