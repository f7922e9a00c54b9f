//! One JSON object a line.

use std::io::Write;

use serde::Serialize;

/// Writes a line and hands it to the kernel.
pub(crate) fn line(out: &mut impl Write, value: &impl Serialize) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(value)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}
