use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    SealedPath { path: String },
    /// Reach an origin that the plugin declares and was not granted. `grant` is `ORIGIN METHOD`.
    Network { plugin: String, grant: String },
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
