//! Builds a session from the command line, the settings and the environment: the only place that knows
//! all the parts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use agent::{AgentSettings, Mode, SessionConfig, SessionStore, Start};
use audit::AuditLog;
use egress::{CertificateFiles, Egress};
use policy::Policy;
use protocol::{SessionId, ToolSpec};
use provider::{CustomProvider, Effort, ProviderSettings, Providers, SecretString, Vendor, WireFormat};
use runtime::{Compiler, Grants, PluginDirs, PluginError, PluginRuntime, RuntimeConfig, Workplace};
use wall::{SupervisorCommand, WallConfig};

use crate::cli::{PlaceArgs, SessionArgs};
use crate::command_network;
use crate::enclosure::{Enclosure, enclosure};
use crate::environment::Environment;
use crate::exit::Failure;
use crate::grants_file;
use crate::hub::ask_namespace;
use crate::managed;
use crate::paths::{Paths, read_own};
use crate::permissions::{budget, rules, rules_notices};
use crate::secrets::Held;
use crate::settings::{self, Loaded, ProviderEntry, Settings, TokenPrice, ToolRuntime, Wire};
use crate::system_prompt::{self, Facts};
use crate::trust::Project;
use crate::way_out::proxy_urls;
use crate::workspace::{self, Place};

/// The hidden argument that makes this binary the supervisor of a session's commands.
pub(crate) const SUPERVISOR: &str = "--supervisor";

/// The hidden argument that makes it the compiler of one plugin.
pub(crate) const COMPILER: &str = "--compiler";

const MODELS: &str = include_str!("../../configs/models.toml");
const BUNDLED_GRANTS: &str = include_str!("../../configs/grants.toml");

/// This program again, as something else.
fn this_program(argument: &str) -> SupervisorCommand {
    SupervisorCommand { program: "/proc/self/exe".into(), args: vec![argument.into()] }
}

/// What every command starts from.
pub(crate) struct Setup {
    pub(crate) environment: Environment,
    pub(crate) paths: Paths,
    pub(crate) loaded: Loaded,
    /// What a person trusted in the working folder.
    pub(crate) project: Project,
    /// What the machine's administrator allows.
    pub(crate) policy: Arc<Policy>,
    held: OnceLock<Held>,
}

impl Setup {
    /// Finds the folders and reads the settings. Nothing of the working folder: [`Setup::in_place`] does.
    pub(crate) fn read(mut environment: Environment, config: Option<&Path>) -> Result<Self, Failure> {
        let paths = Paths::find(&environment)?;
        let policy = Arc::new(managed::read()?);
        let loaded = settings::load(&paths, &mut environment, config)?;
        managed::check_said(&policy, &environment, &loaded)?;
        Ok(Self::of(environment, paths, loaded, policy, Project::default()))
    }

    pub(crate) fn of(
        environment: Environment,
        paths: Paths,
        loaded: Loaded,
        policy: Arc<Policy>,
        project: Project,
    ) -> Self {
        Self { environment, paths, loaded, project, policy, held: OnceLock::new() }
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.loaded.settings
    }

    /// Keys of the user's settings that mean nothing.
    pub(crate) fn unknown_settings(&self) -> impl Iterator<Item = String> {
        let unknown = self.loaded.unknown_keys().into_iter();
        unknown.map(|key| format!("settings: `{key}` is not known and ignored"))
    }

    fn limits(&self) -> runtime::Limits {
        runtime::Limits::default().lowered_by(self.settings().limits)
    }

    pub(crate) fn store(&self) -> SessionStore {
        SessionStore::new(&self.paths.state)
    }

    pub(crate) fn audit(&self) -> AuditLog {
        managed::audit_log(&self.policy, &self.paths.state)
    }

    pub(crate) fn plugin_dirs(&self, place: &PlaceArgs) -> PluginDirs {
        PluginDirs { writable: self.writable(place), ..self.known_dirs(place) }
    }

