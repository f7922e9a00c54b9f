//! A run on one prompt, without a person.

use std::io::IsTerminal as _;
use std::time::Duration;

use agent::{Handle, Resumed};
use audit::PolicyMark;
use protocol::{Event, Operation, Submission};
use schemars::JsonSchema;
use serde::Serialize;

use crate::assemble::{self, Assembled, Setup};
use crate::cli::{OutputFormat, RunArgs};
use crate::commands::needed_prompt;
use crate::diagnostics;
use crate::enclosure::Enclosure;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::named_folders;
use crate::outcome::{Outcome, RunResult};
use crate::render::json;
use crate::render::style::Style;
use crate::render::terminal::{Answer, Terminal};
use crate::signals::Signals;
use crate::stdin;
use crate::trust::Word;

/// How long a session that ends is waited for once a signal came.
const LAST_MOMENT: Duration = Duration::from_secs(5);

/// The first line of `stream-json`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct SessionLine<'a> {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "session"))]
    kind: &'static str,
    /// Version of the lines' format.
    format: u32,
    version: &'static str,
    session_id: &'a str,
    resumed: bool,
    model: &'a str,
    route: &'a str,
    payer: &'a str,
    workspace: &'a std::path::Path,
    mode: &'static str,
    wall: &'static str,
    network: &'static str,
    /// The machine's policy that the session is under.
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<PolicyLine>,
    tools: Vec<&'a str>,
}

/// A policy, in the first line of `stream-json`.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct PolicyLine {
    path: String,
    digest: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

/// What a run prints, and where.
enum Printer {
    Text(Box<Terminal<std::io::Stdout, std::io::Stderr>>),
    /// Nothing before the result.
    Json,
    StreamJson,
}

pub(crate) async fn run(args: RunArgs, environment: Environment) -> Result<Exit, Failure> {
    let format = format_of(&args);
    let mut signals = Signals::new()?;
    let begun = signals.unless(begin(args, environment)).await.unwrap_or_else(|exit| Err(stopped(exit)));
    let (setup, args, assembled, prompt, style) = begun.or_else(|failure| not_begun(format, failure))?;
    work(&setup, args, assembled, prompt, style, signals).await
}

/// A signal came before there was a session.
pub(super) fn stopped(exit: Exit) -> Failure {
    Failure::new(exit, anyhow::anyhow!("a signal ended the program before the work began"))
}

/// Whoever reads lines gets a result line, also if nothing could begin.
fn not_begun<T>(format: OutputFormat, failure: Failure) -> Result<T, Failure> {
    if let OutputFormat::Json | OutputFormat::StreamJson = format {
        json::line(&mut std::io::stdout(), &RunResult::not_begun(failure.exit, &failure.to_string()))?;
    }
    Err(failure)
}

type Begun = (Setup, RunArgs, Assembled, String, Style);

async fn begin(args: RunArgs, environment: Environment) -> Result<Begun, Failure> {
    let prompt = needed_prompt(args.prompt.clone()).await?;
    if let Some(path) = &args.output {
        // Before any work is done, not after it.
        stdin::check_output(path).map_err(Failure::usage)?;
    }
    let setup = Setup::in_place(environment, &args.place, Word::of(&args.place))?;
    diagnostics::start(&setup, args.place.verbose);
    let style = Style::of(&std::io::stderr(), &setup.environment);
    let assembled = assemble::session(&setup, &args.session, &args.place, false, &mut note).await?;
    Ok((setup, args, assembled, prompt, style))
}

fn format_of(args: &RunArgs) -> OutputFormat {
    if args.json { OutputFormat::StreamJson } else { args.output_format }
}

