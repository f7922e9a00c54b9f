//! Rules of the person and of the policy: what is allowed, asked for and denied besides the mode.

use std::fmt;
use std::path::{Path, PathBuf};

use glob::{MatchOptions, Pattern};
use protocol::Tier;
use serde_json::Value;

/// How a rule is written.
const FORMS: &str = "`bash`, `bash(git push *)`, `hf_jobs(operation=run)`, `mcp__github__*`, `path(/data/raw/**)` or `tier(spend)`";

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
}

/// What a rule is about.
#[derive(Clone, Debug)]
enum Subject {
    Tool(Pattern, Part),
    Path(Pattern),
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
    pub(crate) tiers: &'a std::collections::BTreeSet<Tier>,
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
            ("path", Some(path)) => Subject::Path(pattern(&absolute(path, workspace))?),
            ("tier", Some(tier)) => {
                let known = Tier::ALL.into_iter().find(|known| known.as_str() == tier);
                Subject::Tier(known.ok_or_else(|| {
                    refuse("tiers are read, write, execute, remote, spend and destructive".to_owned())
                })?)
            }
            ("path" | "tier", None) => return Err(refuse(format!("`{name}` needs brackets"))),
            (_, None) => Subject::Tool(pattern(name)?, Part::All),
            (_, Some(part)) => Subject::Tool(
                pattern(name)?,
                match argument(part) {
                    Some((argument, value)) => Part::Argument(argument.to_owned(), pattern(value)?),
                    None => Part::Target(pattern(part)?),
                },
            ),
        };
        Ok(Self { text: trimmed.to_owned(), source: source.to_owned(), effect, subject })
    }

    /// Whether it names what a call is about, so that it stands for an answer of the person.
    fn names_target(&self) -> bool {
        let says = |pattern: &Pattern| pattern.as_str().chars().any(|c| !matches!(c, '*' | '?'));
        match &self.subject {
            Subject::Tool(_, Part::Target(pattern) | Part::Argument(_, pattern)) | Subject::Path(pattern) => {
                says(pattern)
            }
            Subject::Tool(_, Part::All) | Subject::Tier(_) => false,
        }
    }

    fn is_about(&self, asked: &Asked<'_>) -> bool {
        match &self.subject {
            Subject::Tier(tier) => asked.tiers.contains(tier),
            Subject::Path(pattern) => asked.paths.iter().any(|path| {
                // The folder itself is meant by `folder/**` too.
                let inside = pattern.as_str().strip_suffix("/**");
                inside.is_some_and(|folder| Path::new(folder) == path)
                    || fits_path(pattern, &path.to_string_lossy())
            }),
            Subject::Tool(tool, _) if !fits(tool, asked.tool) => false,
            Subject::Tool(_, Part::All) => true,
            Subject::Tool(_, Part::Target(pattern)) if asked.is_command => {
                self.fits_command(pattern, asked.target)
            }
            Subject::Tool(_, Part::Target(pattern)) => {
                fits(pattern, asked.target)
                    || asked.paths.iter().any(|path| fits_path(pattern, &path.to_string_lossy()))
            }
            Subject::Tool(_, Part::Argument(name, pattern)) => match asked.arguments.get(name) {
                Some(Value::String(text)) if asked.is_command => self.fits_command(pattern, text),
                Some(Value::String(text)) => fits(pattern, text.trim()),
                Some(value) => fits(pattern, &value.to_string()),
                None => false,
            },
        }
    }

    /// A rule on the text of a command helps; it is no guarantee. What allows stops at anything that joins
    /// commands; what denies or asks looks at every part.
    fn fits_command(&self, pattern: &Pattern, command: &str) -> bool {
        let whole = command.trim();
        if self.effect == Effect::Allow {
            let joins = |text: &str| text.chars().filter(|c| JOINS.contains(c)).count();
            return fits(pattern, whole) && joins(whole) <= joins(pattern.as_str());
        }
        fits(pattern, whole) || whole.split(JOINS).any(|part| fits(pattern, part.trim()))
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

    /// Patterns of paths that are denied, absolute.
    #[must_use]
    pub fn denied_paths(&self) -> Vec<Pattern> {
        let denied = self.0.iter().filter(|rule| rule.effect == Effect::Deny);
        let paths = denied.filter_map(|rule| match &rule.subject {
            Subject::Path(pattern) => Some(pattern.clone()),
            _ => None,
        });
        paths.collect()
    }

    pub(crate) fn matched(&self, asked: &Asked<'_>) -> Matched<'_> {
        let mut matched = Matched::default();
        for rule in self.0.iter().filter(|rule| rule.is_about(asked)) {
            let place = match rule.effect {
                Effect::Deny => &mut matched.deny,
                Effect::Ask => &mut matched.ask,
                Effect::Allow => &mut matched.allow,
            };
            if place.is_none_or(|known| rule.names_target() && !known.names_target()) {
                *place = Some(rule);
            }
        }
        matched
    }
}

impl Matched<'_> {
    /// Something allows the call, and names what it is about.
    pub(crate) fn allows_target(&self) -> bool {
        self.allow.is_some_and(Rule::names_target)
    }
}

