//! The calls of one answer: decided one by one, run together, recorded in their order.

use protocol::{ApprovalRequest, Event, Invocation, Item, OrderOutcome, PlanItem, ToolCall, ToolResult};
use provider::Completion;
use runtime::{Pending, RunningCall};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::approval::Denied;
use crate::decision::{not_set_aside, refused};
use crate::edits::{Texts, not_read};
use crate::orders::Order;
use crate::persist::Standing;
use crate::questions::{Answer, Until, with_feedback};
use crate::session::Session;
use crate::turn::Fault;
use crate::{StoreError, notes};

/// Needs of running calls that wait at most.
const NEEDS: usize = 32;

/// A call of the answer, on its way.
pub(crate) struct Planned {
    pub(crate) call: ToolCall,
    /// What the tool gets: with the texts of files in the place of their paths.
    pub(crate) arguments: Value,
    pub(crate) texts: Texts,
    pub(crate) fate: Fate,
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

pub(crate) enum Fate {
    /// It runs, and is on record as an order if it is one.
    Run(Option<Order>),
    Ask(Box<ApprovalRequest>, Option<Order>),
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
        self.know_namespace(&tool_calls).await?;
        let mut planned = Vec::with_capacity(tool_calls.len());
        for call in tool_calls {
            let next = self.plan_call(call)?;
            self.expect(&next);
            planned.push(next);
        }
        self.budget.expect_nothing();
        let calls = planned.iter().map(|p| p.call.clone()).collect();
        self.say(text, calls, reasoning).await?;
        let (waiting, free) = self.in_two(planned);
        if cancel.is_cancelled() {
            self.give_up_planned(free.into_iter().chain(waiting), notes::NOT_RUN).await?;
            return Err(Fault::Interrupted);
        }
        for p in &free {
            if !matches!(p.fate, Fate::Misshapen(_)) {
                self.announce(p).await?;
            }
        }
        let known = self.what_cards_tell();
        let ran = free.iter().any(|p| matches!(p.fate, Fate::Run(_)));
        let interrupted = self.run_batch(free, cancel).await?;
        if interrupted {
            self.give_up_planned(waiting, notes::NOT_RUN).await?;
            return Err(Fault::Interrupted);
        }
        let asked = self.decide_again(waiting, known, ran, cancel).await?;
        if asked.is_empty() { Ok(()) } else { self.run_asked(asked, cancel).await }
    }

