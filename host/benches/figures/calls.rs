//! Figures of single calls, in this process.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use agent::{AgentSettings, BudgetLimits, Effect, Rule, Rules, SessionConfig, SessionStore, Start};
use audit::AuditLog;
use egress::{Egress, EgressConfig};
use policy::Policy;
use protocol::{Invocation, SessionId, ToolResult};
use provider::{ProviderSettings, Providers};
use runtime::{
    Compiler, Grants, Limits, PluginDirs, PluginRuntime, RuntimeConfig, SessionContext, Workplace,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;
use wall::{Mode, Network, SupervisorCommand, WallConfig};

use crate::{Figure, ms, us};

/// Calls that are timed, after as many that are not.
const CALLS: usize = 400;

/// Commands that are timed.
const COMMANDS: usize = 100;

/// Opens that are timed.
const OPENS: usize = 20;

const GRANTS: &str = "[probe]\npaths = [\"workspace\", \"tmp\"]\n[workspace]\nfiles = true\nkv = true\npaths = [\"workspace\", \"tmp\"]\n[shell]\nexec = true\npaths = [\"tmp\"]\n";

/// Part of the strict example, as far as it is asked for each call.
const POLICY: &str = "version = 1\n[tiers]\ndeny = [\"destructive\"]\n[flags]\nforbid = [\"--grant\"]\n";

pub(crate) fn figures() -> Vec<Figure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // On a task, as the agent's turns are.
    runtime.block_on(async { tokio::spawn(measure()).await.unwrap() })
}

async fn measure() -> Vec<Figure> {
    let root = tempfile::tempdir_in("/var/tmp").unwrap();
    let base = root.path().canonicalize().unwrap();
    for name in ["work", "plugins", "session"] {
        std::fs::create_dir(base.join(name)).unwrap();
    }
    std::fs::write(base.join("work/a.txt"), "one\ntwo\nthree\n").unwrap();
    std::fs::copy(guests::component("probe"), base.join("plugins/probe.wasm")).unwrap();
    let session = Arc::new(workplace(&base).open(SessionId::from("bench"), &base.join("session")).unwrap());
    let plugins = load(&base, bundled::PLUGINS).await;
    let (trivial, trivial_hop) =
        repeat(&plugins, &session, "probe__probe", &json!({"trick": "echo", "with": "hi"}), CALLS).await;
    let (read, read_hop) = repeat(&plugins, &session, "read", &json!({"path": "a.txt"}), CALLS).await;
    let (_, bash) = repeat(&plugins, &session, "bash", &json!({"command": "true"}), COMMANDS).await;
    let plain = plain_commands();
    session.wall().shutdown().await;
    let beyond = bash.iter().map(|b| b / 1e3 - plain).collect();
    let (open, cached, bar) = opens(&base, &session).await;
    let decisions = decisions(&base, &plugins);
    vec![
        Figure::new("fresh-store call of a trivial tool", "µs", 100.0, trivial),
        Figure::new("`read` of a 3-line file, the call alone", "µs", 200.0, read),
        Figure::new("the trivial call with the way to its thread and back", "µs", f64::INFINITY, trivial_hop),
        Figure::new("the `read` with the way to its thread and back", "µs", f64::INFINITY, read_hop),
        Figure::new("`bash true` beyond the command itself", "ms", 5.0, beyond),
        Figure::new(
            "decision on one call: grants, policy, rules, mode, both audit records",
            "µs",
            150.0,
            decisions,
        ),
        Figure::new("compiled-cache hit, MAC included", "ms", bar, cached),
        Figure::new("first call of that plugin: digest, cache hit, link, call", "ms", f64::INFINITY, open),
    ]
}

