//! The calls of one answer: decided one by one, run together, recorded in their order.

use std::collections::BTreeSet;

use protocol::{
    ApprovalRequest, Event, Invocation, Item, PermissionDenial, PlanItem, Tier, ToolCall, ToolCallId,
    ToolResult,
};
use provider::Completion;
use runtime::{Pending, Plugin, RunningCall};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::approval::{Decision, Denied, Facts, decide};
use crate::questions::{Answer, with_feedback};
use crate::session::Session;
use crate::turn::Fault;
use crate::{StoreError, notes};

/// Needs of running calls that wait at most.
const NEEDS: usize = 32;

/// A call of the answer, on its way.
struct Planned {
    call: ToolCall,
    arguments: Value,
    fate: Fate,
}

/// What comes of a call.
enum Outcome {
    Known(Box<ToolResult>),
    Running(RunningCall),
}

async fn all_results(outcomes: Vec<Outcome>) -> Vec<ToolResult> {
    let mut results = Vec::with_capacity(outcomes.len());
    for outcome in outcomes {
        results.push(match outcome {
            Outcome::Known(result) => *result,
            Outcome::Running(call) => call.result().await,
        });
    }
    results
}

enum Fate {
    Run,
    Ask(ApprovalRequest),
    /// The result is known without running it.
    Known(ToolResult),
    /// The same, and it was so wrong that it is not even announced.
    Misshapen(ToolResult),
}

impl Session {
    /// Runs the calls of an answer and records their results.
    pub(crate) async fn run_calls(
        &mut self,
        completion: Completion,
        cancel: &CancellationToken,
    ) -> Result<(), Fault> {
        let Completion { text, tool_calls, reasoning, .. } = completion;
        let planned: Vec<Planned> =
            tool_calls.into_iter().map(|call| self.plan_call(call)).collect::<Result<_, _>>()?;
        let calls = planned.iter().map(|p| p.call.clone()).collect();
        self.say(text, calls, reasoning).await?;
        let (asked, free): (Vec<Planned>, Vec<Planned>) =
            planned.into_iter().partition(|p| matches!(p.fate, Fate::Ask(_)));
        if cancel.is_cancelled() {
            self.give_up(free.into_iter().chain(asked).map(|p| p.call), notes::NOT_RUN).await?;
            return Err(Fault::Interrupted);
        }
        for p in &free {
            if !matches!(p.fate, Fate::Misshapen(_)) {
                self.announce(p).await?;
            }
        }
        let interrupted = self.run_batch(free, cancel).await?;
        if interrupted {
            self.give_up(asked.into_iter().map(|p| p.call), notes::NOT_RUN).await?;
            return Err(Fault::Interrupted);
        }
        if asked.is_empty() { Ok(()) } else { self.run_asked(asked, cancel).await }
    }

    /// Parses a call's arguments and decides what becomes of it.
    fn plan_call(&mut self, mut call: ToolCall) -> Result<Planned, StoreError> {
        let arguments = match serde_json::from_str::<Value>(&call.arguments) {
            Ok(arguments @ Value::Object(_)) => arguments,
            Ok(Value::Null) => Value::Object(serde_json::Map::new()),
            _ if call.arguments.trim().is_empty() => Value::Object(serde_json::Map::new()),
            other => {
                let reason = other.map_or_else(|e| e.to_string(), |_| "they are not an object".to_owned());
                let result = ToolResult::failed(notes::malformed(&call.name, &reason));
                call.arguments = "{}".to_owned();
                return Ok(Planned {
                    call,
                    arguments: Value::Object(serde_json::Map::new()),
                    fate: Fate::Known(result),
                });
            }
        };
        if call.arguments.trim().is_empty() {
            call.arguments = "{}".to_owned();
        }
        let fate = match arguments.get("args") {
            Some(args) if !args.is_object() && !args.is_null() => {
                Fate::Misshapen(ToolResult::failed(notes::wrong_args(&args.to_string())))
            }
            _ => self.decide_call(&call, &arguments)?,
        };
        Ok(Planned { call, arguments, fate })
    }

