//! Rules of the person and of the policy: what is allowed, asked for and denied besides the mode.

use std::fmt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use policy::{HostRule, Hosts};
use protocol::Tier;
use runtime::{DeniedPath, NamedFile};
use serde_json::Value;

use self::paths::PathRule;

mod paths;
#[cfg(test)]
mod tests;

/// How a rule is written.
const FORMS: &str = "`bash`, `bash(git push *)`, `hf_jobs(operation=run)`, `mcp__github__*`, `path(/data/raw/**)`, \
                     `host(api.example.com)`, `host(*.example.com)` or `tier(spend)`";

/// What joins commands, or puts one into another. A rule that allows a command stops at these.
const JOINS: [char; 10] = [';', '|', '&', '$', '`', '<', '>', '(', ')', '\n'];

/// What a rule does to the calls that it is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    Allow,
    Ask,
    Deny,
}

/// One rule, and where it stands.
#[derive(Clone, Debug)]
pub struct Rule {
    text: String,
    /// A flag, the settings or the policy.
    source: String,
    effect: Effect,
    subject: Subject,
    /// It stands in the machine's policy.
    is_managed: bool,
}

/// What a rule is about.
#[derive(Clone, Debug)]
enum Subject {
    Tool(Pattern, Part),
    Path(PathRule),
    Host(Hosts),
    Tier(Tier),
}

/// Which calls of a tool.
#[derive(Clone, Debug)]
enum Part {
    All,
    Target(Pattern),
    Argument(String, Pattern),
}

/// Why a text is no rule.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{source_name}: `{text}` is no rule: {reason}; rules look like {FORMS}")]
pub struct RuleError {
    source_name: String,
    text: String,
    reason: String,
}

/// All rules that hold.
#[derive(Clone, Debug, Default)]
pub struct Rules(Vec<Rule>);

/// A call, as rules see it.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) tool: &'a str,
    pub(crate) arguments: &'a Value,
    /// What it is about: a command, a path, a repository.
    pub(crate) target: &'a str,
    /// Paths that it names, absolute and without links.
    pub(crate) paths: &'a [PathBuf],
    /// Files whose texts stand in its arguments.
    pub(crate) files: &'a [NamedFile],
    /// The folder that is worked in.
    pub(crate) workspace: &'a Path,
    pub(crate) tiers: &'a std::collections::BTreeSet<Tier>,
    /// The argument that its manifest says the target is.
    pub(crate) target_argument: Option<&'a str>,
    /// Its arguments are a manifest's, and no model's.
    pub(crate) is_lookup: bool,
    /// Its target is a command.
    pub(crate) is_command: bool,
}

/// The rules that are about one call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Matched<'a> {
    pub(crate) deny: Option<&'a Rule>,
    pub(crate) ask: Option<&'a Rule>,
    /// One that names the target comes before one that does not.
    pub(crate) allow: Option<&'a Rule>,
    /// Something allows the call, and names what it is about.
    pub(crate) allows_target: bool,
}

impl Rule {
    /// Parses a rule. `source` says where it stands: `--deny`, `permissions.deny of FILE`.
    ///
    /// # Errors
    /// Names the text, what is wrong with it and how rules are written.
    pub fn parse(effect: Effect, text: &str, source: &str, workspace: &Path) -> Result<Self, RuleError> {
        let refuse =
            |reason: String| RuleError { source_name: source.to_owned(), text: text.to_owned(), reason };
        let pattern = |text: &str| Pattern::new(text).map_err(|e| refuse(format!("`{text}`: {}", e.msg)));
        let trimmed = text.trim();
        let (name, part) = match trimmed.split_once('(') {
            None => (trimmed, None),
            Some((name, rest)) => {
                let part = rest.strip_suffix(')');
                (name, Some(part.ok_or_else(|| refuse("the closing `)` is missing".to_owned()))?))
            }
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '*' | '?');
        if name.is_empty() || !name.chars().all(is_name) {
            return Err(refuse("it begins with the name of a tool".to_owned()));
        }
        let subject = match (name, part) {
            (_, Some("")) => return Err(refuse("there is nothing between the brackets".to_owned())),
            ("path", Some(path)) => Subject::Path(PathRule::parse(path, workspace).map_err(refuse)?),
            ("host", Some(hosts)) => Subject::Host(Hosts::parse(hosts).map_err(|e| refuse(e.to_string()))?),
            ("tier", Some(tier)) => {
                let known = Tier::ALL.into_iter().find(|known| known.as_str() == tier);
                Subject::Tier(known.ok_or_else(|| {
                    refuse("tiers are read, write, execute, remote, spend and destructive".to_owned())
                })?)
            }
            ("path" | "host" | "tier", None) => return Err(refuse(format!("`{name}` needs brackets"))),
            (_, None) => Subject::Tool(pattern(name)?, Part::All),
            (_, Some(part)) => Subject::Tool(
                pattern(name)?,
                match argument(part) {
                    Some((argument, value)) => Part::Argument(argument.to_owned(), pattern(value)?),
                    None => Part::Target(pattern(part)?),
                },
            ),
        };
        Ok(Self { text: trimmed.to_owned(), source: source.to_owned(), effect, subject, is_managed: false })
    }

