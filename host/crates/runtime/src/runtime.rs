use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use egress::Egress;
use manifest::ToolPolicy;
use policy::Policy;
use protocol::{HostReply, HostRequest, Invocation, ToolCallId, ToolResult, ToolSpec};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::cache::CodeCache;
use crate::call::{Clock, Task, run};
use crate::catalog::{Bundled, Catalog, Plugin, PluginDirs, Source};
use crate::compile::Compiler;
use crate::discover::{Found, discover};
use crate::engine::{Shared, Target};
use crate::error::Lasts;
use crate::faults::Faults;
use crate::limits::{MAX_CALLS, MAX_CALLS_OF_PLUGIN, MAX_LOST_CALLS};
use crate::named_file::{NamedFile, NamedFileError, read_named_files, unread_files};
use crate::open::{Opened, open};
use crate::sent::Sent;
use crate::sources::Sources;
use crate::state::Call;
use crate::stop::Stop;
use crate::{Described, Grants, Limits, PluginError, Secrets, SessionContext, arguments};

/// Seconds that a tool with a `timeout` argument has on top of it, to tell what happened.
const TIMEOUT_MARGIN_S: u32 = 60;

/// How long after its time a call may take to end by itself.
const GRACE: Duration = Duration::from_secs(2);

/// What a runtime is made from.
#[derive(Debug)]
pub struct RuntimeConfig {
    pub bundled: &'static [Bundled],
    pub dirs: PluginDirs,
    pub bundled_grants: Grants,
    pub user_grants: Grants,
    /// What the granted credentials are.
    pub secrets: Secrets,
    pub policy: Arc<Policy>,
    pub limits: Limits,
    pub egress: Egress,
}

/// A running call's need, on its way to the turn that made the call.
#[derive(Debug)]
pub struct Pending {
    pub call: ToolCallId,
    pub tool: String,
    pub request: HostRequest,
    pub reply: oneshot::Sender<HostReply>,
}

/// All plugins of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct PluginRuntime {
    inner: Arc<Inner>,
}

struct Inner {
    catalog: Catalog,
    shared: OnceLock<Shared>,
    starting: Mutex<()>,
    cache: CodeCache,
    compiler: Compiler,
    limits: Limits,
    named: Vec<PathBuf>,
    egress: Egress,
    slots: Arc<Semaphore>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PluginRuntime").field("catalog", &self.catalog).finish_non_exhaustive()
    }
}

impl PluginRuntime {
    /// Finds the plugins. Nothing of them is opened. `notice` is told what takes time; the problems are of
    /// plugins that were left out.
    pub async fn load(
        config: RuntimeConfig,
        notice: &mut (dyn FnMut(String) + Send),
    ) -> (Self, Vec<PluginError>) {
        let mut catalog = Catalog::default();
        let (found, mut problems) = discover(&config.dirs, &config.policy, notice).await;
        // What a bundled plugin may do is fixed; where its credentials come from is the user's to say.
        let bundled_grants = config.bundled_grants.with_choices_of(&config.user_grants);
        let (secrets, policy) = (&config.secrets, &*config.policy);
        for bundled in config.bundled {
            let added = bundled_description(bundled).and_then(|described| {
                catalog.add(Source::Bundled(bundled), described, true, &bundled_grants, secrets, policy)
            });
            problems.extend(added.err());
        }
        let of_this_run = config.user_grants.of_this_run();
        for Found { source, described, has_grants } in found {
            let grants = if has_grants { &config.user_grants } else { &of_this_run };
            let id = &described.manifest.id;
            if !has_grants && config.user_grants.had_table(id) {
                notice(format!(
                    "{source}: it is not the file that `{id}` was when it was let in, and has nothing of what that was \
                     granted; `ml-intern plugin install {source}` lets it have that (with --plugin-dir, if it is to stay there)"
                ));
            }
            let added = catalog.add(source, described, has_grants, grants, secrets, policy);
            problems.extend(added.err());
        }
        let inner = Inner {
            catalog,
            shared: OnceLock::new(),
            starting: Mutex::new(()),
            cache: CodeCache::new(config.dirs.cache, config.dirs.key),
            compiler: config.dirs.compiler,
            limits: config.limits,
            named: config.dirs.named,
            egress: config.egress,
            slots: Arc::new(Semaphore::new(MAX_CALLS)),
        };
        (Self { inner: Arc::new(inner) }, problems)
    }

    /// All tools, in the order they are offered.
    #[must_use]
    pub fn specs(&self) -> &[ToolSpec] {
        &self.inner.catalog.specs
    }

