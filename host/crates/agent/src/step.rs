//! One completion: sent, streamed, retried and healed.

use std::time::{Duration, Instant};

use protocol::{Assistant, Event, Item, Usage};
use provider::{Completion, CompletionOptions, Delta, Effort, FinishReason, ProviderError, retry_wait};
use tokio_util::sync::CancellationToken;

use crate::StoreError;
use crate::session::Session;
use crate::turn::Fault;

/// Times an answer is healed by changing the request, in one step.
const HEALS: u32 = 6;

/// A prompt that the provider counted as less than this part of our estimate was cut off by the server.
const CUT_OFF: u64 = 3;

/// Characters of a provider's own word for why an answer ended.
const MAX_WORD: usize = 40;

/// Bytes of an answer that count as a token where nobody counted.
const BYTES_PER_TOKEN: usize = 3;

/// How an attempt failed.
struct Failed {
    error: ProviderError,
    /// Text of the answer was already shown, so that trying again would say it twice.
    shown: bool,
}

/// What a completion is for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The next step of the turn.
    Step,
    /// A summary of the transcript before this item.
    Summary { until: usize },
}

impl Purpose {
    /// Its word in the books.
    fn kind(self) -> &'static str {
        match self {
            Self::Step => "main",
            Self::Summary { .. } => "compaction",
        }
    }
}

impl Session {
    /// Gets one answer of the model: tried again after what may pass, healed where the request is at fault.
    pub(crate) async fn complete(
        &mut self,
        purpose: Purpose,
        cancel: &CancellationToken,
    ) -> Result<Completion, Fault> {
        let mut attempts = 0;
        let mut heals = 0;
        loop {
            let started = Instant::now();
            let failed = match self.attempt(purpose, cancel).await? {
                Ok(completion) => {
                    self.record(&completion, started.elapsed(), purpose.kind()).await?;
                    return Ok(completion);
                }
                Err(failed) => failed,
            };
            if failed.shown {
                return Err(Fault::Provider(failed.error));
            }
            if heals < HEALS && self.heal(&failed.error).await? {
                heals += 1;
                continue;
            }
            attempts += 1;
            let Some(wait) = retry_wait(&failed.error, attempts) else {
                return Err(Fault::Provider(failed.error));
            };
            self.notice(format!(
                "LLM connection error, retrying in {}s... ({})",
                wait.as_secs(),
                failed.error
            ))
            .await?;
            tokio::select! {
                () = cancel.cancelled() => return Err(Fault::Interrupted),
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn attempt(
        &mut self,
        purpose: Purpose,
        cancel: &CancellationToken,
    ) -> Result<Result<Completion, Failed>, Fault> {
        let (prompt, options) = match purpose {
            Purpose::Step => (None, self.options()),
            Purpose::Summary { until } => (Some(self.summary_prompt(until)), self.summary_options()),
        };
        let asked = prompt.as_ref().unwrap_or(&self.prompt);
        let (tokens, started) = (asked.estimated_tokens(), Instant::now());
        let sent = tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            sent = self.model.complete(asked, &options) => Some(sent),
        };
        let Some(sent) = sent else {
            // It may have left, and then it is paid for.
            self.record_unfinished(tokens, 0, started.elapsed()).await?;
            return Err(Fault::Interrupted);
        };
        let mut stream = match sent {
            Ok(stream) => stream,
            Err(error) => return Ok(Err(Failed { error, shown: false })),
        };
        let mut shown = false;
        loop {
            let due = self.journal.due();
            let next = tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    self.record_unfinished(tokens, stream.partial_text().len(), started.elapsed()).await?;
                    if options.stream {
                        self.keep_partial(stream.partial_text()).await?;
                    }
                    return Err(Fault::Interrupted);
                }
                () = until(due) => {
                    self.journal.flush().await?;
                    continue;
                }
                next = stream.next() => next,
            };
            match next {
                Ok(Some(Delta::Text(text))) => {
                    if options.stream {
                        shown = true;
                        self.journal.text(&text);
                    }
                }
                Ok(Some(Delta::Reasoning(_))) => {}
                Ok(None) => {
                    let mut completion = stream.finish();
                    self.clean_completion(&mut completion);
                    return Ok(Ok(completion));
                }
                Err(error) => {
                    self.record_unfinished(tokens, stream.partial_text().len(), started.elapsed()).await?;
                    if shown {
                        self.keep_partial(stream.partial_text()).await?;
                    }
                    return Ok(Err(Failed { error, shown }));
                }
            }
        }
    }

    /// Takes out what only the host is to hold. No model is told it; a server that is may say it.
    fn clean_completion(&self, completion: &mut Completion) {
        let secrets = &self.journal.secrets;
        if let FinishReason::Other(word) = &mut completion.finish
            && (!is_word(word) || secrets.finds(word.as_bytes()))
        {
            *word = "other".to_owned();
        }
        completion.text.iter_mut().for_each(|text| secrets.clean(text));
        for call in &mut completion.tool_calls {
            // As a value: `\u0068f_…` is the same to whoever parses it.
            if let Ok(mut arguments) = serde_json::from_str::<serde_json::Value>(&call.arguments)
                && secrets.finds_in_json(&arguments)
            {
                secrets.clean_json(&mut arguments);
                call.arguments = arguments.to_string();
            }
            secrets.clean(&mut call.arguments);
            secrets.clean(&mut call.name);
            if secrets.finds(call.id.as_str().as_bytes()) {
                call.id = format!("call-{}", uuid::Uuid::new_v4().simple()).as_str().into();
            }
        }
        // Signed as it is: it is kept whole or not at all.
        completion.reasoning =
            completion.reasoning.take().filter(|reasoning| !secrets.finds_in_json(&reasoning.data));
    }

