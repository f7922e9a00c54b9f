//! What became of a run: a fold over its events, for the result line and the exit code.

use std::collections::BTreeMap;
use std::time::Instant;

use protocol::{ErrorKind, Event, OrderEnd, OrderOutcome, PermissionDenial, StopReason, Usage};
use schemars::JsonSchema;
use serde::Serialize;

use crate::enclosure::Enclosure;
use crate::exit::Exit;

/// The last line of a run.
#[derive(Debug, JsonSchema, Serialize)]
pub(crate) struct RunResult<'a> {
    #[serde(rename = "type")]
    #[schemars(extend("const" = "result"))]
    kind: &'static str,
    session_id: &'a str,
    is_error: bool,
    subtype: &'static str,
    num_turns: u32,
    duration_ms: u64,
    /// USD of the completions.
    total_cost_usd: f64,
    /// USD that what the run ordered costs, or costs at most.
    orders_usd: f64,
    /// Orders of the session of which nobody knows what they cost; they are in no sum.
    orders_of_unknown_price: usize,
    usage: Usage,
    permission_denials: &'a [PermissionDenial],
    wall: &'static str,
    network: &'static str,
    mode: &'static str,
    /// Orders of which nobody knows whether they arrived. They stand in the way of others of their tool.
    open_orders: &'a [String],
    /// Calls of an earlier run whose outcome nobody knows.
    unknown_outcomes: &'a [String],
    /// Files that were changed, with lines added and removed.
    changed_files: &'a BTreeMap<String, (u32, u32)>,
    /// Hash of the last record of the session's chain in the audit log.
    audit_head: Option<&'a str>,
    exit_code: u8,
    result: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl<'a> RunResult<'a> {
    /// The line of a run that did not begin.
    pub(crate) fn not_begun(exit: Exit, error: &'a str) -> Self {
        static NONE: BTreeMap<String, (u32, u32)> = BTreeMap::new();
        Self {
            kind: "result",
            session_id: "",
            is_error: true,
            subtype: match exit {
                Exit::Credentials => "credentials",
                Exit::Interrupted => "interrupted",
                Exit::Terminated => "terminated",
                _ => "error",
            },
            num_turns: 0,
            duration_ms: 0,
            total_cost_usd: 0.0,
            orders_usd: 0.0,
            orders_of_unknown_price: 0,
            usage: Usage::default(),
            permission_denials: &[],
            wall: "unknown",
            network: "unknown",
            mode: "unknown",
            open_orders: &[],
            unknown_outcomes: &[],
            changed_files: &NONE,
            audit_head: None,
            exit_code: exit.code(),
            result: None,
            error: Some(error),
        }
    }
}

/// How the run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Complete,
    Empty,
    Limit,
    /// The budget was spent.
    Budget,
    Interrupted,
    Failed(ErrorKind),
    /// The session ended before its turn did.
    Lost,
}

/// The fold.
#[derive(Debug)]
pub(crate) struct Outcome {
    started: Instant,
    session_id: String,
    completions: u32,
    usage: Usage,
    cost: f64,
    orders: f64,
    unpriced: usize,
    open_orders: Vec<String>,
    denials: Vec<PermissionDenial>,
    unknown: Vec<String>,
    changed: BTreeMap<String, (u32, u32)>,
    answer: Option<String>,
    error: Option<String>,
    audit_head: Option<String>,
    /// Something of the host itself failed, whatever the agent did.
    failed: bool,
    /// Why the last completion ended.
    finish: Option<String>,
    end: End,
    /// A signal asked the program to end.
    terminated: bool,
}

impl Outcome {
    pub(crate) fn new(session_id: String, unknown: Vec<String>, unpriced: usize) -> Self {
        Self {
            started: Instant::now(),
            session_id,
            completions: 0,
            usage: Usage::default(),
            cost: 0.0,
            orders: 0.0,
            unpriced,
            open_orders: Vec::new(),
            denials: Vec::new(),
            unknown,
            changed: BTreeMap::new(),
            answer: None,
            error: None,
            audit_head: None,
            failed: false,
            finish: None,
            end: End::Lost,
            terminated: false,
        }
    }