/// Microseconds of decisions on a call with rules of every kind.
fn decisions(base: &Path, plugins: &PluginRuntime) -> Vec<f64> {
    let egress = Egress::new(EgressConfig::default());
    let mut rules = Rules::default();
    for (effect, text) in [
        (Effect::Allow, "bash(make *)"),
        (Effect::Ask, "bash(git push *)"),
        (Effect::Deny, "path(data/raw/**)"),
        (Effect::Deny, "tier(destructive)"),
    ] {
        rules.push(Rule::parse(effect, text, "bench", base).unwrap());
    }
    let config = SessionConfig {
        id: SessionId::from("decisions"),
        start: Start::New,
        store: SessionStore::new(base),
        audit: AuditLog::new(base),
        state: base.to_owned(),
        workplace: workplace(base),
        runtime: plugins.clone(),
        providers: Providers::new(ProviderSettings::default(), "", egress).unwrap(),
        model: Some("ollama/none".to_owned()),
        default_model: String::new(),
        keep_grant: Arc::new(|_, _| Err("nothing is kept".to_owned())),
        system_prompt: Arc::new(String::new),
        namespace: Arc::new(|| Box::pin(std::future::ready(Ok(None)))),
        tools: plugins.specs().to_vec(),
        secrets: redact::Redactor::default(),
        settings: AgentSettings {
            max_iterations: None,
            effort: None,
            stream: true,
            mode: agent::Mode::Default,
            interactive: true,
            walled: true,
            wall: "partial",
            network: "off",
            rules,
            budget: BudgetLimits { total: None, orders: Some(10.0), most: None },
            policy: Arc::new(Policy::parse(Path::new("bench"), POLICY).unwrap()),
            policy_mark: None,
        },
    };
    let call = ("write", r#"{"path": "src/a.txt", "content": "one"}"#);
    agent::decisions(config, call, 2 * CALLS).unwrap().into_iter().skip(CALLS).map(us).collect()
}

fn workplace(base: &Path) -> Workplace {
    let wall = WallConfig {
        supervisor: SupervisorCommand {
            program: env!("CARGO_BIN_EXE_ml-intern").into(),
            args: vec!["--supervisor".into()],
        },
        mode: Mode::Workspace,
        network: Network::Off,
        workspace: PathBuf::new(),
        read_dirs: Vec::new(),
        write_dirs: Vec::new(),
        home: base.join("home"),
        tmp: PathBuf::new(),
        caches: base.join("caches"),
        private_dirs: Vec::new(),
        user_env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        extra_env_names: Vec::new(),
        refused_env_names: Vec::new(),
        space: wall::Space::Own,
        limits: wall::CommandLimits::default(),
        sealed: runtime::is_sealed,
        loopback: None,
        required: None,
        commands: std::sync::Arc::default(),
        found: std::sync::Arc::default(),
    };
    let plugin_data = base.join("data");
    Workplace {
        workspace: Some(base.join("work")),
        read: Vec::new(),
        write: Vec::new(),
        umask: 0o022,
        denied: Vec::new(),
        plugin_data,
        untrusted: false,
        wall,
    }
}

async fn load(base: &Path, bundled: &'static [runtime::Bundled]) -> PluginRuntime {
    let config = RuntimeConfig {
        policy: Arc::default(),
        bundled,
        dirs: PluginDirs {
            trusted: Vec::new(),
            folders: vec![base.join("plugins")],
            named: Vec::new(),
            writable: Some(Vec::new()),
            index: base.join("lock.json"),
            cache: base.join("compiled"),
            key: base.join("key"),
            compiler: Compiler {
                command: SupervisorCommand {
                    program: env!("CARGO_BIN_EXE_ml-intern").into(),
                    args: vec!["--compiler".into()],
                },
                limits: Limits::default(),
            },
        },
        bundled_grants: Grants::parse(Path::new("bench"), GRANTS).unwrap(),
        secrets: runtime::Secrets::new(),
        user_grants: Grants::parse(Path::new("bench"), GRANTS).unwrap(),
        limits: Limits::default(),
        egress: Egress::new(EgressConfig { offline: true, ..EgressConfig::default() }),
    };
    let (plugins, problems) = PluginRuntime::load(config, &mut |_| {}).await;
    assert!(problems.is_empty(), "{problems:?}");
    plugins
}

async fn invoke(
    plugins: &PluginRuntime,
    session: &Arc<SessionContext>,
    tool: &str,
    arguments: &Value,
) -> ToolResult {
    let (needs, _pending) = mpsc::channel(1);
    let invocation = Invocation {
        id: "call".into(),
        tool: tool.to_owned(),
        arguments: arguments.clone(),
        order: None,
        taint: None,
        looks: false,
    };
    let result = plugins.invoke(session, invocation, needs, CancellationToken::new()).result().await;
    assert!(result.success, "{}", result.text);
    result
}

/// Microseconds of each call, once warm: the call itself, and with the way to its thread and back.
async fn repeat(
    plugins: &PluginRuntime,
    session: &Arc<SessionContext>,
    tool: &str,
    arguments: &Value,
    count: usize,
) -> (Vec<f64>, Vec<f64>) {
    let (mut own, mut all) = (Vec::with_capacity(count), Vec::with_capacity(count));
    for k in 0..2 * count {
        let start = Instant::now();
        let result = invoke(plugins, session, tool, arguments).await;
        if k >= count {
            all.push(us(start.elapsed()));
            own.push(us(result.took));
        }
    }
    (own, all)
}

/// Milliseconds of `sh -c true` without anything of ours, the median.
fn plain_commands() -> f64 {
    let one = || {
        let start = Instant::now();
        std::process::Command::new("sh").args(["-c", "true"]).output().unwrap();
        ms(start.elapsed())
    };
    Figure::new("", "ms", 0.0, (0..COMMANDS).map(|_| one()).collect()).median()
}

/// Milliseconds of the first call of a plugin whose code is in the cache, of the cache hit in it, and the
/// bar for its size.
async fn opens(base: &Path, session: &Arc<SessionContext>) -> (Vec<f64>, Vec<f64>, f64) {
    // The largest plugin there is, as if it were a stranger's.
    let workspace = std::fs::read(guests::component("workspace")).unwrap();
    std::fs::write(base.join("plugins/workspace.wasm"), workspace).unwrap();
    let hits = Hits::default();
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(hits.clone())).unwrap();
    let (mut all, mut cached) = (Vec::new(), Vec::new());
    for k in 0..=OPENS {
        let plugins = load(base, &[]).await;
        // The engine is started by the other plugin.
        invoke(&plugins, session, "probe__probe", &json!({"trick": "echo", "with": "hi"})).await;
        hits.take();
        let start = Instant::now();
        invoke(&plugins, session, "workspace__read", &json!({"path": "a.txt"})).await;
        if k > 0 {
            all.push(ms(start.elapsed()));
            cached.extend(hits.take().into_iter().map(|us| us as f64 / 1e3));
        }
    }
    let sizes =
        std::fs::read_dir(base.join("compiled")).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
    let megabytes = sizes.max().unwrap_or(0) as f64 / 1e6;
    (all, cached, 1.5f64.mul_add(megabytes, 1.0))
}

/// Collects what the runtime's diagnostics say of cache hits.
#[derive(Clone, Default)]
struct Hits(Arc<Mutex<Vec<u64>>>);

impl Hits {
    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Hits {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        event.record(&mut TookUs(self));
    }
}

struct TookUs<'a>(&'a Hits);

impl tracing::field::Visit for TookUs<'_> {
    fn record_u64(&mut self, field: &tracing::field::Field, value: u64) {
        if field.name() == "took_us" {
            self.0.0.lock().unwrap().push(value);
        }
    }

    fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
}