    /// Parses a call's arguments and decides what becomes of it.
    pub(crate) fn plan_call(&mut self, mut call: ToolCall) -> Result<Planned, StoreError> {
        let mut arguments = match serde_json::from_str::<Value>(&call.arguments) {
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
                    texts: Texts::default(),
                    fate: Fate::Known(result),
                });
            }
        };
        if call.arguments.trim().is_empty() {
            call.arguments = "{}".to_owned();
        }
        if let Some(args) = arguments.get("args").filter(|args| !args.is_object() && !args.is_null()) {
            let fate = Fate::Misshapen(ToolResult::failed(notes::wrong_args(&args.to_string())));
            return Ok(Planned { call, arguments, texts: Texts::default(), fate });
        }
        let read = self.runtime.read_named_files(&self.context, &call.name, &mut arguments);
        let (texts, fate) = match read {
            Ok(files) => {
                let texts = Texts::of(files);
                let fate = self.decide_call(&call, &arguments, &texts)?;
                (texts, fate)
            }
            Err(error) => (Texts::default(), Fate::Known(not_read(&error, &call))),
        };
        Ok(Planned { call, arguments, texts, fate })
    }

    pub(crate) async fn announce(&mut self, planned: &Planned) -> Result<(), StoreError> {
        let event = Event::ToolCall {
            tool: planned.call.name.clone(),
            arguments: planned.arguments.clone(),
            tool_call_id: planned.call.id.clone(),
        };
        self.journal.emit(event).await
    }

    /// Runs calls together and records their results. Returns whether the person interrupted them.
    pub(crate) async fn run_batch(
        &mut self,
        batch: Vec<Planned>,
        cancel: &CancellationToken,
    ) -> Result<bool, Fault> {
        let done = self.perform(batch, cancel).await?;
        // A call that ended because of the interrupt has no result of its own.
        let interrupted = cancel.is_cancelled();
        for (call, result) in done {
            if result.cancelled {
                self.has_read(result.source).await?;
                // What it ordered is told also of a call that was stopped.
                let why = if result.order.is_some() { &result.text } else { notes::INTERRUPTED };
                self.give_up([(call, result.order)], why).await?;
            } else {
                self.record_result(call, result).await?;
            }
        }
        Ok(interrupted)
    }

    /// Runs calls together and settles the orders that they are.
    pub(crate) async fn perform(
        &mut self,
        batch: Vec<Planned>,
        cancel: &CancellationToken,
    ) -> Result<Vec<(ToolCall, ToolResult)>, Fault> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut ran = Vec::with_capacity(batch.len());
        let (sender, needs) = mpsc::channel::<Pending>(NEEDS);
        for Planned { call, arguments, texts, fate } in batch {
            let repository = self.repository_of(&call.name, &arguments);
            let (order, told, repository) = match fate {
                Fate::Known(result) | Fate::Misshapen(result) => {
                    outcomes.push(Outcome::Known(Box::new(result)));
                    (None, None, None)
                }
                Fate::Run(order) | Fate::Ask(_, order) => {
                    match &order {
                        Some(order) => self.send_order(order, &call.id, &call.name).await?,
                        None => {
                            self.no_orders_yet.insert(call.id.clone(), None);
                        }
                    }
                    let (id, tool) = (call.id.clone(), call.name.clone());
                    let (order_id, taint) = (order.as_ref().map(|o| o.id.clone()), self.taint.clone());
                    let invocation = Invocation { id, tool, arguments, order: order_id, taint, looks: false };
                    let running =
                        self.runtime.invoke(&self.context, invocation, sender.clone(), cancel.clone());
                    outcomes.push(Outcome::Running(running));
                    (order, texts.told(), repository)
                }
            };
            ran.push((call, order, told, repository));
        }
        drop(sender);
        let results = self.together(outcomes, needs, cancel).await?;
        let mut done = Vec::with_capacity(results.len());
        for ((call, order, told, repository), mut result) in ran.into_iter().zip(results) {
            self.settle_repository(&call.id, repository, &mut result)?;
            result.text.extend(told);
            if let Some(order) = order.or(self.no_orders_yet.remove(&call.id).flatten()) {
                self.settle_order(order, &call, &mut result)?;
            }
            done.push((call, result));
        }
        Ok(done)
    }

    /// Notes what a call has read of which no result tells: what it left behind may be read yet.
    async fn has_read(&mut self, source: Option<String>) -> Result<(), StoreError> {
        let Some(source) = source.filter(|_| self.taint.is_none()) else { return Ok(()) };
        self.taint = Some(source.clone());
        self.journal.standing(Standing { taint: Some(source), ..Standing::default() }).await
    }

    /// Waits for the results of calls and answers what they need meanwhile.
    async fn together(
        &mut self,
        outcomes: Vec<Outcome>,
        mut needs: mpsc::Receiver<Pending>,
        cancel: &CancellationToken,
    ) -> Result<Vec<ToolResult>, Fault> {
        let all = all_results(outcomes);
        tokio::pin!(all);
        loop {
            tokio::select! {
                results = &mut all => return Ok(results),
                Some(need) = needs.recv() => self.answer(need, cancel).await?,
            }
        }
    }

    /// Runs a call that looks for an order. It is in no answer of the model, and changes nothing.
    pub(crate) async fn run_lookup(
        &mut self,
        call: &ToolCall,
        arguments: Value,
    ) -> Result<ToolResult, Fault> {
        let cancel = self.interrupt.token();
        let (sender, needs) = mpsc::channel::<Pending>(NEEDS);
        let (id, tool, taint) = (call.id.clone(), call.name.clone(), self.taint.clone());
        let invocation = Invocation { id, tool, arguments, order: None, taint, looks: true };
        let running = self.runtime.invoke(&self.context, invocation, sender, cancel.clone());
        let results = self.together(vec![Outcome::Running(running)], needs, &cancel).await?;
        Ok(results.into_iter().next().unwrap_or_default())
    }

    /// Takes out of a result what is neither shown nor kept.
    pub(crate) fn clean(&self, result: &mut ToolResult) {
        result.texts().for_each(|text| self.journal.secrets.clean(text));
        if let Some(structured) = &mut result.structured {
            self.journal.secrets.clean_json(structured);
        }
    }

    async fn record_result(&mut self, call: ToolCall, mut result: ToolResult) -> Result<(), StoreError> {
        self.clean(&mut result);
        self.say_remedy(&mut result);
        if let Some(plan) = self.new_plan(&call.name, &result) {
            self.plan.clone_from(&plan);
            self.journal.emit(Event::PlanUpdate { plan }).await?;
        }
        let ToolResult { text, success, changes, denial, took, source, order, .. } = result;
        if let Some(source) = &source {
            self.taint.get_or_insert_with(|| source.clone());
        }
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
            source,
            order,
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
        calls: impl IntoIterator<Item = (ToolCall, Option<OrderOutcome>)>,
        why: &str,
    ) -> Result<(), StoreError> {
        for (call, order) in calls {
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
                order,
            };
            self.journal.item_and_event(&item, event).await?;
            self.remember(item);
        }
        Ok(())
    }

    /// Gives up calls that were decided and not run, and what was set aside for them.
    pub(crate) async fn give_up_planned(
        &mut self,
        planned: impl IntoIterator<Item = Planned>,
        why: &str,
    ) -> Result<(), StoreError> {
        let mut calls = Vec::new();
        for Planned { call, fate, .. } in planned {
            if let Fate::Run(Some(order)) = fate {
                self.drop_order(&order);
            }
            calls.push((call, None));
        }
        self.give_up(calls, why).await
    }

    /// Asks for the calls that need a person, runs those that were approved, records all.
    async fn run_asked(&mut self, asked: Vec<Planned>, cancel: &CancellationToken) -> Result<(), Fault> {
        let requests: Vec<ApprovalRequest> = asked
            .iter()
            .filter_map(|p| match &p.fate {
                Fate::Ask(request, _) => Some((**request).clone()),
                _ => None,
            })
            .collect();
        let answers = match self.ask(requests.clone(), cancel).await {
            Ok(answers) => answers,
            Err(fault) => {
                self.give_up_planned(asked, notes::NOT_RUN).await?;
                return Err(fault);
            }
        };
        let mut batch = Vec::with_capacity(asked.len());
        for ((mut planned, mut request), answer) in asked.into_iter().zip(requests).zip(answers) {
            if let Answer::Approved { edits, .. } = &answer
                && !edits.is_empty()
            {
                self.take_edits(&mut planned, &mut request, edits).await?;
            }
            self.audit_answer(&planned.call.id, &request.target, &answer)?;
            let (fate, states) = self.answered(planned.fate, request, answer)?;
            for state in states {
                let (tool_call_id, tool) = (planned.call.id.clone(), planned.call.name.clone());
                self.journal
                    .emit(Event::ToolStateChange {
                        tool_call_id,
                        tool,
                        state: (*state).to_owned(),
                        order: None,
                    })
                    .await?;
            }
            batch.push(Planned { fate, ..planned });
        }
        if self.run_batch(batch, cancel).await? { Err(Fault::Interrupted) } else { Ok(()) }
    }

    /// What becomes of a call by the person's answer, and the states that it goes through.
    fn answered(
        &mut self,
        fate: Fate,
        request: ApprovalRequest,
        answer: Answer,
    ) -> Result<(Fate, &'static [&'static str]), StoreError> {
        Ok(match answer {
            // What the person wrote was decided about anew: it is refused, or needed no answer.
            Answer::Approved { .. } if matches!(fate, Fate::Known(_)) => (fate, &["approved"]),
            Answer::Approved { .. } if matches!(fate, Fate::Run(_)) => (fate, &["approved", "running"]),
            Answer::Approved { until, .. } => {
                if until != Until::Once && request.for_session {
                    let scope = self.scope(&request.tool, &request.arguments);
                    self.allowed.insert((request.tool.clone(), scope));
                }
                let order = match fate {
                    Fate::Ask(_, order) => order,
                    _ => None,
                };
                // What went unanswered while the cards were shown stood on none of them.
                let unknown = self.unknown_of(&request.tool);
                if order.as_ref().is_some_and(|order| !unknown.iter().all(|id| order.again.contains(id))) {
                    return Ok((Fate::Known(ToolResult::failed(notes::CARD_IS_OLD)), &["approved"]));
                }
                if let Some(order) = &order
                    && let Err(error) = self.approve_order(order, &request.tool)?
                {
                    let ApprovalRequest { tool, tool_call_id, tiers, target, .. } = request;
                    let denied =
                        refused(not_set_aside(&error, self.ways()), &tool, &tool_call_id, tiers, target);
                    return Ok((Fate::Known(denied), &["approved"]));
                }
                (Fate::Run(order), &["approved", "running"])
            }
            Answer::Rejected { feedback } => {
                (Fate::Known(rejected(request, feedback.as_deref())), &["rejected"])
            }
            Answer::Abandoned => (Fate::Known(ToolResult::failed(notes::ABANDONED)), &["abandoned"]),
        })
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