/// Runs an assembled session on a prompt and prints what `args` ask for.
pub(crate) async fn work(
    setup: &Setup,
    args: RunArgs,
    assembled: Assembled,
    prompt: String,
    style: Style,
    mut signals: Signals,
) -> Result<Exit, Failure> {
    let Assembled { config, notices, enclosure } = assembled;
    for notice in notices {
        note(notice);
    }
    let mode = config.settings.mode;
    let tools: Vec<String> = config.tools.iter().map(|tool| tool.name.clone()).collect();
    let policy = config.settings.policy_mark.clone();
    let limit = config.settings.max_iterations.map_or("no limit".to_owned(), |n| n.to_string());
    let format = format_of(&args);
    let mut handle = agent::start(config).or_else(|error| not_begun(format, error.into()))?;
    let mut printer = printer(format, style);
    if let Printer::Text(terminal) = &mut printer {
        if setup.hf_token().is_some() {
            terminal.note(&style.dim("HF token loaded"))?;
        }
        let header = [
            format!(
                "Model: {} ({}; paid by {})",
                handle.model.id(),
                handle.model.route(),
                handle.model.payer()
            ),
            format!(
                "Tool runtime: local filesystem (wall: {}, network: {})",
                enclosure.label(),
                enclosure.network()
            ),
            format!("Max iterations: {limit}"),
            format!("Prompt: {}", crate::render::clip(&prompt, 200)),
            "---".to_owned(),
        ];
        for line in header {
            terminal.note(&style.dim(&line))?;
        }
    }
    let announced = match printer {
        Printer::StreamJson => {
            json::line(&mut std::io::stdout(), &session_line(&handle, &enclosure, mode, &tools, policy))
        }
        _ => Ok(()),
    };
    let before = handle
        .resumed
        .take()
        .map(|Resumed { unknown_outcomes, unpriced_orders, .. }| (unknown_outcomes, unpriced_orders));
    let (unknown, unpriced) = before.unwrap_or_default();
    for id in &unknown {
        note(format!("the outcome of call {id} is unknown: the program ended while it ran"));
    }
    let mut outcome = Outcome::new(handle.session.to_string(), unknown, unpriced);
    if let Err(error) = announced {
        unread(&error, &handle, &mut printer, &mut outcome);
    }
    for line in named_folders::offers(&prompt, handle.context.folders(), &setup.paths) {
        note(line);
    }
    submit(&handle, "sub_1", Operation::UserInput { text: prompt }).await;
    follow(&mut handle, &mut printer, &mut outcome, style, &mut signals).await?;
    submit(&handle, "sub_shutdown", Operation::Shutdown).await;
    drain(handle, &mut printer, &mut outcome, &mut signals).await;
    if let (Some(path), Some(answer)) = (&args.output, outcome.answer())
        && let Err(error) = stdin::write_output(path, answer)
    {
        note(format!("ERROR: {error}"));
        outcome.fail(error);
    }
    let exit = outcome.exit(args.allow_denials);
    // If the output is what failed, the exit code is all that can still be told.
    let told = finish(&printer, &outcome, &enclosure, mode, args.allow_denials);
    Ok(if told.is_err() { Exit::Failed } else { exit })
}

fn printer(format: OutputFormat, style: Style) -> Printer {
    match format {
        OutputFormat::Json => Printer::Json,
        OutputFormat::StreamJson => Printer::StreamJson,
        OutputFormat::Text => {
            let screen = std::io::stdout().is_terminal();
            let when = if screen { Answer::Live } else { Answer::AtEnd };
            let width = crossterm::terminal::size().map_or(100, |(columns, _)| columns.into());
            let terminal = Terminal::new(std::io::stdout(), std::io::stderr(), style, width, when, false);
            Printer::Text(Box::new(terminal))
        }
    }
}

fn session_line<'a>(
    handle: &'a Handle,
    enclosure: &Enclosure,
    mode: agent::Mode,
    tools: &'a [String],
    policy: Option<PolicyMark>,
) -> SessionLine<'a> {
    SessionLine {
        kind: "session",
        format: 1,
        policy: policy.map(|PolicyMark { path, digest, revision }| PolicyLine { path, digest, revision }),
        version: env!("CARGO_PKG_VERSION"),
        session_id: handle.session.as_str(),
        resumed: handle.resumed.is_some(),
        model: handle.model.id(),
        route: handle.model.route(),
        payer: handle.model.payer(),
        workspace: &handle.context.folders().workspace,
        mode: mode.as_str(),
        wall: enclosure.wall(),
        network: enclosure.network(),
        tools: tools.iter().map(String::as_str).collect(),
    }
}

