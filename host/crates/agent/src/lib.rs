//! The loop of ml-intern: operations in, events out. No terminal, no HTTP, no WebAssembly here.

mod alone;
mod approval;
mod audited;
mod budget;
mod compaction;
mod decision;
mod edits;
mod guard;
mod interrupt;
mod journal;
mod measure;
mod namespace;
mod notes;
mod opening;
mod operations;
mod ordering;
mod orders;
mod persist;
mod questions;
mod reservations;
mod rules;
mod session;
mod start_error;
mod step;
mod tools;
mod transcript;
mod turn;
mod waiting;

pub use alone::call;
pub use approval::Mode;
pub use budget::BudgetLimits;
pub use interrupt::Interrupt;
pub use measure::decisions;
pub use namespace::AskNamespace;
pub use persist::{Saved, SavedHeader, SessionStore, StoreError};
pub use rules::{Effect, Rule, RuleError, Rules};
pub use session::{
    AgentSettings, Handle, KeepGrant, NO_MODEL, Resumed, SessionConfig, Start, SystemPrompt, saved_model,
    start,
};
pub use start_error::StartError;
