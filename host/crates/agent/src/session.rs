use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use audit::{AuditLog, Chain};
use protocol::{ErrorKind, Event, Item, Operation, PlanItem, SessionId, Submission, ToolSpec};
use provider::{Effort, Model, Prompt, Providers};
use runtime::{PluginRuntime, SessionContext, Workplace};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::guard::Guard;
use crate::journal::Journal;
use crate::persist::{Saved, SessionFile};
use crate::{Mode, SessionStore, StoreError, transcript};

/// Operations and events that wait at most; whoever sends more waits.
const CHANNEL: usize = 64;

/// How the loop behaves.
#[derive(Clone, Debug)]
pub struct AgentSettings {
    /// Completions of one turn; none: no limit.
    pub max_iterations: Option<u32>,
    pub effort: Option<Effort>,
    pub stream: bool,
    pub mode: Mode,
    /// Somebody can answer questions.
    pub interactive: bool,
    /// Commands run behind a wall, or the person said that none is needed.
    pub walled: bool,
    /// The wall's grade and what commands can connect to, in one word each.
    pub wall: &'static str,
    pub network: &'static str,
}

/// What a session starts from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Start {
    New,
    /// Go on where that session was left.
    Continue(SessionId),
    /// A new session that knows what that one knew.
    Fork(SessionId),
}

/// Makes the system prompt; called once per conversation.
pub type SystemPrompt = Arc<dyn Fn() -> String + Send + Sync>;

/// All that a session is made of.
pub struct SessionConfig {
    pub id: SessionId,
    pub start: Start,
    pub store: SessionStore,
    pub audit: AuditLog,
    pub workplace: Workplace,
    pub runtime: PluginRuntime,
    pub providers: Providers,
    /// The model to use; a continued session takes its own if this is none.
    pub model: Option<String>,
    pub default_model: String,
    pub system_prompt: SystemPrompt,
    /// What is offered to the model.
    pub tools: Vec<ToolSpec>,
    pub settings: AgentSettings,
}

/// Why a session does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Model(#[from] provider::ResolveError),
    #[error("the session's folders cannot be made: {0}")]
    Folders(#[from] std::io::Error),
}

/// A running session, as seen from outside.
#[derive(Debug)]
pub struct Handle {
    pub session: SessionId,
    pub model: Model,
    pub operations: mpsc::Sender<Submission>,
    pub events: mpsc::Receiver<Event>,
    pub interrupt: Interrupt,
    /// What was restored of an earlier session.
    pub resumed: Option<Resumed>,
    /// Models worth naming to someone who has to choose one: id and label.
    pub suggestions: Vec<(String, String)>,
    providers: Providers,
    pub context: Arc<SessionContext>,
    pub task: tokio::task::JoinHandle<()>,
}

/// What was restored of an earlier session.
#[derive(Clone, Debug)]
pub struct Resumed {
    pub items: usize,
    pub dropped: usize,
    /// Calls that were running when the program ended.
    pub unknown_outcomes: Vec<String>,
}

/// Stops the running turn. It is no operation: it does not wait for its turn.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Mutex<CancellationToken>>);

impl Interrupt {
    /// Stops what runs now; the session goes on with the next operation.
    pub fn interrupt(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).cancel();
    }

    /// A token for a new turn.
    pub(crate) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&token);
        token
    }
}

/// The state of a conversation. One task owns it.
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) store: SessionStore,
    pub(crate) audit_log: AuditLog,
    /// The session's records in the audit log.
    pub(crate) chain: Chain,
    pub(crate) workplace: Workplace,
    pub(crate) context: Arc<SessionContext>,
    pub(crate) runtime: PluginRuntime,
    pub(crate) providers: Providers,
    pub(crate) model: Model,
    pub(crate) system_prompt: SystemPrompt,
    /// The system prompt of this conversation.
    pub(crate) system: String,
    pub(crate) tools: Arc<[ToolSpec]>,
    pub(crate) settings: AgentSettings,
    pub(crate) journal: Journal,
    pub(crate) items: Vec<Item>,
    /// The items, encoded for the model's wire.
    pub(crate) prompt: Prompt,
    pub(crate) plan: Vec<PlanItem>,
    pub(crate) guard: Guard,
    pub(crate) turns: usize,
    /// The provider's own count at the last completion, and our estimate at that moment.
    pub(crate) counted: Option<(u64, u64)>,
    /// The served window was asked for.
    pub(crate) window_checked: bool,
    pub(crate) allowed: HashSet<(String, String)>,
    pub(crate) operations: mpsc::Receiver<Submission>,
    /// Operations that came while a person was asked.
    pub(crate) queue: VecDeque<Submission>,
    pub(crate) interrupt: Interrupt,
    pub(crate) ended: bool,
}