    /// The same, for whoever does not ask what a run can write to.
    pub(crate) fn known_dirs(&self, place: &PlaceArgs) -> PluginDirs {
        PluginDirs {
            folders: self.paths.plugin_folders(),
            named: place.plugin_dir.clone(),
            trusted: self.project.plugins.clone(),
            writable: None,
            index: self.paths.data.join("plugins.lock.json"),
            cache: self.paths.cache.join("compiled"),
            key: self.paths.state.join("compiled.key"),
            compiler: Compiler { command: this_program(COMPILER), limits: self.limits() },
        }
    }

    /// What the user granted. Nothing where the machine's policy forbids to grant.
    fn user_grants(&self) -> Result<Grants, Failure> {
        let path = self.paths.grants();
        match read_own(&path).map_err(Failure::settings)? {
            Some(text) if managed::may_grant(&self.policy).is_ok() => {
                Grants::parse(&path, &text).map_err(Failure::settings)
            }
            _ => Ok(Grants::default()),
        }
    }

    /// The secrets the host holds. Looked for once.
    pub(crate) fn held(&self) -> &Held {
        self.held.get_or_init(|| {
            // Grants that cannot be read give nothing; whoever loads the plugins says why.
            let grants = [bundled_grants().unwrap_or_default(), self.user_grants().unwrap_or_default()];
            let proxy = proxy_urls(&self.environment, self.settings());
            Held::find(&self.environment, &self.paths, &self.loaded, proxy.as_ref(), &grants.each_ref())
        })
    }

    /// Finds the plugins; opens none.
    pub(crate) async fn plugins(
        &self,
        place: &PlaceArgs,
        egress: Egress,
        notice: &mut (dyn FnMut(String) + Send),
    ) -> Result<(PluginRuntime, Vec<PluginError>), Failure> {
        let mut user_grants = self.user_grants()?;
        place.grant.iter().for_each(|id| user_grants.give_all(id));
        let config = RuntimeConfig {
            bundled: bundled::PLUGINS,
            dirs: self.plugin_dirs(place),
            bundled_grants: bundled_grants()?,
            user_grants,
            secrets: self.held().granted.clone(),
            policy: self.policy.clone(),
            limits: self.limits(),
            egress,
        };
        let (runtime, problems) = PluginRuntime::load(config, notice).await;
        let ids: Vec<&str> = runtime.plugins().iter().map(|p| p.described.manifest.id.as_str()).collect();
        if let Some(unknown) = place.grant.iter().find(|id| !ids.contains(&id.as_str())) {
            let there = ids.join(", ");
            return Err(Failure::usage(format!(
                "--grant {unknown}: there is no such plugin; there are {there}"
            )));
        }
        Ok((runtime, problems))
    }

    fn place(&self, args: &PlaceArgs) -> Result<Place, Failure> {
        let mut dirs = self.settings().dirs.clone();
        dirs.extend(args.add_dir.iter().cloned());
        workspace::find(args.directory.as_deref(), &dirs, self.loaded.user_file(), &self.paths)
    }

    /// Folders that a run in this place writes to; nobody knows where it has none, which is told by whoever needs
    /// one.
    fn writable(&self, args: &PlaceArgs) -> Option<Vec<PathBuf>> {
        let place = self.place(args).ok()?;
        Some(place.workspace.into_iter().chain(place.write).collect())
    }

