use std::sync::Arc;
use std::time::Duration;

use egress::Incoming;
use protocol::Reasoning;

use crate::answer::{Answer, Taken};
use crate::chat::ChatAnswer;
use crate::classify::{complaint, in_answer, on_the_way, unfit};
use crate::completion::{Completion, Delta};
use crate::error::ProviderError;
use crate::messages::MessagesAnswer;
use crate::prompt::{CallIds, Prompt};
use crate::responses::ResponsesAnswer;
use crate::rough::RoughText;
use crate::server_error::ServerError;
use crate::settings::WireFormat;
use crate::sse::{Event, Events};
use crate::target::Target;

/// How long the rest of a body is waited for behind the answer's end, so that the connection can be used again.
const DRAIN: Duration = Duration::from_millis(100);

/// Characters of an answer that cannot be understood that a message shows.
const SHOWN_GARBAGE: usize = 200;

/// An answer while it comes in. Dropping it ends the request.
#[derive(Debug)]
pub struct CompletionStream {
    target: Arc<Target>,
    call_ids: Arc<CallIds>,
    answer: Answer,
    decoder: Decoder,
    source: Source,
    understood: u64,
    /// Events that could not be understood, and the first of them.
    garbage: u64,
    first_garbage: String,
}

#[derive(Debug)]
enum Decoder {
    Chat(ChatAnswer),
    Messages(MessagesAnswer),
    Responses(ResponsesAnswer),
}

#[derive(Debug)]
enum Source {
    Body { incoming: Box<Incoming>, events: Box<Events> },
    Done,
}

impl CompletionStream {
    fn new(target: Arc<Target>, prompt: &Prompt, tools: bool, source: Source) -> Self {
        let none = Arc::default();
        let rough = target.is_rough().then(|| RoughText::new(if tools { &prompt.tools } else { &none }));
        let decoder = match target.wire {
            WireFormat::Chat => Decoder::Chat(ChatAnswer::default()),
            WireFormat::Messages => Decoder::Messages(MessagesAnswer::default()),
            WireFormat::Responses => Decoder::Responses(ResponsesAnswer::default()),
        };
        Self {
            target,
            call_ids: Arc::clone(&prompt.call_ids),
            answer: Answer::new(rough),
            decoder,
            source,
            understood: 0,
            garbage: 0,
            first_garbage: String::new(),
        }
    }

    /// Reads an answer that comes in pieces.
    pub(crate) fn of_events(target: Arc<Target>, prompt: &Prompt, tools: bool, incoming: Incoming) -> Self {
        let source = Source::Body { incoming: Box::new(incoming), events: Box::default() };
        Self::new(target, prompt, tools, source)
    }

    /// Reads an answer that came as a whole.
    pub(crate) fn of_whole(
        target: Arc<Target>,
        prompt: &Prompt,
        tools: bool,
        body: &[u8],
    ) -> Result<Self, ProviderError> {
        let mut stream = Self::new(target, prompt, tools, Source::Done);
        let taken = match &mut stream.decoder {
            Decoder::Chat(decoder) => decoder.whole(body, &mut stream.answer),
            Decoder::Messages(decoder) => decoder.whole(body, &mut stream.answer),
            Decoder::Responses(decoder) => decoder.whole(body, &mut stream.answer),
        };
        stream.note(taken, body)?;
        stream.end()?;
        Ok(stream)
    }

    /// The next piece of the answer, or none at its end. It may be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// When the provider reports a failure, the stream breaks or ends early, or cannot be understood.
    pub async fn next(&mut self) -> Result<Option<Delta>, ProviderError> {
        loop {
            if let Some(delta) = self.answer.next_delta() {
                return Ok(Some(delta));
            }
            if matches!(self.source, Source::Done) {
                return Ok(None);
            }
            if let Err(error) = self.advance().await {
                self.source = Source::Done;
                return Err(error);
            }
        }
    }

    /// The text that was given out so far.
    #[must_use]
    pub fn partial_text(&self) -> &str {
        self.answer.text()
    }