impl Handle {
    /// Takes note of a change of the model.
    pub fn refresh_model(&mut self, id: &str) {
        if let Ok(model) = self.providers.resolve(id) {
            self.model = model;
        }
    }
}

impl fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionConfig")
            .field("id", &self.id)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

/// Starts a session on a task of its own.
///
/// # Errors
/// When it cannot be saved, or its model cannot be used.
pub fn start(config: SessionConfig) -> Result<Handle, StartError> {
    let SessionConfig {
        id,
        start,
        store,
        audit,
        workplace,
        runtime,
        providers,
        model,
        default_model,
        system_prompt,
        tools,
        settings,
    } = config;
    let opened = match &start {
        Start::New => None,
        Start::Continue(from) => {
            let (file, saved) = store.open(from)?;
            Some((Some(file), saved))
        }
        Start::Fork(from) => Some((None, store.read(from)?)),
    };
    let saved_model = opened.as_ref().map(|(_, saved)| saved.model.clone());
    let model = providers.resolve(&model.or(saved_model).unwrap_or(default_model))?;
    let id = if let Start::Continue(from) = &start { from.clone() } else { id };
    let (file, saved) = match opened {
        Some((Some(file), saved)) => (file, Some(saved)),
        other => (store.create(&id, workplace.workspace(), model.id())?, other.map(|(_, saved)| saved)),
    };
    let context = Arc::new(workplace.open(id.clone(), &store.dir(&id))?);
    let chain = audit.session(&id).map_err(StoreError::from)?;
    let (operations, receiver) = mpsc::channel(CHANNEL);
    let (sender, events) = mpsc::channel(CHANNEL);
    let system = system_prompt();
    let interrupt = Interrupt::default();
    let mut session = Session {
        id: id.clone(),
        store,
        audit_log: audit,
        chain,
        workplace,
        context: context.clone(),
        runtime,
        prompt: model.prompt(&system, &tools),
        providers: providers.clone(),
        model: model.clone(),
        system_prompt,
        system,
        tools: tools.into(),
        settings,
        journal: Journal::new(file, sender),
        items: Vec::new(),
        plan: Vec::new(),
        guard: Guard::default(),
        turns: 0,
        counted: None,
        window_checked: false,
        allowed: HashSet::new(),
        operations: receiver,
        queue: VecDeque::new(),
        interrupt: interrupt.clone(),
        ended: false,
    };
    let resumed = saved.map(|saved| session.restore(saved));
    session.audit_start()?;
    let origin = start;
    let task = tokio::spawn(session.run(origin));
    let suggestions = providers.suggestions().iter().map(|s| (s.id.clone(), s.label.clone())).collect();
    Ok(Handle {
        session: id,
        model,
        operations,
        events,
        interrupt,
        resumed,
        suggestions,
        providers,
        context,
        task,
    })
}

impl Session {
    fn restore(&mut self, saved: Saved) -> Resumed {
        let resumed = Resumed {
            items: saved.items.len(),
            dropped: saved.dropped,
            unknown_outcomes: saved.unknown_outcomes.iter().map(ToString::to_string).collect(),
        };
        self.turns = saved.items.iter().filter(|i| matches!(i, Item::User { note: false, .. })).count();
        self.plan = saved.plan;
        self.items = saved.items;
        self.encode();
        resumed
    }

    /// Encodes the whole transcript anew: after a change of the model or of what came before.
    pub(crate) fn encode(&mut self) {
        self.prompt = self.model.prompt(&self.system, &self.tools);
        for item in &self.items {
            self.prompt.push(item);
        }
        self.counted = None;
    }

    async fn run(mut self, origin: Start) {
        if let Err(error) = self.operate(origin).await {
            self.journal
                .show_unsaved(Event::Error { error: error.to_string(), kind: ErrorKind::Internal })
                .await;
        }
        self.context.wall().shutdown().await;
    }

