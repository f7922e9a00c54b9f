//! Hash-chained records of what was decided and what came of it.
//!
//! A record is a line `HASH RECORD`: the SHA-256 of the record's bytes, and the record as JSON, which holds
//! the hash of the record before it. Whoever knows the last hash notices every change to what came before.
//! Each session has a chain; where it began and how it ended stands in the chain of the user, together with
//! what the user did outside of sessions.

mod chain;
mod log;
mod record;
mod verify;

pub use chain::{AuditError, Chain};
pub use log::AuditLog;
pub use record::{Act, Entry, OrderState, Plugin, PolicyMark, ReadFile, Verdict, digest, shown_target};
pub use verify::{Finding, RecordsError, Report};