    /// The same rule, of the machine's policy: whom it binds cannot take it away.
    #[must_use]
    pub fn of_policy(self) -> Self {
        Self { is_managed: true, ..self }
    }

    /// Where it stands.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What would allow what it denies.
    pub(crate) fn remedy(&self) -> String {
        match self.is_managed {
            true => format!("another policy, by this machine's administrator ({})", self.source),
            false => format!("taking the rule `{self}` away"),
        }
    }

    /// Whether it names what a call is about, so that it stands for an answer of the person: in the argument that
    /// the manifest says the target is, and no other.
    fn names_target(&self, asked: &Asked<'_>) -> bool {
        if asked.is_lookup {
            return matches!(&self.subject, Subject::Tool(_, Part::Target(said) | Part::Argument(_, said)) if names(said));
        }
        let given = |name: &&str| asked.arguments.get(name).is_some_and(Value::is_string);
        let Some(target) = asked.target_argument.filter(given) else { return false };
        match &self.subject {
            Subject::Tool(_, Part::Target(pattern)) => is_named_by(pattern, asked.target),
            Subject::Tool(_, Part::Argument(argument, pattern)) => {
                argument == target && is_named_by(pattern, asked.target)
            }
            Subject::Tool(_, Part::All) | Subject::Path(_) | Subject::Host(_) | Subject::Tier(_) => false,
        }
    }

    fn is_about(&self, asked: &Asked<'_>) -> bool {
        match &self.subject {
            Subject::Tier(tier) => asked.tiers.contains(tier),
            Subject::Path(rule) => {
                let denies = self.effect == Effect::Deny;
                asked.paths.iter().any(|path| if denies { rule.denies(path) } else { rule.is_about(path) })
            }
            // What a call reaches is decided where it is sent.
            Subject::Host(_) => false,
            Subject::Tool(tool, _) if !fits(tool, asked.tool) => false,
            Subject::Tool(_, Part::All) => true,
            Subject::Tool(_, Part::Target(pattern)) if asked.is_command => {
                self.fits_command(pattern, asked.target)
            }
            Subject::Tool(_, Part::Target(pattern)) => {
                self.fits_word(pattern, asked.target)
                    || asked.files.iter().any(|file| self.fits_file(pattern, file, asked.workspace))
                    || asked.paths.iter().any(|path| fits_path(pattern, &path.to_string_lossy()))
            }
            Subject::Tool(_, Part::Argument(name, pattern))
                if asked.files.iter().any(|file| {
                    file.argument.strip_prefix('/') == Some(name.as_str())
                        && self.fits_file(pattern, file, asked.workspace)
                }) =>
            {
                true
            }
            Subject::Tool(_, Part::Argument(name, pattern)) => match asked.arguments.get(name) {
                Some(Value::String(text)) if asked.is_command => self.fits_command(pattern, text),
                Some(Value::String(text)) => self.fits_word(pattern, text),
                Some(value) => fits(pattern, &value.to_string()),
                None => false,
            },
        }
    }

    /// Services take a word for the same in any case and with blanks around it: so does what denies or asks. What
    /// allows is about the very word that the tool gets.
    fn fits_word(&self, pattern: &Pattern, text: &str) -> bool {
        if self.effect == Effect::Allow { fits(pattern, text) } else { fits_any_case(pattern, text.trim()) }
    }