    /// All plugins.
    #[must_use]
    pub fn plugins(&self) -> &[Arc<Plugin>] {
        &self.inner.catalog.plugins
    }

    /// The plugin of a tool, under the name the model uses.
    #[must_use]
    pub fn plugin(&self, tool: &str) -> Option<&Plugin> {
        self.inner.catalog.tools.get(tool).map(|(plugin, _)| plugin.as_ref())
    }

    /// What the manifest says of a tool, under the name the model uses.
    #[must_use]
    pub fn policy(&self, tool: &str) -> Option<&ToolPolicy> {
        let (plugin, bare) = self.inner.catalog.tools.get(tool)?;
        plugin.policy(bare)
    }

    /// Whether a tool can start native commands.
    #[must_use]
    pub fn can_exec(&self, tool: &str) -> bool {
        self.plugin(tool).is_some_and(|plugin| plugin.granted().exec)
    }

    /// Whether a tool is a bundled one, whose structured answers the host knows.
    #[must_use]
    pub fn is_bundled(&self, tool: &str) -> bool {
        self.plugin(tool).is_some_and(|plugin| matches!(plugin.source, Source::Bundled(_)))
    }

    /// Puts the texts of files in the place of their paths, in the arguments that the tool says may name one.
    /// From here on the call is about these texts, whatever becomes of the files.
    ///
    /// # Errors
    /// When a file that is named is not to be read, or cannot be. Then the call is not to be made.
    pub fn read_named_files(
        &self,
        session: &SessionContext,
        tool: &str,
        arguments: &mut Value,
    ) -> Result<Vec<NamedFile>, NamedFileError> {
        let Some((plugin, bare)) = self.inner.catalog.tools.get(tool) else { return Ok(Vec::new()) };
        let Some(policy) = plugin.policy(bare) else { return Ok(Vec::new()) };
        read_named_files(session.folders(), policy, &plugin.granted().paths, arguments)
    }

    /// Texts of a call that name files which its plugin may not read, so that they stayed names.
    #[must_use]
    pub fn unread_files(&self, session: &SessionContext, tool: &str, arguments: &Value) -> Vec<String> {
        let Some((plugin, bare)) = self.inner.catalog.tools.get(tool) else { return Vec::new() };
        let Some(policy) = plugin.policy(bare) else { return Vec::new() };
        unread_files(session.folders(), policy, &plugin.granted().paths, arguments)
    }

    /// Starts a call, on a task and a thread of its own. Whatever the guest does, it ends with one result.
    /// Needs go to `needs`; cancelling ends the call wherever it is.
    #[must_use]
    pub fn invoke(
        &self,
        session: &Arc<SessionContext>,
        invocation: Invocation,
        needs: mpsc::Sender<Pending>,
        cancel: CancellationToken,
    ) -> RunningCall {
        let Some((plugin, tool)) = self.inner.catalog.tools.get(&invocation.tool).cloned() else {
            let result = ToolResult::failed(self.unknown_tool(&invocation.tool));
            let task = tokio::spawn(std::future::ready(result));
            let (clock, sent, read, places) = Default::default();
            return RunningCall {
                task,
                cancel,
                clock,
                sent,
                read,
                wall_time: Duration::MAX,
                places,
                blame: None,
            };
        };
        let limits = self.inner.limits_of(&plugin);
        let wall_time = wall_time(plugin.policy(&tool), &invocation.arguments, limits.wall_time_s);
        let (clock, session) = (Arc::new(Clock::default()), session.clone());
        let (sent, read) = (Arc::new(Sent::default()), Arc::new(Sources::default()));
        let places = Arc::new(Places::default());
        let blame = Some((session.faults.clone(), plugin.described.manifest.id.clone()));
        let asked = Asked {
            session,
            invocation,
            needs,
            cancel: cancel.clone(),
            clock: clock.clone(),
            sent: sent.clone(),
            places: places.clone(),
            read: read.clone(),
            wall_time,
        };
        let runtime = self.clone();
        let task = tokio::spawn(async move { runtime.inner.take_turn(&plugin, tool, asked).await });
        RunningCall { task, cancel, clock, sent, read, wall_time, places, blame }
    }

    fn unknown_tool(&self, tool: &str) -> String {
        let names: Vec<&str> = self.specs().iter().map(|spec| spec.name.as_str()).collect();
        format!("there is no tool `{tool}`; the tools are {}", names.join(", "))
    }
}

