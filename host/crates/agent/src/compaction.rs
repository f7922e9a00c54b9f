//! Making room: older items are summarised, huge ones are replaced by a line, pairs are never split.

use std::time::Instant;

use protocol::{Assistant, Event, Item};
use provider::{CompletionOptions, Delta, Effort, ProviderError};
use tokio_util::sync::CancellationToken;

use crate::session::Session;
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

    /// Compacts because the person asked for it.
    pub(crate) async fn compact_now(&mut self) -> Result<(), StoreError> {
        let cancel = self.interrupt.begin();
        if cut(&self.items).is_none() {
            return self.notice("nothing to compact yet").await;
        }
        match self.compact(&cancel, u64::MAX).await {
            Ok(()) => Ok(()),
            Err(Fault::Interrupted) => self.journal.emit(Event::Interrupted {}).await,
            Err(Fault::Provider(error)) => {
                self.notice(format!("compaction failed: {}", error.user_message())).await
            }
            Err(Fault::Terminated) => {
                self.ended = true;
                Ok(())
            }
            Err(Fault::Store(error)) => Err(error),
        }
    }

    /// Summarises and shortens. More than `limit` tokens afterwards end the conversation.
    async fn compact(&mut self, cancel: &CancellationToken, limit: u64) -> Result<(), Fault> {
        let before = self.context_tokens();
        if let Some(Cut { head, tail }) = cut(&self.items) {
            let summary = self.summarise(head, tail, cancel).await?;
            let summary = Assistant { content: Some(summary), summary: true, ..Assistant::default() };
            self.items.splice(head..tail, [Item::Assistant(summary)]);
        }
        let huge = HUGE_TOKENS.min(self.model.context_window() / 4);
        shorten(&mut self.items, huge);
        self.journal.transcript(&self.items).await?;
        self.encode();
        let after = self.context_tokens();
        if after != before {
            self.journal.emit(Event::Compacted { old_tokens: before, new_tokens: after }).await?;
        }
        if after > limit { self.terminate(after, limit).await } else { Ok(()) }
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

    /// Asks the model for a summary of the items that go.
    async fn summarise(
        &mut self,
        head: usize,
        tail: usize,
        cancel: &CancellationToken,
    ) -> Result<String, Fault> {
        let window = self.model.context_window();
        let mut prompt = self.model.prompt(&self.system, &self.tools);
        for item in self.items[..tail].iter().map(brief) {
            prompt.push(&item);
        }
        prompt.push(&Item::User { content: notes::SUMMARISE.to_owned(), note: true });
        let options = CompletionOptions {
            stream: false,
            effort: self.settings.effort.map(|_| Effort::High),
            max_output_tokens: Some(u32::try_from(window / 10).unwrap_or(u32::MAX)),
            tools: false,
        };
        let started = Instant::now();
        let work = async {
            let mut stream = self.model.complete(&prompt, &options).await?;
            while let Some(Delta::Text(_) | Delta::Reasoning(_)) = stream.next().await? {}
            Ok::<_, ProviderError>(stream.finish())
        };
        let completion = tokio::select! {
            biased;
            () = cancel.cancelled() => return Err(Fault::Interrupted),
            completion = work => completion.map_err(Fault::Provider)?,
        };
        self.record(&completion, started.elapsed(), "compaction").await?;
        let kept = tail.saturating_sub(head);
        Ok(completion
            .text
            .unwrap_or_else(|| format!("[{kept} earlier items were left out; no summary could be made]")))
    }
}

/// Finds what can go: the tail begins at something the person said, or where a step begins.
fn cut(items: &[Item]) -> Option<Cut> {
    let head = items.iter().position(|i| matches!(i, Item::User { .. })).map_or(0, |first| first + 1);
    let latest = items.len().checked_sub(TAIL)?;
    let begins = |k: &usize| !matches!(items[*k], Item::Tool { .. });
    let tail = (head..=latest).rev().find(begins)?;
    // A summary that stands for one item only gains nothing.
    (tail > head + 1).then_some(Cut { head, tail })
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
        assert_eq!(cut, Cut { head: 1, tail: 35 });
        assert!(matches!(items[cut.tail], Item::Assistant(_)));
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