/// `NAME=VALUE`, where the name is one of an argument.
fn argument(part: &str) -> Option<(&str, &str)> {
    let (name, value) = part.split_once('=')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some((name, value.trim()))
}

/// A path of a rule: from the root, or from the workspace.
fn absolute(path: &str, workspace: &Path) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    format!("{}/{path}", Pattern::escape(&workspace.to_string_lossy()))
}

fn fits(pattern: &Pattern, text: &str) -> bool {
    pattern.matches_with(text, MatchOptions { case_sensitive: true, ..MatchOptions::default() })
}

fn fits_path(pattern: &Pattern, path: &str) -> bool {
    let options = MatchOptions { require_literal_separator: true, ..MatchOptions::default() };
    pattern.matches_with(path, options)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn matches(effect: Effect, rule: &str, tool: &str, arguments: &Value) -> bool {
        let rule = Rule::parse(effect, rule, "--test", Path::new("/work")).unwrap();
        let target = ["command", "path", "repo"].iter().find_map(|name| arguments.get(name)?.as_str());
        let path = arguments.get("path").and_then(Value::as_str).map(|path| Path::new("/work").join(path));
        rule.is_about(&Asked {
            tool,
            arguments,
            target: target.unwrap_or_default(),
            paths: path.as_slice(),
            tiers: &[Tier::Read, Tier::Spend].into(),
            is_command: tool == "bash",
        })
    }

    #[test]
    fn rules_name_tools_targets_arguments_paths_and_tiers() {
        use Effect::Deny;
        let run = json!({"operation": "run", "repo": "me/model", "n": 3});
        for rule in ["jobs", "j*", "*", "jobs(me/*)", "jobs(operation=run)", "jobs(n=3)", "tier(spend)"] {
            assert!(matches(Deny, rule, "jobs", &run), "{rule}");
        }
        for rule in ["job", "jobs(you/*)", "jobs(operation=ps)", "jobs(other=run)", "tier(remote)"] {
            assert!(!matches(Deny, rule, "jobs", &run), "{rule}");
        }
        let write = json!({"path": "data/raw/a.csv"});
        for rule in ["path(/work/data/**)", "path(data/**)", "path(data/raw/*.csv)", "write(data/*)"] {
            assert!(matches(Deny, rule, "write", &write), "{rule}");
        }
        for rule in ["path(data/*)", "path(/data/**)", "path(a.csv)"] {
            assert!(!matches(Deny, rule, "write", &write), "{rule}");
        }
        assert!(matches(Deny, "path(data/**)", "list", &json!({"path": "data"})));
    }

    #[test]
    fn a_rule_that_allows_a_command_stops_where_another_begins() {
        let bash =
            |effect, rule: &str, command: &str| matches(effect, rule, "bash", &json!({"command": command}));
        assert!(bash(Effect::Allow, "bash(git status*)", "git status -s"));
        for more in [
            "git status; rm -rf .",
            "git status && x",
            "git status $(x)",
            "git status | sh",
            "git status\nx",
            "git status > ~/x",
        ] {
            assert!(!bash(Effect::Allow, "bash(git status*)", more), "{more}");
        }
        assert!(bash(Effect::Allow, "bash(make && make test)", "make && make test"));
        for hidden in ["cd x && git push", "(git push)", "x=$(git push origin)", "true;git push"] {
            assert!(bash(Effect::Deny, "bash(git push*)", hidden), "{hidden}");
        }
        assert!(!bash(Effect::Deny, "bash(git push*)", "git pull"));
    }

    #[test]
    fn what_is_no_rule_is_refused_with_the_forms() {
        for text in ["", "()", "bash(", "bash()", "ba sh", "path", "tier(free)", "bash(a**b)", "write(a)b"] {
            let error = Rule::parse(Effect::Allow, text, "--allow", Path::new("/")).unwrap_err().to_string();
            assert!(
                error.starts_with("--allow: ") && error.contains("hf_jobs(operation=run)"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn only_words_name_a_target() {
        let names = |rule: &str| Rule::parse(Effect::Allow, rule, "", Path::new("/")).unwrap().names_target();
        assert!(names("jobs(me/*)") && names("jobs(operation=run)") && names("path(/data/**)"));
        assert!(!names("jobs") && !names("jobs(*)") && !names("jobs(repo=*)") && !names("tier(spend)"));
    }
}
