//! One call of one tool, without a model.

use audit::{Act, AuditError, AuditLog, Chain, Verdict};
use protocol::{HostReply, HostRequest, Invocation, SessionId, ToolResult};
use runtime::{Pending, PluginRuntime};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::assemble::{Enclosure, Setup};
use crate::cli::ToolArgs;
use crate::commands::needed_prompt;
use crate::commands::plugin::known;
use crate::diagnostics;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
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
    let arguments: Value = serde_json::from_str(&text).map_err(|e| {
        Failure::usage(format!(
            "the arguments are not JSON: {e}; write them like '{{\"path\": \"README.md\"}}'"
        ))
    })?;
    let setup = Setup::in_place(environment, &args.place, Word::of(&args.place))?;
    diagnostics::start(&setup.paths.state, args.place.verbose);
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
    let audited = Audited::begin(&setup, &id, &plugins, (&args.name, &text), enclosure)
        .map_err(|e| Failure::new(Exit::Failed, e))?;
    let session = std::sync::Arc::new(workplace.open(id, &dir)?);
    let (needs, mut pending) = mpsc::channel::<Pending>(8);
    let cancel = tokio_util::sync::CancellationToken::new();
    let invocation = Invocation { id: CALL.into(), tool: args.name.clone(), arguments };
    let mut interrupted = signal(SignalKind::interrupt())?;
    let call = plugins.invoke(&session, invocation, needs, cancel.clone()).result();
    tokio::pin!(call);
    let result = loop {
        tokio::select! {
            result = &mut call => break result,
            Some(need) = pending.recv() => answer(need),
            _ = interrupted.recv() => cancel.cancel(),
        }
    };
    session.wall().shutdown().await;
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
        (tool, arguments): (&str, &str),
        enclosure: Enclosure,
    ) -> Result<Self, AuditError> {
        let log = setup.audit();
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
        };
        let decision = Act::Decision {
            call: CALL.into(),
            tool: tool.to_owned(),
            component: described.map(|described| described.digest.clone()),
            arguments: audit::digest(arguments.as_bytes()),
            tiers: plugins.policy(tool).map(|policy| policy.tier).into_iter().collect(),
            verdict: Verdict::Allow,
            rule: "command-line".to_owned(),
            target: arguments.chars().take(400).collect(),
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

/// Nobody is asked: what needs a person is refused.
fn answer(need: Pending) {
    let reply = match need.request {
        HostRequest::Log { message, .. } => {
            note(format!("{}: {message}", need.tool));
            HostReply::Noted
        }
        HostRequest::Decide(_) => HostReply::Refused {
            message: "this needs a person's approval and `ml-intern tool` does not ask".to_owned(),
            rule: "unanswered".to_owned(),
            remedy: "a chat with `ml-intern`".to_owned(),
        },
    };
    let _ = need.reply.send(reply);
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
