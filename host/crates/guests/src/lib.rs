//! The plugins of this repository as components, compiled by the build script.

use std::path::PathBuf;

/// The plugins that are shipped, in the order their tools are offered.
pub const SHIPPED: [&str; 3] = ["shell", "workspace", "plan"];

/// The component of a plugin of this repository.
#[must_use]
pub fn component(name: &str) -> PathBuf {
    PathBuf::from(env!("GUESTS")).join(format!("{name}.wasm"))
}
