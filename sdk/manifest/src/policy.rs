//! What the host has to know of a tool before it runs: its tiers, its times, its price.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{DEFAULT_WALL_TIME_S, ManifestError, RepositoryUse, Tier};

/// What the host has to know of a tool before it runs.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ToolPolicy {
    /// The least that a call of this tool counts as.
    pub tier: Tier,
    /// Seconds a call may take.
    #[serde(default = "default_wall_time")]
    pub wall_time_s: u32,
    /// Name of an integer argument that replaces `wall_time_s`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_argument: Option<String>,
    /// Name of the argument that says what a call is about: a repository, a job, a recipient.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_argument: Option<String>,
    /// Tiers that certain arguments add.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<TierRule>,
    /// What a call of tier `spend` costs. Without it nobody knows, which counts as too dear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<Price>,
    /// Arguments of a call of this tool that looks an order up whose outcome is unknown; `{order}` in a
    /// value is replaced by its id. Its structured answer has `order.state`: `found` or `absent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_lookup: Option<BTreeMap<String, String>>,
    /// Arguments that hold a text, or the path of a file of the workspace with that text: fields, or JSON
    /// pointers. The host reads such a file once, before anything is decided, and puts its text in the
    /// path's place; a person sees that text, may edit it, and what was approved is what the tool gets. The
    /// tool itself takes the argument for a text and opens nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub text_or_file: Vec<String>,
    /// Which repository of the Hub a call is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<RepositoryUse>,
}

/// Tiers that a call has besides the tool's own, depending on one argument.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TierRule {
    /// A field of the arguments, or a JSON pointer (`/job/kind`).
    pub argument: String,
    /// It applies if the argument is one of these; case and white space around do not matter.
    #[serde(default, rename = "in", skip_serializing_if = "Vec::is_empty")]
    pub any_of: Vec<String>,
    /// It applies if the argument is none of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_in: Vec<String>,
    /// The argument may be left out; then the rule does not apply. Otherwise a missing argument, or one
    /// of an odd type, counts as the worst.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// What it adds.
    pub tiers: BTreeSet<Tier>,
    /// A person is asked in every mode: what is ordered goes on without end, say.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_automatic: bool,
}

/// What a call costs at most: a price per hour times the hours it may run.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// The argument that chooses the price.
    pub argument: String,
    /// USD per hour, by the argument's value. Each is above 0 and finite.
    pub usd_per_hour: BTreeMap<String, f64>,
    /// Values that cost nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub free: Vec<String>,
    /// The value that a missing argument stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// The argument with the time it may run: a number of seconds, or a text such as `90`, `30m` or `3h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hours_argument: Option<String>,
    /// Hours without that argument.
    pub default_hours: f64,
}

/// What arguments make of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weight {
    pub tiers: BTreeSet<Tier>,
    pub never_automatic: bool,
}

/// What a call costs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cost {
    /// USD at most, and the hours they are for.
    Known { usd: f64, hours: f64 },
    /// Nobody knows: it counts as too dear.
    Unknown,
}

fn default_wall_time() -> u32 {
    DEFAULT_WALL_TIME_S
}

impl ToolPolicy {
    /// The tiers of a call with these arguments.
    #[must_use]
    pub fn weigh(&self, arguments: &Value) -> Weight {
        let mut weight = Weight { tiers: [self.tier].into(), never_automatic: false };
        for rule in self.rules.iter().filter(|rule| rule.applies(arguments)) {
            weight.tiers.extend(&rule.tiers);
            weight.never_automatic |= rule.never_automatic;
        }
        weight
    }

    /// What a call with these arguments costs at most.
    #[must_use]
    pub fn cost(&self, arguments: &Value) -> Cost {
        self.price.as_ref().map_or(Cost::Unknown, |price| price.of(arguments))
    }