    fn options(&self) -> CompletionOptions {
        CompletionOptions {
            stream: self.settings.stream,
            effort: self.effort,
            max_output_tokens: None,
            tools: true,
        }
    }

    /// Text of an answer that did not end is kept: it was said.
    async fn keep_partial(&mut self, text: &str) -> Result<(), StoreError> {
        if !text.is_empty() {
            let text = self.journal.secrets.text(text).into_owned();
            self.say(Some(text), Vec::new(), None).await?;
            self.journal.emit(Event::AssistantStreamEnd {}).await?;
        }
        Ok(())
    }

    /// Keeps the books and shows what is left to show.
    async fn record(
        &mut self,
        completion: &Completion,
        took: Duration,
        kind: &str,
    ) -> Result<(), StoreError> {
        let usage = completion.usage;
        let main = kind == "main";
        if main
            && !self.settings.stream
            && let Some(text) = &completion.text
        {
            self.journal.emit(Event::AssistantMessage { content: text.clone() }).await?;
        }
        let cost_usd = match usage.total_tokens {
            0 => self.guess(completion),
            _ => self.model.cost_usd(&usage).unwrap_or(0.0),
        };
        self.budget.completion(cost_usd);
        let event = Event::LlmCall {
            model: self.model.id().to_owned(),
            latency_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            finish_reason: Some(completion.finish.as_str().to_owned()),
            cost_usd,
            kind: kind.to_owned(),
            usage,
        };
        self.journal.emit(event).await?;
        if main && self.settings.stream {
            self.journal.emit(Event::AssistantStreamEnd {}).await?;
        }
        if main && usage.total_tokens > 0 {
            self.compare_with_estimate(usage.prompt_tokens).await?;
            self.counted = Some((usage.total_tokens, self.prompt.estimated_tokens()));
        }
        Ok(())
    }

    /// What a completion cost whose tokens the provider did not count, by our estimate.
    fn guess(&self, completion: &Completion) -> f64 {
        let written = completion.text.as_deref().map_or(0, str::len)
            + completion.tool_calls.iter().map(|call| call.arguments.len()).sum::<usize>();
        self.estimate(self.prompt.estimated_tokens(), written)
    }

    /// USD for a prompt of so many tokens and so many bytes that were written.
    fn estimate(&self, prompt_tokens: u64, written: usize) -> f64 {
        let completion_tokens = (written / BYTES_PER_TOKEN) as u64;
        self.model.cost_usd(&Usage { prompt_tokens, completion_tokens, ..Usage::default() }).unwrap_or(0.0)
    }

    /// Keeps the books of a completion that was begun and not finished: what was done is paid for.
    async fn record_unfinished(
        &mut self,
        prompt_tokens: u64,
        written: usize,
        took: Duration,
    ) -> Result<(), StoreError> {
        let cost_usd = self.estimate(prompt_tokens, written);
        if cost_usd <= 0.0 {
            return Ok(());
        }
        self.budget.completion(cost_usd);
        let event = Event::LlmCall {
            model: self.model.id().to_owned(),
            latency_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            finish_reason: None,
            cost_usd,
            kind: "unfinished".to_owned(),
            usage: Usage::default(),
        };
        self.journal.emit(event).await
    }

    /// Some local servers drop the beginning of what they cannot hold, without a word.
    async fn compare_with_estimate(&mut self, counted: u64) -> Result<(), StoreError> {
        let estimated = self.prompt.estimated_tokens();
        if self.model.is_local() && self.counted.is_none() && counted > 0 && counted < estimated / CUT_OFF {
            let log = format!(
                "the server counted {counted} tokens where about {estimated} were sent: it probably drops what it cannot hold; \
                 give the model a larger window"
            );
            self.notice(log).await?;
        }
        Ok(())
    }

    /// Changes the request so that the next try can work; says what was changed.
    async fn heal(&mut self, error: &ProviderError) -> Result<bool, StoreError> {
        let log = match error {
            ProviderError::EffortRejected { .. } => {
                let Some(effort) = self.effort else {
                    return Ok(false);
                };
                self.effort = lower(effort);
                match self.effort {
                    Some(lower) => format!("the model does not take effort {effort}; using {lower}"),
                    None => format!("the model does not take effort {effort}; using none"),
                }
            }
            ProviderError::ThinkingUnsupported { .. } if self.effort.is_some() => {
                self.effort = None;
                "the model does not reason; effort is off".to_owned()
            }
            ProviderError::BadThinkingSignature { .. } => {
                if !strip_reasoning(&mut self.items) {
                    return Ok(false);
                }
                self.journal.transcript(&self.items).await?;
                self.encode();
                "earlier reasoning was not accepted back; going on without it".to_owned()
            }
            _ => return Ok(false),
        };
        self.notice(log).await?;
        Ok(true)
    }
}

/// Whether it is what a provider calls a reason, and not a text.
fn is_word(text: &str) -> bool {
    (1..=MAX_WORD).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_')
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn lower(effort: Effort) -> Option<Effort> {
    match effort {
        Effort::Max => Some(Effort::Xhigh),
        Effort::Xhigh => Some(Effort::High),
        Effort::High => Some(Effort::Medium),
        Effort::Medium => Some(Effort::Low),
        Effort::Low | Effort::Minimal => None,
    }
}

fn strip_reasoning(items: &mut [Item]) -> bool {
    let mut stripped = false;
    for item in items {
        if let Item::Assistant(Assistant { reasoning, .. }) = item {
            stripped |= reasoning.take().is_some();
        }
    }
    stripped
}
