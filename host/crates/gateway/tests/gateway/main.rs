//! A gateway on loopback before small servers that stand for the origins, asked by raw sockets and real clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod attackers;
mod clients;
mod hub;
mod proxy;
mod pypi;
mod world;
mod writes;
