//! One call of one tool, without a model.

use std::collections::BTreeSet;

use audit::{Act, AuditError, AuditLog, Chain, Verdict};
use protocol::{HostReply, HostRequest, Invocation, Need, SessionId, Tier, ToolResult};
use runtime::{Pending, PluginRuntime};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::assemble::Setup;
use crate::cli::ToolArgs;
use crate::commands::needed_prompt;
use crate::commands::plugin::known;
use crate::diagnostics;
use crate::enclosure::Enclosure;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::managed;
use crate::paths::make_private;
use crate::render;
use crate::trust::Word;

/// The id of the one call.
const CALL: &str = "call_1";

pub(super) async fn run(args: ToolArgs, environment: Environment) -> Result<Exit, Failure> {
    let text = if args.arguments == "-" {
        needed_prompt(Some(args.arguments.clone())).await?
    } else {
        args.arguments.clone()
    };
    let mut arguments: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::usage(format!(
            "the arguments are not JSON: {e}; write them like '{{\"path\": \"README.md\"}}'"
        ))
    })?;
    let setup = Setup::in_place(environment, &args.place, Word::of(&args.place))?;
    diagnostics::start(&setup, args.place.verbose);
    let id = SessionId::from(uuid::Uuid::new_v4().to_string());
    let egress = setup.egress(args.place.offline, id.as_str())?;
    let (workplace, notice) = setup.workplace(&args.place)?;
    let (plugins, problems) = setup.plugins(&args.place, egress, &mut note).await?;
    notice
        .into_iter()
        .chain(setup.hub_notice())
        .chain(setup.project.notices.iter().cloned())
        .chain(problems.iter().map(|p| format!("plugin left out: {p}")))
        .for_each(note);
    if plugins.policy(&args.name).is_none() {
        let names: Vec<&str> = plugins.specs().iter().map(|spec| spec.name.as_str()).collect();
        return Err(Failure::usage(format!(
            "there is no tool `{}`; the tools are {}",
            args.name,
            names.join(", ")
        )));
    }
    let dir = setup.store().dir(&id);
    make_private(&dir)?;
    let enclosure = Enclosure::of(&workplace);
    managed::check_grade(&setup.policy, enclosure.grade)?;
    for tier in tiers(&plugins, &args.name, &arguments) {
        let denied = |by| Failure::new(Exit::Denied, anyhow::Error::from(by));
        setup.policy.tier(tier).map_err(denied)?;
    }
    let session = std::sync::Arc::new(workplace.open(id.clone(), &dir)?);
    let read = plugins.read_named_files(&session, &args.name, &mut arguments);
    read.map_err(|error| Failure::usage(error.to_string()))?;
    let mut audited = Audited::begin(&setup, &id, &plugins, (&args.name, &arguments), enclosure)
        .map_err(|e| Failure::new(Exit::Failed, e))?;
    let (needs, mut pending) = mpsc::channel::<Pending>(8);
    let cancel = tokio_util::sync::CancellationToken::new();
    let invocation = Invocation { id: CALL.into(), tool: args.name.clone(), arguments, order: None };
    let mut interrupted = signal(SignalKind::interrupt())?;
    let call = plugins.invoke(&session, invocation, needs, cancel.clone()).result();
    tokio::pin!(call);
    let mut result = loop {
        tokio::select! {
            result = &mut call => break result,
            Some(need) = pending.recv() => answer(need, &mut audited, &setup)?,
            _ = interrupted.recv() => cancel.cancel(),
        }
    };
    session.wall().shutdown().await;
    let secrets = &setup.held().redactor;
    result.texts().for_each(|text| secrets.clean(text));
    if let Some(structured) = &mut result.structured {
        secrets.clean_json(structured);
    }
    // Nothing of the call is kept but what it left in its folder for a person to look at.
    if std::fs::read_dir(dir.join("tmp")).is_ok_and(|mut entries| entries.next().is_none())
        && result.changes.is_empty()
    {
        let _ = std::fs::remove_dir_all(&dir);
    }
    audited.end(&result).map_err(|e| Failure::new(Exit::Failed, e))?;
    print(&args.name, &result, args.json)?;
    Ok(match result {
        ToolResult { cancelled: true, .. } => Exit::Interrupted,
        ToolResult { denial: Some(_), .. } => Exit::Denied,
        ToolResult { success: true, .. } => Exit::Done,
        _ => Exit::Failed,
    })
}