    fn decide_call(&mut self, call: &ToolCall, arguments: &Value) -> Result<Fate, StoreError> {
        let Some(policy) =
            self.runtime.policy(&call.name).filter(|_| self.tools.iter().any(|t| t.name == call.name))
        else {
            let names: Vec<&str> = self.tools.iter().map(|t| t.name.as_str()).collect();
            let text = format!("there is no tool `{}`; the tools are {}", call.name, names.join(", "));
            return Ok(Fate::Known(ToolResult::failed(text)));
        };
        let mut tiers = BTreeSet::from([policy.tier]);
        if self.runtime.can_exec(&call.name) {
            tiers.insert(Tier::Execute);
        }
        // What a stranger's plugin says of itself lowers nothing: what it can do counts too.
        let strange = self.runtime.plugin(&call.name).filter(|_| !self.runtime.is_bundled(&call.name));
        if strange.is_some_and(Plugin::can_send) {
            tiers.insert(Tier::Remote);
        }
        let target = target(&call.name, arguments);
        let facts = Facts {
            mode: self.settings.mode,
            tiers: &tiers,
            walled: self.settings.walled,
            allowed_before: self.allowed.contains(&(call.name.clone(), scope(&call.name, arguments))),
            interactive: self.settings.interactive,
        };
        let by_policy = tiers.iter().find_map(|tier| self.settings.policy.tier(*tier).err());
        let decision = by_policy.map_or_else(|| decide(&facts), forbidden);
        self.audit_decision(call, &tiers, &target, &decision)?;
        Ok(match decision {
            Decision::Allow { .. } => Fate::Run,
            Decision::Ask { reason, .. } => Fate::Ask(ApprovalRequest {
                tool: call.name.clone(),
                arguments: arguments.clone(),
                tool_call_id: call.id.clone(),
                tiers,
                reason,
                need: None,
                target,
            }),
            Decision::Deny(denied) => Fate::Known(refused(denied, &call.name, &call.id, tiers, target)),
        })
    }

    async fn announce(&mut self, planned: &Planned) -> Result<(), StoreError> {
        let event = Event::ToolCall {
            tool: planned.call.name.clone(),
            arguments: planned.arguments.clone(),
            tool_call_id: planned.call.id.clone(),
        };
        self.journal.emit(event).await
    }

    /// Runs calls together. Returns whether the person interrupted them.
    async fn run_batch(&mut self, batch: Vec<Planned>, cancel: &CancellationToken) -> Result<bool, Fault> {
        let (sender, mut needs) = mpsc::channel::<Pending>(NEEDS);
        let mut calls = Vec::with_capacity(batch.len());
        let mut outcomes = Vec::with_capacity(batch.len());
        for Planned { call, arguments, fate } in batch {
            outcomes.push(match fate {
                Fate::Known(result) | Fate::Misshapen(result) => Outcome::Known(Box::new(result)),
                Fate::Run | Fate::Ask(_) => {
                    let invocation = Invocation { id: call.id.clone(), tool: call.name.clone(), arguments };
                    Outcome::Running(self.runtime.invoke(
                        &self.context,
                        invocation,
                        sender.clone(),
                        cancel.clone(),
                    ))
                }
            });
            calls.push(call);
        }
        drop(sender);
        let all = all_results(outcomes);
        tokio::pin!(all);
        let results = loop {
            tokio::select! {
                results = &mut all => break results,
                Some(need) = needs.recv() => self.answer(need, cancel).await?,
            }
        };
        // A call that ended because of the interrupt has no result of its own.
        let interrupted = cancel.is_cancelled();
        for (call, result) in calls.into_iter().zip(results) {
            if result.cancelled {
                self.give_up([call], notes::INTERRUPTED).await?;
            } else {
                self.record_result(call, result).await?;
            }
        }
        Ok(interrupted)
    }

    async fn record_result(&mut self, call: ToolCall, result: ToolResult) -> Result<(), StoreError> {
        if let Some(plan) = self.new_plan(&call.name, &result) {
            self.plan.clone_from(&plan);
            self.journal.emit(Event::PlanUpdate { plan }).await?;
        }
        let ToolResult { text, success, changes, denial, took, .. } = result;
        self.audit_outcome(&call.id, success, &text, denial.as_ref())?;
        let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let item = Item::Tool {
            tool_call_id: call.id.clone(),
            tool: call.name.clone(),
            content: text.clone(),
            success,
        };
        let event = Event::ToolOutput {
            tool: call.name,
            tool_call_id: call.id,
            output: text,
            success,
            duration_ms,
            changes,
            denial,
        };
        self.journal.item_and_event(&item, event).await?;
        self.remember(item);
        Ok(())
    }