    /// JSON pointers of the arguments that hold a text, or the path of a file with it.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        self.text_or_file.iter().map(|name| pointer(name))
    }

    pub(crate) fn check(&self, tool: &str) -> Result<(), ManifestError> {
        let refuse = |reason: &str| {
            Err(ManifestError::ToolPolicy { tool: tool.to_owned(), reason: reason.to_owned() })
        };
        for rule in &self.rules {
            if rule.any_of.is_empty() == rule.not_in.is_empty() {
                return refuse("a rule needs `in` or `not_in`, and one of them only");
            }
            if rule.tiers.is_empty() {
                return refuse("a rule adds no tiers");
            }
        }
        if self.text_or_file.iter().any(|name| pointer(name).split('/').count() < 2) {
            return refuse("`text_or_file` lists names of arguments, or JSON pointers");
        }
        if let Some(Err(reason)) = self.repository.as_ref().map(RepositoryUse::check) {
            return refuse(reason);
        }
        if let Some(lookup) = &self.order_lookup {
            let arguments = lookup.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str())));
            let Weight { tiers, never_automatic } = self.weigh(&Value::Object(arguments.collect()));
            if never_automatic || tiers.iter().any(|tier| *tier != Tier::Read) {
                return refuse("`order_lookup` only looks: with its arguments a call has no tier but `read`");
            }
        }
        let Some(price) = &self.price else { return Ok(()) };
        let sound = |usd: f64| usd.is_finite() && usd > 0.0;
        if price.usd_per_hour.values().any(|usd| !sound(*usd)) {
            return refuse("a price is a number of USD above 0; what costs nothing is listed in `free`");
        }
        if !sound(price.default_hours) {
            return refuse("`default_hours` is a number above 0");
        }
        Ok(())
    }
}

impl TierRule {
    fn applies(&self, arguments: &Value) -> bool {
        let value = match at(arguments, &self.argument) {
            None | Some(Value::Null) => return !self.optional,
            Some(value) => value,
        };
        let Some(value) = word(value) else { return true };
        let among = |list: &[String]| list.iter().any(|known| same(known, &value));
        if self.any_of.is_empty() { !among(&self.not_in) } else { among(&self.any_of) }
    }
}

impl Price {
    fn of(&self, arguments: &Value) -> Cost {
        let chosen = match at(arguments, &self.argument) {
            None | Some(Value::Null) => self.default.clone(),
            Some(value) => word(value),
        };
        let Some(chosen) = chosen else { return Cost::Unknown };
        let hours = match self.hours_argument.as_ref().and_then(|name| at(arguments, name)) {
            None | Some(Value::Null) => Some(self.default_hours),
            Some(value) => hours(value),
        };
        let Some(hours) = hours else { return Cost::Unknown };
        if self.free.iter().any(|free| same(free, &chosen)) {
            return Cost::Known { usd: 0.0, hours };
        }
        let known = self.usd_per_hour.iter().find(|(name, _)| same(name, &chosen));
        known.map_or(Cost::Unknown, |(_, usd)| Cost::Known { usd: usd * hours, hours })
    }
}

/// A field by its name, or by a JSON pointer.
pub(crate) fn at<'a>(arguments: &'a Value, name: &str) -> Option<&'a Value> {
    if name.starts_with('/') { arguments.pointer(name) } else { arguments.get(name) }
}

/// A field's JSON pointer.
fn pointer(name: &str) -> String {
    if name.starts_with('/') {
        return name.to_owned();
    }
    if name.is_empty() { String::new() } else { format!("/{}", name.replace('~', "~0").replace('/', "~1")) }
}

/// A value that a rule can name.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Tools fold case and white space before they look; rules must not be fooled by either.
fn same(known: &str, given: &str) -> bool {
    known.trim().to_lowercase() == given.trim().to_lowercase()
}

