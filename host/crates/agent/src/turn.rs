//! One turn: steps until the model has nothing more to do, a limit, an interrupt or an error.

use protocol::{Assistant, ErrorKind, Event, HostReply, Item, Need, StopReason, ToolCall};
use provider::{Completion, FinishReason, ProviderError};
use tokio_util::sync::CancellationToken;

use crate::session::Session;
use crate::step::Purpose;
use crate::{StoreError, guard, notes};

/// What ends a turn before its time.
#[derive(Debug)]
pub(crate) enum Fault {
    Interrupted,
    Provider(ProviderError),
    Store(StoreError),
    /// The conversation does not fit the model any more; it was said.
    Terminated,
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// How a turn ended by itself.
struct Ended {
    final_response: Option<String>,
    reason: StopReason,
}

/// Times in a row that an overflow of the context is answered by compaction.
const OVERFLOWS: u32 = 2;

impl Session {
    /// Runs a turn on what the person said.
    pub(crate) async fn turn(&mut self, text: String) -> Result<(), StoreError> {
        let cancel = self.interrupt.token();
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            checked = self.check_window() => checked?,
        }
        let item = Item::User { content: text, note: false };
        self.journal.item_and_event(&item, Event::Processing { message: "processing".to_owned() }).await?;
        self.remember(item);
        let ended = self.steps(&cancel).await;
        self.turns += 1;
        self.interrupt.reset();
        match ended {
            Ok(Ended { final_response, reason }) => {
                // The answer is there, and it cost more than the run was to cost: that is no success.
                let reason = if self.budget.is_exceeded() { StopReason::Budget } else { reason };
                let history_size = self.items.len();
                self.journal.emit(Event::TurnComplete { history_size, final_response, reason }).await?;
            }
            Err(fault) => self.say_fault(fault).await?,
        }
        // The record is of what the disk has.
        self.journal.sync().await?;
        self.audit_saved()
    }

    /// Says what ended a turn, or another operation, before its time.
    pub(crate) async fn say_fault(&mut self, fault: Fault) -> Result<(), StoreError> {
        match fault {
            Fault::Interrupted => self.journal.emit(Event::Interrupted {}).await,
            Fault::Provider(error) => {
                let kind = if error.is_credentials() { ErrorKind::Credentials } else { ErrorKind::Provider };
                self.journal.emit(Event::Error { error: error.user_message(), kind }).await
            }
            Fault::Terminated => {
                self.ended = true;
                Ok(())
            }
            Fault::Store(error) => Err(error),
        }
    }

    /// Adds an item to the transcript. It must have been written.
    pub(crate) fn remember(&mut self, item: Item) {
        self.prompt.push(&item);
        self.items.push(item);
    }

    /// Tells the model something in the person's place.
    pub(crate) async fn note(&mut self, content: String) -> Result<(), StoreError> {
        let item = Item::User { content, note: true };
        self.journal.item(&item).await?;
        self.remember(item);
        Ok(())
    }

    /// Tells the person something about the loop.
    pub(crate) async fn notice(&mut self, log: impl Into<String>) -> Result<(), StoreError> {
        let event =
            Event::ToolLog { tool: "system".to_owned(), log: log.into(), agent_id: None, label: None };
        self.journal.emit(event).await
    }

    async fn steps(&mut self, cancel: &CancellationToken) -> Result<Ended, Fault> {
        let mut steps = 0_u32;
        let mut overflows = 0;
        let mut empty = 0_u32;
        while self.settings.max_iterations.is_none_or(|limit| steps < limit) {
            if cancel.is_cancelled() {
                return Err(Fault::Interrupted);
            }
            if !self.may_go_on(cancel).await? {
                return Ok(Ended { final_response: None, reason: StopReason::Budget });
            }
            self.make_room(cancel).await?;
            self.correct().await?;
            let completion = match self.complete(Purpose::Step, cancel).await {
                Err(Fault::Provider(error)) if error.is_overflow() && overflows < OVERFLOWS => {
                    overflows += 1;
                    self.compact_after_overflow(cancel).await?;
                    continue;
                }
                other => other?,
            };
            overflows = 0;
            steps += 1;
            let is_empty = completion.tool_calls.is_empty() && completion.text.is_none();
            empty = if is_empty { empty + 1 } else { 0 };
            if completion.finish == FinishReason::Length && !completion.tool_calls.is_empty() {
                self.drop_cut_calls(completion).await?;
            } else if !completion.tool_calls.is_empty() {
                self.guard.worked();
                self.run_calls(completion, cancel).await?;
            } else if is_empty && empty == 1 {
                self.notice("the model gave an empty answer; asking again").await?;
            } else if let Some(ended) = self.finish(completion).await? {
                return Ok(ended);
            }
        }
        self.notice(format!("stopped after {steps} steps (--max-iterations)")).await?;
        Ok(Ended { final_response: None, reason: StopReason::MaxIterations })
    }

