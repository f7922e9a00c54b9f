//! Making room: older items are summarised, huge ones are replaced by a line, pairs are never split.

use protocol::{Assistant, Event, Item};
use provider::{CompletionOptions, Effort, Prompt, ProviderError};
use tokio_util::sync::CancellationToken;

use crate::session::Session;
use crate::step::Purpose;
use crate::turn::Fault;
use crate::{StoreError, notes, transcript};

/// Items at the end that are kept as they are, at least.
const TAIL: usize = 5;

/// Tokens above which a kept item is replaced by a line that says so.
const HUGE_TOKENS: u64 = 50_000;

/// Characters of a tool's result that the summary is made from.
const SUMMARY_RESULT_CHARS: usize = 2_000;

/// Which items go, and which stay.
#[derive(Debug, Eq, PartialEq)]
struct Cut {
    /// Items at the beginning that stay: up to and with the first thing the person said.
    head: usize,
    /// The first item of the tail that stays.
    tail: usize,
    /// What the person said last, if it is between the two: it is being worked on, and stays word for word.
    request: Option<usize>,
}

impl Session {
    /// Tokens that the next request holds: what the provider counted, and our estimate of what came since.
    fn context_tokens(&self) -> u64 {
        let estimated = self.prompt.estimated_tokens();
        self.counted.map_or(estimated, |(counted, then)| counted + estimated.saturating_sub(then))
    }

    /// Compaction begins above nine tenths of the window.
    fn threshold(&self) -> u64 {
        self.model.context_window() / 10 * 9
    }

    /// Compacts if the next request would come too near to the window.
    pub(crate) async fn make_room(&mut self, cancel: &CancellationToken) -> Result<(), Fault> {
        if self.context_tokens() <= self.threshold() || self.items.is_empty() {
            return Ok(());
        }
        self.compact(cancel, self.threshold()).await
    }

    /// The provider says that the request does not fit, whatever we believe of its window: whatever is
    /// smaller is worth a try.
    pub(crate) async fn compact_after_overflow(&mut self, cancel: &CancellationToken) -> Result<(), Fault> {
        self.notice("the conversation does not fit the model's window; making room").await?;
        self.compact(cancel, self.prompt.estimated_tokens().saturating_sub(1)).await
    }

    /// Compacts because the person asked for it. Ends with `compacted`, also when there was nothing to do.
    pub(crate) async fn compact_now(&mut self) -> Result<(), StoreError> {
        let cancel = self.interrupt.token();
        let before = self.context_tokens();
        if cut(&self.items).is_none() {
            self.notice("there is nothing to summarise yet").await?;
        }
        let shrunk = match self.may_go_on(&cancel).await {
            Ok(true) => self.shrink(&cancel).await,
            // Why not was said.
            other => other.map(drop),
        };
        self.interrupt.reset();
        match shrunk {
            Ok(()) => {
                let event = Event::Compacted { old_tokens: before, new_tokens: self.context_tokens() };
                self.journal.emit(event).await
            }
            Err(fault) => self.say_fault(fault).await,
        }
    }

    /// Summarises and shortens. More than `limit` tokens afterwards end the conversation.
    async fn compact(&mut self, cancel: &CancellationToken, limit: u64) -> Result<(), Fault> {
        let before = self.context_tokens();
        self.shrink(cancel).await?;
        let after = self.context_tokens();
        if after != before {
            self.journal.emit(Event::Compacted { old_tokens: before, new_tokens: after }).await?;
        }
        if after > limit { self.terminate(after, limit).await } else { Ok(()) }
    }

    /// Replaces older items by a summary and huge ones by a line.
    async fn shrink(&mut self, cancel: &CancellationToken) -> Result<(), Fault> {
        if let Some(Cut { head, tail, request }) = cut(&self.items) {
            let content = Some(self.summarise(head, tail, cancel).await?);
            let summary = Item::Assistant(Assistant { content, summary: true, ..Assistant::default() });
            let request = request.map(|at| self.items[at].clone());
            self.items.splice(head..tail, std::iter::once(summary).chain(request));
        }
        let huge = HUGE_TOKENS.min(self.model.context_window() / 4);
        shorten(&mut self.items, huge);
        self.journal.transcript(&self.items).await?;
        self.encode();
        Ok(())
    }

    async fn terminate(&mut self, usage: u64, limit: u64) -> Result<(), Fault> {
        let event = Event::SessionTerminated {
            reason: "compaction_failed".to_owned(),
            context_usage: usage,
            context_threshold: limit,
            error: format!("{usage} tokens are left after compaction"),
            user_message: "the conversation has become too large for this model; it is saved. Start a new one (/new), or \
                           continue it with a model that has a larger window"
                .to_owned(),
        };
        self.journal.emit(event).await?;
        Err(Fault::Terminated)
    }

    /// Asks the model for a summary of the items that go. Where none can be made the items go all the
    /// same: a conversation that does not fit cannot go on with them.
    async fn summarise(
        &mut self,
        head: usize,
        tail: usize,
        cancel: &CancellationToken,
    ) -> Result<String, Fault> {
        let summary = match self.complete(Purpose::Summary { until: tail }, cancel).await {
            Ok(completion) => completion.text,
            Err(Fault::Provider(error)) if cannot_be_asked(&error) => {
                self.notice(format!("no summary could be made: {error}")).await?;
                None
            }
            Err(fault) => return Err(fault),
        };
        let left_out = tail - head;
        Ok(summary
            .unwrap_or_else(|| format!("[{left_out} earlier items were left out; no summary could be made]")))
    }

