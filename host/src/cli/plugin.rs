//! The words behind `ml-intern plugin`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

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
    /// Show what a component can reach, ask, and install it; of one that is installed, what is different.
    Install(InstallArgs),
    /// Remove an installed plugin, what it stored, and what it was granted.
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
        /// Bound it instead: `cpu_ms`, `memory_bytes`, `wall_time_s`, `output_bytes`, `data_bytes`, `data_files` or
        /// `kv_bytes`.
        #[arg(long, value_name = "NAME=NUMBER")]
        limit: Vec<String>,
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
    /// Make a key that signs plugins, FILE, and the one that verifies them, beside it with `.pub`.
    Keygen {
        /// Where the secret key goes. Nothing is written over.
        file: PathBuf,
        /// Do not encrypt it. Otherwise its password is asked for, or read from standard input.
        #[arg(long)]
        unencrypted: bool,
    },
    /// Sign a component: writes NAME.wasm.minisig, over its bytes, its id, its version and the date.
    Sign {
        /// A component file, `NAME.wasm`.
        file: PathBuf,
        /// The secret key's file, of `plugin keygen` or of minisign.
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Verify the signature that lies beside a component.
    Verify {
        /// A component file, `NAME.wasm`.
        file: PathBuf,
        /// The publisher's public key, or its file; otherwise the keys of the policy and of what is installed.
        #[arg(long, value_name = "KEY|FILE")]
        publisher: Option<String>,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Write the bundled plugins to a directory.
    Export {
        /// Made if it does not exist.
        directory: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct InstallArgs {
    /// A component file, `NAME.wasm`, or a directory of them.
    pub(crate) file: PathBuf,

    /// Do not ask. Without a terminal nothing is installed unless this is said.
    #[arg(long)]
    pub(crate) yes: bool,

    /// It must be signed by this public key, given itself or as its file.
    #[arg(long, value_name = "KEY|FILE")]
    pub(crate) publisher: Option<String>,

    /// Take a version that is lower than one that was installed before.
    #[arg(long)]
    pub(crate) allow_downgrade: bool,

    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}
