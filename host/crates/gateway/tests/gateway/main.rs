//! A gateway on loopback before small servers that stand for the origins, asked by raw sockets and real clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and one that is not tried says so"
)]

mod attackers;
mod clients;
mod hub;
mod proxy;
mod pypi;
mod world;
mod writes;
