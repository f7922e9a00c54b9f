//! What a person wishes, besides turns: each is done to its end before the next.

use std::sync::Arc;

use audit::Chain;
use protocol::{ErrorKind, Event, Operation, SessionId};
use runtime::SessionContext;

use crate::guard::Guard;
use crate::persist::SessionFile;
use crate::session::{Session, has_price};
use crate::{StoreError, transcript};

/// All that a session writes to and works in.
struct Place {
    id: SessionId,
    file: SessionFile,
    chain: Chain,
    context: SessionContext,
}

impl Session {
    pub(crate) async fn operation(&mut self, operation: Operation) -> Result<(), StoreError> {
        match operation {
            Operation::UserInput { text } => self.turn(text).await,
            // No error: an error ends the turn of whoever watches, and none runs.
            Operation::ExecApproval { .. } => {
                self.notice("an approval came that nothing waits for; it was dropped").await
            }
            Operation::Undo => self.undo().await,
            Operation::Compact => self.compact_now().await,
            Operation::New { clear_screen } => self.begin_new(clear_screen).await,
            Operation::SetModel { model } => self.set_model(&model).await,
            Operation::Shutdown => {
                self.ended = true;
                Ok(())
            }
        }
    }

    async fn refuse(&mut self, error: impl Into<String>) -> Result<(), StoreError> {
        self.journal.emit(Event::Error { error: error.into(), kind: ErrorKind::Internal }).await
    }

    async fn undo(&mut self) -> Result<(), StoreError> {
        if transcript::undo(&mut self.items) > 0 {
            self.journal.transcript(&self.items).await?;
            self.encode();
        }
        self.journal.emit(Event::UndoComplete {}).await
    }

    async fn set_model(&mut self, id: &str) -> Result<(), StoreError> {
        if let Err(forbidden) = self.settings.policy.flag("--model", "`/model`") {
            return self.refuse(forbidden.to_string()).await;
        }
        if self.budget.counts_everything() {
            self.providers.learn_price(id).await;
        }
        match self.providers.resolve(id) {
            Err(error) => self.refuse(error.to_string()).await,
            Ok(model) if self.budget.counts_everything() && !has_price(&model) => {
                let id = model.id();
                self.refuse(format!("{id} has no known price, and the budget counts everything")).await
            }
            Ok(model) => {
                self.model = model;
                self.window_checked = false;
                // What the last model did not take says nothing about this one.
                self.effort = self.settings.effort;
                self.encode();
                self.say_model().await
            }
        }
    }

    /// Says which model is used from now on, also to whoever continues the session.
    pub(crate) async fn say_model(&mut self) -> Result<(), StoreError> {
        let (model, route, payer) =
            (self.model.id().to_owned(), self.model.route().to_owned(), self.model.payer().to_owned());
        self.journal.emit(Event::ModelChanged { model, route, payer }).await
    }

    async fn begin_new(&mut self, clear_screen: bool) -> Result<(), StoreError> {
        let place = match self.new_place() {
            Ok(place) => place,
            Err(error) => return self.refuse(format!("new chat failed: {error}")).await,
        };
        let saved_path = (!self.items.is_empty()).then(|| self.journal.path());
        let event = Event::NewComplete {
            session_id: place.id.to_string(),
            previous_session_id: self.id.to_string(),
            previous_turn_count: self.turns,
            previous_message_count: self.items.len(),
            saved_path,
            clear_screen,
        };
        self.switch(place).await?;
        self.items.clear();
        self.plan.clear();
        self.guard = Guard::default();
        self.turns = 0;
        self.allowed.clone_from(&self.granted);
        self.taint = None;
        // Another conversation, the same orders.
        self.record_unknown()?;
        self.namespace.forget_made();
        self.budget.renew(self.id.as_str());
        self.system = (self.system_prompt)();
        self.encode();
        self.journal.system(&self.system).await?;
        self.journal.emit(event).await
    }

    /// Makes everything that another session needs; until it is whole, this one is as it was.
    fn new_place(&self) -> Result<Place, StoreError> {
        let id = SessionId::from(uuid::Uuid::new_v4().to_string());
        let chain = self.audit_log.session(&id)?;
        let file = self.store.create(&id, self.workplace.workspace(), self.model.id())?;
        let dir = self.store.dir(&id);
        let context = self
            .workplace
            .open(id.clone(), &dir)
            .map_err(|source| StoreError::Io { path: dir.clone(), source })?;
        self.store.point(self.workplace.workspace(), &id)?;
        Ok(Place { id, file, chain, context })
    }

    /// Ends the session that was, and goes on as another.
    async fn switch(&mut self, place: Place) -> Result<(), StoreError> {
        let Place { id, file, chain, context } = place;
        self.audit_end()?;
        self.journal.sync().await?;
        self.journal.switch(file);
        std::mem::replace(&mut self.context, Arc::new(context)).wall().shutdown().await;
        self.chain = chain;
        self.providers = self.providers.with_session(id.as_str());
        self.id = id;
        // Requests carry the session's id. What led to this model a moment ago still does.
        if let Ok(model) = self.providers.resolve(self.model.id()) {
            self.model = model;
            self.window_checked = false;
        }
        let model = self.model.id().to_owned();
        self.audit_start(&model)
    }
}
