use std::path::{Path, PathBuf};

use manifest::ManifestError;
use protocol::text::path as shown;

/// The interface versions this host can load, for messages.
pub(crate) const ABI: &str = "0.1";

/// Why a plugin cannot be used. Each says what, where and what to do; the other plugins still work.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    #[error("{}: cannot be read: {source}", shown(path))]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{what}: {size} bytes are more than a plugin may have ({} MiB)", crate::limits::MAX_COMPONENT_BYTES >> 20)]
    TooLarge { what: String, size: u64 },
    #[error(
        "{what}: not a WebAssembly component ({reason}); build it with `cargo build --release --target wasm32-wasip2`"
    )]
    NotComponent { what: String, reason: String },
    #[error(
        "{what}: it has no manifest (custom section `{}`); export its tools with the SDK's `export!` macro",
        manifest::SECTION
    )]
    NoManifest { what: String },
    #[error("{what}: its manifest is not valid: {source}")]
    Manifest { what: String, source: ManifestError },
    #[error("{what}: it was built for plugin interface {found}, this host has {ABI}; {remedy}")]
    Abi { what: String, found: String, remedy: String },
    #[error(
        "{what}: it does not export `ml-intern:plugin/tools`; export its tools with the SDK's `export!` macro"
    )]
    NoTools { what: String },
    #[error(
        "{what}: it imports `{import}`, which its manifest does not declare; add {declare} to plugin.toml"
    )]
    Undeclared { what: String, import: String, declare: String },
    #[error("{what}: it imports `{import}`, which this host does not offer to plugins")]
    ForeignImport { what: String, import: String },
    #[error("{what}: {reason}")]
    Description { what: String, reason: String, lasts: Lasts },
    #[error("{what}: {reason} (at an earlier start; `ml-intern plugin install` tries it again)")]
    Remembered { what: String, reason: String },
    #[error("{}: its id `{id}` is also that of {}; remove one of the two files", shown(path), shown(other))]
    DuplicateId { id: String, path: PathBuf, other: PathBuf },
    #[error("{}: its tool `{tool}` is also a tool of {}; remove one of the two", shown(path), shown(other))]
    DuplicateTool { tool: String, path: PathBuf, other: PathBuf },
    #[error(
        "{}: plugin `{id}` describes itself differently than when it was approved; look at it with `ml-intern plugin info {}` and approve it with `ml-intern plugin install {}`",
        shown(path),
        shown(path),
        shown(path)
    )]
    Changed { id: String, path: PathBuf },
    #[error(
        "{}: it is not as it was when the folder was trusted; look at it with `ml-intern trust`",
        shown(path)
    )]
    NotTrusted { path: PathBuf },
    #[error("{}: the file was changed while the session ran; start a new session", shown(path))]
    ChangedWhileRunning { path: PathBuf },
    #[error(
        "{}: another user owns it or can write to it, and its code runs; make it your own with chown and chmod go-w",
        shown(path)
    )]
    NotOwn { path: PathBuf },
    #[error("{}: {reason}", shown(path))]
    Signature { path: PathBuf, reason: String },
    #[error("{}: it is not signed by {key}", shown(path))]
    NotSigned { path: PathBuf, key: String },
    #[error(
        "{}: plugin `{id}` is installed and signed by {key}, and this one is not; `ml-intern plugin remove {id}` makes room for it",
        shown(path)
    )]
    Publisher { path: PathBuf, id: String, key: String },
    #[error("{what}: {by}")]
    Forbidden { what: String, by: policy::Forbidden },
    #[error("{what}: it is not compiled: {reason}")]
    Oversized { what: String, reason: String },
    #[error("{what}: it cannot be compiled: {reason}")]
    Compile { what: String, reason: String, lasts: Lasts },
    #[error("{}: the plugin index cannot be {action}: {reason}", shown(path))]
    Index { path: PathBuf, action: &'static str, reason: String },
    #[error(
        "{}: {reason}, so no plugin of a folder is used; look at each (`ml-intern plugin info FILE`) and install it anew (`ml-intern plugin install FILE`), or remove this index: then whatever lies in the folders counts as new",
        shown(path)
    )]
    IndexChanged { path: PathBuf, reason: String },
    #[error(
        "{}: plugin `{id}` is left out: {reason}; look at it with `ml-intern plugin info {}` and install it with `ml-intern plugin install {}`",
        shown(path),
        shown(path),
        shown(path)
    )]
    NotLetIn { id: String, path: PathBuf, reason: &'static str },
    #[error(
        "{}: plugin `{id}` {version} is older than {highest}, which was installed before; `ml-intern plugin install {} --allow-downgrade` takes it",
        shown(path),
        shown(path)
    )]
    Older { id: String, version: String, highest: String, path: PathBuf },
    #[error("{}: {reason}", shown(path))]
    Grants { path: PathBuf, reason: String },
    #[error("the plugin engine cannot start: {0}")]
    Engine(String),
}

/// For how long a component that could not be used would meet the same again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lasts {
    /// As long as it has these bytes.
    Always,
    /// As long as it may take no more time and memory to compile.
    UnderLimits,
    /// Nobody knows: the machine had a part in it.
    Unknown,
}

impl PluginError {
    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }

    #[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
    pub(crate) fn engine(error: wasmtime::Error) -> Self {
        Self::Engine(format!("{error:#}"))
    }

    #[expect(clippy::needless_pass_by_value, reason = "the shape `map_err` wants")]
    pub(crate) fn thread(error: std::io::Error) -> Self {
        Self::Engine(error.to_string())
    }
}
