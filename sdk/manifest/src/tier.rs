use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a call does to the world, from harmless to final.
///
/// A call has a set of tiers; each is decided by its own column of the approval table.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Looks only.
    Read,
    /// Changes files of the workspace.
    Write,
    /// Runs code on this machine.
    Execute,
    /// Changes or publishes something elsewhere.
    Remote,
    /// Costs money.
    Spend,
    /// Cannot be undone.
    Destructive,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Execute, Self::Remote, Self::Spend, Self::Destructive];

    /// The word used in manifests, settings and events.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Execute => "execute",
            Self::Remote => "remote",
            Self::Spend => "spend",
            Self::Destructive => "destructive",
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