    /// Notes that the host could not do its part.
    pub(crate) fn fail(&mut self, error: String) {
        self.error.get_or_insert(error);
        self.failed = true;
    }

    /// Takes an event in. Returns whether it ended the turn.
    pub(crate) fn take(&mut self, event: &Event) -> bool {
        match event {
            Event::LlmCall { cost_usd, usage, kind, finish_reason, .. } => {
                self.completions += u32::from(kind == "main");
                self.finish.clone_from(finish_reason);
                self.usage += *usage;
                self.cost += cost_usd;
            }
            Event::ToolStateChange { order: Some(order), .. } => self.ordered(order),
            Event::ToolOutput { denial, changes, order, .. } => {
                self.denials.extend(denial.clone());
                order.iter().for_each(|order| self.ordered(order));
                for change in changes {
                    let lines = self.changed.entry(change.path.clone()).or_default();
                    *lines = (lines.0 + change.added, lines.1 + change.removed);
                }
            }
            Event::TurnComplete { final_response, reason, .. } => {
                self.answer.clone_from(final_response);
                self.end = match reason {
                    StopReason::MaxIterations => End::Limit,
                    StopReason::Budget => End::Budget,
                    StopReason::Done if final_response.is_none() => End::Empty,
                    StopReason::Done => End::Complete,
                };
                if self.end == End::Empty {
                    let finish = self.finish.as_deref().unwrap_or("unknown");
                    self.error = Some(format!("the model gave an empty answer (it ended with `{finish}`)"));
                }
                return true;
            }
            Event::Shutdown { audit_head, open_orders } => {
                self.audit_head = Some(audit_head.clone());
                self.open_orders.clone_from(open_orders);
            }
            Event::Interrupted {} => {
                self.end = End::Interrupted;
                return true;
            }
            Event::Error { error, kind } => {
                self.error = Some(error.clone());
                self.end = End::Failed(*kind);
                return true;
            }
            Event::SessionTerminated { user_message, .. } => {
                self.error = Some(user_message.clone());
                self.end = End::Failed(ErrorKind::Context);
                return true;
            }
            _ => {}
        }
        false
    }

    fn ordered(&mut self, order: &OrderOutcome) {
        if order.state != OrderEnd::Failed {
            self.orders += order.usd.unwrap_or(0.0);
            self.unpriced += usize::from(order.usd.is_none());
        }
    }

    /// A signal asks the program to end.
    pub(crate) fn terminate(&mut self) {
        self.terminated = true;
    }

    /// A signal came after the turn.
    pub(crate) fn stopped(&mut self, exit: Exit) {
        match exit {
            Exit::Terminated => self.terminated = true,
            _ => self.end = End::Interrupted,
        }
    }

    pub(crate) fn answer(&self) -> Option<&str> {
        self.answer.as_deref()
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub(crate) fn denials(&self) -> &[PermissionDenial] {
        &self.denials
    }

    /// The exit code. When several reasons apply the order is that of the manual.
    pub(crate) fn exit(&self, allow_denials: bool) -> Exit {
        let denied = !self.denials.is_empty() && !allow_denials;
        match self.end {
            _ if self.terminated => Exit::Terminated,
            _ if self.failed => Exit::Failed,
            End::Interrupted => Exit::Interrupted,
            End::Failed(ErrorKind::Credentials) => Exit::Credentials,
            End::Failed(ErrorKind::Provider) => Exit::Provider,
            End::Limit | End::Budget => Exit::Limit,
            _ if denied => Exit::Denied,
            // Somebody has to look for them.
            _ if !self.open_orders.is_empty() => Exit::Failed,
            End::Complete => Exit::Done,
            End::Empty | End::Lost | End::Failed(_) => Exit::Failed,
        }
    }

    fn subtype(&self, exit: Exit) -> &'static str {
        match (exit, self.end) {
            (Exit::Done, _) => "success",
            (Exit::Terminated, _) => "terminated",
            (Exit::Interrupted, _) => "interrupted",
            (Exit::Credentials, _) => "credentials",
            (Exit::Provider, _) => "provider",
            (Exit::Limit, End::Budget) => "budget",
            (Exit::Limit, _) => "max_iterations",
            (Exit::Denied, _) => "permission_denied",
            (_, End::Empty) => "empty_answer",
            (_, End::Complete) if !self.open_orders.is_empty() => "open_orders",
            (_, End::Failed(ErrorKind::Context)) => "context",
            _ => "error",
        }
    }

