//! Write a tool for ml-intern.
//!
//! A plugin is a crate of type `cdylib` that is compiled for `wasm32-wasip2`. A tool is a type: its
//! fields are the arguments that the model fills in, its doc comments are what the model reads about
//! them, and [`Tool::run`] does the work. This is a complete plugin:
//!
//! ```
//! use ml_intern_sdk::{Call, Deserialize, JsonSchema, Output, Tool, ToolError};
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Greet { /// Who is greeted.
//!     name: String }
//! impl Tool for Greet {
//!     const NAME: &str = "greet";
//!     const DESCRIPTION: &str = "Greets someone by name.";
//!     fn run(self, _: &Call) -> Result<Output, ToolError> { Ok(Output::text(format!("Hello, {}!", self.name))) }
//! }
//! ml_intern_sdk::export!(Greet);
//! ```
//!
//! with this `Cargo.toml`, whose last two lines the derives need:
//!
//! ```toml
//! [package]
//! name = "greeter"
//! version = "0.1.0"
//! edition = "2024"
//! [lib]
//! crate-type = ["cdylib"]
//! [dependencies]
//! ml-intern-sdk = { path = "…/sdk" }     # or git = "…": it is not on a registry yet
//! serde = { version = "1", features = ["derive"] }
//! schemars = "1"
//! ```
//!
//! and this `plugin.toml` beside it:
//!
//! ```toml
//! id = "greeter"
//! version = "0.1.0"
//! description = "Greets people."
//! [tools.greet]
//! tier = "read"
//! ```
//!
//! `cargo build --release --target wasm32-wasip2` makes the component; `ml-intern plugin info FILE` shows
//! what it can reach, `ml-intern tool --plugin-dir FOLDER greeter__greet '{"name": "Ada"}'` calls it, from a folder
//! that FOLDER is not a part of. Each build that was granted something is a stranger to it: `--grant greeter` gives
//! it all it declares for one call, `ml-intern plugin install FILE --plugin-dir FOLDER` lets it in for good, and
//! where it is built, too. `version` is three numbers (semver.org): a lower one is not taken for a higher.
//!
//! Files are read with `std::fs` (see [`Call::path`]) and changed through [`files`]; commands run through
//! [`exec`], requests through [`http`], values that outlive a call lie in [`kv`]. Each of these is declared
//! in `plugin.toml`, and what is not used there is left out:
//!
//! ```toml
//! [capabilities]
//! paths = ["workspace", "tmp", "data"]   # folders that std::fs sees; `data` is the plugin's own
//! files = true                           # ml_intern_sdk::files
//! exec = true                            # ml_intern_sdk::exec
//! kv = true                              # ml_intern_sdk::kv
//! network = ["https://api.example.com GET POST"]   # ml_intern_sdk::http; GET and HEAD if none is named;
//!                                                    # also `https://*.example.com`, `http://localhost:*`, `http://10.1.0.0/16:8080`
//! ```
//!
//! and given by the user, with `ml-intern plugin grant greeter` or, in part, in a table with the plugin's id in
//! `~/.config/ml-intern/grants.toml`:
//!
//! ```toml
//! [greeter]
//! paths = ["workspace"]
//! network = ["https://api.example.com GET"]
//! ```
//!
//! A plugin gets what is in both. Without that, a function of this crate fails with [`ErrorKind::Denied`];
//! for `std::fs` a folder that was not granted is not there, which is an ordinary `std::io::Error`.
//!
//! What the host has to know of a tool before it runs stands in its table; what is left out counts as the worst
//! that the tool's tier allows:
//!
//! ```toml
//! [tools.job]
//! tier = "read"                          # read, write, execute, remote, spend or destructive: the least of a call
//! target_argument = "name"               # what a call is about, for the card and for `--allow 'greeter__job(NAME)'`
//! text_or_file = ["script", "/job/run"]  # arguments that hold a text, or the path of a workspace file with it
//! order_lookup = { operation = "find", order = "{order}" }   # how to look for an order of unknown outcome
//! [[tools.job.rules]]                    # arguments that make a call more than the tool's tier
//! argument = "operation"
//! in = ["run"]
//! tiers = ["remote", "spend"]
//! [tools.job.price]                      # what it costs at most
//! argument = "flavor"
//! usd_per_hour = { small = 0.5 }
//! hours_argument = "timeout"
//! default_hours = 1
//! [tools.job.repository]                 # which repository of the Hub a call makes or changes, exactly
//! argument = "repo"                      # NAMESPACE/NAME
//! kind_argument = "repo_type"
//! private_argument = "private"
//! create = { argument = "operation", in = ["create_repo"] }
//! change = { argument = "operation", in = ["upload"] }
//! ```
//!
//! - **Texts.** The host reads a file that a `text_or_file` argument names, once, if the plugin was granted its
//!   folder (`paths`), shows the text to whoever approves, lets them edit it, and hands the text over. The tool
//!   takes the argument for a text and never opens a path itself.
//! - **Orders.** [`Call::order`] goes along where the service has room for it. An answer for programs with
//!   `order.cost_usd` says what the order costs: more than was set aside is set aside, less is believed of
//!   bundled plugins only.
//! - **Repositories.** With `auto` a call that makes a private repository in the user's own namespace, or changes
//!   one that the session made, needs no rule. An answer for programs with `repository.created = true` says that
//!   the call made it; one that was there already is `false`.

mod call;
mod describe;
mod error;
pub mod exec;
mod export;
pub mod files;
pub mod http;
pub mod kv;
pub mod log;
mod output;
mod parse;

pub use call::Call;
pub use describe::{Tool, describe};
pub use error::{ErrorKind, ToolError};
pub use output::{Output, plural, table, thousands, truncate_middle};
pub use schemars::{self, JsonSchema};
pub use sdk_macros::manifest;
pub use serde::{self, Deserialize};

/// The generated glue; [`export!`] uses it, authors need not.
#[doc(hidden)]
pub mod bindings {
    #![allow(
        missing_docs,
        unsafe_code,
        unreachable_pub,
        clippy::allow_attributes_without_reason,
        clippy::all,
        reason = "generated"
    )]
    wit_bindgen::generate!({
        path: "../wit",
        world: "plugin",
        pub_export_macro: true,
        default_bindings_module: "ml_intern_sdk::bindings",
    });
}

#[doc(hidden)]
pub mod glue {
    pub use crate::parse::invoke;
}