/// The call's own chain in the audit log: it was typed by the person, so the person decided.
struct Audited {
    log: AuditLog,
    chain: Chain,
    session: SessionId,
}

impl Audited {
    fn begin(
        setup: &Setup,
        session: &SessionId,
        plugins: &PluginRuntime,
        (tool, arguments): (&str, &Value),
        enclosure: Enclosure,
    ) -> Result<Self, AuditError> {
        let (log, text) = (setup.audit(), arguments.to_string());
        let plugin = plugins.plugin(tool);
        let described = plugin.map(|plugin| &plugin.described);
        let start = Act::Start {
            session: session.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: "none: `ml-intern tool`".to_owned(),
            workspace: None,
            mode: "tool".to_owned(),
            wall: enclosure.wall().to_owned(),
            network: enclosure.network().to_owned(),
            plugins: described.map(known).into_iter().collect(),
            policy: managed::mark(&setup.policy),
        };
        let decision = Act::Decision {
            call: CALL.into(),
            tool: tool.to_owned(),
            component: described.map(|described| described.digest.clone()),
            arguments: audit::digest(text.as_bytes()),
            files: Vec::new(),
            tiers: tiers(plugins, tool, arguments),
            verdict: Verdict::Allow,
            rule: "command-line".to_owned(),
            target: text.chars().take(400).collect(),
        };
        log.user(start.clone())?;
        let mut chain = log.session(session)?;
        chain.append(start, false)?;
        chain.append(decision, false)?;
        Ok(Self { log, chain, session: session.clone() })
    }

    fn end(mut self, result: &ToolResult) -> Result<(), AuditError> {
        let outcome = Act::Outcome {
            call: CALL.into(),
            success: result.success,
            output: audit::digest(result.text.as_bytes()),
            refused: result.denial.as_ref().map(|denial| denial.rule.clone()),
        };
        self.chain.append(outcome, false)?;
        self.chain.append(Act::End { session: self.session.clone(), head: None }, false)?;
        let head = Some(self.chain.head().to_owned());
        self.log.user(Act::End { session: self.session, head })
    }
}

/// What a call counts as.
fn tiers(plugins: &PluginRuntime, tool: &str, arguments: &Value) -> BTreeSet<Tier> {
    let said = plugins.policy(tool).map(|policy| policy.weigh(arguments).tiers).unwrap_or_default();
    let runs = plugins.can_exec(tool).then_some(Tier::Execute);
    said.into_iter().chain(runs).collect()
}

/// Nobody is asked: what needs a person is refused.
fn answer(need: Pending, audited: &mut Audited, setup: &Setup) -> Result<(), Failure> {
    let reply = match need.request {
        HostRequest::Log { message, .. } => {
            note(format!("{}: {}", need.tool, setup.held().redactor.text(&message)));
            HostReply::Noted
        }
        HostRequest::Decide(need) => HostReply::Refused {
            message: "this needs a person's approval and `ml-intern tool` does not ask".to_owned(),
            rule: "unanswered".to_owned(),
            remedy: match need {
                Need::Network { plugin, .. } => format!("--grant {plugin}"),
                _ => "a chat with `ml-intern`".to_owned(),
            },
        },
        HostRequest::UseCredential { plugin, credential, origin } => {
            let act = Act::Credential { call: CALL.into(), plugin, credential, origin };
            audited.chain.append(act, false).map_err(|e| Failure::new(Exit::Failed, e))?;
            HostReply::Noted
        }
    };
    let _ = need.reply.send(reply);
    Ok(())
}

fn print(tool: &str, result: &ToolResult, as_json: bool) -> Result<(), Failure> {
    if as_json {
        let value = json!({
            "tool": tool, "success": result.success, "output": result.text, "structured": result.structured,
            "changes": result.changes, "denial": result.denial,
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
    crate::render::warn(&line);
}
