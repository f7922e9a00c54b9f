//! May a call run? Decided here and nowhere else, by a pure function of the facts.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use protocol::{Need, Tier};

use crate::rules::{Matched, Rule};

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
    /// The person allowed this very call for the session.
    pub(crate) allowed_before: bool,
    /// Somebody can answer.
    pub(crate) interactive: bool,
    /// The rules that are about it.
    pub(crate) rules: Matched<'a>,
    /// Where text came from that the session read and nobody vouches for.
    pub(crate) taint: Option<&'a str>,
    /// The manifest says that a person is asked in every mode.
    pub(crate) never_automatic: bool,
    /// What it costs, against what is left.
    pub(crate) money: Money,
    /// It stays within what is the user's own on the Hub.
    pub(crate) own: Option<Own>,
    /// An order of the same tool, of which nobody knows whether it arrived.
    pub(crate) unknown_order: Option<&'a str>,
    pub(crate) ways: Ways,
}

/// How a rule that names a target is given.
pub(crate) const BY_FLAG: &str = "--allow 'TOOL(TARGET)' with the exact target";
pub(crate) const IN_SETTINGS: &str = "`permissions.allow` of the settings with the exact target";

/// Where somebody can be asked.
const TERMINAL: &str = "a run at a terminal";

/// What a person can say that allows more. A policy forbids flags and modes; a call by hand has none of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ways {
    pub(crate) allow: Option<&'static str>,
    /// `--permission-mode auto`.
    pub(crate) auto: bool,
    pub(crate) yolo: bool,
    /// `--max-budget-usd`.
    pub(crate) budget: bool,
}

impl Ways {
    fn yolo(self) -> Option<&'static str> {
        self.yolo.then_some("--yolo")
    }

    fn auto(self) -> Option<&'static str> {
        self.auto.then_some("--permission-mode auto")
    }

    /// What raises the budget.
    pub(crate) fn raised(self) -> String {
        one_of(&[self.budget.then_some("--max-budget-usd"), Some("`headless_budget_usd` in the settings")])
    }
}

/// The ways that there are, in words.
fn one_of(ways: &[Option<&str>]) -> String {
    let ways: Vec<&str> = ways.iter().flatten().copied().collect();
    match ways.as_slice() {
        [] => "another policy, by this machine's administrator".to_owned(),
        [one] => (*one).to_owned(),
        [others @ .., last] => format!("{}, or {last}", others.join(", ")),
    }
}

/// How a call stays within what is the user's own on the Hub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Own {
    /// It makes a private repository in the user's namespace.
    Makes,
    /// It changes one that this session made, and publishes nothing.
    Made,
}

