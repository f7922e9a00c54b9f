//! The shipped plugins: one more plugin folder, read-only and inside the binary.

use runtime::Bundled;

include!(concat!(env!("OUT_DIR"), "/bundled.rs"));