    /// The whole answer, once [`CompletionStream::next`] has given none.
    #[must_use]
    pub fn finish(self) -> Completion {
        let data = match self.decoder {
            Decoder::Chat(decoder) => decoder.into_reasoning(&self.answer),
            Decoder::Messages(decoder) => decoder.into_reasoning(),
            Decoder::Responses(decoder) => decoder.into_reasoning(),
        };
        let reasoning = data.map(|data| Reasoning {
            wire: self.target.wire.as_str().to_owned(),
            model: self.target.id.clone(),
            data,
        });
        self.answer.into_completion(reasoning)
    }

    /// Waits for one piece of the body and takes the events in it.
    async fn advance(&mut self) -> Result<(), ProviderError> {
        let Source::Body { incoming, events } = &mut self.source else {
            return Ok(());
        };
        if self.answer.ended {
            let rest = async { while let Ok(Some(_)) = incoming.chunk().await {} };
            // What follows the end mark does not matter, only whether it is over.
            let _ = tokio::time::timeout(DRAIN, rest).await;
            return self.end();
        }
        let last = match incoming.chunk().await {
            Ok(Some(bytes)) => {
                events.feed(&bytes);
                None
            }
            Ok(None) => Some(events.last()),
            // Nothing is missing if how it ended is known.
            Err(_) if self.answer.is_whole() => Some(None),
            Err(error) => return Err(on_the_way(&self.target, &error)),
        };
        match last {
            None => self.take_events(),
            Some(event) => {
                event.map_or(Ok(()), |event| self.take(&event))?;
                self.end()
            }
        }
    }

    fn take_events(&mut self) -> Result<(), ProviderError> {
        while !self.answer.ended {
            let Source::Body { events, .. } = &mut self.source else {
                break;
            };
            match events.next() {
                Ok(Some(event)) => self.take(&event)?,
                Ok(None) => break,
                Err(error) => return Err(self.protocol(&error.to_string())),
            }
        }
        Ok(())
    }

    fn take(&mut self, event: &Event) -> Result<(), ProviderError> {
        let taken = match &mut self.decoder {
            Decoder::Chat(decoder) => decoder.event(event, &mut self.answer),
            Decoder::Messages(decoder) => decoder.event(event, &mut self.answer),
            Decoder::Responses(decoder) => decoder.event(event, &mut self.answer),
        };
        self.note(taken, &event.data)
    }

    fn note(&mut self, taken: Taken, data: &[u8]) -> Result<(), ProviderError> {
        match taken {
            Taken::Yes => self.understood += 1,
            Taken::Failed(error) => return Err(in_answer(&self.target, &error)),
            Taken::Garbage => {
                if self.garbage == 0 {
                    self.first_garbage =
                        ServerError::read(data).message.chars().take(SHOWN_GARBAGE).collect();
                }
                self.garbage += 1;
            }
        }
        Ok(())
    }

    /// Settles everything, once nothing more comes.
    fn end(&mut self) -> Result<(), ProviderError> {
        let stray = match &self.source {
            Source::Body { events, .. } => events.stray_lines,
            Source::Done => 0,
        };
        self.source = Source::Done;
        if self.understood == 0 && self.garbage + stray > 0 {
            return Err(
                self.protocol(&format!("nothing in it is of this wire format: {}", self.first_garbage))
            );
        }
        if !self.answer.is_whole() {
            let complaint = complaint(&self.target, None, "the stream ended without its end mark");
            return Err(ProviderError::Truncated { complaint });
        }
        if self.garbage > 0 {
            tracing::debug!(origin = self.target.origin(), events = self.garbage, "skipped what is no event");
        }
        match &mut self.decoder {
            Decoder::Chat(decoder) => decoder.finish(&mut self.answer),
            Decoder::Messages(decoder) => decoder.finish(&mut self.answer),
            Decoder::Responses(decoder) => decoder.finish(&mut self.answer),
        }
        self.answer.settle().map_err(|error| unfit(&self.target, None, &error.to_string()))?;
        self.answer.name_calls(&self.call_ids);
        Ok(())
    }

    fn protocol(&self, message: &str) -> ProviderError {
        ProviderError::Protocol { complaint: complaint(&self.target, None, message) }
    }
}
