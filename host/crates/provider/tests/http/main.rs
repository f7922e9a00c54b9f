//! Real HTTP on loopback against the scripted model server.

mod answers;
mod failures;
mod rough;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tls;
mod windows;
