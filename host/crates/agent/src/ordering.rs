//! The life of an order: on record, sent, answered, looked for.

use std::collections::HashSet;

use audit::{Act, OrderState};
use protocol::{OrderEnd, OrderOutcome, ToolCall, ToolCallId, ToolResult};
use serde_json::{Map, Value};

use crate::orders::{Earlier, Order, Unknown, named};
use crate::reservations::ReserveError;
use crate::session::Session;
use crate::tools::Fate;
use crate::turn::Fault;
use crate::{StoreError, notes};

impl Session {
    /// Puts an order on record, on the disk, before it leaves.
    pub(crate) async fn send_order(
        &mut self,
        order: &Order,
        call: &ToolCallId,
        tool: &str,
    ) -> Result<(), StoreError> {
        // What led to it must be there again too.
        self.journal.sync().await?;
        let act = Act::Order {
            order: order.id.clone(),
            call: call.clone(),
            tool: tool.to_owned(),
            target: audit::shown_target(&order.target),
            usd: order.cost.map(|(usd, _)| usd),
            unpriced: order.unpriced,
            state: OrderState::Sent,
        };
        Ok(self.chain.append(act, true)?)
    }

    /// The orders of a tool of which nobody knows whether they arrived.
    pub(crate) fn unknown_of(&self, tool: &str) -> Vec<String> {
        let of_tool = self.unknown_orders.iter().filter(|order| order.tool == tool);
        of_tool.map(|order| order.id.clone()).collect()
    }

    /// What a person is told of such orders.
    pub(crate) fn told_of(&self, ids: &[String]) -> Option<String> {
        let meant = self.unknown_orders.iter().filter(|order| ids.contains(&order.id));
        let told: Vec<String> = meant.map(crate::orders::Unknown::told).collect();
        (!told.is_empty()).then(|| told.join(" and "))
    }

    /// A call that runs was let send something: from here on it is an order, if it was none.
    pub(crate) async fn becomes_order(
        &mut self,
        order: Order,
        call: &ToolCallId,
        tool: &str,
    ) -> Result<(), StoreError> {
        if self.no_orders_yet.get(call).is_none_or(Option::is_some) {
            return Ok(());
        }
        self.let_again(&order.again, tool)?;
        self.send_order(&order, call, tool).await?;
        self.no_orders_yet.insert(call.clone(), Some(order));
        Ok(())
    }

    /// Records what came of an order, and gives back what it did not need.
    pub(crate) fn settle_order(
        &mut self,
        order: Order,
        call: &ToolCall,
        result: &mut ToolResult,
    ) -> Result<(), StoreError> {
        let reserved = order.reserved();
        let (end, state) = match (result.unsettled, result.success || result.accepted) {
            (true, _) => (OrderEnd::Unknown, OrderState::Unknown),
            // What was accepted was made, whatever became of the call after that.
            (false, true) => (OrderEnd::Done, OrderState::Done),
            (false, false) => (OrderEnd::Failed, OrderState::Failed),
        };
        if result.cancelled {
            result.text = notes::INTERRUPTED.to_owned();
        }
        let mut told = None;
        match end {
            OrderEnd::Unknown => {
                let unknown = Unknown::new(&order, &call.name);
                result.text.push_str(&format!(
                    "\n[{} was sent and not answered: whether it arrived is unknown. Look for it before you order anything like it again.]",
                    unknown.told()
                ));
                self.unknown_orders.push(unknown);
            }
            OrderEnd::Done => {
                if !result.success {
                    result.text.push_str(&format!(
                        "\n[{} was accepted before this ended: it stands. Look for it before you order anything like it again.]",
                        named(&call.name, &order.id, &order.target)
                    ));
                }
                told = self.cost_of(&order, call, result);
                if let Some(actual) = told {
                    kept(self.budget.reconcile(&order.id, reserved, actual));
                    if order.unpriced {
                        self.budget.forget_order_without_price();
                    }
                }
            }
            OrderEnd::Failed => self.drop_order(&order),
        }
        let usd = match end {
            OrderEnd::Failed => Some(0.0),
            _ if order.unpriced => told,
            _ => Some(told.unwrap_or(reserved)),
        };
        self.order_is(&order.id, &call.id, &call.name, told, state)?;
        result.order = Some(OrderOutcome { id: order.id, state: end, usd });
        Ok(())
    }

    /// What a tool says that its order costs. A bundled one is believed; the word of another one can only
    /// raise what was set aside, so that no plugin talks money back into the purse. Nothing stands for not
    /// knowing yet.
    fn cost_of(&self, order: &Order, call: &ToolCall, result: &ToolResult) -> Option<f64> {
        if order.cost.is_none() && !order.unpriced {
            return None;
        }
        let told = result.structured.as_ref()?.pointer("/order/cost_usd")?.as_f64()?;
        let told = Some(told).filter(|told| told.is_finite() && *told > 0.0)?;
        Some(if self.runtime.is_bundled(&call.name) { told } else { told.max(order.reserved()) })
    }

    /// An order that was decided and not made.
    pub(crate) fn drop_order(&mut self, order: &Order) {
        if order.cost.is_some() {
            kept(self.budget.release(&order.id, order.reserved()));
        }
        if order.unpriced {
            self.budget.forget_order_without_price();
        }
    }

    /// The person approved an order: also to make it although one like it may have arrived. Without money set
    /// aside for it, where others can see that, it is not made.
    pub(crate) fn approve_order(
        &mut self,
        order: &Order,
        tool: &str,
    ) -> Result<Result<(), ReserveError>, StoreError> {
        self.let_again(&order.again, tool)?;
        if order.unpriced {
            self.budget.order_without_price();
        }
        let reserved = match order.cost.filter(|(usd, _)| *usd > 0.0) {
            Some(cost) => self.budget.reserve(&order.id, cost, order.is_too_dear),
            None => Ok(()),
        };
        // The card told what the session costs with it.
        self.budget.agreed();
        Ok(reserved)
    }