    pub(crate) fn result(
        &self,
        enclosure: &Enclosure,
        mode: agent::Mode,
        allow_denials: bool,
    ) -> RunResult<'_> {
        let exit = self.exit(allow_denials);
        RunResult {
            kind: "result",
            session_id: &self.session_id,
            is_error: exit != Exit::Done,
            subtype: self.subtype(exit),
            num_turns: self.completions,
            duration_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            total_cost_usd: self.cost,
            orders_usd: self.orders,
            orders_of_unknown_price: self.unpriced,
            usage: self.usage,
            permission_denials: &self.denials,
            wall: enclosure.wall(),
            network: enclosure.network(),
            mode: mode.as_str(),
            open_orders: &self.open_orders,
            unknown_outcomes: &self.unknown,
            changed_files: &self.changed,
            audit_head: self.audit_head.as_deref(),
            exit_code: exit.code(),
            result: self.answer(),
            error: self.error(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied() -> Event {
        Event::ToolOutput {
            tool: "bash".to_owned(),
            tool_call_id: "1".into(),
            output: String::new(),
            success: false,
            duration_ms: 0,
            changes: Vec::new(),
            source: None,
            order: None,
            denial: Some(PermissionDenial {
                tool: "bash".to_owned(),
                tool_call_id: "1".into(),
                tiers: [protocol::Tier::Execute].into(),
                rule: "mode:plan".to_owned(),
                target: "ls".to_owned(),
                remedy: "--permission-mode auto".to_owned(),
            }),
        }
    }

    fn complete(answer: Option<&str>, reason: StopReason) -> Event {
        Event::TurnComplete { history_size: 1, final_response: answer.map(str::to_owned), reason }
    }

    fn exit(events: &[Event]) -> Exit {
        let mut outcome = Outcome::new("s".to_owned(), Vec::new(), 0);
        for event in events {
            outcome.take(event);
        }
        outcome.exit(false)
    }

    #[test]
    fn exit_codes_tell_the_truth() {
        let failed = |kind| Event::Error { error: String::new(), kind };
        assert_eq!(exit(&[complete(Some("ok"), StopReason::Done)]), Exit::Done);
        assert_eq!(exit(&[complete(None, StopReason::Done)]), Exit::Failed);
        assert_eq!(exit(&[]), Exit::Failed);
        assert_eq!(exit(&[failed(ErrorKind::Internal)]), Exit::Failed);
        assert_eq!(exit(&[failed(ErrorKind::Credentials)]), Exit::Credentials);
        assert_eq!(exit(&[failed(ErrorKind::Provider)]), Exit::Provider);
        assert_eq!(exit(&[denied(), complete(Some("ok"), StopReason::Done)]), Exit::Denied);
        assert_eq!(exit(&[denied(), complete(None, StopReason::MaxIterations)]), Exit::Limit);
        assert_eq!(exit(&[denied(), Event::Interrupted {}]), Exit::Interrupted);
        assert_eq!(exit(&[denied(), failed(ErrorKind::Internal)]), Exit::Denied);
        // An order of which nobody knows whether it arrived.
        let open = || Event::Shutdown { audit_head: String::new(), open_orders: vec!["order-1".to_owned()] };
        assert_eq!(exit(&[complete(Some("ok"), StopReason::Done), open()]), Exit::Failed);
        assert_eq!(exit(&[denied(), complete(Some("ok"), StopReason::Done), open()]), Exit::Denied);
        // A signal behind the end of the turn.
        for signal in [Exit::Interrupted, Exit::Terminated] {
            let mut outcome = Outcome::new("s".to_owned(), Vec::new(), 0);
            outcome.take(&complete(Some("ok"), StopReason::Done));
            outcome.stopped(signal);
            assert_eq!(outcome.exit(false), signal);
        }
    }
}