    /// The folders and the wall of a session.
    pub(crate) fn workplace(&self, args: &PlaceArgs) -> Result<(Workplace, Option<String>), Failure> {
        let Place { workspace, notice, read, write } = self.place(args)?;
        let (mode, network) = enclosure(args, &self.policy)?;
        managed::check_enclosure(&self.policy, args, mode, network)?;
        let own = self.paths.of_workspace(workspace.as_deref().unwrap_or(Path::new("(none)")));
        let wall = WallConfig {
            supervisor: this_program(SUPERVISOR),
            mode,
            network,
            workspace: PathBuf::new(),
            read_dirs: Vec::new(),
            write_dirs: Vec::new(),
            home: own.join("home"),
            tmp: PathBuf::new(),
            caches: own.join("caches"),
            private_dirs: self.paths.private(),
            user_env: self.environment.user.clone(),
            extra_env_names: self.settings().command_env.clone(),
            refused_env_names: Vec::new(),
            space: wall::Space::Own,
            limits: wall::CommandLimits::default().lowered_by(self.settings().command_limits),
            sealed: runtime::is_sealed,
            loopback: None,
            required: managed::required_grade(&self.policy),
            commands: std::sync::Arc::default(),
            found: std::sync::Arc::default(),
        };
        let plugin_data = self.paths.plugin_data();
        Ok((
            Workplace {
                workspace,
                read,
                write,
                umask: wall::user_umask(),
                denied: Vec::new(),
                plugin_data,
                untrusted: self.project.untrusted,
                wall,
            },
            notice,
        ))
    }

    /// Where completions can come from.
    pub(crate) fn providers(&self, session: &SessionId, egress: Egress) -> Result<Providers, Failure> {
        let env = &self.environment;
        let vendor = |name: &str| Vendor {
            base_url: env.text(&format!("{name}_BASE_URL")).map(str::to_owned),
            key: env.secret(&format!("{name}_API_KEY")),
        };
        let custom = self.settings().providers.iter().map(|(name, entry)| {
            let provider = CustomProvider {
                wire: match entry.wire {
                    Wire::Chat => WireFormat::Chat,
                    Wire::Messages => WireFormat::Messages,
                    Wire::Responses => WireFormat::Responses,
                },
                base_url: entry.base_url.clone(),
                key: entry.key_env.as_deref().and_then(|variable| env.secret(variable)),
                key_variable: entry.key_env.clone(),
                headers: entry.headers.clone(),
                certificates: self.certificates_of(entry),
                context_window: entry.context_window,
                price: entry.price.map(|TokenPrice { input, output }| (input, output)),
                payer: entry.payer.clone(),
            };
            (name.clone(), provider)
        });
        let settings = ProviderSettings {
            hf_token: self.hf_token(),
            anthropic: vendor("ANTHROPIC"),
            openai: vendor("OPENAI"),
            local_base_url: env.text("LOCAL_LLM_BASE_URL").map(str::to_owned),
            local_api_key: env.secret("LOCAL_LLM_API_KEY"),
            ollama: vendor("OLLAMA"),
            vllm: vendor("VLLM"),
            lm_studio: vendor("LMSTUDIO"),
            llamacpp: vendor("LLAMACPP"),
            custom: custom.collect(),
            session_id: session.to_string(),
            policy: self.policy.clone(),
        };
        Providers::new(settings, MODELS, egress).map_err(Failure::settings)
    }

    /// A provider's own certificates; what it does not name is what counts for all. None if it names nothing.
    fn certificates_of(&self, entry: &ProviderEntry) -> CertificateFiles {
        let file = |text: &Option<String>| text.as_deref().map(|text| self.paths.expand(text));
        let own = CertificateFiles {
            ca: file(&entry.ca),
            client: file(&entry.client_certificate),
            client_key: file(&entry.client_key),
        };
        if own.is_empty() {
            return own;
        }
        let all = self.certificates();
        let ca = own.ca.or(all.ca);
        // A certificate and its key belong together.
        match own.client {
            Some(client) => CertificateFiles { ca, client: Some(client), client_key: own.client_key },
            None => {
                CertificateFiles { ca, client: all.client, client_key: own.client_key.or(all.client_key) }
            }
        }
    }

    /// The Hugging Face token.
    pub(crate) fn hf_token(&self) -> Option<SecretString> {
        self.held().hub.as_ref().map(|(token, _)| token.clone())
    }
}

