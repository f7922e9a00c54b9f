//! The host's side of WIT 0.1, generated from its frozen copy.
#![allow(clippy::all, clippy::use_self, unreachable_pub, reason = "generated")]

wasmtime::component::bindgen!({
    path: "../../../wit/frozen/0.1.0",
    world: "plugin",
    imports: { default: async },
    exports: { default: async },
});
