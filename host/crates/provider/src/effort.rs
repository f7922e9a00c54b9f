use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How much a model should think.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
    Max,
}

/// What every endpoint with efforts understands.
pub(crate) const COMMON: &[Effort] = &[Effort::Low, Effort::Medium, Effort::High];

impl Effort {
    /// Its name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Max => "max",
        }
    }

    /// The strongest allowed effort that is not above this one, else the weakest allowed.
    pub(crate) fn fit(self, allowed: &[Self]) -> Option<Self> {
        let below = allowed.iter().copied().filter(|effort| *effort <= self).max();
        below.or_else(|| allowed.iter().copied().min())
    }
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no effort.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is not an effort: write `minimal`, `low`, `medium`, `high`, `xhigh` or `max`")]
pub struct UnknownEffort(String);

impl FromStr for Effort {
    type Err = UnknownEffort;

    fn from_str(text: &str) -> Result<Self, UnknownEffort> {
        match text.to_ascii_lowercase().as_str() {
            "minimal" => Ok(Self::Minimal),
            "low" => Ok(Self::Low),
            "medium" => Ok(Self::Medium),
            "high" => Ok(Self::High),
            "xhigh" => Ok(Self::Xhigh),
            "max" => Ok(Self::Max),
            _ => Err(UnknownEffort(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{COMMON, Effort};

    #[test]
    fn an_effort_becomes_the_nearest_one_that_is_allowed() {
        let claude = [Effort::Low, Effort::Medium, Effort::High, Effort::Max];
        for (wanted, allowed, sent) in [
            (Effort::Minimal, COMMON, Some(Effort::Low)),
            (Effort::Medium, COMMON, Some(Effort::Medium)),
            (Effort::Xhigh, COMMON, Some(Effort::High)),
            (Effort::Max, COMMON, Some(Effort::High)),
            (Effort::Xhigh, &claude, Some(Effort::High)),
            (Effort::Max, &claude, Some(Effort::Max)),
            (Effort::High, &[], None),
        ] {
            assert_eq!(wanted.fit(allowed), sent, "{wanted}");
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("XHigh".parse(), Ok(Effort::Xhigh));
        assert!("off".parse::<Effort>().unwrap_err().to_string().contains("`off`"));
    }
}