    /// The plan that the bundled plan tool keeps.
    fn new_plan(&self, tool: &str, result: &ToolResult) -> Option<Vec<PlanItem>> {
        if tool != "plan_tool" || !result.success || !self.runtime.is_bundled(tool) {
            return None;
        }
        serde_json::from_value(result.structured.as_ref()?.get("plan")?.clone()).ok()
    }

    /// Records calls that have no result.
    async fn give_up(
        &mut self,
        calls: impl IntoIterator<Item = ToolCall>,
        why: &str,
    ) -> Result<(), StoreError> {
        for call in calls {
            self.audit_unfinished(&call.id, why)?;
            let item = Item::Tool {
                tool_call_id: call.id.clone(),
                tool: call.name.clone(),
                content: why.to_owned(),
                success: false,
            };
            let event = Event::ToolStateChange {
                tool_call_id: call.id,
                tool: call.name,
                state: "cancelled".to_owned(),
            };
            self.journal.item_and_event(&item, event).await?;
            self.remember(item);
        }
        Ok(())
    }

    /// Asks for the calls that need a person, runs those that were approved, records all.
    async fn run_asked(&mut self, asked: Vec<Planned>, cancel: &CancellationToken) -> Result<(), Fault> {
        let requests: Vec<ApprovalRequest> = asked
            .iter()
            .filter_map(|p| match &p.fate {
                Fate::Ask(request) => Some(request.clone()),
                _ => None,
            })
            .collect();
        let answers = match self.ask(requests.clone(), cancel).await {
            Ok(answers) => answers,
            Err(fault) => {
                self.give_up(asked.into_iter().map(|p| p.call), notes::NOT_RUN).await?;
                return Err(fault);
            }
        };
        let mut batch = Vec::with_capacity(asked.len());
        for ((mut planned, request), answer) in asked.into_iter().zip(requests).zip(answers) {
            self.audit_answer(&planned.call.id, &request.target, &answer)?;
            let states: &[&str] = match &answer {
                Answer::Approved { for_session } => {
                    if *for_session {
                        let scope = scope(&request.tool, &request.arguments);
                        self.allowed.insert((request.tool.clone(), scope));
                    }
                    &["approved", "running"]
                }
                Answer::Rejected { feedback } => {
                    planned.fate = Fate::Known(rejected(request, feedback.as_deref()));
                    &["rejected"]
                }
                Answer::Abandoned => {
                    planned.fate = Fate::Known(ToolResult::failed(notes::ABANDONED));
                    &["abandoned"]
                }
            };
            for state in states {
                let (tool_call_id, tool) = (planned.call.id.clone(), planned.call.name.clone());
                self.journal
                    .emit(Event::ToolStateChange { tool_call_id, tool, state: (*state).to_owned() })
                    .await?;
            }
            batch.push(planned);
        }
        if self.run_batch(batch, cancel).await? { Err(Fault::Interrupted) } else { Ok(()) }
    }
}

fn rejected(request: ApprovalRequest, feedback: Option<&str>) -> ToolResult {
    let denied = Denied {
        rule: "person".to_owned(),
        message: with_feedback("refused by the user", feedback),
        remedy: "approve it".to_owned(),
    };
    refused(denied, &request.tool, &request.tool_call_id, request.tiers, request.target)
}

fn refused(denied: Denied, tool: &str, id: &ToolCallId, tiers: BTreeSet<Tier>, target: String) -> ToolResult {
    let Denied { rule, message, remedy } = denied;
    let denial =
        PermissionDenial { tool: tool.to_owned(), tool_call_id: id.clone(), tiers, rule, target, remedy };
    ToolResult::denied(message, denial)
}

/// What a call is about, for cards and denials.
/// What the machine's policy forbids: no mode, rule or person allows it.
fn forbidden(by: policy::Forbidden) -> Decision {
    Decision::Deny(Denied {
        rule: "policy".to_owned(),
        message: format!("refused: {by}"),
        remedy: format!("another policy, by this machine's administrator ({})", by.place),
    })
}

fn target(tool: &str, arguments: &Value) -> String {
    let text = ["command", "path"].iter().find_map(|name| arguments.get(name)?.as_str());
    text.unwrap_or(tool).to_owned()
}

/// What an approval for the session covers: changes of this file, or this very call.
fn scope(tool: &str, arguments: &Value) -> String {
    match (tool, arguments.get("path").and_then(Value::as_str)) {
        ("write" | "edit", Some(path)) => format!("path {path}"),
        _ => audit::digest(arguments.to_string().as_bytes()),
    }
}
