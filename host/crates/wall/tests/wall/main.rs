//! Tests of the wall from outside, with real commands.
//!
//! Each test runs in a process of its own, as the current user and, if that is root, as an ordinary user
//! too; with the private mounts and without. The supervisor is this binary started anew, so the tests bring
//! their own `main`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "these are tests, which clippy only sees where the standard harness is"
)]

#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod job;
#[cfg(target_os = "linux")]
mod life;
#[cfg(target_os = "linux")]
mod output;
#[cfg(target_os = "linux")]
mod own;
#[cfg(target_os = "linux")]
mod probe;
#[cfg(target_os = "linux")]
mod quotas;
#[cfg(target_os = "linux")]
mod refused;
#[cfg(target_os = "linux")]
mod roles;
#[cfg(target_os = "linux")]
mod sealed;
#[cfg(target_os = "linux")]
mod session;
#[cfg(target_os = "linux")]
mod speed;
#[cfg(target_os = "linux")]
mod works;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    roles::main()
}

#[cfg(not(target_os = "linux"))]
fn main() {}