    /// The conversation up to an item, for a summary.
    pub(crate) fn summary_prompt(&self, until: usize) -> Prompt {
        let mut prompt = self.model.prompt(&self.system, &self.tools);
        for item in self.items[..until].iter().map(brief) {
            prompt.push(&item);
        }
        prompt.push(&Item::User { content: notes::SUMMARISE.to_owned(), note: true });
        prompt
    }

    pub(crate) fn summary_options(&self) -> CompletionOptions {
        let tokens = self.model.context_window() / 10;
        CompletionOptions {
            stream: false,
            effort: self.effort.map(|effort| effort.min(Effort::High)),
            max_output_tokens: Some(u32::try_from(tokens).unwrap_or(u32::MAX)),
            tools: false,
        }
    }
}

/// Whether the summary itself is what the provider does not take, so that asking later would not help.
fn cannot_be_asked(error: &ProviderError) -> bool {
    error.is_overflow() || matches!(error, ProviderError::Refused { .. } | ProviderError::Protocol { .. })
}

/// Finds what can go: the tail begins at something the person said, or where a step begins.
fn cut(items: &[Item]) -> Option<Cut> {
    let said = |item: &Item| matches!(item, Item::User { note: false, .. });
    let head = items.iter().position(|i| matches!(i, Item::User { .. })).map_or(0, |first| first + 1);
    let latest = items.len().checked_sub(TAIL)?;
    let begins = |k: &usize| !matches!(items[*k], Item::Tool { .. });
    let tail = (head..=latest).rev().find(begins)?;
    let request = items.iter().rposition(said).filter(|at| (head..tail).contains(at));
    // A summary that stands for one item only gains nothing.
    let summarised = tail - head - usize::from(request.is_some());
    (summarised > 1).then_some(Cut { head, tail, request })
}

/// An item as the summary is made from it.
fn brief(item: &Item) -> Item {
    match item {
        Item::Tool { tool_call_id, tool, content, success } if content.len() > SUMMARY_RESULT_CHARS => {
            let end = |at: usize| (0..=at).rev().find(|k| content.is_char_boundary(*k)).unwrap_or(0);
            let content =
                format!("{}\n[… {} bytes in all]", &content[..end(SUMMARY_RESULT_CHARS)], content.len());
            Item::Tool { tool_call_id: tool_call_id.clone(), tool: tool.clone(), content, success: *success }
        }
        other => other.clone(),
    }
}

/// Replaces the content of items that are too large to keep.
fn shorten(items: &mut [Item], limit: u64) {
    for item in items {
        let size = transcript::tokens(item);
        if size <= limit {
            continue;
        }
        let line = format!("[truncated for compaction: {size} tokens, more than {limit}]");
        match item {
            Item::User { content, .. } | Item::Tool { content, .. } => *content = line,
            Item::Assistant(assistant) => assistant.content = Some(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transcript::tests::{calls, result, user};

    fn steps(count: usize) -> Vec<Item> {
        let mut items = vec![user("go")];
        for k in 0..count {
            let id = k.to_string();
            items.extend([calls(&[(&id, "t", "{}")]), result(&id, "x")]);
        }
        items
    }

    #[test]
    fn one_message_with_many_steps_can_be_compacted() {
        let items = steps(20);
        let cut = cut(&items).unwrap();
        assert_eq!(cut, Cut { head: 1, tail: 35, request: None });
        assert!(matches!(items[cut.tail], Item::Assistant(_)));
    }

    #[test]
    fn the_request_that_is_worked_on_stays() {
        let mut items = steps(4);
        items.push(user("now this"));
        items.extend(steps(10).split_off(1));
        assert_eq!(cut(&items), Some(Cut { head: 1, tail: 24, request: Some(9) }));
        // Once more: a summary and a request that stands behind it already are nothing to summarise.
        assert_eq!(
            cut(&[vec![user("go"), calls(&[]), user("now this")], steps(3).split_off(1)].concat()),
            None
        );
    }

    #[test]
    fn a_call_and_its_results_stay_together() {
        let ids: Vec<String> = (0..8).map(|k| k.to_string()).collect();
        let many: Vec<(&str, &str, &str)> = ids.iter().map(|id| (id.as_str(), "t", "{}")).collect();
        let mut items = steps(4);
        items.push(calls(&many));
        items.extend(ids.iter().map(|id| result(id, "x")));
        let cut = cut(&items).unwrap();
        assert_eq!(items[cut.tail], calls(&many));
    }

    #[test]
    fn short_conversations_have_nothing_to_summarise() {
        assert_eq!(cut(&[]), None);
        assert_eq!(cut(&steps(2)), None);
        assert_eq!(cut(&[user("a"), user("b")]), None);
    }

    #[test]
    fn huge_items_become_a_line_and_keep_their_ids() {
        let mut items = vec![user("go"), calls(&[("1", "t", "{}")]), result("1", &"y".repeat(1_000))];
        shorten(&mut items, 100);
        let Item::Tool { tool_call_id, content, .. } = &items[2] else { panic!() };
        assert_eq!(tool_call_id.as_str(), "1");
        assert!(content.starts_with("[truncated for compaction"), "{content}");
        assert_eq!(items[0], user("go"));
    }
}
