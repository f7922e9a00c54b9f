//! The words behind `ml-intern plugin`.

use std::path::PathBuf;

use clap::Subcommand;

use super::PlaceArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// List the plugins, their tools and what is wrong with those that cannot be used.
    List {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print what a plugin can reach, without running any of its code.
    Info {
        /// An installed plugin's id, or a component file.
        plugin: String,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Install a component, or approve one that is installed and changed.
    Install {
        /// A component file, `NAME.wasm`.
        file: PathBuf,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Remove an installed plugin and take back what it was granted. What it stored stays.
    Remove {
        /// Its id.
        plugin: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Give an installed plugin everything that it declares, except credentials; `plugin info` lists it.
    Grant {
        /// Its id.
        plugin: String,
        /// Give it a credential instead, from `env:VARIABLE`, `hf` or `stored:NAME`.
        #[arg(long, value_name = "NAME=SOURCE")]
        credential: Vec<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// List what plugins were granted.
    Grants {
        /// The id of one.
        plugin: Option<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Take everything back that a plugin was granted.
    Revoke {
        /// Its id.
        plugin: String,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Write the bundled plugins to a directory.
    Export {
        /// Made if it does not exist.
        directory: PathBuf,
    },
}