fn bundled_grants() -> Result<Grants, Failure> {
    Grants::parse(Path::new("configs/grants.toml"), BUNDLED_GRANTS).map_err(Failure::settings)
}

/// A session that can be started, and what is to be said about it first.
pub(crate) struct Assembled {
    pub(crate) config: SessionConfig,
    pub(crate) notices: Vec<String>,
    pub(crate) enclosure: Enclosure,
}

/// Builds a session. `notice` is told what takes time.
pub(crate) async fn session(
    setup: &Setup,
    args: &SessionArgs,
    place: &PlaceArgs,
    interactive: bool,
    notice: &mut (dyn FnMut(String) + Send),
) -> Result<Assembled, Failure> {
    if setup.settings().tool_runtime == ToolRuntime::Sandbox {
        let message = "tool_runtime is `sandbox`, which this version does not have yet; set it to `local`";
        return Err(Failure::settings(anyhow::anyhow!("{message}")));
    }
    let (mut workplace, place_notice) = setup.workplace(place)?;
    let rules = rules(setup, args, workplace.workspace())?;
    workplace.denied = rules.denied_paths();
    let store = setup.store();
    let start = start(&store, args, &workplace)?;
    let id = match &start {
        Start::Continue(id) => id.clone(),
        Start::New | Start::Call | Start::Fork(_) => SessionId::from(uuid::Uuid::new_v4().to_string()),
    };
    let egress = setup.egress(place.offline, id.as_str(), rules.hosts())?;
    command_network::serve(setup, &egress, &rules, &mut workplace.wall)?;
    let enclosure = Enclosure::of(&workplace);
    managed::check_grade(&setup.policy, enclosure.grade())?;
    let providers = setup.providers(&id, egress.clone())?;
    let (runtime, problems) = setup.plugins(place, egress.clone(), notice).await?;
    let mut notices: Vec<String> = managed::notice(&setup.policy)
        .into_iter()
        .chain(place_notice)
        .chain(setup.hub_notice())
        .chain(setup.project.notices.iter().cloned())
        .chain(problems.iter().map(|p| format!("plugin left out: {p}")))
        .chain(setup.unknown_settings())
        .chain(rules_notices(&rules, &runtime)?)
        .collect();
    let mode = managed::mode(&setup.policy, args, setup.settings(), interactive)?;
    let offline = place.offline || setup.policy.is_offline();
    let (tools, left_out) = offered(&runtime, &enclosure, mode, interactive, offline);
    notices.extend(left_out);
    let model = args.model.clone();
    let default_model = match (&model, &start) {
        (None, Start::New) => setup.default_model()?,
        _ => setup.settings().model_name.clone(),
    };
    let system_prompt = system_prompt(setup, args, &workplace, &tools, enclosure.clone())?;
    let namespace = ask_namespace(setup, &egress, offline);
    let budget = budget(setup, args, interactive)?;
    let named = model.as_deref().unwrap_or(&default_model);
    if budget.total.is_some() || setup.policy.max_usd().is_some() {
        // What is counted has to have a price: that of the model which a session goes on with.
        let saved = if model.is_none() { agent::saved_model(&store, &start, &setup.policy) } else { None };
        providers.learn_price(saved.as_deref().unwrap_or(named)).await;
    }
    prepare_tls(&providers, named, &egress);
    let settings = AgentSettings {
        max_iterations: max_iterations(args.max_iterations.unwrap_or(setup.settings().max_iterations)),
        effort: effort(args.effort.as_deref().or(setup.settings().reasoning_effort.as_deref()))?,
        stream: !args.no_stream,
        mode,
        interactive: interactive && !args.deny_unanswered,
        walled: enclosure.is_walled(),
        wall: enclosure.wall(),
        network: enclosure.network(),
        rules,
        budget,
        policy: setup.policy.clone(),
        policy_mark: managed::mark(&setup.policy),
    };
    let config = SessionConfig {
        id,
        start,
        store,
        audit: setup.audit(),
        state: setup.paths.state.clone(),
        workplace,
        runtime,
        providers,
        model,
        default_model,
        system_prompt,
        namespace,
        keep_grant: grants_file::keeper(setup, place),
        tools,
        secrets: setup.held().redactor.clone(),
        settings,
    };
    Ok(Assembled { config, notices, enclosure })
}

