//! One call of one tool, without a model: decided as in a session, under the same policy and rules.

use std::path::Path;
use std::sync::Arc;

use agent::{AgentSettings, Handle, NO_MODEL, SessionConfig, Start};
use protocol::{Event, OrderEnd, SessionId, ToolResult};
use provider::{ProviderSettings, Providers};
use serde_json::{Value, json};

use crate::assemble::{Setup, offered};
use crate::cli::{SessionArgs, ToolArgs};
use crate::command_network;
use crate::commands::{headless, needed_prompt};
use crate::diagnostics;
use crate::enclosure::Enclosure;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::grants_file;
use crate::hub::ask_namespace;
use crate::managed;
use crate::permissions::{budget, rules, rules_notices};
use crate::render;
use crate::signals::Signals;
use crate::trust::Word;

pub(super) async fn run(args: ToolArgs, environment: Environment) -> Result<Exit, Failure> {
    let mut signals = Signals::new()?;
    let begun = signals.unless(begin(&args, environment)).await;
    let (setup, config, arguments) = begun.unwrap_or_else(|exit| Err(headless::stopped(exit)))?;
    let (session, dir) = (config.id.clone(), setup.store().dir(&config.id));
    let (mut handle, result) = agent::call(config, &args.name, &arguments)?;
    let mut stopped = None;
    while let Some(told) = next(&mut handle, &mut signals).await {
        match told {
            Ok(Event::ToolLog { tool, log, .. }) => note(format!("{tool}: {log}")),
            Ok(_) => {}
            Err(exit) => {
                stopped = Some(exit);
                handle.interrupt.interrupt();
            }
        }
    }
    let lost = |_| anyhow::anyhow!("the call ended without a result");
    let result = result.await.map_err(lost)?.map_err(|e| Failure::new(Exit::Failed, e))?;
    if is_open(&result) {
        note(format!("the session is kept: ml-intern --resume {} -m MODEL", session.as_str()));
    }
    clear(&dir, &result);
    print(&args.name, &session, &result, args.json)?;
    Ok(match result {
        ToolResult { cancelled: true, .. } => stopped.unwrap_or(Exit::Interrupted),
        ToolResult { denial: Some(_), .. } => Exit::Denied,
        // Somebody has to look for it.
        result if is_open(&result) => Exit::Failed,
        ToolResult { success: true, .. } => Exit::Done,
        _ => Exit::Failed,
    })
}

/// The next event, or signal. None: the call is over.
async fn next(handle: &mut Handle, signals: &mut Signals) -> Option<Result<Event, Exit>> {
    match signals.unless(handle.events.recv()).await {
        Ok(event) => event.map(Ok),
        Err(exit) => Some(Err(exit)),
    }
}

async fn begin(args: &ToolArgs, environment: Environment) -> Result<(Setup, SessionConfig, Value), Failure> {
    let text = match args.arguments.as_str() {
        "-" => needed_prompt(Some(args.arguments.clone())).await?,
        text => text.to_owned(),
    };
    let arguments: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::usage(format!(
            "the arguments are not JSON: {e}; write them like '{{\"path\": \"README.md\"}}'"
        ))
    })?;
    let setup = Setup::in_place(environment, &args.place, Word::of(&args.place))?;
    diagnostics::start(&setup, args.place.verbose);
    let config = config(&setup, args).await?;
    Ok((setup, config, arguments))
}

/// A session for one call. There is no model in it, so that it needs neither key nor network.
async fn config(setup: &Setup, args: &ToolArgs) -> Result<SessionConfig, Failure> {
    let (id, session) = (SessionId::from(uuid::Uuid::new_v4().to_string()), SessionArgs::default());
    let (mut workplace, notice) = setup.workplace(&args.place)?;
    let rules = rules(setup, &session, workplace.workspace())?;
    workplace.denied = rules.denied_paths();
    let egress = setup.egress(args.place.offline, id.as_str(), rules.hosts())?;
    command_network::serve(setup, &egress, &rules, &mut workplace.wall)?;
    let enclosure = Enclosure::of(&workplace);
    managed::check_grade(&setup.policy, enclosure.grade())?;
    let (runtime, problems) = setup.plugins(&args.place, egress.clone(), &mut note).await?;
    notice
        .into_iter()
        .chain(setup.hub_notice())
        .chain(setup.project.notices.iter().cloned())
        .chain(problems.iter().map(|p| format!("plugin left out: {p}")))
        .chain(setup.unknown_settings())
        .chain(rules_notices(&rules, &runtime)?)
        .for_each(note);
    let mode = managed::mode_of_call(&setup.policy, setup.settings())?;
    let offline = args.place.offline || setup.policy.is_offline();
    let (tools, left_out) = offered(&runtime, &enclosure, mode, false, offline);
    if !tools.iter().any(|tool| tool.name == args.name) {
        return Err(match left_out.filter(|_| runtime.policy(&args.name).is_some()) {
            Some(reason) => Failure::new(Exit::Denied, anyhow::anyhow!("`{}`: {reason}", args.name)),
            None => no_such_tool(&args.name, tools.iter().map(|tool| tool.name.as_str()).collect()),
        });
    }
    let namespace = ask_namespace(setup, &egress, offline);
    let settings = AgentSettings {
        max_iterations: None,
        effort: None,
        stream: false,
        mode,
        interactive: false,
        walled: enclosure.is_walled(),
        wall: enclosure.wall(),
        network: enclosure.network(),
        rules,
        budget: budget(setup, &session, false)?,
        policy: setup.policy.clone(),
        policy_mark: managed::mark(&setup.policy),
    };
    Ok(SessionConfig {
        id,
        start: Start::Call,
        store: setup.store(),
        audit: setup.audit(),
        state: setup.paths.state.clone(),
        workplace,
        runtime,
        providers: Providers::new(ProviderSettings::default(), "", egress).map_err(Failure::settings)?,
        model: Some(NO_MODEL.to_owned()),
        default_model: String::new(),
        system_prompt: Arc::new(String::new),
        namespace,
        tools,
        secrets: setup.held().redactor.clone(),
        settings,
        keep_grant: grants_file::keeper(setup, &args.place),
    })
}

fn no_such_tool(name: &str, names: Vec<&str>) -> Failure {
    Failure::usage(format!("there is no tool `{name}`; the tools are {}", names.join(", ")))
}

/// Keeps nothing of the call but what it left in its folder for a person to look at, and what it takes to go on
/// with an order of which nobody knows whether it arrived.
fn clear(dir: &Path, result: &ToolResult) {
    if is_open(result) {
        return;
    }
    let _ = std::fs::remove_file(dir.join("session.jsonl"));
    let left = std::fs::read_dir(dir.join("tmp")).is_ok_and(|mut entries| entries.next().is_some());
    if !left && result.changes.is_empty() {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Nobody knows whether what it ordered arrived.
fn is_open(result: &ToolResult) -> bool {
    result.order.as_ref().is_some_and(|order| order.state == OrderEnd::Unknown)
}

fn print(tool: &str, session: &SessionId, result: &ToolResult, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let value = json!({
            "tool": tool, "session_id": session.as_str(), "success": result.success, "output": result.text, "structured": result.structured,
            "changes": result.changes, "denial": result.denial, "order": result.order,
        });
        render::json::line(&mut std::io::stdout(), &value)?;
        return Ok(());
    }
    render::say(&result.text);
    if let Some(denial) = &result.denial {
        note(format!("denied ({}); it would be allowed by: {}", denial.rule, denial.remedy));
    }
    Ok(())
}

fn note(line: String) {
    render::warn(&line);
}
