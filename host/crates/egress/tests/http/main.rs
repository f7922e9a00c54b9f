//! Requests over real connections to servers on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod connections;
mod redirects;
mod server;
