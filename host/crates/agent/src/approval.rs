//! May a call run? Decided here and nowhere else, by a pure function of the facts.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use protocol::Tier;

/// How much is allowed without asking.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// At a terminal.
    Default,
    /// Look only.
    Plan,
    /// Ask for everything but looking.
    Ask,
    /// Nobody is there to ask.
    Auto,
    /// The person said that everything may run.
    Yolo,
}

impl Mode {
    /// The word used by `--permission-mode`, settings and results.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Plan => "plan",
            Self::Ask => "ask",
            Self::Auto => "auto",
            Self::Yolo => "yolo",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let modes = [Self::Default, Self::Plan, Self::Ask, Self::Auto, Self::Yolo];
        modes.into_iter().find(|mode| mode.as_str() == word).ok_or_else(|| {
            format!("`{word}` is no permission mode; they are default, plan, ask, auto and yolo")
        })
    }
}

/// All that a decision depends on.
#[derive(Clone, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) mode: Mode,
    pub(crate) tiers: &'a BTreeSet<Tier>,
    /// Commands run behind a wall, or the person said that none is needed.
    pub(crate) walled: bool,
    /// The person allowed this tool and target for the session.
    pub(crate) allowed_before: bool,
    /// Somebody can answer.
    pub(crate) interactive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow {
        rule: String,
    },
    /// A person decides; the reason is shown.
    Ask {
        rule: String,
        reason: String,
    },
    Deny(Denied),
}

/// Why not, and what would have allowed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Denied {
    pub(crate) rule: String,
    pub(crate) message: String,
    pub(crate) remedy: String,
}

/// Decides each tier by its own column; the most restrictive answer wins.
pub(crate) fn decide(facts: &Facts<'_>) -> Decision {
    let answers = facts.tiers.iter().map(|tier| (column(facts, *tier), *tier));
    let (answer, tier) = answers.max().unwrap_or((Answer::Deny, Tier::Destructive));
    let by_mode = format!("mode:{}", facts.mode);
    match answer {
        Answer::Allow => Decision::Allow { rule: by_mode },
        Answer::Ask if facts.allowed_before && facts.walled => {
            Decision::Allow { rule: "allowed-for-session".to_owned() }
        }
        Answer::Ask if facts.interactive => Decision::Ask { rule: by_mode, reason: reason(facts, tier) },
        Answer::Ask => Decision::Deny(Denied {
            rule: "unanswered".to_owned(),
            message: format!(
                "refused: a call of tier `{tier}` needs a person's approval and nobody can answer"
            ),
            remedy: remedy(facts, tier),
        }),
        Answer::Deny => Decision::Deny(Denied {
            rule: by_mode,
            message: format!(
                "refused: permission mode `{}` does not allow calls of tier `{tier}`",
                facts.mode
            ),
            remedy: remedy(facts, tier),
        }),
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Answer {
    Allow,
    Ask,
    Deny,
}

fn column(facts: &Facts<'_>, tier: Tier) -> Answer {
    use Answer::{Allow, Ask, Deny};
    let inside_wall_else = |otherwise| if facts.walled { Allow } else { otherwise };
    match (facts.mode, tier) {
        (_, Tier::Read) | (Mode::Default | Mode::Auto, Tier::Write) | (Mode::Yolo, _) => Allow,
        (Mode::Plan, _) => Deny,
        (Mode::Default, Tier::Execute) => inside_wall_else(Ask),
        (Mode::Auto, Tier::Execute) => inside_wall_else(Deny),
        (Mode::Ask, _) | (Mode::Default, _) => Ask,
        (Mode::Auto, Tier::Remote | Tier::Spend | Tier::Destructive) => Deny,
    }
}

fn reason(facts: &Facts<'_>, tier: Tier) -> String {
    match tier {
        Tier::Execute if !facts.walled => "there is no wall around commands on this machine".to_owned(),
        tier => format!("permission mode `{}` asks for calls of tier `{tier}`", facts.mode),
    }
}

fn remedy(facts: &Facts<'_>, tier: Tier) -> String {
    match (facts.mode, tier) {
        (Mode::Auto, Tier::Execute) => "--wall external (in a container or VM) or --wall off".to_owned(),
        (Mode::Plan | Mode::Ask, Tier::Write | Tier::Execute) => "--permission-mode auto".to_owned(),
        _ => "--yolo, or a run at a terminal".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(mode: Mode, tier: Tier, walled: bool, interactive: bool) -> &'static str {
        let tiers = [tier].into();
        match decide(&Facts { mode, tiers: &tiers, walled, allowed_before: false, interactive }) {
            Decision::Allow { .. } => "allow",
            Decision::Ask { .. } => "ask",
            Decision::Deny(_) => "deny",
        }
    }

    #[test]
    fn the_table() {
        let table = [
            (Mode::Default, ["allow", "allow", "allow", "ask", "ask", "ask"]),
            (Mode::Plan, ["allow", "deny", "deny", "deny", "deny", "deny"]),
            (Mode::Ask, ["allow", "ask", "ask", "ask", "ask", "ask"]),
            (Mode::Auto, ["allow", "allow", "allow", "deny", "deny", "deny"]),
            (Mode::Yolo, ["allow", "allow", "allow", "allow", "allow", "allow"]),
        ];
        for (mode, row) in table {
            assert_eq!(Tier::ALL.map(|tier| decision(mode, tier, true, true)), row, "{mode}");
        }
    }

    #[test]
    fn without_a_wall_commands_are_asked_for_or_refused() {
        assert_eq!(decision(Mode::Default, Tier::Execute, false, true), "ask");
        assert_eq!(decision(Mode::Auto, Tier::Execute, false, false), "deny");
        assert_eq!(decision(Mode::Yolo, Tier::Execute, false, false), "allow");
    }

    #[test]
    fn an_ask_that_nobody_answers_is_a_denial() {
        assert_eq!(decision(Mode::Ask, Tier::Write, true, false), "deny");
        assert_eq!(decision(Mode::Default, Tier::Spend, true, false), "deny");
    }

    #[test]
    fn the_most_restrictive_tier_wins_and_an_empty_set_is_refused() {
        let tiers = [Tier::Read, Tier::Spend].into();
        let facts = Facts {
            mode: Mode::Auto,
            tiers: &tiers,
            walled: true,
            allowed_before: false,
            interactive: false,
        };
        let Decision::Deny(denied) = decide(&facts) else { panic!("allowed") };
        assert_eq!(denied.rule, "mode:auto");
        assert!(denied.message.contains("`spend`"));
        let none = BTreeSet::new();
        assert!(matches!(decide(&Facts { tiers: &none, ..facts }), Decision::Deny(_)));
    }

    #[test]
    fn an_allow_for_the_session_counts_behind_the_wall_only() {
        let tiers = [Tier::Execute].into();
        let facts =
            Facts { mode: Mode::Ask, tiers: &tiers, walled: true, allowed_before: true, interactive: true };
        assert_eq!(decide(&facts), Decision::Allow { rule: "allowed-for-session".to_owned() });
        assert!(matches!(decide(&Facts { walled: false, ..facts }), Decision::Ask { .. }));
    }
}
