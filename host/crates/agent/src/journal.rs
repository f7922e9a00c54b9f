//! Append, then show: an event leaves only after the kernel has its line.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use protocol::{Event, Item, Need};
use redact::{Redactor, Scrubber};
use tokio::sync::mpsc;

use crate::StoreError;
use crate::persist::{Line, SessionFile, Standing};

/// Streamed text is put together over this time, so that a line is written per moment, not per token.
pub(crate) const MERGE: Duration = Duration::from_millis(50);

/// Local time with offset, for lines and headers.
pub(crate) fn now() -> String {
    jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// The session's file and the channel to whoever watches.
#[derive(Debug)]
pub(crate) struct Journal {
    file: SessionFile,
    events: mpsc::Sender<Event>,
    /// Text that was streamed and not yet written, and what of it may become a secret yet.
    text: String,
    scrubber: Scrubber,
    since: Option<Instant>,
    /// What is neither shown nor kept.
    pub(crate) secrets: Redactor,
}

impl Journal {
    pub(crate) fn new(file: SessionFile, events: mpsc::Sender<Event>, secrets: Redactor) -> Self {
        Self { file, events, text: String::new(), scrubber: secrets.scrubber(), since: None, secrets }
    }

    /// Goes on in another file: a new conversation.
    pub(crate) fn switch(&mut self, file: SessionFile) {
        self.file = file;
    }

    /// What the file holds by now, for the records.
    pub(crate) fn seal(&self) -> audit::Act {
        self.file.seal.act()
    }

    pub(crate) fn path(&self) -> String {
        self.file.path.display().to_string()
    }

    /// Writes and shows an event, after text that came before it.
    pub(crate) async fn emit(&mut self, mut event: Event) -> Result<(), StoreError> {
        self.end_text().await?;
        // Of all events these carry what others said; results are cleaned before they become items.
        let mut kept = None;
        match &mut event {
            // Texts of files that the call names stand in them.
            Event::ToolCall { arguments, .. } => self.secrets.clean_json(arguments),
            Event::ToolLog { log: text, .. } | Event::Error { error: text, .. } => self.secrets.clean(text),
            // The file as it was may hold what the model never saw.
            Event::ApprovalRequired { tools, .. } => {
                let needs = tools.iter_mut().filter_map(|request| request.need.as_mut());
                needs.filter_map(difference).for_each(|diff| self.secrets.clean(diff));
                // The person decides about the texts as they are, and may edit them; nobody else gets them so.
                let mut tools = tools.clone();
                tools.iter_mut().for_each(|request| self.secrets.clean_json(&mut request.arguments));
                kept = Some(Event::ApprovalRequired { count: tools.len(), tools });
            }
            _ => {}
        }
        let kept = kept.as_ref().unwrap_or(&event);
        self.file.append(&[Line::Event { at: now(), event: Cow::Borrowed(kept) }])?;
        self.show(event).await;
        Ok(())
    }

    /// Writes an item of the transcript and an event about it, then shows the event. The event's line is the
    /// first: it tells where the item's text came from, which a file that ends between the two must not lose.
    pub(crate) async fn item_and_event(&mut self, item: &Item, event: Event) -> Result<(), StoreError> {
        self.end_text().await?;
        let at = now();
        self.file.append(&[
            Line::Event { at: at.clone(), event: Cow::Borrowed(&event) },
            Line::Item { at, item: Cow::Borrowed(item) },
        ])?;
        self.show(event).await;
        Ok(())
    }

    /// Writes an item of the transcript.
    pub(crate) async fn item(&mut self, item: &Item) -> Result<(), StoreError> {
        self.end_text().await?;
        self.file.append(&[Line::Item { at: now(), item: Cow::Borrowed(item) }])
    }

    /// Writes the transcript anew.
    pub(crate) async fn transcript(&mut self, items: &[Item]) -> Result<(), StoreError> {
        self.end_text().await?;
        self.file.append(&[Line::Transcript { items: Cow::Borrowed(items) }])
    }

    /// Writes what counts for the session besides its own lines.
    pub(crate) async fn standing(&mut self, standing: Standing) -> Result<(), StoreError> {
        self.end_text().await?;
        self.file.append(&[Line::Standing(standing)])
    }

    /// Writes the system prompt of the conversation.
    pub(crate) async fn system(&mut self, text: &str) -> Result<(), StoreError> {
        self.end_text().await?;
        self.file.append(&[Line::System { text: Cow::Borrowed(text) }])
    }

    /// Takes streamed text. It is written and shown by the next event, or when [`Journal::due`] says so.
    pub(crate) fn text(&mut self, piece: &str) {
        self.text.push_str(&self.scrubber.push_text(piece));
        self.since.get_or_insert_with(Instant::now);
    }

    /// When streamed text has waited long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + MERGE)
    }

    /// Writes and shows all text that was streamed: nothing more of it follows.
    async fn end_text(&mut self) -> Result<(), StoreError> {
        let rest = self.scrubber.end();
        self.text.push_str(&String::from_utf8_lossy(&rest));
        self.flush().await
    }

    /// Writes and shows the text that was streamed.
    pub(crate) async fn flush(&mut self) -> Result<(), StoreError> {
        self.since = None;
        if self.text.is_empty() {
            return Ok(());
        }
        let event = Event::AssistantChunk { content: std::mem::take(&mut self.text) };
        self.file.append(&[Line::Event { at: now(), event: Cow::Borrowed(&event) }])?;
        self.show(event).await;
        Ok(())
    }

    /// Returns when the disk has all lines.
    pub(crate) async fn sync(&self) -> Result<(), StoreError> {
        let file = self.file.handle()?;
        let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
        match synced {
            Ok(Err(source)) => Err(StoreError::Io { path: self.file.path.clone(), source }),
            _ => Ok(()),
        }
    }

    /// Shows an event that could not be written: the file itself is what failed.
    pub(crate) async fn show_unsaved(&self, event: Event) {
        self.show(event).await;
    }

    async fn show(&self, event: Event) {
        // Nobody watching is no reason to stop: the session is on disk.
        let _ = self.events.send(event).await;
    }
}

/// What a need shows of a file.
fn difference(need: &mut Need) -> Option<&mut String> {
    match need {
        Need::SealedPath { change, .. } => change.as_mut()?.diff.as_mut(),
        _ => None,
    }
}
