//! What the person allows besides the mode: rules and money.

use std::path::Path;

use agent::{BudgetLimits, Effect, Rule, Rules};
use policy::Policy;
use runtime::PluginRuntime;

use crate::assemble::Setup;
use crate::cli::SessionArgs;
use crate::exit::{Exit, Failure};
use crate::settings::Permissions;

/// The rules that stand in the machine's policy.
pub(crate) fn policy_rules(policy: &Policy, workspace: &Path) -> Result<Rules, Failure> {
    let stated = &policy.rules().rules;
    let lists = [(Effect::Allow, &stated.allow), (Effect::Ask, &stated.ask), (Effect::Deny, &stated.deny)];
    let mut rules = Rules::default();
    for (effect, text) in
        lists.into_iter().flat_map(|(effect, list)| list.iter().map(move |text| (effect, text)))
    {
        let rule = Rule::parse(effect, text.get_ref(), &policy.place(text), workspace);
        rules.push(rule.map_err(Failure::settings)?.of_policy());
    }
    Ok(rules)
}

/// The rules of the policy, the command line and the settings.
pub(crate) fn rules(setup: &Setup, args: &SessionArgs, workspace: &Path) -> Result<Rules, Failure> {
    let Permissions { allow, ask, deny } = &setup.settings().permissions;
    let sources = [
        (Effect::Allow, "--allow", &args.allow),
        (Effect::Ask, "--ask", &args.ask),
        (Effect::Deny, "--deny", &args.deny),
        (Effect::Allow, "permissions.allow of the settings", allow),
        (Effect::Ask, "permissions.ask of the settings", ask),
        (Effect::Deny, "permissions.deny of the settings", deny),
    ];
    let mut rules = policy_rules(&setup.policy, workspace)?;
    for (effect, source, texts) in sources {
        let exit = if source.starts_with("--") { Exit::Usage } else { Exit::Settings };
        for text in texts {
            let rule = Rule::parse(effect, text, source, workspace).map_err(|e| Failure::new(exit, e))?;
            rules.push(rule);
        }
    }
    Ok(rules)
}

/// What is to be said of rules once the tools are known: those that are about nothing, and what they do not bind.
pub(crate) fn rules_notices(rules: &Rules, runtime: &PluginRuntime) -> Result<Vec<String>, Failure> {
    let tools: Vec<&str> = runtime.specs().iter().map(|spec| spec.name.as_str()).collect();
    let mut notices = Vec::new();
    for rule in rules.about_no_tool(&tools) {
        let told = format!("the rule `{rule}` is about no tool: there are {}", tools.join(", "));
        if rule.source().starts_with("--") {
            return Err(Failure::usage(told));
        }
        notices.push(told);
    }
    let runs_commands = tools.iter().any(|tool| runtime.can_exec(tool));
    if rules.bind_paths_or_hosts() && runs_commands {
        notices.push("rules on paths and hosts bind plugins, not the commands that `bash` runs".to_owned());
    }
    Ok(notices)
}

/// What a run may cost. Without a person there is always an end to what is ordered.
pub(crate) fn budget(setup: &Setup, args: &SessionArgs, interactive: bool) -> Result<BudgetLimits, Failure> {
    let headless = setup.settings().headless_budget_usd;
    if !headless.is_finite() || headless < 0.0 {
        let message =
            format!("headless_budget_usd is {headless}; it is a number of USD, and 0 forbids orders");
        return Err(Failure::settings(anyhow::anyhow!(message)));
    }
    Ok(BudgetLimits {
        total: args.max_budget_usd,
        orders: (!interactive).then_some(headless),
        most: setup.policy.max_usd().map(|(usd, _)| usd),
    })
}
