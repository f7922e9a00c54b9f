//! A policy as plain sentences, for the person who signs it.

use std::fmt::Display;

use toml::Spanned;

use crate::Policy;
use crate::plugins::{Allowed, Plugins};
use crate::schema::{Commands, Schema};

impl Policy {
    /// One sentence per thing that it says, grouped by what it is about.
    #[must_use]
    pub fn sentences(&self) -> Vec<String> {
        let rules = self.rules();
        let mut out = Vec::new();
        modes(rules, &mut out);
        plugins(&rules.plugins, &mut out);
        calls(rules, &mut out);
        network(rules, &mut out);
        enclosure(rules, &mut out);
        records(rules, &mut out);
        if out.is_empty() {
            out.push("It forbids nothing.".to_owned());
        }
        out
    }
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn is(value: Option<&Spanned<bool>>) -> bool {
    value.is_some_and(|value| *value.get_ref())
}

fn word<T: std::fmt::Debug>(value: &Spanned<T>) -> String {
    format!("{:?}", value.get_ref()).to_lowercase()
}

fn modes(rules: &Schema, out: &mut Vec<String>) {
    if let Some(mode) = &rules.mode {
        out.push(format!("Mode: every run has permission mode {}.", word(mode)));
    }
    if !rules.forbid_modes.is_empty() {
        let modes = list(rules.forbid_modes.iter().map(word));
        out.push(format!("Mode: nobody may use permission mode {modes}."));
    }
    if !rules.flags.forbid.is_empty() {
        let flags = list(rules.flags.forbid.iter().map(Spanned::get_ref));
        out.push(format!("Flags: refused are {flags}, and what says the same: other flags, settings, variables, `plugin grant`."));
    }
}

fn plugins(rules: &Plugins, out: &mut Vec<String>) {
    if is(rules.only_listed.as_ref()) {
        out.push("Plugins: only bundled ones and those listed here.".to_owned());
    }
    for rule in &rules.allow {
        let Allowed { id, digests, publisher, min_version } = rule.get_ref();
        let mut must = Vec::new();
        must.extend(publisher.as_ref().map(|key| format!("signed by {key}")));
        if !digests.is_empty() {
            must.push(format!(
                "with digest {}",
                digests.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
            ));
        }
        must.extend(min_version.as_ref().map(|version| format!("of version {version} or later")));
        out.push(format!("Plugins: `{id}` must be {}.", must.join(", ")));
    }
    for digest in &rules.revoked {
        out.push(format!("Plugins: the component {} never runs.", digest.get_ref()));
    }
    for key in &rules.revoked_publishers {
        out.push(format!("Plugins: nothing signed by {} runs.", key.get_ref()));
    }
    let left_out = rules.bundled.iter().filter(|(_, on)| !on.get_ref()).map(|(id, _)| id);
    let left_out = list(left_out);
    if !left_out.is_empty() {
        out.push(format!("Plugins: of the bundled ones, these are left out: {left_out}."));
    }
}

fn calls(rules: &Schema, out: &mut Vec<String>) {
    if !rules.tiers.deny.is_empty() {
        let tiers = list(rules.tiers.deny.iter().map(Spanned::get_ref));
        out.push(format!("Calls: none of tier {tiers} runs."));
    }
    for (verb, rules) in
        [("allowed", &rules.rules.allow), ("asked for", &rules.rules.ask), ("refused", &rules.rules.deny)]
    {
        if !rules.is_empty() {
            out.push(format!("Calls: {verb} by rule: {}.", list(rules.iter().map(Spanned::get_ref))));
        }
    }
    if let Some(usd) = &rules.budget.max_usd {
        out.push(format!("Budget: a run costs at most {} USD.", usd.get_ref()));
    }
}

fn network(rules: &Schema, out: &mut Vec<String>) {
    let network = &rules.network;
    if is(network.offline.as_ref()) {
        out.push("Network: every run is offline; nothing but the model is contacted.".to_owned());
    }
    if let Some(allow) = &network.allow {
        let hosts = list(allow.iter().map(|rule| &rule.0));
        let hosts = if hosts.is_empty() { "nothing".to_owned() } else { hosts };
        out.push(format!("Network: plugins reach at most {hosts}."));
    }
    if !network.mirrors.is_empty() {
        let mirrors = network.mirrors.iter().map(|rule| rule.0.to_string());
        let mirrors = mirrors.map(|rule| rule.split(' ').next().unwrap_or_default().to_owned());
        out.push(format!("Network: users may have an allowed origin mirrored at {}.", list(mirrors)));
    }
    if !network.deny.is_empty() {
        out.push(format!("Network: nothing reaches {}.", list(network.deny.iter().map(|rule| &rule.0))));
    }
    match network.commands.as_ref().map(|most| *most.get_ref()) {
        Some(Commands::Off) => out.push("Network: commands reach nothing.".to_owned()),
        Some(Commands::Gateway) => {
            out.push("Network: commands reach at most the gateway of this program.".to_owned());
        }
        Some(Commands::Open) | None => {}
    }
    if let Some(models) = &rules.models.allow {
        out.push(format!("Models: only {}.", list(models.get_ref())));
    }
    if let Some(origins) = &rules.models.origins {
        let origins = origins.get_ref().iter().map(|rule| rule.0.to_string());
        let origins = origins.map(|rule| rule.split(' ').next().unwrap_or_default().to_owned());
        out.push(format!("Models: asked only at {}.", list(origins)));
    }
    if let Some(servers) = &rules.mcp.allow {
        let servers = if servers.is_empty() { "none".to_owned() } else { list(servers) };
        out.push(format!("MCP servers: at most {servers}."));
    }
}

fn enclosure(rules: &Schema, out: &mut Vec<String>) {
    if let Some(grade) = &rules.wall.grade {
        out.push(format!("Wall: without one of grade {} or better nothing starts.", word(grade)));
    }
    if !rules.wall.forbid.is_empty() {
        out.push(format!("Wall: nobody may say --wall {}.", list(rules.wall.forbid.iter().map(word))));
    }
    if rules.project.files.as_ref().is_some_and(|files| !files.get_ref()) {
        out.push("Projects: their instructions, settings and plugins do not count.".to_owned());
    }
}

fn records(rules: &Schema, out: &mut Vec<String>) {
    if rules.audit.fsync {
        out.push("Audit: each record is on the disk before what it allows happens.".to_owned());
    }
    if let Some(folder) = &rules.audit.folder {
        out.push(format!(
            "Audit: records are kept below {}, one folder per user.",
            folder.get_ref().display()
        ));
    }
    if rules.traces.share.as_ref().is_some_and(|share| !share.get_ref()) {
        out.push("Traces: none are shared.".to_owned());
    }
}