/// A call that was started.
#[derive(Debug)]
pub struct RunningCall {
    task: JoinHandle<ToolResult>,
    /// Whose fault it is if the host itself fails in this call, and where that is counted.
    blame: Option<(Arc<Faults>, String)>,
    cancel: CancellationToken,
    clock: Arc<Clock>,
    sent: Arc<Sent>,
    read: Arc<Sources>,
    wall_time: Duration,
    places: Arc<Places>,
}

/// The places of a call among those that run: of its plugin, and in all.
#[derive(Debug, Default)]
struct Places(Mutex<Option<[OwnedSemaphorePermit; 2]>>);

impl Places {
    fn hold(&self, held: Option<[OwnedSemaphorePermit; 2]>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = held;
    }
}

/// Calls whose threads hang.
static LOST: AtomicUsize = AtomicUsize::new(0);

impl RunningCall {
    /// A call that is given up runs no more as far as others wait for it, and is a fault of its plugin's.
    fn lose(&self) {
        if LOST.fetch_add(1, Ordering::SeqCst) < MAX_LOST_CALLS {
            self.places.hold(None);
        }
        if let Some((faults, plugin)) = &self.blame {
            faults.count(plugin, Instant::now());
        }
    }

    /// What came of it. A call whose thread hangs in the kernel, as one that opened a pipe does, is given up
    /// a moment after its time; the thread stays until the program ends.
    pub async fn result(mut self) -> ToolResult {
        let cancelled = async {
            self.cancel.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        let mut result = tokio::select! {
            biased;
            done = &mut self.task => done.unwrap_or_else(|error| {
                if let Some((faults, plugin)) = self.blame.as_ref().filter(|_| error.is_panic()) {
                    faults.count(plugin, Instant::now());
                }
                ToolResult::failed(format!("the host failed while it ran the call: {error}"))
            }),
            () = cancelled => {
                self.lose();
                given_up()
            }
            () = self.clock.run_out(self.wall_time.saturating_add(GRACE)) => {
                self.lose();
                ToolResult::failed(Stop::wall(self.wall_time).to_string())
            }
        };
        (result.unsettled, result.accepted) = (self.sent.is_open(), self.sent.was_accepted());
        // Also of a call that was given up: what it read may be in what it left.
        result.source = self.read.told();
        result
    }
}

/// What a call gets that the person stopped.
fn given_up() -> ToolResult {
    ToolResult { cancelled: true, ..ToolResult::failed(Stop::Cancelled.to_string()) }
}

/// What is asked of a plugin, and by whom.
struct Asked {
    session: Arc<SessionContext>,
    invocation: Invocation,
    needs: mpsc::Sender<Pending>,
    cancel: CancellationToken,
    clock: Arc<Clock>,
    sent: Arc<Sent>,
    places: Arc<Places>,
    read: Arc<Sources>,
    wall_time: Duration,
}

impl Inner {
    fn limits_of(&self, plugin: &Plugin) -> Limits {
        self.limits.lowered_by(plugin.granted.limits)
    }

    /// Waits until the plugin and the process have room for a call, and runs it.
    async fn take_turn(&self, plugin: &Plugin, tool: String, asked: Asked) -> ToolResult {
        // The plugin's first: calls that wait for a busy plugin take nothing from the others.
        let slots = async {
            let of_plugin = plugin.slots.clone().acquire_owned().await.ok()?;
            Some([of_plugin, self.slots.clone().acquire_owned().await.ok()?])
        };
        let slots = tokio::select! {
            biased;
            () = asked.cancel.cancelled() => return given_up(),
            slots = slots => slots,
            () = tokio::time::sleep(asked.wall_time) => {
                return ToolResult::failed(format!(
                    "the call did not begin: `{}` was busy with {MAX_CALLS_OF_PLUGIN} other calls for {} s",
                    plugin.described.manifest.id,
                    asked.wall_time.as_secs()
                ));
            }
        };
        let places = asked.places.clone();
        places.hold(slots);
        // From here on the thread may block: file operations of the guest are done on it.
        tokio::task::block_in_place(|| {
            asked.clock.start();
            let started = Instant::now();
            let result = tokio::runtime::Handle::current().block_on(self.call(plugin, tool, asked));
            places.hold(None);
            ToolResult { took: started.elapsed(), ..result }
        })
    }

