//! The lines of a session's file, put together to what it was when it ended.

use protocol::{Assistant, Event, Item, PlanItem, ToolCallId};

use super::{Line, Saved, SavedHeader, Standing};
use crate::{notes, transcript};

#[derive(Default)]
pub(super) struct Fold {
    model: String,
    system: Option<String>,
    items: Vec<Item>,
    plan: Vec<PlanItem>,
    events: usize,
    pub(super) dropped: usize,
    completions_usd: f64,
    orders_usd: f64,
    taint: Option<String>,
    /// Text that was shown of an answer that did not end.
    partial: String,
    /// Calls that were announced and have no result.
    running: Vec<ToolCallId>,
}

impl Fold {
    pub(super) fn new(header: &SavedHeader) -> Self {
        Self { model: header.model.clone(), ..Self::default() }
    }

    pub(super) fn line(&mut self, line: Line<'_>) {
        match line {
            Line::Session(_) => {}
            Line::System { text } => self.system = Some(text.into_owned()),
            Line::Transcript { items } => {
                self.items = items.into_owned();
                // What ran or was said before is in it, or was taken back.
                self.running.clear();
                self.partial.clear();
            }
            Line::Item { item, .. } => self.item(item.into_owned()),
            Line::Standing(Standing { taint, completions_usd, orders_usd }) => {
                self.taint = self.taint.take().or(taint);
                self.completions_usd += counted(completions_usd);
                self.orders_usd += counted(orders_usd);
            }
            Line::Event { event, .. } => {
                self.events += 1;
                self.event(event.into_owned());
            }
        }
    }

    fn item(&mut self, item: Item) {
        match &item {
            Item::Assistant(_) => self.partial.clear(),
            Item::Tool { tool_call_id, .. } => self.running.retain(|id| id != tool_call_id),
            Item::User { .. } => self.keep_partial(),
        }
        self.items.push(item);
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::AssistantChunk { content } => self.partial.push_str(&content),
            Event::ToolCall { tool_call_id, .. } => self.running.push(tool_call_id),
            Event::ToolStateChange { tool_call_id, state, .. } if state == "running" => {
                self.running.push(tool_call_id);
            }
            Event::PlanUpdate { plan } => self.plan = plan,
            Event::ModelChanged { model, .. } => self.model = model,
            Event::LlmCall { cost_usd, .. } => self.completions_usd += counted(cost_usd),
            Event::ToolOutput { source: Some(source), .. } => self.taint = self.taint.take().or(Some(source)),
            Event::Error { .. } | Event::Interrupted {} => self.keep_partial(),
            _ => {}
        }
    }

    /// What was shown counts as said.
    fn keep_partial(&mut self) {
        if !self.partial.is_empty() {
            let content = Some(std::mem::take(&mut self.partial));
            self.items.push(Item::Assistant(Assistant { content, ..Assistant::default() }));
        }
    }

    pub(super) fn end(mut self, header: SavedHeader) -> Saved {
        self.keep_partial();
        let running = std::mem::take(&mut self.running);
        let outcome = |id: &ToolCallId| {
            if running.contains(id) { notes::OUTCOME_UNKNOWN } else { notes::NOT_RUN }
        };
        transcript::repair(&mut self.items, outcome);
        // Nobody knows what they read, and what they left may be read yet.
        if !running.is_empty() {
            self.taint.get_or_insert_with(|| notes::CUT_OFF_CALL.to_owned());
        }
        Saved {
            header,
            model: self.model,
            system: self.system,
            items: self.items,
            plan: self.plan,
            events: self.events,
            unknown_outcomes: running,
            dropped: self.dropped,
            completions_usd: self.completions_usd,
            orders_usd: self.orders_usd,
            taint: self.taint,
        }
    }
}

/// An amount of money that can be one.
fn counted(usd: f64) -> f64 {
    if usd.is_finite() { usd.max(0.0) } else { 0.0 }
}
