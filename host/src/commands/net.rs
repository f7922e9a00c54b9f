//! The ledger of requests, shown.

use std::collections::HashMap;

use egress::{Ledger, LedgerAct, LedgerLine};
use protocol::text::line;
use serde::Serialize;

use crate::assemble::Setup;
use crate::cli::NetArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::{json, say, warn};

/// A request: its first line in the ledger, and its last.
#[derive(Debug, Serialize)]
struct Request {
    at: String,
    run: String,
    who: String,
    method: String,
    origin: String,
    /// Where it really went, if a mirror stands for the origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    real: Option<String>,
    why: String,
    refused: bool,
    sent: u64,
    /// None while it runs, or if the program ended meanwhile.
    status: Option<u16>,
    received: u64,
    failed: Option<String>,
    /// The name of the credential that went with it.
    credential: Option<String>,
}

pub(super) fn run(args: &NetArgs, environment: Environment) -> Result<Exit, Failure> {
    let setup = Setup::read(environment, None)?;
    let (lines, broken) = Ledger::read(&setup.paths.state)?;
    let mut requests = joined(lines);
    if let Some(run) = &args.run {
        requests.retain(|request| request.run.starts_with(run.as_str()));
    }
    let skipped = if args.last == 0 { 0 } else { requests.len().saturating_sub(args.last) };
    for request in &requests[skipped..] {
        if args.json {
            json::line(&mut std::io::stdout(), request)?;
        } else {
            say(&line(&told(request)));
        }
    }
    if broken > 0 {
        // Cut off by a full disk or a kill. The ledger is no proof: that is the audit log.
        warn(&format!("{broken} lines of the ledger cannot be read and are left out"));
    }
    Ok(Exit::Done)
}

/// Puts the two lines of each request together, in the order in which they left.
fn joined(lines: Vec<LedgerLine>) -> Vec<Request> {
    let mut requests: Vec<Request> = Vec::new();
    let mut open: HashMap<(String, u64), usize> = HashMap::new();
    for LedgerLine { at, run, n, what } in lines {
        let ends = open.get(&(run.clone(), n)).copied().and_then(|index| requests.get_mut(index));
        match (what, ends) {
            (LedgerAct::Request { who, method, origin, real, why, sent, credential }, _) => {
                open.insert((run.clone(), n), requests.len());
                let (status, failed) = (None, None);
                requests.push(Request {
                    at,
                    run,
                    who,
                    method,
                    origin,
                    real,
                    why,
                    sent,
                    status,
                    failed,
                    credential,
                    refused: false,
                    received: 0,
                });
            }
            // Decided when the name was resolved: it stands there as a request and did not leave.
            (LedgerAct::Refused { why, .. }, Some(request)) => {
                request.refused = true;
                request.why = why;
                (request.sent, request.credential) = (0, None);
            }
            (LedgerAct::Refused { who, method, origin, why }, None) => {
                let (status, failed) = (None, None);
                requests.push(Request {
                    at,
                    run,
                    who,
                    method,
                    origin,
                    real: None,
                    why,
                    status,
                    failed,
                    credential: None,
                    refused: true,
                    sent: 0,
                    received: 0,
                });
            }
            (LedgerAct::Answer { status, received }, Some(request)) => {
                request.status = Some(status);
                request.received = received;
            }
            (LedgerAct::Closed { sent, received }, Some(request)) => {
                // The answer to a `CONNECT`: that it stood.
                request.status = Some(200);
                (request.sent, request.received) = (sent, received);
            }
            (LedgerAct::Failed { why }, Some(request)) => request.failed = Some(why),
            (LedgerAct::Answer { .. } | LedgerAct::Closed { .. } | LedgerAct::Failed { .. }, None) => {}
        }
    }
    requests
}

fn told(request: &Request) -> String {
    let Request {
        at,
        run,
        who,
        method,
        origin,
        real,
        why,
        refused,
        sent,
        status,
        received,
        failed,
        credential,
    } = request;
    let with = credential.as_ref().map(|name| format!(", credential {name}")).unwrap_or_default();
    let outcome = match (refused, status, failed) {
        (true, ..) => format!("REFUSED {why}"),
        (_, Some(status), _) => format!("{status}  {sent} B out, {received} B in  ({why}{with})"),
        (_, None, Some(failed)) => format!("failed: {failed}  ({why}{with})"),
        (_, None, None) => format!("no end on record  ({why}{with})"),
    };
    let origin = real.as_ref().map_or_else(|| origin.clone(), |real| format!("{origin} (at {real})"));
    let run: String = run.chars().take(8).collect();
    format!("{}  {run:<8}  {who:<16} {method:<5} {origin}  {outcome}", at.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_was_refused_when_its_name_was_resolved_did_not_leave() {
        let line = |n: u64, what: LedgerAct| {
            let (at, run) = ("2026-01-01T00:00:00.000+00:00".to_owned(), "run".to_owned());
            LedgerLine { at, run, n, what }
        };
        let request = || LedgerAct::Request {
            who: "plugin p".to_owned(),
            method: "POST".to_owned(),
            origin: "http://a.test".to_owned(),
            real: None,
            why: "http://a.test POST".to_owned(),
            sent: 9,
            credential: Some("key".to_owned()),
        };
        let (who, method, origin) = ("plugin p".to_owned(), "POST".to_owned(), "http://a.test".to_owned());
        let refused = LedgerAct::Refused { who, method, origin, why: "leads to 10.0.0.1".to_owned() };
        let given_up = LedgerAct::Failed { why: "given up".to_owned() };
        let lines = vec![
            line(0, request()),
            line(1, request()),
            line(0, refused.clone()),
            line(1, given_up),
            line(2, refused),
        ];
        let requests = joined(lines);
        assert_eq!(requests.iter().map(|request| request.refused).collect::<Vec<_>>(), [true, false, true]);
        assert_eq!((requests[0].sent, &requests[0].credential), (0, &None));
        assert!(told(&requests[0]).ends_with("REFUSED leads to 10.0.0.1"), "{}", told(&requests[0]));
        assert!(told(&requests[1]).contains("failed: given up"), "{}", told(&requests[1]));
    }
}