/// Hours of a number of seconds, or of a text such as `90`, `30m` or `3h`.
fn hours(value: &Value) -> Option<f64> {
    let seconds = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => {
            let text = text.trim();
            let (number, unit) = text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
            let seconds = match unit.to_ascii_lowercase().as_str() {
                "" | "s" => 1.0,
                "m" => 60.0,
                "h" => 3_600.0,
                "d" => 86_400.0,
                _ => return None,
            };
            number.trim().parse::<f64>().ok()? * seconds
        }
        _ => return None,
    };
    (seconds.is_finite() && seconds > 0.0).then_some(seconds / 3_600.0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Manifest;

    const JOBS: &str = r#"
        id = "jobs"
        version = "1.0.0"
        description = "Orders."
        [tools.jobs]
        tier = "read"
        [[tools.jobs.rules]]
        argument = "operation"
        in = ["run", "schedule"]
        tiers = ["remote", "spend"]
        [[tools.jobs.rules]]
        argument = "operation"
        in = ["schedule"]
        tiers = ["spend"]
        never_automatic = true
        [[tools.jobs.rules]]
        argument = "/job/visibility"
        not_in = ["private"]
        optional = true
        tiers = ["destructive"]
        [tools.jobs.price]
        argument = "flavor"
        usd_per_hour = { small = 0.5, large = 4 }
        free = ["none"]
        default = "small"
        hours_argument = "timeout"
        default_hours = 0.5
    "#;

    fn jobs() -> ToolPolicy {
        Manifest::from_toml(JOBS).unwrap().tools["jobs"].clone()
    }

    #[test]
    fn arguments_add_tiers_and_take_none_away() {
        use Tier::{Destructive, Read, Remote, Spend};
        let weigh = |arguments: Value| {
            let weight = jobs().weigh(&arguments);
            (weight.tiers.into_iter().collect::<Vec<_>>(), weight.never_automatic)
        };
        assert_eq!(weigh(json!({"operation": "ps"})), (vec![Read], false));
        assert_eq!(weigh(json!({"operation": " RUN\n"})), (vec![Read, Remote, Spend], false));
        assert_eq!(weigh(json!({"operation": "schedule"})), (vec![Read, Remote, Spend], true));
        // Missing or odd: the worst.
        for odd in [json!({}), json!({"operation": null}), json!({"operation": ["run"]})] {
            assert_eq!(weigh(odd), (vec![Read, Remote, Spend], true));
        }
        let public = json!({"operation": "ps", "job": {"visibility": "public"}});
        assert_eq!(weigh(public), (vec![Read, Destructive], false));
        let private = json!({"operation": "ps", "job": {"visibility": "Private "}});
        assert_eq!(weigh(private), (vec![Read], false));
    }

    #[test]
    fn a_price_is_known_or_too_dear() {
        let usd = |arguments: Value| match jobs().cost(&arguments) {
            Cost::Known { usd, .. } => Some(usd),
            Cost::Unknown => None,
        };
        assert_eq!(usd(json!({})), Some(0.25));
        assert_eq!(usd(json!({"flavor": "LARGE", "timeout": "3h"})), Some(12.0));
        assert_eq!(usd(json!({"flavor": "large", "timeout": 1_800})), Some(2.0));
        assert_eq!(usd(json!({"flavor": "none", "timeout": "1d"})), Some(0.0));
        for unknown in [
            json!({"flavor": "h100"}),
            json!({"flavor": ["large"]}),
            json!({"timeout": "-3h"}),
            json!({"timeout": "inf"}),
            json!({"timeout": "nan"}),
            json!({"timeout": 0}),
            json!({"timeout": "soon"}),
            json!({"timeout": "1e400h"}),
        ] {
            assert_eq!(usd(unknown.clone()), None, "{unknown}");
        }
    }

    #[test]
    fn prices_and_rules_are_checked() {
        for (from, to) in [
            ("small = 0.5", "small = 0"),
            ("small = 0.5", "small = -1"),
            ("small = 0.5", "small = nan"),
            ("small = 0.5", "small = inf"),
            ("small = 0.5", "small = \"free\""),
            ("default_hours = 0.5", "default_hours = 0"),
            ("in = [\"schedule\"]", ""),
            ("not_in = [\"private\"]", "not_in = [\"private\"]\nin = [\"x\"]"),
            ("tiers = [\"destructive\"]", "tiers = []"),
            ("tiers = [\"destructive\"]", "tiers = [\"harmless\"]"),
            ("tier = \"read\"", "tier = \"read\"\ntext_or_file = [\"\"]"),
            // Whoever looks for an order does nothing else.
            ("tier = \"read\"", "tier = \"read\"\norder_lookup = { operation = \" Run\" }"),
            ("tier = \"read\"", "tier = \"read\"\norder_lookup = { order = \"{order}\" }"),
            ("tier = \"read\"", "tier = \"write\"\norder_lookup = { operation = \"ps\" }"),
            // Files that it may not read are not read for it.
            ("tier = \"read\"", "tier = \"read\"\ntext_or_file = [\"script\"]"),
            (
                "tier = \"read\"",
                "tier = \"read\"\nrepository = { argument = \"repo\", private_argument = \"private\" }",
            ),
        ] {
            assert!(Manifest::from_toml(&JOBS.replacen(from, to, 1)).is_err(), "{to}");
        }
        let looks = "tier = \"read\"\norder_lookup = { operation = \"ps\", order = \"{order}\" }";
        Manifest::from_toml(&JOBS.replacen("tier = \"read\"", looks, 1)).unwrap();
    }
}
