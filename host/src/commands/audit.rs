//! The audit log: checked, shown, handed on.

use audit::{Act, AuditLog, Entry, Finding, OrderState, Report, Verdict};
use protocol::text::line;

use crate::assemble::Setup;
use crate::cli::AuditCommand;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::{json, say, warn};

pub(super) fn run(command: &AuditCommand, environment: Environment) -> Result<Exit, Failure> {
    let log = Setup::read(environment, None)?.audit();
    match command {
        AuditCommand::Verify { head, json } => verify(&log, head.as_deref(), *json),
        AuditCommand::Show { session } => {
            for entry in lines(&log, session.as_deref())? {
                say(&line(&format!("{}  {}", entry.at.replace('T', " "), told(&entry.act))));
            }
            // What is no record any more cannot be shown: it is named.
            let wrong = log.verify(None)?.findings;
            for finding in &wrong {
                warn(&format!("WRONG  {}:{}: {}", finding.path.display(), finding.line, finding.what));
            }
            Ok(if wrong.is_empty() { Exit::Done } else { Exit::Failed })
        }
        AuditCommand::Export { session } => {
            for entry in lines(&log, session.as_deref())? {
                json::line(&mut std::io::stdout(), &entry)?;
            }
            Ok(Exit::Done)
        }
    }
}

fn verify(log: &AuditLog, head: Option<&str>, as_json: bool) -> Result<Exit, Failure> {
    if let Some(head) = head.filter(|head| !is_hash(head)) {
        let message =
            format!("`{head}` is no head: it has 64 digits of 0-9 and a-f, as `audit_head` of a result");
        return Err(Failure::usage(message));
    }
    let Report { chains, records, findings, notes, open, head: found } = log.verify(head)?;
    let lost = head.is_some() && found.is_none();
    if as_json {
        let told = |found: &[Finding]| -> Vec<_> {
            let one = |f: &Finding| serde_json::json!({"path": f.path, "line": f.line, "what": f.what});
            found.iter().map(one).collect()
        };
        let value = serde_json::json!({
            "chains": chains, "records": records, "findings": told(&findings), "notes": told(&notes),
            "open_sessions": open,
            "head": found.as_ref().map(|(path, later)| serde_json::json!({"path": path, "later_records": later})),
        });
        json::line(&mut std::io::stdout(), &value)?;
    } else {
        say(&format!("{chains} chains, {records} records"));
        for finding in &findings {
            say(&format!("WRONG  {}:{}: {}", finding.path.display(), finding.line, finding.what));
        }
        for note in &notes {
            say(&format!("note   {}:{}: {}", note.path.display(), note.line, note.what));
        }
        match open.as_slice() {
            [] => {}
            [one] => say(&format!("note   session {one} has no recorded end: it runs, or it was killed")),
            several => say(&format!(
                "note   {} sessions have no recorded end: they run, or were killed (--json names them)",
                several.len()
            )),
        }
        match &found {
            Some((path, 0)) => say(&format!("ok     the head is the last record of {path}")),
            Some((path, later)) => say(&format!("ok     the head is in {path}; {later} records follow it")),
            None if lost => say("WRONG  no chain has this head: records were changed or removed"),
            None => {}
        }
        if records == 0 && findings.is_empty() {
            say("note   there is no record yet");
        } else if findings.is_empty() && !lost {
            say("ok     every record follows the one before it");
        }
    }
    Ok(if findings.is_empty() && !lost { Exit::Done } else { Exit::Failed })
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// The records of one session, or of the user: what began and ended, was installed and granted.
fn lines(log: &AuditLog, session: Option<&str>) -> Result<Vec<Entry>, Failure> {
    let Some(beginning) = session else { return Ok(log.lines(None)?) };
    let ids: Vec<String> = log.sessions()?.into_iter().filter(|id| id.starts_with(beginning)).collect();
    match ids.as_slice() {
        [id] => Ok(log.lines(Some(id))?),
        [] => Err(Failure::usage(format!("the audit log has no session `{beginning}`"))),
        _ => Err(Failure::usage(format!(
            "`{beginning}` is the beginning of several sessions: {}",
            ids.join(", ")
        ))),
    }
}

fn told(act: &Act) -> String {
    match act {
        Act::Start { session, model, mode, wall, network, .. } => {
            format!("start     {session}  {model}, mode {mode}, wall {wall}, network {network}")
        }
        Act::Decision { tool, tiers, verdict, rule, target, .. } => {
            let verdict = match verdict {
                Verdict::Allow => "allow",
                Verdict::Ask => "ask",
                Verdict::Deny => "deny",
            };
            let tiers: Vec<&str> = tiers.iter().map(|tier| tier.as_str()).collect();
            format!("{verdict:<9} {tool} [{}] by {rule}  {target}", tiers.join(" "))
        }
        Act::Answer { answer, target, .. } => format!("person    {answer}  {target}"),
        Act::Made { kind, namespace, name, .. } => format!("made      {kind} {namespace}/{name}"),
        Act::Credential { plugin, credential, origin, .. } => {
            format!("uses      credential {credential} of {plugin} at {origin}")
        }
        Act::Outcome { call, success, refused, .. } => {
            let result = if *success { "done" } else { "failed" };
            let refused = refused.as_ref().map(|rule| format!(", refused by {rule}")).unwrap_or_default();
            format!("outcome   {call} {result}{refused}")
        }
        Act::Unfinished { call, why } => format!("outcome   {call} none: {why}"),
        Act::Order { order, tool, target, usd, unpriced, state, .. } => {
            let state = match state {
                OrderState::Sent => "sent",
                OrderState::Done => "done",
                OrderState::Failed => "not made",
                OrderState::Unknown => "unanswered: whether it arrived is unknown",
                OrderState::Found => "found",
                OrderState::Absent => "never arrived",
                OrderState::Released => "may be made again, by the person's word",
            };
            let usd = match (usd, unpriced) {
                (_, true) => " for nobody knows how much".to_owned(),
                (Some(usd), false) => format!(" {usd:.2} USD"),
                (None, false) => String::new(),
            };
            format!("order     {order} {tool} {state}{usd}  {target}")
        }
        Act::Saved { bytes, digest } => format!("saved     {bytes} bytes blake3:{digest}"),
        Act::End { session, head } => {
            let head = head.as_ref().map(|head| format!(" with {head}")).unwrap_or_default();
            format!("end       {session}{head}")
        }
        Act::Torn { file, bytes, .. } => format!("torn      {bytes} bytes put aside, see {file}"),
        Act::Install { plugin, path } => {
            let signed = plugin.publisher.as_ref().map(|key| format!(" signed by {key}")).unwrap_or_default();
            format!("install   {} {} sha256:{}{signed} {path}", plugin.id, plugin.version, plugin.digest)
        }
        Act::Login { credential, stored: true } => format!("login     {credential} stored"),
        Act::Login { credential, stored: false } => format!("login     {credential} removed"),
        Act::Remove { plugin, path } => format!("remove    {plugin} {path}"),
        Act::Trust { folder, word, files } => {
            let files: Vec<&str> = files.keys().map(String::as_str).collect();
            format!("trust     {word} {folder} [{}]", files.join(", "))
        }
        Act::Grant { plugin, granted, revoked } => {
            format!("grant     {plugin} +[{}] -[{}]", granted.join(", "), revoked.join(", "))
        }
    }
}