    /// What a person was told of these orders lets them be made again.
    fn let_again(&mut self, orders: &[String], tool: &str) -> Result<(), StoreError> {
        let (again, others): (Vec<Unknown>, Vec<Unknown>) = std::mem::take(&mut self.unknown_orders)
            .into_iter()
            .partition(|unknown| orders.contains(&unknown.id));
        self.unknown_orders = others;
        for unknown in again {
            self.order_is(&unknown.id, &"".into(), tool, None, OrderState::Released)?;
        }
        Ok(())
    }

    fn order_is(
        &mut self,
        order: &str,
        call: &ToolCallId,
        tool: &str,
        usd: Option<f64>,
        state: OrderState,
    ) -> Result<(), StoreError> {
        let (order, tool) = (order.to_owned(), tool.to_owned());
        let (call, target) = (call.clone(), String::new());
        let act = Act::Order { order, call, tool, target, usd, unpriced: false, state };
        Ok(self.chain.append(act, true)?)
    }

    /// Takes in what the records tell of orders that earlier runs made.
    pub(crate) fn restore_orders(
        &mut self,
        earlier: Earlier,
        completions_usd: f64,
    ) -> Result<(), StoreError> {
        self.budget.restore(completions_usd, earlier.usd, earlier.unpriced);
        self.unknown_orders = earlier.unknown;
        self.record_unknown()
    }

    /// Puts the orders of which nobody knows whether they arrived on record in the session's own chain.
    pub(crate) fn record_unknown(&mut self) -> Result<(), StoreError> {
        for Unknown { id, tool, target, usd, unpriced, .. } in &self.unknown_orders {
            // Also one that was answered, if nobody was told: it stays so for the next run.
            let act = Act::Order {
                order: id.clone(),
                call: "".into(),
                tool: tool.clone(),
                target: target.clone(),
                usd: Some(*usd),
                unpriced: *unpriced,
                state: OrderState::Unknown,
            };
            self.chain.append(act, true)?;
        }
        Ok(())
    }

    /// Looks for the orders of which nobody knows whether they arrived. None is ever sent again.
    pub(crate) async fn look_for_orders(&mut self) -> Result<(), Fault> {
        for unknown in self.unknown_orders.clone() {
            let found = self.look_for(&unknown).await?;
            let (state, told) = match found.as_deref() {
                Some("found") => (OrderState::Found, "arrived: it was found"),
                Some("absent") if unknown.is_settled() => (OrderState::Absent, "never arrived"),
                Some("absent") => {
                    let log = format!("{} is not there yet; it may still be on its way", unknown.told());
                    self.notice(log).await?;
                    continue;
                }
                _ => {
                    let log =
                        format!("whether {} arrived is unknown, and it is not sent again", unknown.told());
                    self.notice(log).await?;
                    continue;
                }
            };
            self.order_is(&unknown.id, &"".into(), &unknown.tool, None, state)?;
            // It costs nothing after all. No stranger's word brings money back.
            if state == OrderState::Absent && self.runtime.is_bundled(&unknown.tool) {
                kept(self.budget.release(&unknown.id, unknown.usd));
                if unknown.unpriced {
                    self.budget.forget_order_without_price();
                }
            }
            self.unknown_orders.retain(|other| other.id != unknown.id);
            let told = format!("{} {told}", unknown.told());
            self.notice(told.clone()).await?;
            self.note(format!("[SYSTEM: {told}.]")).await?;
        }
        Ok(())
    }

    /// Asks the tool of an order whether it is there, in the way that its manifest names.
    async fn look_for(&mut self, unknown: &Unknown) -> Result<Option<String>, Fault> {
        let policy = self.runtime.policy(&unknown.tool);
        let Some(lookup) = policy.and_then(|policy| policy.order_lookup.clone()) else { return Ok(None) };
        let filled =
            |(name, value): (String, String)| (name, Value::from(value.replace("{order}", &unknown.id)));
        let arguments = Value::Object(lookup.into_iter().map(filled).collect::<Map<_, _>>());
        let id = format!("lookup-{}", unknown.id).as_str().into();
        let call = ToolCall { id, name: unknown.tool.clone(), arguments: arguments.to_string() };
        // A call like any other: only one that looks is made without anybody having asked for it.
        // That one is unknown is no reason not to look for it.
        let unknown_orders = std::mem::take(&mut self.unknown_orders);
        let fate = self.decide_lookup(&call, &arguments);
        self.unknown_orders = unknown_orders;
        let Fate::Run(order) = fate? else { return Ok(None) };
        if let Some(order) = order {
            self.drop_order(&order);
        }
        let result = self.run_lookup(&call, arguments).await?;
        self.audit_outcome(&call.id, result.success, &result.text, result.denial.as_ref())?;
        let state = result.structured.as_ref().and_then(|answer| answer.pointer("/order/state"));
        Ok(state.and_then(Value::as_str).filter(|_| result.success).map(str::to_owned))
    }
}

/// What the records of a session tell, with the calls whose results were not shown.
pub(crate) fn earlier(entries: &[audit::Entry], untold: &[ToolCallId]) -> Earlier {
    Earlier::of(entries, &untold.iter().collect::<HashSet<_>>())
}

/// Money that stays set aside is on the safe side; it comes free by itself.
fn kept(done: Result<(), ReserveError>) {
    if let Err(error) = done {
        tracing::warn!(%error, "reservation");
    }
}
