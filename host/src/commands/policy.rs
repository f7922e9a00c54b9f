//! The machine's policy, told in sentences.

use std::path::Path;

use policy::{Owner, Policy};
use runtime::Described;

use crate::cli::PolicyCommand;
use crate::exit::{Exit, Failure};
use crate::managed;
use crate::permissions::policy_rules;
use crate::render::{line, say};

pub(super) fn run(command: &PolicyCommand) -> Result<Exit, Failure> {
    match command {
        PolicyCommand::Check { file: Some(file) } => check(file),
        PolicyCommand::Check { file: None } => {
            tell(&managed::read()?)?;
            Ok(Exit::Done)
        }
        PolicyCommand::Show => {
            let policy = managed::read()?;
            if policy.is_managed() {
                say(&format!("# {}\n{}", policy.path().display(), policy.text().trim_end()));
            } else {
                tell(&policy)?;
            }
            Ok(Exit::Done)
        }
    }
}

/// A file that may become the policy: what it would say, whoever wrote it.
fn check(file: &Path) -> Result<Exit, Failure> {
    let found = Policy::read(file, Owner::Anyone).map_err(Failure::settings)?;
    let policy = found.unwrap_or_default();
    managed::known_flags(&policy)?;
    tell(&policy)?;
    if file != managed::file() {
        say(&format!(
            "This file has no effect where it is; the policy of this machine is {}.",
            managed::file().display()
        ));
    }
    Ok(Exit::Done)
}

/// The names of all tools that are always there.
fn bundled_tools() -> Vec<String> {
    let described =
        bundled::PLUGINS.iter().filter_map(|plugin| serde_json::from_str::<Described>(plugin.described).ok());
    described.flat_map(|described| described.tools.into_iter().map(|tool| tool.name)).collect()
}

fn tell(policy: &Policy) -> Result<(), Failure> {
    if !policy.is_managed() {
        say(&format!("There is no policy: {} does not exist.", managed::file().display()));
        return Ok(());
    }
    say(&format!("{} ({})", policy.path().display(), policy.digest()));
    let rules = policy_rules(policy, Path::new("/"))?;
    policy.sentences().iter().for_each(|line| say(line));
    let tools = bundled_tools();
    let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
    for rule in rules.about_no_tool(&tools) {
        say(&format!("note: `{rule}` is about no bundled tool; those are {}", tools.join(", ")));
    }
    let ids: Vec<&str> = bundled::PLUGINS.iter().map(|plugin| plugin.id).collect();
    if let Some(id) = policy.rules().plugins.bundled_ids().find(|id| !ids.contains(id)) {
        let told = format!(
            "{}: no bundled plugin is called `{}`; there are {}",
            policy.path().display(),
            line(id),
            ids.join(", ")
        );
        return Err(Failure::settings(anyhow::anyhow!(told)));
    }
    Ok(())
}
