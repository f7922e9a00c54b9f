//! For tests and benchmarks; no part of the program.

mod model_server;
pub mod wasm;

pub use model_server::{Gate, ModelServer, Request, Step};
