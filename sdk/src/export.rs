/// Makes a plugin of one or more tools: exports them and embeds `plugin.toml`.
///
/// Natively nothing is exported: the plugin's pure parts can be tested with `cargo test`.
#[macro_export]
macro_rules! export {
    ($($tool:ty),+ $(,)?) => {
        #[cfg(not(target_arch = "wasm32"))]
        const _: &[fn() -> $crate::bindings::ml_intern::plugin::types::ToolSpec] = &[$($crate::describe::<$tool>),+];

        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Plugin;

            impl $crate::bindings::exports::ml_intern::plugin::tools::Guest for Plugin {
                fn describe() -> Result<Vec<$crate::bindings::ml_intern::plugin::types::ToolSpec>, $crate::bindings::ml_intern::plugin::types::Error> {
                    Ok(vec![$($crate::describe::<$tool>()),+])
                }

                fn invoke(call: $crate::bindings::ml_intern::plugin::types::ToolCall) -> Result<$crate::bindings::ml_intern::plugin::types::ToolOutput, $crate::bindings::ml_intern::plugin::types::Error> {
                    match call.name.as_str() {
                        $(<$tool as $crate::Tool>::NAME => $crate::glue::invoke::<$tool>(call),)+
                        other => Err($crate::ToolError::invalid(format!("this plugin has no tool `{other}`")).into()),
                    }
                }
            }

            $crate::bindings::export!(Plugin with_types_in $crate::bindings);

            const MANIFEST: &[u8] = &$crate::manifest!();
            #[used]
            #[unsafe(link_section = "ml-intern:manifest")]
            static SECTION: [u8; MANIFEST.len()] = $crate::manifest!();
        };
    };
}