/// What a call costs, against what is left of the budget.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Money {
    /// It costs nothing.
    None,
    /// It fits.
    Within(f64),
    /// It fits, and with it the session costs so much that a person is asked in every mode.
    Asked(String),
    /// It does not fit, or nobody knows what it costs.
    TooDear(String),
    /// The machine's policy does not let a run cost so much, whoever agrees to it.
    Forbidden(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow {
        rule: String,
    },
    /// A person decides; the reasons are shown, a line for each.
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

/// Decides each tier by its own column, then by what holds for the call as a whole; the most restrictive
/// answer wins.
pub(crate) fn decide(facts: &Facts<'_>) -> Decision {
    if let Some(rule) = facts.rules.deny {
        return Decision::Deny(Denied {
            rule: format!("rule:{rule}"),
            message: format!("refused: the rule `{rule}` denies it"),
            remedy: rule.remedy(),
        });
    }
    let by_tier = facts.tiers.iter().map(|tier| column(facts, *tier));
    let columns: Vec<Column> = by_tier.chain(whole(facts)).collect();
    let reasons = asking(&columns);
    let worst = columns.into_iter().max_by_key(|column| column.answer);
    let Some(Column { answer, rule, reason, remedy }) = worst else {
        return Decision::Deny(Denied {
            rule: format!("mode:{}", facts.mode),
            message: "refused: the call has no tier".to_owned(),
            remedy: "a manifest that says what the tool does".to_owned(),
        });
    };
    match answer {
        Answer::Allow => Decision::Allow { rule },
        Answer::Ask if facts.allowed_before && holds_for_session(facts) => {
            Decision::Allow { rule: "allowed-for-session".to_owned() }
        }
        Answer::Ask if facts.interactive => Decision::Ask { rule, reason: reasons },
        Answer::Ask => Decision::Deny(Denied {
            rule: if rule.starts_with("mode:") { "unanswered".to_owned() } else { rule },
            message: format!("refused: {reason}, which needs a person's approval, and nobody can answer"),
            remedy,
        }),
        Answer::Deny => Decision::Deny(Denied { rule, message: format!("refused: {reason}"), remedy }),
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Answer {
    Allow,
    Ask,
    Deny,
}

/// One answer, where it comes from, and how it is told.
struct Column {
    answer: Answer,
    rule: String,
    /// Why it is asked or refused.
    reason: String,
    remedy: String,
}

/// All reasons why a person is asked, a line for each: whoever answers answers all of them.
fn asking(columns: &[Column]) -> String {
    let asking = columns.iter().filter(|column| column.answer == Answer::Ask);
    let mut reasons: Vec<&str> = asking.map(|column| column.reason.as_str()).collect();
    reasons.dedup();
    reasons.join("\n")
}

/// Whether an approval for the session stands in for an answer now. Money, taint and what nobody knows are
/// asked about each time.
pub(crate) fn holds_for_session(facts: &Facts<'_>) -> bool {
    let careful = facts.taint.is_some() && leaves(facts.tiers);
    let dear = matches!(facts.money, Money::TooDear(_) | Money::Asked(_));
    facts.walled && !careful && !dear && !facts.never_automatic && facts.unknown_order.is_none()
}

/// Whether it changes, orders or ends something elsewhere.
pub(crate) fn leaves(tiers: &BTreeSet<Tier>) -> bool {
    [Tier::Remote, Tier::Spend, Tier::Destructive].iter().any(|tier| tiers.contains(tier))
}

fn column(facts: &Facts<'_>, tier: Tier) -> Column {
    use Answer::{Allow, Ask, Deny};
    let named = facts.rules.allows_target;
    let inside_wall_else = |otherwise| if facts.walled { Allow } else { otherwise };
    let by_mode = match (facts.mode, tier) {
        (_, Tier::Read) | (Mode::Default | Mode::Auto, Tier::Write) | (Mode::Yolo, _) => Allow,
        (Mode::Plan, _) => Deny,
        (Mode::Default, Tier::Execute) => inside_wall_else(Ask),
        (Mode::Auto, Tier::Execute) => inside_wall_else(Deny),
        (Mode::Ask, _) | (Mode::Default, _) => Ask,
        (Mode::Auto, Tier::Spend) if !matches!(facts.money, Money::TooDear(_)) => Allow,
        (Mode::Auto, Tier::Remote) if facts.own.is_some() => Allow,
        (Mode::Auto, Tier::Destructive) if facts.own == Some(Own::Made) => Allow,
        (Mode::Auto, Tier::Remote | Tier::Spend | Tier::Destructive) => Deny,
    };
    // A rule answers what would be asked. What leaves this machine it must name; a wall it does not make.
    let answered = match (facts.rules.allow, tier) {
        (None, _) => false,
        (Some(_), Tier::Execute) => facts.walled,
        (Some(_), Tier::Read | Tier::Write) => true,
        (Some(_), Tier::Remote | Tier::Spend | Tier::Destructive) => named,
    };
    let answer = if answered && facts.mode != Mode::Plan { Allow } else { by_mode };
    let rule = match facts.rules.allow {
        Some(rule) if answered && by_mode != Allow => format!("rule:{rule}"),
        _ if by_mode == Allow
            && facts.mode == Mode::Auto
            && leaves(&[tier].into())
            && facts.own.is_some() =>
        {
            "own-namespace".to_owned()
        }
        _ => format!("mode:{}", facts.mode),
    };
    let reason = match (answer, tier) {
        (_, Tier::Execute) if !facts.walled => "there is no wall around commands on this machine".to_owned(),
        (Deny, tier) => format!("permission mode `{}` does not allow calls of tier `{tier}`", facts.mode),
        (_, tier) => format!("permission mode `{}` asks for calls of tier `{tier}`", facts.mode),
    };
    Column { answer, rule, reason, remedy: remedy(facts, tier) }
}

/// What holds for the call as a whole, whatever its tiers.
fn whole(facts: &Facts<'_>) -> Vec<Column> {
    let named = facts.rules.allows_target;
    let mut columns = Vec::new();
    let mut add = |answer, rule: String, reason: String, remedy: &str| {
        columns.push(Column { answer, rule, reason, remedy: remedy.to_owned() });
    };
    if let Some(rule) = facts.rules.ask {
        add(Answer::Ask, format!("rule:{rule}"), format!("the rule `{rule}` asks"), "a run at a terminal");
    }
    if let Some(order) = facts.unknown_order {
        let reason = format!(
            "{order} was sent and nobody knows whether it arrived; look for it before anything is ordered again"
        );
        add(
            Answer::Ask,
            "unknown-order".to_owned(),
            reason,
            "a run at a terminal, where a person can say so",
        );
    }
    if facts.never_automatic {
        let reason = "the tool says that a person has to agree to this each time".to_owned();
        add(Answer::Ask, "never-automatic".to_owned(), reason, "a run at a terminal");
    }
    let raised = &facts.ways.raised();
    match &facts.money {
        _ if !facts.tiers.contains(&Tier::Spend) => {}
        Money::None | Money::Within(_) => {}
        Money::Asked(why) => add(Answer::Ask, "budget".to_owned(), why.clone(), raised),
        Money::TooDear(why) => {
            let answer = if facts.mode == Mode::Auto { Answer::Deny } else { Answer::Ask };
            add(answer, "budget".to_owned(), why.clone(), raised);
        }
        Money::Forbidden(why) => {
            let remedy = "another policy, by this machine's administrator";
            add(Answer::Deny, "policy".to_owned(), why.clone(), remedy);
        }
    }
    // The person who said yolo vouches for everything.
    if let Some(source) = facts.taint.filter(|_| facts.mode != Mode::Yolo && !named && leaves(facts.tiers)) {
        let reason = format!("the session has read {source}, and this changes something elsewhere");
        let remedy = one_of(&[facts.ways.allow, facts.ways.allow.is_none().then_some(TERMINAL)]);
        add(Answer::Ask, "taint".to_owned(), reason, &remedy);
    }
    columns
}

fn remedy(facts: &Facts<'_>, tier: Tier) -> String {
    match (facts.mode, tier) {
        (Mode::Auto, Tier::Execute) => "--wall external (in a container or VM) or --wall off".to_owned(),
        (Mode::Auto, Tier::Remote | Tier::Spend | Tier::Destructive) => {
            one_of(&[facts.ways.allow, facts.ways.yolo(), Some(TERMINAL)])
        }
        (Mode::Plan, Tier::Write | Tier::Execute) => one_of(&[facts.ways.auto()]),
        // Who only looks is asked for nothing else.
        (Mode::Plan, _) => one_of(&[facts.ways.yolo()]),
        (Mode::Ask, Tier::Write | Tier::Execute) => one_of(&[facts.ways.auto(), Some(TERMINAL)]),
        _ => one_of(&[facts.ways.yolo(), Some(TERMINAL)]),
    }
}

/// Whether an answer about a need can hold for the session. A sealed path is asked about for each change of
/// it, money for each amount.
pub(crate) fn need_holds_for_session(need: &Need) -> bool {
    matches!(need, Need::Network { .. })
}

/// All that a decision about a need of a running call depends on.
pub(crate) struct NeedFacts<'a> {
    pub(crate) mode: Mode,
    pub(crate) interactive: bool,
    pub(crate) allowed_before: bool,
    /// A rule that allows the host.
    pub(crate) allowed: Option<&'a Rule>,
    /// The rules that deny and ask about its tier.
    pub(crate) on_tier: (Option<&'a Rule>, Option<&'a Rule>),
    /// An order of the same tool, of which nobody knows whether it arrived.
    pub(crate) unknown_order: Option<&'a str>,
    /// The session has read what nobody vouches for.
    pub(crate) tainted: bool,
    pub(crate) need: &'a Need,
    pub(crate) ways: Ways,
}

impl NeedFacts<'_> {
    /// Whether it is asked about each time, whatever was answered before: what sends where the session has read what
    /// nobody vouches for or an order went unanswered, and what a rule asks about.
    pub(crate) fn is_careful(&self) -> bool {
        let sends = matches!(self.need, Need::Network { sends: true, .. });
        let is_ruled = matches!(self.need, Need::Network { .. }) && self.on_tier.1.is_some();
        sends && (self.tainted || self.unknown_order.is_some()) || is_ruled
    }
}

/// May a running call have what its tiers do not cover?
pub(crate) fn decide_need(facts: &NeedFacts<'_>) -> Decision {
    let &NeedFacts { mode, interactive, allowed_before, allowed, on_tier, unknown_order, need, ways, .. } =
        facts;
    let (denied, asked) = if matches!(need, Need::Network { .. }) { on_tier } else { (None, None) };
    if let Some(rule) = denied {
        return Decision::Deny(Denied {
            rule: format!("rule:{rule}"),
            message: format!("refused: the rule `{rule}` denies it"),
            remedy: rule.remedy(),
        });
    }
    let (rule, mut reason, remedy) = match need {
        Need::SealedPath { path, .. } => (
            "sealed-path".to_owned(),
            format!("{path} is sealed: other programs take instructions or settings from it"),
            one_of(&[Some(TERMINAL), ways.yolo()]),
        ),
        Need::Network { plugin, grant, rule: Some(rule), granted, .. } => {
            let lacks = format!(", which the plugin `{plugin}` was not granted");
            let lacks = if *granted { "" } else { lacks.as_str() };
            (
                format!("rule:{rule}"),
                format!("the rule `{rule}` asks about `{grant}`{lacks}"),
                "a run at a terminal".to_owned(),
            )
        }
        Need::Network { plugin, grant, .. } => (
            "grant".to_owned(),
            format!("the plugin `{plugin}` was not granted `{grant}`"),
            format!("--grant {plugin}, or for good: ml-intern plugin grant {plugin}"),
        ),
        Need::Budget { spent_usd, unpriced } => {
            let beside = match unpriced {
                0 => String::new(),
                count => format!(", and orders of which nobody knows what they cost: {count}"),
            };
            let said = format!("this session has cost {spent_usd:.2} USD{beside}");
            ("budget".to_owned(), said, "--max-budget-usd".to_owned())
        }
    };
    let sends = matches!(need, Need::Network { sends: true, .. });
    if mode == Mode::Plan && sends {
        return Decision::Deny(Denied {
            rule: format!("mode:{mode}"),
            message: format!("{reason}, and permission mode `{mode}` lets nothing be changed"),
            remedy: one_of(&[(ways.auto || ways.yolo).then_some("another --permission-mode")]),
        });
    }
    // What a plugin may reach is granted, not waved through.
    if mode == Mode::Yolo && matches!(need, Need::SealedPath { .. }) {
        return Decision::Allow { rule: "mode:yolo".to_owned() };
    }
    for why in asked.map(|rule| format!("the rule `{rule}` asks")).into_iter().chain(
        unknown_order.filter(|_| sends).map(|order| {
            format!("{order} was sent and nobody knows whether it arrived; look for it before anything is ordered again")
        }),
    ) {
        reason = format!("{reason}\n{why}");
    }
    let careful = facts.is_careful();
    if allowed_before && !careful {
        return Decision::Allow { rule: "allowed-for-session".to_owned() };
    }
    if let (Some(allowed), Need::Network { rule: None, .. }, false) = (allowed, need, careful) {
        return Decision::Allow { rule: format!("rule:{allowed}") };
    }
    let asks = match need {
        Need::SealedPath { .. } => matches!(mode, Mode::Default | Mode::Ask),
        Need::Network { .. } | Need::Budget { .. } => true,
    };
    if interactive && asks {
        return Decision::Ask { rule, reason };
    }
    let message = format!("{reason}; this needs a person's approval and nobody can answer");
    Decision::Deny(Denied { rule, message, remedy })
}

#[cfg(test)]
mod tests;