    /// Whether it denies or asks about a file that stands in an argument by its text: under the name that the
    /// argument gave it, or by where it really is. What allows is about the text.
    fn fits_file(&self, pattern: &Pattern, file: &NamedFile, workspace: &Path) -> bool {
        let inside = file.real.strip_prefix(workspace).ok();
        let places = [Some(file.real.as_path()), inside].into_iter().flatten().map(Path::to_string_lossy);
        self.effect != Effect::Allow
            && (fits_any_case(pattern, file.path.trim())
                || places.into_iter().any(|place| fits_any_case(pattern, &place)))
    }

    /// A rule on the text of a command helps; it is no guarantee. What allows stops at anything that joins
    /// commands; what denies or asks looks at every part.
    fn fits_command(&self, pattern: &Pattern, command: &str) -> bool {
        let whole = command.trim();
        if self.effect == Effect::Allow {
            let joins = |text: &str| text.chars().filter(|c| JOINS.contains(c)).count();
            return fits_words(pattern, whole) && joins(whole) <= joins(pattern.as_str());
        }
        fits_words(pattern, whole) || whole.split(JOINS).any(|part| fits_words(pattern, part))
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.source)
    }
}

impl Rules {
    /// Adds a rule.
    pub fn push(&mut self, rule: Rule) {
        self.0.push(rule);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Paths that are denied, for the runtime: no guest sees or changes them.
    #[must_use]
    pub fn denied_paths(&self) -> Vec<DeniedPath> {
        let denied = self.0.iter().filter(|rule| rule.effect == Effect::Deny);
        let paths = denied.filter_map(|rule| match &rule.subject {
            Subject::Path(path) => Some((rule.to_string(), path)),
            _ => None,
        });
        paths.flat_map(|(rule, path)| path.denied().map(move |denied| denied.by(rule.clone()))).collect()
    }

    /// What is denied and asked about of the hosts that plugins reach, for the way out.
    #[must_use]
    pub fn hosts(&self) -> Vec<HostRule> {
        let bound = self.0.iter().filter(|rule| rule.effect != Effect::Allow);
        let rules = bound.filter_map(|rule| match &rule.subject {
            Subject::Host(hosts) => Some(HostRule {
                hosts: hosts.clone(),
                asks: rule.effect == Effect::Ask,
                text: rule.to_string(),
            }),
            _ => None,
        });
        rules.collect()
    }

    /// The hosts that rules allow, as they were written.
    pub fn allowed_hosts(&self) -> impl Iterator<Item = &str> {
        let allows = |rule: &&Rule| rule.effect == Effect::Allow && matches!(rule.subject, Subject::Host(_));
        self.0.iter().filter(allows).filter_map(|rule| {
            let text = rule.text.trim();
            text.strip_prefix("host(")?.strip_suffix(')').map(str::trim)
        })
    }

    /// The rule that allows plugins what they declare at a host.
    pub(crate) fn allows_host(&self, host: &str) -> Option<&Rule> {
        self.0.iter().find(|rule| match &rule.subject {
            Subject::Host(hosts) => rule.effect == Effect::Allow && hosts.names(host),
            _ => false,
        })
    }

    /// Rules that name a tool of which there is none, unless a tool of that name could come while the session runs.
    #[must_use]
    pub fn about_no_tool(&self, tools: &[&str]) -> Vec<&Rule> {
        let is_lost = |rule: &&Rule| match &rule.subject {
            Subject::Tool(tool, _) => {
                !tool.as_str().starts_with("mcp__") && !tools.iter().any(|name| fits(tool, name))
            }
            Subject::Path(_) | Subject::Host(_) | Subject::Tier(_) => false,
        };
        self.0.iter().filter(is_lost).collect()
    }

    /// Whether a rule denies or asks about paths or hosts.
    #[must_use]
    pub fn bind_paths_or_hosts(&self) -> bool {
        let binds = |rule: &Rule| matches!(rule.subject, Subject::Path(_) | Subject::Host(_));
        self.0.iter().any(|rule| rule.effect != Effect::Allow && binds(rule))
    }

    /// The denying rule that a denial names.
    pub(crate) fn of_denial(&self, rule: &str) -> Option<&Rule> {
        let name = rule.strip_prefix("rule:")?;
        self.0.iter().find(|rule| rule.effect == Effect::Deny && rule.to_string() == name)
    }

    /// The rules that deny and ask about a tier, whatever the call.
    pub(crate) fn on_tier(&self, tier: Tier) -> (Option<&Rule>, Option<&Rule>) {
        let first = |effect: Effect| {
            let is_meant = |subject: &Subject| matches!(subject, Subject::Tier(known) if *known == tier);
            self.0.iter().find(|rule| rule.effect == effect && is_meant(&rule.subject))
        };
        (first(Effect::Deny), first(Effect::Ask))
    }

    pub(crate) fn matched(&self, asked: &Asked<'_>) -> Matched<'_> {
        let mut matched = Matched::default();
        for rule in self.0.iter().filter(|rule| rule.is_about(asked)) {
            let place = match rule.effect {
                Effect::Deny => &mut matched.deny,
                Effect::Ask => &mut matched.ask,
                Effect::Allow => &mut matched.allow,
            };
            if place.is_none_or(|known| rule.names_target(asked) && !known.names_target(asked)) {
                *place = Some(rule);
            }
        }
        matched.allows_target = matched.allow.is_some_and(|rule| rule.names_target(asked));
        matched
    }
}

/// Whether a pattern names something: all of it, or whose it is, as in `OWNER/*`. Of an address or a longer path
/// nothing before its last `/` is left open, and of an address its host neither.
fn names(pattern: &Pattern) -> bool {
    let text = pattern.as_str();
    let is_open = |text: &str| text.is_empty() || text.contains(['*', '?', '[']);
    let Some((owner, rest)) = text.rsplit_once('/') else { return !is_open(text) };
    let address = owner.split_once("://").map(|(_, host)| host);
    let whole = owner.strip_suffix('/').is_none() && address.is_none_or(|host| !host.is_empty());
    let last = owner.rsplit('/').next().unwrap_or(owner);
    let is_kind = KINDS.iter().any(|kind| kind.eq_ignore_ascii_case(last));
    whole && !is_open(owner) && (!is_open(rest) || !is_kind)
}

/// Whether a pattern names this target: the very one, or whose it is. What is left open is one part of a name (with
/// `**` several), and nothing in it leads elsewhere: whoever reads the target may take it for a path or an address.
fn is_named_by(pattern: &Pattern, target: &str) -> bool {
    let rest = target.split_once("://").map_or(target, |(_, rest)| rest);
    let is_plain = !rest.split('/').any(|part| matches!(part, "" | "." | ".."))
        && !target.contains(['%', '?', '#', '\\'])
        && !target.contains(|c: char| c.is_whitespace() || c.is_control());
    let is_exact = pattern.as_str() == target;
    names(pattern) && fits_path(pattern, target) && (is_exact || is_plain)
}

/// What stands before a `/` on the Hub and is nobody's name.
const KINDS: [&str; 6] = ["models", "datasets", "spaces", "buckets", "jobs", "collections"];

/// `NAME=VALUE`, where the name is one of an argument.
fn argument(part: &str) -> Option<(&str, &str)> {
    let (name, value) = part.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some((name, value.trim()))
}

fn fits(pattern: &Pattern, text: &str) -> bool {
    pattern.matches_with(text, MatchOptions { case_sensitive: true, ..MatchOptions::default() })
}

fn fits_any_case(pattern: &Pattern, text: &str) -> bool {
    pattern.matches_with(text, MatchOptions { case_sensitive: false, ..MatchOptions::default() })
}

/// Whether a command fits, however its words are set apart. `git push *` is also `git push` alone.
fn fits_words(pattern: &Pattern, command: &str) -> bool {
    let words = command.trim().split([' ', '\t']).filter(|word| !word.is_empty());
    let words = words.collect::<Vec<_>>().join(" ");
    [command.trim(), &words, &format!("{words} ")].into_iter().any(|command| fits(pattern, command))
}

fn fits_path(pattern: &Pattern, path: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    pattern.matches_with(path, options)
}
