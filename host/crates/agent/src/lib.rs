//! The loop of ml-intern: operations in, events out. No terminal, no HTTP, no WebAssembly here.

mod approval;
mod audited;
mod compaction;
mod guard;
mod interrupt;
mod journal;
mod notes;
mod operations;
mod persist;
mod questions;
mod session;
mod step;
mod tools;
mod transcript;
mod turn;

pub use approval::Mode;
pub use interrupt::Interrupt;
pub use persist::{Saved, SavedHeader, SessionStore, StoreError};
pub use session::{AgentSettings, Handle, Resumed, SessionConfig, Start, StartError, SystemPrompt, start};