    async fn operate(&mut self, origin: Start) -> Result<(), StoreError> {
        if let Start::Fork(from) = &origin {
            let (path, id) = (self.store.dir(from).display().to_string(), from.to_string());
            let event = Event::ResumedFrom {
                path,
                original_session_id: id,
                original_event_count: self.items.len(),
                forked: true,
            };
            self.journal.emit(event).await?;
            self.journal.transcript(&self.items).await?;
        }
        let tool_count = self.tools.len();
        self.journal.emit(Event::Ready { message: format!("{tool_count} tools"), tool_count }).await?;
        while !self.ended {
            let Some(submission) = self.next_submission().await else {
                break;
            };
            self.operation(submission.operation).await?;
        }
        self.audit_end()?;
        let audit_head = self.chain.head().to_owned();
        self.journal.emit(Event::Shutdown { audit_head }).await?;
        self.journal.sync().await
    }

    async fn next_submission(&mut self) -> Option<Submission> {
        match self.queue.pop_front() {
            Some(submission) => Some(submission),
            None => self.operations.recv().await,
        }
    }

    async fn operation(&mut self, operation: Operation) -> Result<(), StoreError> {
        match operation {
            Operation::UserInput { text } => self.turn(text).await,
            Operation::ExecApproval { .. } => self.refuse("nothing waits for an approval").await,
            Operation::Undo => self.undo().await,
            Operation::Compact => self.compact_now().await,
            Operation::New { clear_screen } => self.begin_new(clear_screen).await,
            Operation::Resume { path } => self.resume(&path).await,
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
        match self.providers.resolve(id) {
            Err(error) => self.refuse(error.to_string()).await,
            Ok(model) => {
                self.model = model;
                self.window_checked = false;
                self.encode();
                let (model, route, payer) = (
                    self.model.id().to_owned(),
                    self.model.route().to_owned(),
                    self.model.payer().to_owned(),
                );
                self.journal.emit(Event::ModelChanged { model, route, payer }).await
            }
        }
    }

    async fn begin_new(&mut self, clear_screen: bool) -> Result<(), StoreError> {
        let id = SessionId::from(uuid::Uuid::new_v4().to_string());
        let file = self.store.create(&id, self.workplace.workspace(), self.model.id())?;
        let context = match self.workplace.open(id.clone(), &self.store.dir(&id)) {
            Ok(context) => Arc::new(context),
            Err(error) => return self.refuse(format!("new chat failed: {error}")).await,
        };
        let saved_path = (!self.items.is_empty()).then(|| self.journal.path());
        let event = Event::NewComplete {
            session_id: id.to_string(),
            previous_session_id: self.id.to_string(),
            previous_turn_count: self.turns,
            previous_message_count: self.items.len(),
            saved_path,
            clear_screen,
        };
        self.switch(id, file, context).await?;
        self.items.clear();
        self.plan.clear();
        self.guard = Guard::default();
        self.turns = 0;
        self.allowed.clear();
        self.system = (self.system_prompt)();
        self.encode();
        self.journal.emit(event).await
    }

    /// Ends the session that was, and goes on as another.
    async fn switch(
        &mut self,
        id: SessionId,
        file: SessionFile,
        context: Arc<SessionContext>,
    ) -> Result<(), StoreError> {
        let chain = self.audit_log.session(&id)?;
        self.audit_end()?;
        self.journal.sync().await?;
        self.journal.switch(file);
        std::mem::replace(&mut self.context, context).wall().shutdown().await;
        self.chain = chain;
        self.id = id;
        self.audit_start()
    }

    async fn resume(&mut self, text: &str) -> Result<(), StoreError> {
        let opened = self.store.find(text).and_then(|id| Ok((id.clone(), self.store.open(&id)?)));
        let (id, (file, saved)) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.refuse(format!("resume failed: {error}")).await,
        };
        let context = match self.workplace.open(id.clone(), &self.store.dir(&id)) {
            Ok(context) => Arc::new(context),
            Err(error) => return self.refuse(format!("resume failed: {error}")).await,
        };
        self.switch(id, file, context).await?;
        let saved_model = self.providers.resolve(&saved.model);
        let invalid_saved_model = saved_model.is_err().then(|| saved.model.clone());
        if let Ok(model) = saved_model {
            self.model = model;
            self.window_checked = false;
        }
        let resumed = self.restore(saved);
        let event = Event::ResumeComplete {
            path: self.journal.path(),
            restored_count: resumed.items,
            dropped_count: resumed.dropped,
            model_name: self.model.id().to_owned(),
            invalid_saved_model,
            forked: false,
            had_redacted_content: false,
        };
        self.journal.emit(event).await
    }
}
