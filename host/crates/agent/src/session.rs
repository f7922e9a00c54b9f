use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use audit::{AuditLog, Chain, PolicyMark};
use policy::Policy;
use protocol::{ErrorKind, Event, Item, PlanItem, SessionId, Submission, ToolCallId, ToolSpec, Usage};
use provider::{Effort, Model, Prompt, Providers};
use redact::Redactor;
use runtime::{PluginRuntime, SessionContext, Workplace};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::budget::Budget;
use crate::guard::Guard;
use crate::journal::Journal;
use crate::namespace::{AskNamespace, Namespace};
use crate::opening::Opening;
use crate::ordering::earlier;
use crate::orders::{Order, Unknown};
use crate::persist::{Saved, Sealed, Standing};
use crate::{BudgetLimits, Interrupt, Mode, Rules, SessionStore, StartError, StoreError};

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
    /// What is allowed, asked for and denied besides the mode.
    pub rules: Rules,
    pub budget: BudgetLimits,
    /// What the machine's policy says about calls.
    pub policy: Arc<Policy>,
    /// That policy, for the audit log.
    pub policy_mark: Option<PolicyMark>,
}

/// What a session starts from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Start {
    New,
    /// Go on where that session was left.
    Continue(SessionId),
    /// A new session that knows what that one knew.
    Fork(SessionId),
    /// One call that a person typed: no conversation, and nobody goes on with it.
    Call,
}

/// Makes the system prompt; called once per conversation.
pub type SystemPrompt = Arc<dyn Fn() -> String + Send + Sync>;

/// Keeps a network grant for good: the plugin, and the grant as it stands in a grants file. An error is
/// told to the person.
pub type KeepGrant = Arc<dyn Fn(&runtime::Plugin, &str) -> Result<(), String> + Send + Sync>;

/// All that a session is made of.
pub struct SessionConfig {
    pub id: SessionId,
    pub start: Start,
    pub store: SessionStore,
    pub audit: AuditLog,
    /// The program's state folder: what sessions share.
    pub state: PathBuf,
    pub workplace: Workplace,
    pub runtime: PluginRuntime,
    pub providers: Providers,
    /// The model to use; a continued session takes its own if this is none.
    pub model: Option<String>,
    pub default_model: String,
    pub system_prompt: SystemPrompt,
    /// Asks for the user's own namespace on the Hub.
    pub namespace: AskNamespace,
    pub keep_grant: KeepGrant,
    /// What is offered to the model.
    pub tools: Vec<ToolSpec>,
    /// What is neither shown nor kept.
    pub secrets: Redactor,
    pub settings: AgentSettings,
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
    pub task: JoinHandle<()>,
}

/// What was restored of an earlier session.
#[derive(Clone, Debug)]
pub struct Resumed {
    pub items: usize,
    pub dropped: usize,
    /// Calls that were running when the program ended.
    pub unknown_outcomes: Vec<String>,
    /// Orders of which nobody knows what they cost.
    pub unpriced_orders: usize,
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
    /// The effort that the model takes: the one of the settings, or less.
    pub(crate) effort: Option<Effort>,
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
    /// What a person allowed for the session.
    pub(crate) allowed: HashSet<(String, String)>,
    /// The part of it that is kept for good: it holds in a new conversation too.
    pub(crate) granted: HashSet<(String, String)>,
    pub(crate) keep_grant: KeepGrant,
    /// Where text came from that it has read and nobody vouches for.
    pub(crate) taint: Option<String>,
    pub(crate) budget: Budget,
    /// What is the user's own on the Hub.
    pub(crate) namespace: Namespace,
    /// Orders of which nobody knows whether they arrived.
    pub(crate) unknown_orders: Vec<Unknown>,
    /// A person typed its one call, and none of the flags of a session.
    pub(crate) by_hand: bool,
    /// Calls that run and were no orders when they began, and what they have become.
    pub(crate) no_orders_yet: HashMap<ToolCallId, Option<Order>>,
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
    let (session, opening, handle) = build(config)?;
    Ok(handle(tokio::spawn(session.run(opening))))
}

/// The model of a session for one call by hand.
pub const NO_MODEL: &str = "ollama/none";

/// The model that was used last. Where the policy leaves nobody the choice, an earlier choice does not count either.
fn chosen(saved: &Saved, policy: &Policy) -> Option<String> {
    let may_choose = policy.flag("--model", "the session's model").is_ok();
    Some(saved.model.clone()).filter(|model| may_choose && model != NO_MODEL)
}

/// The model that a session goes on with, if none is named. What is wrong with a session is told by its start.
#[must_use]
pub fn saved_model(store: &SessionStore, start: &Start, policy: &Policy) -> Option<String> {
    let (Start::Continue(from) | Start::Fork(from)) = start else { return None };
    chosen(&store.read(from, None).ok()?, policy)
}

/// A session, what it says first, and what is known of it outside once its task runs.
type Built = (Session, Opening, Box<dyn FnOnce(JoinHandle<()>) -> Handle>);