/// Certificates are read while the rest is set up, if the model is reached over TLS.
fn prepare_tls(providers: &Providers, model: &str, egress: &Egress) {
    if providers.resolve(model).is_ok_and(|model| model.route().starts_with("https:")) {
        let egress = egress.clone();
        tokio::task::spawn_blocking(move || egress.prepare_tls());
    }
}

/// The tools the model sees. Without a wall and without a person there is no shell.
pub(crate) fn offered(
    runtime: &PluginRuntime,
    enclosure: &Enclosure,
    mode: Mode,
    interactive: bool,
    offline: bool,
) -> (Vec<ToolSpec>, Option<String>) {
    let unconfined = !enclosure.is_walled() && !interactive && mode != Mode::Yolo;
    let unprovable = offline && !enclosure.grade().is_walled();
    if !unconfined && !unprovable {
        return (runtime.specs().to_vec(), None);
    }
    let tools = runtime.specs().iter().filter(|spec| !runtime.can_exec(&spec.name)).cloned().collect();
    if unprovable {
        let notice = "commands are not offered to the model: --offline holds for them only behind this program's own wall";
        return (tools, Some(notice.to_owned()));
    }
    let notice = "commands are not offered to the model: this machine has no wall (Landlock of Linux 6.12); in a container or \
                  VM that confines them say --wall external, to run them unconfined --wall off";
    (tools, Some(notice.to_owned()))
}

fn start(store: &SessionStore, args: &SessionArgs, workplace: &Workplace) -> Result<Start, Failure> {
    let from = if args.r#continue {
        Some(store.latest(workplace.workspace()).map_err(Failure::usage)?)
    } else {
        args.resume.as_deref().map(|id| store.find(id)).transpose().map_err(Failure::usage)?
    };
    match from {
        Some(from) if args.fork => Ok(Start::Fork(from)),
        Some(from) => Ok(Start::Continue(from)),
        None if args.fork => Err(Failure::usage("--fork goes with --continue or --resume")),
        None => Ok(Start::New),
    }
}

fn system_prompt(
    setup: &Setup,
    args: &SessionArgs,
    workplace: &Workplace,
    tools: &[ToolSpec],
    enclosure: Enclosure,
) -> Result<agent::SystemPrompt, Failure> {
    let appended = match args.append_system_prompt.as_deref() {
        Some(text) => Some(match text.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| Failure::usage(format!("--append-system-prompt @{path}: {e}")))?,
            None => text.to_owned(),
        }),
        None => None,
    };
    let facts = Facts {
        tools: tools.iter().map(|tool| tool.name.clone()).collect(),
        workspace: workplace.workspace.clone(),
        added: workplace
            .read
            .iter()
            .map(|d| (d.clone(), false))
            .chain(workplace.write.iter().map(|d| (d.clone(), true)))
            .collect(),
        has_token: setup.hf_token().is_some(),
        has_gpu: ["/dev/nvidiactl", "/dev/kfd"].iter().any(|node| Path::new(node).exists()),
        enclosure,
        instructions: setup.project.instructions.clone(),
        appended,
    };
    Ok(Arc::new(move || system_prompt::render(&facts)))
}

fn max_iterations(given: i64) -> Option<u32> {
    u32::try_from(given).ok()
}

fn effort(given: Option<&str>) -> Result<Option<Effort>, Failure> {
    match given.map(str::to_lowercase).as_deref() {
        None | Some("off" | "none") => Ok(None),
        Some(level) => level.parse().map(Some).map_err(Failure::usage),
    }
}
