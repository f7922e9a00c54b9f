//! Reads `plugin.toml` while a plugin is compiled, so that a mistake in it is a compile error.

use std::path::Path;

use manifest::Manifest;
use proc_macro::{Literal, TokenStream, TokenTree};

/// Expands to the manifest of the crate being compiled: `plugin.toml`, checked, as JSON in a byte array.
#[proc_macro]
pub fn manifest(_input: TokenStream) -> TokenStream {
    match manifest_json() {
        Ok((path, json)) => {
            let bytes = TokenTree::Literal(Literal::byte_string(&json)).to_string();
            let path = TokenTree::Literal(Literal::string(&path)).to_string();
            // The unused `include_bytes!` makes cargo compile the plugin anew when the file changes.
            parse(&format!("{{ const _: &[u8] = ::core::include_bytes!({path}); *{bytes} }}"))
        }
        Err(message) => {
            let message = TokenTree::Literal(Literal::string(&message)).to_string();
            parse(&format!("::core::compile_error!({message})"))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "cargo speaks to macros through the environment")]
fn manifest_json() -> Result<(String, Vec<u8>), String> {
    let folder =
        std::env::var("CARGO_MANIFEST_DIR").map_err(|_| "plugin.toml can only be found under cargo")?;
    let path = Path::new(&folder).join("plugin.toml");
    let shown = path.display().to_string();
    let text = std::fs::read_to_string(&path)
        .map_err(|e| format!("a plugin needs `plugin.toml` beside Cargo.toml: {e}"))?;
    let manifest = Manifest::from_toml(&text).map_err(|e| format!("plugin.toml: {e}"))?;
    let json = serde_json::to_vec(&manifest).map_err(|e| format!("plugin.toml: {e}"))?;
    Ok((shown, json))
}

fn parse(code: &str) -> TokenStream {
    code.parse().unwrap_or_default()
}
