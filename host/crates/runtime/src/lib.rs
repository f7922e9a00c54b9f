//! The plugin runtime: finds plugins, opens them at their first call, and runs each call in a store of
//! its own, with what was granted and no more. wasmtime lives here and nowhere else.

mod arguments;
mod bindings;
mod cache;
mod call;
mod candidate;
mod catalog;
mod changes;
mod checks;
mod compile;
mod credentials;
mod describe;
mod engine;
mod error;
mod faults;
mod folders;
mod grants;
mod host;
mod index;
mod inspect;
mod key;
mod kv;
mod limits;
mod metered;
mod named_file;
mod open;
mod quota;
mod runtime;
mod session;
mod state;
mod stop;

pub use candidate::Candidate;
pub use catalog::{Bundled, Plugin, PluginDirs, Source};
pub use compile::{Compiled, Compiler, compile_for, compiler_main};
pub use credentials::{CredentialSource, Secrets, SourceError};
pub use describe::Described;
pub use engine::Target;
pub use error::PluginError;
pub use folders::{Folders, is_sealed};
pub use grants::Grants;
pub use inspect::{Inspection, inspect};
pub use limits::Limits;
pub use named_file::{MAX_TEXT_BYTES, NamedFile, NamedFileError};
pub use open::read_component;
pub use runtime::{Pending, PluginRuntime, RunningCall, RuntimeConfig};
pub use session::{SessionContext, Workplace};