    async fn call(&self, plugin: &Plugin, bare: String, asked: Asked) -> ToolResult {
        let Asked { session, invocation, needs, cancel, clock, sent, read, wall_time, .. } = asked;
        let Invocation { id, tool, mut arguments, order, taint, looks } = invocation;
        // Never a bundled one: the agent is not to lose its hands by what it asked of them.
        if !matches!(plugin.source, Source::Bundled(_))
            && let Some(suspended) = session.faults.suspended(&plugin.described.manifest.id)
        {
            return ToolResult::failed(suspended);
        }
        let (shared, opened) = match self.opened(plugin).await {
            Ok(opened) => opened,
            Err(error) => return ToolResult::failed(error.to_string()),
        };
        let Some(checked) = opened.tools.get(&bare) else {
            return ToolResult::failed(format!("`{tool}` is not described"));
        };
        arguments::drop_nulls(&mut arguments, &checked.schema);
        if let Some(refusal) = arguments::refusal(&checked.validator, &checked.schema, &arguments) {
            return ToolResult::failed(refusal);
        }
        let call = Call {
            id,
            tool,
            plugin: plugin.described.manifest.id.as_str().into(),
            owner: plugin.owner().into(),
            capabilities: plugin.capabilities_of(&bare, looks),
            network: plugin.granted.network.clone(),
            approved: Vec::new(),
            refused: BTreeMap::new(),
            refused_changes: BTreeMap::new(),
            listed: HashMap::new(),
            declared: plugin.granted.declared.clone(),
            credentials: plugin.granted.credentials.clone(),
            session,
            egress: self.egress.clone(),
            needs,
            cancel,
            clock,
            changes: Vec::new(),
            denial: None,
            read,
            order,
            looks,
            sent,
            log_messages: 0,
            http_requests: 0,
        };
        if let Some(source) = call.session.unvouched(&call.owner, &call.capabilities)
            && let Err(reason) = call.reads(source)
        {
            return ToolResult::failed(reason);
        }
        // What it is given may be of such text, too.
        if let Some(taint) = &taint
            && let Err(reason) = call.marks(taint)
        {
            return ToolResult::failed(reason);
        }
        let limits = self.limits_of(plugin);
        let task = Task { call, tool: bare, arguments: arguments.to_string(), limits, wall_time };
        let mut result = run(shared, &opened.pre, task).await;
        if let Some(line) = plugin.ungranted(&self.named).filter(|_| !result.success && !result.cancelled) {
            result.text = format!("{}\n{line}", result.text.trim_end());
        }
        result
    }

    fn shared(&self) -> Result<&Shared, PluginError> {
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let _one_at_a_time = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = self.shared.get() {
            return Ok(shared);
        }
        let shared = Shared::new(Target::Host)?;
        Ok(self.shared.get_or_init(|| shared))
    }

    async fn opened(&self, plugin: &Plugin) -> Result<(&Shared, Arc<Opened>), PluginError> {
        let shared = self.shared()?;
        let known = || plugin.opened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(opened) = known() {
            return Ok((shared, opened));
        }
        let opened = Arc::new(open(shared, plugin, &self.cache, &self.compiler).await?);
        *plugin.opened.lock().unwrap_or_else(PoisonError::into_inner) = Some(opened.clone());
        Ok((shared, opened))
    }
}

fn bundled_description(bundled: &'static Bundled) -> Result<Described, PluginError> {
    serde_json::from_str(bundled.described).map_err(|e| PluginError::Description {
        what: format!("(bundled) {}", bundled.id),
        reason: e.to_string(),
        lasts: Lasts::Unknown,
    })
}

/// The tool's own wall time, or its `timeout` argument and a margin.
fn wall_time(policy: Option<&ToolPolicy>, arguments: &Value, limit_s: u32) -> Duration {
    let declared = policy.map_or(manifest::DEFAULT_WALL_TIME_S, |p| p.wall_time_s);
    let asked = policy
        .and_then(|p| p.timeout_argument.as_deref())
        .and_then(|name| arguments.get(name))
        // As the tool will see it: `300.0` is 300, and what is not above 0 was not given.
        .and_then(Value::as_f64)
        .filter(|seconds| *seconds >= 1.0)
        .map(|seconds| seconds.min(f64::from(u32::MAX)) as u32);
    let seconds = match (asked, policy.is_some_and(|p| p.timeout_argument.is_some())) {
        (Some(asked), _) => asked.saturating_add(TIMEOUT_MARGIN_S),
        (None, true) => declared.saturating_add(TIMEOUT_MARGIN_S),
        (None, false) => declared,
    };
    Duration::from_secs(seconds.min(limit_s).into())
}

#[cfg(test)]
mod tests;
