//! What can stand in a policy file. Every key is optional but `version`; an unknown one is an error.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use egress::{Hosts, NetworkGrant};
use manifest::Tier;
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use crate::VERSION;
use crate::plugins::Plugins;

/// A policy file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schema {
    /// Of the format: 1. Never left out.
    version: Option<Spanned<u32>>,
    /// What the administrator calls this state of the policy, for records.
    pub revision: Option<String>,
    /// The permission mode of every run.
    pub mode: Option<Spanned<Mode>>,
    #[serde(default)]
    pub forbid_modes: Vec<Spanned<Mode>>,
    #[serde(default)]
    pub plugins: Plugins,
    #[serde(default)]
    pub tiers: Tiers,
    #[serde(default)]
    pub network: Network,
    #[serde(default)]
    pub wall: Wall,
    #[serde(default)]
    pub models: Models,
    #[serde(default)]
    pub budget: Budget,
    #[serde(default)]
    pub mcp: Mcp,
    #[serde(default)]
    pub audit: Audit,
    #[serde(default)]
    pub flags: Flags,
    #[serde(default)]
    pub project: Project,
    #[serde(default)]
    pub traces: Traces,
    #[serde(default)]
    pub rules: Rules,
}

/// A permission mode.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Default,
    Plan,
    Ask,
    Auto,
    Yolo,
}

/// Kinds of calls that never run.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tiers {
    #[serde(default)]
    pub deny: Vec<Spanned<Tier>>,
}

/// What may be reached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// What plugins may be granted at most; none: whatever users grant.
    pub allow: Option<Vec<NetworkRule>>,
    /// Where users may say that an allowed origin really is; none: at origins that are allowed themselves.
    #[serde(default)]
    pub mirrors: Vec<NetworkRule>,
    /// Hosts and addresses that nothing reaches, models and plugins alike.
    #[serde(default)]
    pub deny: Vec<HostRule>,
    /// Nothing but the model is contacted.
    pub offline: Option<Spanned<bool>>,
    /// The most that commands may reach.
    pub commands: Option<Spanned<Commands>>,
}

/// What commands reach, from nothing to everything.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub enum Commands {
    Off,
    Gateway,
    Open,
}

/// What encloses commands.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wall {
    /// The least that must hold.
    pub grade: Option<Spanned<Grade>>,
    #[serde(default)]
    pub forbid: Vec<Spanned<WallMode>>,
}

/// Grades of this program's own wall, weakest first.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    Partial,
    Full,
}

/// What a person can say instead of this program's own wall.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum WallMode {
    External,
    Off,
}

/// Which models may be used, and where.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Models {
    /// Ids, with `*` for anything.
    pub allow: Option<Spanned<Vec<String>>>,
    /// Origins that completions are asked of.
    pub origins: Option<Spanned<Vec<NetworkRule>>>,
}

/// What may be spent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// US dollars of one run.
    pub max_usd: Option<Spanned<f64>>,
}

/// Which MCP servers may be used.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mcp {
    /// Names as in settings, with `*` for anything; none: whatever users set up.
    pub allow: Option<Vec<String>>,
}

/// How records are kept.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Each record is on the disk before what it allows happens.
    #[serde(default)]
    pub fsync: bool,
    /// Where records are kept, one folder per user, instead of each user's own state.
    pub folder: Option<Spanned<PathBuf>>,
}

/// What may not be said on the command line.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flags {
    #[serde(default)]
    pub forbid: Vec<Spanned<String>>,
}

/// Files of the folder that is worked in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Project {
    /// Whether instructions, settings and plugins of a project count, once a person trusts them.
    pub files: Option<Spanned<bool>>,
}

/// What leaves the machine about sessions.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    pub share: Option<Spanned<bool>>,
}

/// Rules on single calls, as they stand in the file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    #[serde(default)]
    pub allow: Vec<Spanned<String>>,
    #[serde(default)]
    pub ask: Vec<Spanned<String>>,
    #[serde(default)]
    pub deny: Vec<Spanned<String>>,
}

/// An origin with methods, as grants write it.
#[derive(Clone, Debug)]
pub struct NetworkRule(pub NetworkGrant);

/// A host, `*.` and the end of hosts, an address or a range of addresses.
#[derive(Clone, Debug)]
pub struct HostRule(pub Hosts);

impl<'de> Deserialize<'de> for NetworkRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        NetworkGrant::parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for HostRule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        Hosts::parse(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// What is wrong, and where.
pub(crate) type Fault = (Range<usize>, String);

impl Schema {
    /// Checks what types cannot.
    pub(crate) fn check(&self) -> Result<(), Fault> {
        let version = self.version.as_ref();
        let version = version.ok_or_else(|| (0..0, format!("`version = {VERSION}` is missing")))?;
        if *version.get_ref() != VERSION {
            let found = version.get_ref();
            let reason =
                format!("version {found} of policies is not known to this program; it reads {VERSION}");
            return Err((version.span(), reason));
        }
        if let Some(mode) = &self.mode
            && self.forbid_modes.iter().any(|forbidden| forbidden.get_ref() == mode.get_ref())
        {
            return Err((mode.span(), "`mode` is also among `forbid_modes`".to_owned()));
        }
        if let Some(budget) = &self.budget.max_usd
            && !(budget.get_ref().is_finite() && *budget.get_ref() >= 0.0)
        {
            return Err((budget.span(), "`max_usd` is an amount of US dollars, 0 or more".to_owned()));
        }
        if let Some(folder) = &self.audit.folder
            && !folder.get_ref().is_absolute()
        {
            return Err((folder.span(), "`folder` is a path from `/` on".to_owned()));
        }
        if let Some(flag) = self.flags.forbid.iter().find(|flag| !flag.get_ref().starts_with("--")) {
            let reason = format!("`{}` is no flag; write the long form, such as `--yolo`", flag.get_ref());
            return Err((flag.span(), reason));
        }
        let rules = [&self.rules.allow, &self.rules.ask, &self.rules.deny];
        if let Some(empty) = rules.into_iter().flatten().find(|rule| rule.get_ref().trim().is_empty()) {
            return Err((empty.span(), "a rule is empty; write it like `bash(git push *)`".to_owned()));
        }
        self.plugins.check()
    }
}

/// Bundled plugins by id, and whether each may be used.
pub(crate) type Bundled = BTreeMap<String, Spanned<bool>>;
