use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::FileChange;

/// What a running call needs from above. The turn that made the call answers it, nothing else does.
#[derive(Clone, Debug, PartialEq)]
pub enum HostRequest {
    /// A message to be shown beside the call. Answered by [`HostReply::Noted`].
    Log { level: LogLevel, message: String },
    /// May it go on? Answered by [`HostReply::Allowed`] or [`HostReply::Refused`].
    Decide(Need),
    /// A credential goes with a request of a plugin. It is put on record, and then answered by
    /// [`HostReply::Noted`].
    UseCredential { plugin: String, credential: String, origin: String },
}

/// The answer to a [`HostRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostReply {
    Noted,
    Allowed,
    /// With the words for the model, the rule that refused and what would have allowed it.
    Refused {
        message: String,
        rule: String,
        remedy: String,
    },
}

/// What a call wants to do that its tiers do not cover.
#[derive(JsonSchema, Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "need", rename_all = "snake_case")]
pub enum Need {
    /// Change a file that other programs take instructions or settings from.
    SealedPath {
        path: String,
        /// Digest of what would stand there then; none if nothing would.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// What would become of it. An answer holds for these bytes.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        change: Option<FileChange>,
    },
    /// Reach an origin that the plugin declares and was not granted, or that a rule asks about.
    Network {
        plugin: String,
        /// `ORIGIN METHOD`.
        grant: String,
        /// The host of that origin, as rules name it.
        host: String,
        /// More than an answer is asked for: something may change there.
        sends: bool,
        /// The rule that asks, granted or not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        /// The plugin was granted it; else a yes grants it.
        granted: bool,
    },
    /// Go on although the session has cost so much, and has made so many orders of unknown price.
    Budget { spent_usd: f64, unpriced: usize },
}

/// How much a message matters.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}
