//! How a session begins: what it says before it takes input, and what it goes on from.

use std::path::PathBuf;

use protocol::{Event, SessionId};

use crate::persist::{Saved, Standing};
use crate::session::Session;
use crate::turn::Fault;
use crate::{Start, StoreError};

/// What a session says before it is ready.
pub(crate) struct Opening {
    /// Where it comes from, with how many events.
    pub(crate) fork: Option<(SessionId, usize)>,
    /// What a fork takes over besides the transcript.
    pub(crate) standing: Option<Standing>,
    /// The folder that it was at work in before, if it is another one now.
    elsewhere: Option<PathBuf>,
    /// It goes on with another model than before.
    model_changed: bool,
    /// Its file has the system prompt.
    knows_system: bool,
    /// Calls got the result that nobody knows one.
    repaired: bool,
}

impl Opening {
    pub(crate) fn of(start: &Start, saved: Option<&Saved>, session: &Session) -> Self {
        let continues = matches!(start, Start::Continue(_));
        let fork = match (start, saved) {
            (Start::Fork(from), Some(saved)) => Some((from.clone(), saved.events)),
            _ => None,
        };
        let before = saved.map(|saved| saved.header.workspace.clone());
        Self {
            fork,
            standing: None,
            elsewhere: before.filter(|folder| folder != session.workplace.workspace()),
            model_changed: continues && saved.is_some_and(|saved| saved.model != session.model.id()),
            knows_system: continues && saved.is_some_and(|saved| session.earlier_system(saved).is_some()),
            repaired: continues && saved.is_some_and(|saved| !saved.unknown_outcomes.is_empty()),
        }
    }
}

impl Session {
    /// The system prompt that the conversation began with, if it still holds. A provider's cache knows it
    /// byte for byte.
    pub(crate) fn earlier_system<'a>(&self, saved: &'a Saved) -> Option<&'a str> {
        saved.system.as_deref().filter(|earlier| says_the_same(earlier, &self.system))
    }

    /// Says where the session comes from, and what is not as it was.
    pub(crate) async fn open(&mut self, opening: Opening) -> Result<(), StoreError> {
        let Opening { fork, standing, elsewhere, model_changed, knows_system, repaired } = opening;
        if let Some(standing) = standing {
            self.journal.standing(standing).await?;
        }
        if let Some((from, original_event_count)) = fork {
            let event = Event::ResumedFrom {
                path: self.store.dir(&from).display().to_string(),
                original_session_id: from.to_string(),
                original_event_count,
                forked: true,
            };
            self.journal.emit(event).await?;
            self.journal.transcript(&self.items).await?;
            if !self.plan.is_empty() {
                self.journal.emit(Event::PlanUpdate { plan: self.plan.clone() }).await?;
            }
        }
        if repaired {
            // Told once: the next time they have their result.
            self.journal.transcript(&self.items).await?;
        }
        if !knows_system {
            self.journal.system(&self.system).await?;
        }
        if let Some(folder) = elsewhere {
            let now = self.workplace.workspace().display();
            let before = folder.display();
            self.notice(format!("this session was at work in {before}; it goes on in {now}")).await?;
        }
        if model_changed {
            self.say_model().await?;
        }
        let tool_count = self.tools.len();
        self.journal.emit(Event::Ready { message: format!("{tool_count} tools"), tool_count }).await?;
        match self.look_for_orders().await {
            Err(Fault::Store(error)) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether two system prompts differ in nothing but their last line, which tells when the conversation
/// began.
fn says_the_same(one: &str, other: &str) -> bool {
    let without_last = |text: &str| text.trim_end().rsplit_once('\n').map(|(rest, _)| rest.to_owned());
    one == other || without_last(one).is_some_and(|rest| without_last(other) == Some(rest))
}
