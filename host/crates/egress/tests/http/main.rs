//! Requests over real connections to servers on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod agreement;
mod connections;
mod mirrors;
mod packed;
mod proxies;
mod redirects;
mod server;
