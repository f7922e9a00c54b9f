use std::collections::{BTreeMap, BTreeSet};

use protocol::{SessionId, Tier, ToolCallId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A link of a chain: where it stands, and what happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Entry {
    /// Counts from 0.
    pub seq: u64,
    /// Hash of the record before; of the first, the chain's name.
    pub prev: String,
    /// Local time with offset.
    pub at: String,
    #[serde(flatten)]
    pub act: Act,
}

/// What happened.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "act", rename_all = "snake_case")]
pub enum Act {
    /// A session starts or goes on.
    Start {
        session: SessionId,
        version: String,
        model: String,
        workspace: Option<String>,
        mode: String,
        wall: String,
        network: String,
        plugins: Vec<Plugin>,
        /// The machine's policy that it was under.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyMark>,
        /// In the session's chain: the head of the user's chain once it said the same. Who holds the head of a
        /// session holds what the user's chain had until then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        user: Option<String>,
    },
    /// May a call run? Written before it does.
    Decision {
        call: ToolCallId,
        tool: String,
        /// Digest of the component that would run.
        component: Option<String>,
        /// Digest of the arguments as the model gave them; where texts of files or of a person stand in
        /// them, as the tool gets them.
        arguments: String,
        /// Files whose texts stand in the arguments.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        files: Vec<ReadFile>,
        tiers: BTreeSet<Tier>,
        verdict: Verdict,
        /// What decided: a mode, a rule, the policy.
        rule: String,
        target: String,
    },
    /// What a person answered, about a call or about something a running call needs.
    Answer {
        call: ToolCallId,
        target: String,
        /// `once`, `session`, `rejected` or `abandoned`.
        answer: String,
        /// SHA-256 of the texts that the person wrote anew, by the argument.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        edited: BTreeMap<String, String>,
    },
    /// A credential goes with a request of a plugin. Written before it leaves.
    Credential {
        call: ToolCallId,
        plugin: String,
        /// Its name in the plugin's manifest, never its value.
        credential: String,
        origin: String,
    },
    /// What came of a call.
    Outcome {
        call: ToolCallId,
        success: bool,
        /// Digest of what the model read.
        output: String,
        /// The rule that refused the call or a part of it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<String>,
    },
    /// A call ended without an outcome of its own.
    Unfinished { call: ToolCallId, why: String },
    /// A call that changes, orders or ends something elsewhere: before it leaves, and what came of it.
    Order {
        order: String,
        call: ToolCallId,
        tool: String,
        target: String,
        /// What it may cost; once it is known, what it cost.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usd: Option<f64>,
        /// It costs something, and nobody knows how much.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unpriced: bool,
        state: OrderState,
    },
    /// What the session's file holds by now: so many bytes, with this BLAKE3 digest.
    Saved { bytes: u64, digest: String },
    /// A call made a repository on the Hub, for the session to change.
    Made { call: ToolCallId, kind: String, namespace: String, name: String },
    /// A session ends. In the user's chain with the head of the session's own.
    End {
        session: SessionId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        head: Option<String>,
    },
    /// The chain ended with what is no record, as a power loss leaves it. That was cut off; the whole file
    /// as it was is kept.
    Torn {
        /// Its name, beside the chain.
        file: String,
        /// How much was cut off.
        bytes: u64,
        /// Of what was cut off.
        digest: String,
    },
    /// A plugin was installed or approved anew.
    Install { plugin: Plugin, path: String },
    /// A plugin was removed.
    Remove { plugin: String, path: String },
    /// A person trusted a folder's files, or took that back.
    Trust {
        folder: String,
        /// `given`, `once` for one run, or `revoked`.
        word: String,
        /// SHA-256 by the name relative to the folder; none of what holds secrets.
        files: BTreeMap<String, Option<String>>,
    },
    /// A credential was stored for the person, or removed. Its value is in no record.
    Login { credential: String, stored: bool },
    /// What a plugin may do was changed by the person.
    Grant { plugin: String, granted: Vec<String>, revoked: Vec<String> },
}

/// A file whose text stands in an argument's place.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ReadFile {
    /// JSON pointer of the argument.
    pub argument: String,
    pub path: String,
    pub sha256: String,
}

/// A plugin, as it was when it was used.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Plugin {
    pub id: String,
    pub version: String,
    pub digest: String,
    /// The key of the publisher whose signature was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
}

/// Where an order stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderState {
    /// It is about to leave.
    Sent,
    /// It was answered.
    Done,
    /// It was not made.
    Failed,
    /// It left and was not answered.
    Unknown,
    /// It was looked for and is there.
    Found,
    /// It was looked for, late enough, and is not there.
    Absent,
    /// The person said that it may be ordered again.
    Released,
}

/// A policy, as it was when it counted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PolicyMark {
    pub path: String,
    pub digest: String,
    /// What its administrator calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Allow,
    Ask,
    Deny,
}

/// What of a target is kept on record: its beginning. The whole is in the session's file.
#[must_use]
pub fn shown_target(target: &str) -> String {
    target.chars().take(400).collect()
}

/// SHA-256 in hexadecimal.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        for nibble in [byte >> 4, byte & 15] {
            text.push(char::from_digit(nibble.into(), 16).unwrap_or('0'));
        }
    }
    text
}