/// Makes a session that does not run yet, and what is known of it outside once it does.
pub(crate) fn build(config: SessionConfig) -> Result<Built, StartError> {
    let SessionConfig {
        id,
        start,
        store,
        audit,
        state,
        workplace,
        runtime,
        providers,
        model,
        default_model,
        system_prompt,
        namespace,
        keep_grant,
        tools,
        secrets,
        settings,
    } = config;
    // What was ordered, and not forgotten: also by the session that this one goes on from.
    let mut held = None;
    if let Start::Continue(from) = &start {
        held = Some(store.hold(from)?);
        // What a power loss left at the end of its records is put aside before they are read.
        audit.session(from).map_err(StoreError::from)?;
    }
    let records = match &start {
        Start::New | Start::Call => Vec::new(),
        Start::Continue(from) | Start::Fork(from) => {
            audit.records(from.as_str()).map_err(StartError::Records)?
        }
    };
    let sealed = Sealed::of(&records);
    let opened = match (&start, held) {
        (_, Some(mut file)) => {
            let saved = file.replay(sealed.as_ref())?;
            Some((Some(file), saved))
        }
        (Start::Fork(from), None) => Some((None, store.read(from, sealed.as_ref())?)),
        (_, None) => None,
    };
    let saved_model = opened.as_ref().and_then(|(_, saved)| chosen(saved, &settings.policy));
    let model = providers.resolve(&model.or(saved_model).unwrap_or(default_model))?;
    let limits = settings.budget;
    if !has_price(&model) {
        let id = model.id().to_owned();
        if let Some((_, place)) = settings.policy.max_usd() {
            return Err(StartError::NoPriceUnderPolicy { model: id, place });
        }
        if limits.total.is_some() {
            return Err(StartError::NoPrice(id));
        }
    }
    let id = if let Start::Continue(from) = &start { from.clone() } else { id };
    // A session whose records cannot be written does not begin, and leaves nothing behind.
    let chain = audit.session(&id).map_err(StoreError::from)?;
    audit.check_writable().map_err(StoreError::from)?;
    let (file, saved) = match opened {
        Some((Some(file), saved)) => (file, Some(saved)),
        other => (store.create(&id, workplace.workspace(), model.id())?, other.map(|(_, saved)| saved)),
    };
    let context = Arc::new(workplace.open(id.clone(), &store.dir(&id))?);
    if start != Start::Call {
        store.point(workplace.workspace(), &id)?;
    }
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
        effort: settings.effort,
        settings,
        journal: Journal::new(file, sender, secrets),
        items: Vec::new(),
        plan: Vec::new(),
        guard: Guard::default(),
        turns: 0,
        counted: None,
        window_checked: false,
        allowed: HashSet::new(),
        granted: HashSet::new(),
        keep_grant,
        taint: None,
        budget: Budget::new(&state, id.as_str(), limits),
        namespace: Namespace::new(namespace),
        unknown_orders: Vec::new(),
        by_hand: start == Start::Call,
        no_orders_yet: HashMap::new(),
        operations: receiver,
        queue: VecDeque::new(),
        interrupt: interrupt.clone(),
        ended: false,
    };
    let mut opening = Opening::of(&start, saved.as_ref(), &session);
    if let Start::Continue(_) = start {
        session.namespace.restore(&records);
    }
    let restored = saved.map(|saved| session.restore(saved, &records)).transpose()?;
    let (resumed, standing) = restored.unzip();
    opening.standing = standing.filter(|_| opening.fork.is_some());
    session.audit_start(if start == Start::Call { "none: `ml-intern tool`" } else { model.id() })?;
    let suggestions = providers.suggestions().iter().map(|s| (s.id.clone(), s.label.clone())).collect();
    let handle = Box::new(move |task| Handle {
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
    });
    Ok((session, opening, handle))
}

impl Session {
    /// Takes in what is saved of a session. Returns also what it stands at, for a fork's own file.
    fn restore(&mut self, saved: Saved, records: &[audit::Entry]) -> Result<(Resumed, Standing), StoreError> {
        let mut orders = earlier(records, &saved.unknown_outcomes);
        orders.usd += saved.orders_usd;
        let (taint, completions_usd) = (saved.taint.clone(), saved.completions_usd);
        let standing = Standing { taint, completions_usd, orders_usd: orders.usd };
        self.restore_orders(orders, completions_usd)?;
        self.taint.clone_from(&standing.taint);
        let resumed = Resumed {
            items: saved.items.len(),
            dropped: saved.dropped,
            unknown_outcomes: saved.unknown_outcomes.iter().map(ToString::to_string).collect(),
            unpriced_orders: self.budget.unpriced(),
        };
        if let Some(system) = self.earlier_system(&saved) {
            self.system = system.to_owned();
        }
        self.turns = saved.items.iter().filter(|i| matches!(i, Item::User { note: false, .. })).count();
        self.plan = saved.plan;
        self.items = saved.items;
        self.encode();
        Ok((resumed, standing))
    }

    /// Encodes the whole transcript anew: after a change of the model or of what came before.
    pub(crate) fn encode(&mut self) {
        self.prompt = self.model.prompt(&self.system, &self.tools);
        for item in &self.items {
            self.prompt.push(item);
        }
        self.counted = None;
    }

    async fn run(mut self, opening: Opening) {
        if let Err(error) = self.operate(opening).await {
            self.journal
                .show_unsaved(Event::Error { error: error.to_string(), kind: ErrorKind::Internal })
                .await;
        }
        self.context.wall().shutdown().await;
    }

    async fn operate(&mut self, opening: Opening) -> Result<(), StoreError> {
        self.open(opening).await?;
        while !self.ended {
            let Some(submission) = self.next_submission().await else {
                break;
            };
            self.operation(submission.operation).await?;
        }
        self.audit_end()?;
        let audit_head = self.chain.head().to_owned();
        let open_orders = self.unknown_orders.iter().map(|order| order.id.clone()).collect();
        self.journal.emit(Event::Shutdown { audit_head, open_orders }).await?;
        self.journal.sync().await
    }

    async fn next_submission(&mut self) -> Option<Submission> {
        match self.queue.pop_front() {
            Some(submission) => Some(submission),
            None => self.operations.recv().await,
        }
    }
}

/// Whether it is known what a model costs. One that runs here costs nothing.
pub(crate) fn has_price(model: &Model) -> bool {
    model.is_local() || model.cost_usd(&Usage::default()).is_some()
}
