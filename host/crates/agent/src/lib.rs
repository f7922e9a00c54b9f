//! The loop of ml-intern: operations in, events out. No terminal, no HTTP, no WebAssembly here.

mod approval;
mod audited;
mod compaction;
mod guard;
mod journal;
mod notes;
mod persist;
mod questions;
mod session;
mod step;
mod tools;
mod transcript;
mod turn;

pub use approval::Mode;
pub use persist::{Saved, SavedHeader, SessionStore, StoreError};
pub use session::{
    AgentSettings, Handle, Interrupt, Resumed, SessionConfig, Start, StartError, SystemPrompt, start,
};