async fn submit(handle: &Handle, id: &str, operation: Operation) {
    // A session that ended by itself takes nothing more.
    let _ = handle.operations.send(Submission { id: id.to_owned(), operation }).await;
}

/// Shows events until one ends the turn. A signal interrupts it.
async fn follow(
    handle: &mut Handle,
    printer: &mut Printer,
    outcome: &mut Outcome,
    style: Style,
    signals: &mut Signals,
) -> Result<(), Failure> {
    loop {
        let event = tokio::select! {
            event = handle.events.recv() => event,
            exit = signals.next() => {
                if exit == Exit::Terminated {
                    outcome.terminate();
                }
                handle.interrupt.interrupt();
                continue;
            }
        };
        let Some(event) = event else { return Ok(()) };
        if let Err(error) = show(printer, &event) {
            unread(&error, handle, printer, outcome);
        }
        if outcome.take(&event) {
            if let (Printer::Text(terminal), Some((name, size))) = (printer, ended(&event)) {
                terminal.note(&style.dim(&format!("--- Agent {name} (history_size={size}) ---")))?;
            }
            return Ok(());
        }
    }
}

/// Nobody reads any more. The turn ends in order, so that the session can go on.
fn unread(error: &std::io::Error, handle: &Handle, printer: &mut Printer, outcome: &mut Outcome) {
    outcome.fail(format!("the output cannot be written: {error}"));
    *printer = Printer::Json;
    handle.interrupt.interrupt();
}

fn ended(event: &Event) -> Option<(&'static str, String)> {
    match event {
        Event::TurnComplete { history_size, .. } => Some(("turn_complete", history_size.to_string())),
        Event::Interrupted {} => Some(("interrupted", "?".to_owned())),
        _ => None,
    }
}

fn show(printer: &mut Printer, event: &Event) -> std::io::Result<()> {
    match printer {
        Printer::Text(terminal) => terminal.event(event),
        Printer::Json => Ok(()),
        Printer::StreamJson => json::line(&mut std::io::stdout(), event),
    }
}

/// Shows what still comes until the session has ended. A signal gives it a moment, a second one none.
async fn drain(mut handle: Handle, printer: &mut Printer, outcome: &mut Outcome, signals: &mut Signals) {
    let Err(exit) = signals.unless(rest(&mut handle, printer, outcome)).await else { return };
    outcome.stopped(exit);
    handle.interrupt.interrupt();
    let rest = rest(&mut handle, printer, outcome);
    let _ = tokio::time::timeout(LAST_MOMENT, signals.unless(rest)).await;
}

async fn rest(handle: &mut Handle, printer: &mut Printer, outcome: &mut Outcome) {
    let mut ended = false;
    while let Some(event) = handle.events.recv().await {
        match &event {
            Event::Shutdown { .. } => {
                ended = true;
                outcome.take(&event);
            }
            // The turn was done, and then its records or its file could not be written.
            Event::Error { error, .. } => outcome.fail(error.clone()),
            _ => {}
        }
        // The result was decided; a reader that went away changes nothing.
        let _ = show(printer, &event);
    }
    let _ = (&mut handle.task).await;
    if !ended {
        outcome.fail("the session ended without its last record".to_owned());
    }
}

fn finish(
    printer: &Printer,
    outcome: &Outcome,
    enclosure: &Enclosure,
    mode: agent::Mode,
    allow_denials: bool,
) -> std::io::Result<()> {
    let result = outcome.result(enclosure, mode, allow_denials);
    if !matches!(printer, Printer::Text(_)) {
        return json::line(&mut std::io::stdout(), &result);
    }
    for denial in outcome.denials() {
        note(format!(
            "denied: {} {} ({}); it would be allowed by: {}",
            denial.tool, denial.target, denial.rule, denial.remedy
        ));
    }
    Ok(())
}

fn note(line: String) {
    crate::render::warn(&line);
}
