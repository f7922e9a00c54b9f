//! One completion in, one stream of deltas out: chat completions, messages, responses.
//!
//! A model id is resolved to exactly one place ([`Providers::resolve`]); a conversation is written once,
//! item by item, in the form that place wants ([`Prompt`]); an answer is read into deltas and a
//! [`Completion`]. Wire formats end here: nobody else sees them. Nothing here reads the environment or
//! files, waits before a retry, or knows what a tool does.

mod answer;
mod base;
mod catalog;
mod chat;
mod classify;
mod completion;
mod effort;
mod encode;
mod error;
mod layout;
mod listing;
mod messages;
mod model;
mod pieces;
mod probe;
mod prompt;
mod responses;
mod retry;
mod rough;
mod route;
mod served_window;
mod server_error;
mod settings;
mod sse;
mod stream;
mod target;
#[cfg(test)]
mod testing;
mod text_calls;
mod think;
mod usage;

pub use catalog::{CatalogError, Suggestion};
pub use completion::{Completion, CompletionOptions, Delta, FinishReason};
pub use effort::{Effort, UnknownEffort};
pub use error::{Complaint, HfPlan, ProviderError};
pub use listing::{ListedProvider, Listing};
pub use model::Model;
pub use prompt::Prompt;
pub use retry::retry_wait;
pub use route::{Providers, ResolveError};
pub use secrecy::SecretString;
pub use served_window::ServedWindow;
pub use settings::{CustomProvider, ProviderSettings, UnknownWire, Vendor, WireFormat};
pub use stream::CompletionStream;