    /// Whether the next completion is paid for: by the budget, or by the person's word.
    pub(crate) async fn may_go_on(&mut self, cancel: &CancellationToken) -> Result<bool, Fault> {
        if let Some(why) = self.budget.exhausted() {
            self.notice(format!("stopped: {why}")).await?;
            return Ok(false);
        }
        let Some(spent_usd) = self.budget.question().filter(|_| self.settings.interactive) else {
            return Ok(true);
        };
        let id = format!("budget-{}", uuid::Uuid::new_v4().simple()).as_str().into();
        let need = Need::Budget { spent_usd, unpriced: self.budget.unpriced() };
        let answer = self.decide_need(id, "budget".to_owned(), need, cancel).await?;
        if cancel.is_cancelled() {
            return Err(Fault::Interrupted);
        }
        if answer != HostReply::Allowed {
            self.notice(format!("stopped at {spent_usd:.2} USD; another message asks again")).await?;
            return Ok(false);
        }
        self.budget.agreed();
        Ok(true)
    }

    /// Says what the model should hear before it goes on.
    async fn correct(&mut self) -> Result<(), StoreError> {
        if let Some(note) = self.guard.repetition(&self.items) {
            self.note(note).await?;
        }
        let streak = match self.items.last() {
            Some(Item::Tool { .. }) => guard::malformed_streak(&self.items).map(str::to_owned),
            _ => None,
        };
        if let Some(tool) = streak {
            self.note(notes::malformed_streak(&tool)).await?;
            self.notice(format!(
                "repeated malformed arguments for {tool}; the model was told to change its approach"
            ))
            .await?;
        }
        Ok(())
    }

    /// The output limit cut the answer inside its calls: none of them can be trusted.
    async fn drop_cut_calls(&mut self, completion: Completion) -> Result<(), StoreError> {
        let names: Vec<&str> = completion.tool_calls.iter().map(|call| call.name.as_str()).collect();
        let note = notes::output_cut(&names);
        let log = format!("the output was truncated; calls that were lost: {}", names.join(", "));
        if completion.text.is_some() {
            self.say(completion.text, Vec::new(), None).await?;
        }
        self.note(note).await?;
        self.notice(log).await
    }

    /// Records what the model said.
    pub(crate) async fn say(
        &mut self,
        content: Option<String>,
        tool_calls: Vec<ToolCall>,
        reasoning: Option<protocol::Reasoning>,
    ) -> Result<(), StoreError> {
        let item = Item::Assistant(Assistant { content, tool_calls, reasoning, summary: false });
        self.journal.item(&item).await?;
        self.remember(item);
        Ok(())
    }

    /// A text without calls ends the turn, unless the plan has open items.
    async fn finish(&mut self, completion: Completion) -> Result<Option<Ended>, StoreError> {
        let Completion { text, reasoning, finish, .. } = completion;
        let finish = finish.as_str();
        if text.is_some() {
            self.say(text.clone(), Vec::new(), reasoning).await?;
        }
        let Some(note) = self.guard.continuation(&self.plan) else {
            if text.is_none() {
                self.notice(format!("the model gave an empty answer again (it ended with `{finish}`)"))
                    .await?;
            }
            return Ok(Some(Ended { final_response: text, reason: StopReason::Done }));
        };
        self.note(note).await?;
        self.notice("text-only response while the plan has open items; the model was told to go on").await?;
        Ok(None)
    }

    /// Asks a local server how much it can hold, once per model, and says so if that is too little.
    async fn check_window(&mut self) -> Result<(), StoreError> {
        if std::mem::replace(&mut self.window_checked, true) || !self.model.is_local() {
            return Ok(());
        }
        let Some(window) = self.model.served_window().await else {
            return Ok(());
        };
        self.model = self.model.clone().with_context_window(window.tokens);
        let needed = self.prompt.estimated_tokens() + MIN_ROOM_TOKENS;
        if window.tokens >= needed {
            return Ok(());
        }
        let (name, tokens, remedy) = (self.model.wire_name(), window.tokens, window.remedy);
        let gives = if window.assumed {
            format!("{name} is not loaded yet; the server is assumed to give it a window of {tokens} tokens")
        } else {
            format!("the server gives {name} a window of {tokens} tokens")
        };
        self.notice(format!("{gives}; this session needs at least {needed}: {remedy}")).await
    }
}

/// Tokens beyond the first request that a session needs to be of use.
const MIN_ROOM_TOKENS: u64 = 4_096;
