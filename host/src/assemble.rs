//! Builds a session from the command line, the settings and the environment: the only place that knows
//! all the parts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::{AgentSettings, Mode, SessionConfig, SessionStore, Start};
use audit::AuditLog;
use egress::{CertificateFiles, Egress, EgressConfig, Ledger};
use protocol::{SessionId, ToolSpec};
use provider::{CustomProvider, Effort, ProviderSettings, Providers, SecretString, Vendor, WireFormat};
use runtime::{Compiler, Grants, PluginDirs, PluginError, PluginRuntime, RuntimeConfig, Workplace};
use wall::{Grade, Network, SupervisorCommand, WallConfig};

use crate::cli::{ModeArg, NetworkArg, PlaceArgs, SandboxArg, SessionArgs, WallArg};
use crate::environment::{Environment, clean};
use crate::exit::{Exit, Failure};
use crate::paths::Paths;
use crate::settings::{self, Loaded, Settings, ToolRuntime, Wire};
use crate::system_prompt::{self, Facts};
use crate::trust::Project;
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
}

impl Setup {
    /// Finds the folders and reads the settings. Nothing of the working folder: [`Setup::in_place`] does.
    pub(crate) fn read(mut environment: Environment, config: Option<&Path>) -> Result<Self, Failure> {
        let paths = Paths::find(&environment)?;
        let loaded = settings::load(&paths, &mut environment, config)?;
        Ok(Self { environment, paths, loaded, project: Project::default() })
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.loaded.settings
    }

    fn limits(&self) -> runtime::Limits {
        runtime::Limits::default().lowered_by(self.settings().limits)
    }

    pub(crate) fn store(&self) -> SessionStore {
        SessionStore::new(&self.paths.state)
    }

    pub(crate) fn audit(&self) -> AuditLog {
        AuditLog::new(&self.paths.state)
    }

    /// The way out of a run.
    pub(crate) fn egress(&self, offline: bool, run: &str) -> Egress {
        Egress::new(EgressConfig { offline, ledger: Some(Ledger::new(&self.paths.state, run)) })
    }

    pub(crate) fn plugin_dirs(&self, named: &[PathBuf]) -> PluginDirs {
        PluginDirs {
            folders: self.paths.plugin_folders(),
            named: named.to_vec(),
            trusted: self.project.plugins.clone(),
            index: self.paths.data.join("plugins.lock.json"),
            cache: self.paths.cache.join("compiled"),
            key: self.paths.state.join("compiled.key"),
            compiler: Compiler { command: this_program(COMPILER), limits: self.limits() },
        }
    }

    /// Finds the plugins; opens none.
    pub(crate) async fn plugins(
        &self,
        place: &PlaceArgs,
        egress: Egress,
        notice: &mut (dyn FnMut(String) + Send),
    ) -> Result<(PluginRuntime, Vec<PluginError>), Failure> {
        let user = self.paths.grants();
        let user_grants = match std::fs::read_to_string(&user) {
            Ok(text) => Grants::parse(&user, &text).map_err(Failure::settings)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Grants::default(),
            Err(error) => return Err(Failure::settings(anyhow::anyhow!("{}: {error}", user.display()))),
        };
        let config = RuntimeConfig {
            bundled: bundled::PLUGINS,
            dirs: self.plugin_dirs(&place.plugin_dir),
            bundled_grants: Grants::parse(Path::new("configs/grants.toml"), BUNDLED_GRANTS)
                .map_err(Failure::settings)?,
            user_grants,
            limits: self.limits(),
            egress,
        };
        Ok(PluginRuntime::load(config, notice).await)
    }

    /// The folders and the wall of a session.
    pub(crate) fn workplace(&self, args: &PlaceArgs) -> Result<(Workplace, Option<String>), Failure> {
        let mut dirs = self.settings().dirs.clone();
        dirs.extend(args.add_dir.iter().cloned());
        let Place { workspace, notice, read, write } =
            workspace::find(args.directory.as_deref(), &dirs, &self.paths)?;
        let (mode, network) = enclosure(args)?;
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
            namespaces: true,
        };
        let plugin_data = self.paths.data.join("plugin-data");
        Ok((Workplace { workspace, read, write, umask: wall::user_umask(), plugin_data, wall }, notice))
    }

    /// Where completions can come from.
    pub(crate) fn providers(&self, session: &SessionId, egress: Egress) -> Result<Providers, Failure> {
        let env = &self.environment;
        let vendor = |name: &str| Vendor {
            base_url: env.text(&format!("{name}_BASE_URL")).map(str::to_owned),
            key: env.secret(&format!("{name}_API_KEY")),
        };
        let file = |text: Option<&String>| text.map(|text| self.paths.expand(text));
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
                certificates: CertificateFiles {
                    ca: file(entry.ca.as_ref()),
                    client: file(entry.client_certificate.as_ref()),
                    client_key: file(entry.client_key.as_ref()),
                },
                context_window: entry.context_window,
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
        };
        Providers::new(settings, MODELS, egress).map_err(Failure::settings)
    }

    /// The Hugging Face token, in the order of the Hub's own clients.
    pub(crate) fn hf_token(&self) -> Option<SecretString> {
        let env = &self.environment;
        env.secret("HF_TOKEN").or_else(|| env.secret("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let file = env.text("HF_TOKEN_PATH").map(PathBuf::from).unwrap_or_else(|| {
                let home = env.text("HF_HOME").map(PathBuf::from);
                home.unwrap_or_else(|| self.paths.home.join(".cache/huggingface")).join("token")
            });
            clean(&std::fs::read_to_string(file).ok()?)
        })
    }

    /// The model that is used when none is named: the first that can work.
    pub(crate) fn default_model(&self) -> Result<String, Failure> {
        let named = self.loaded.layers.iter().skip(1).any(|layer| layer.value.get("model_name").is_some());
        let bundled = &self.settings().model_name;
        if named || self.hf_token().is_some() {
            return Ok(bundled.clone());
        }
        let vendors =
            [("ANTHROPIC_API_KEY", "anthropic/claude-opus-4-8"), ("OPENAI_API_KEY", "openai/gpt-5.5")];
        let with_key = vendors.iter().find(|(variable, _)| self.environment.secret(variable).is_some());
        with_key.map(|(_, model)| (*model).to_owned()).ok_or_else(no_model)
    }
}

fn no_model() -> Failure {
    Failure::new(
        Exit::Credentials,
        anyhow::anyhow!(
            "there is no model to work with yet. Three ways:\n  \
             1. a key: HF_TOKEN or `hf auth login` for any model of the Hugging Face router\n     \
                (https://huggingface.co/settings/tokens), ANTHROPIC_API_KEY, or OPENAI_API_KEY\n  \
             2. a local server: -m ollama/NAME, llamacpp/NAME, vllm/NAME or lm_studio/NAME\n  \
             3. neither: `ml-intern demo` shows the program at work with a scripted model"
        ),
    )
}

/// What encloses commands.
fn enclosure(args: &PlaceArgs) -> Result<(wall::Mode, Network), Failure> {
    let (wall, network) = match args.sandbox {
        Some(SandboxArg::ReadOnly) => (Some(WallArg::ReadOnly), None),
        Some(SandboxArg::WorkspaceWrite) => (Some(WallArg::Workspace), None),
        Some(SandboxArg::DangerFullAccess) => (Some(WallArg::Off), Some(NetworkArg::Open)),
        None => (args.wall, args.network),
    };
    let mode = match wall.unwrap_or(WallArg::Workspace) {
        WallArg::Workspace => wall::Mode::Workspace,
        WallArg::ReadOnly => wall::Mode::ReadOnly,
        WallArg::External => wall::Mode::External,
        WallArg::Off => wall::Mode::Off,
    };
    let network = match network {
        Some(NetworkArg::Open) if !args.offline => Network::Open,
        _ => Network::Off,
    };
    // Nothing is promised that nothing holds.
    if matches!(mode, wall::Mode::External | wall::Mode::Off) && args.network == Some(NetworkArg::Off) {
        return Err(Failure::usage(
            "--network off needs the wall: with --wall off or external this program keeps no command off the network",
        ));
    }
    if mode == wall::Mode::Off && args.offline {
        return Err(Failure::usage("--offline cannot hold with --wall off: commands could connect anywhere"));
    }
    Ok((mode, network))
}

/// A session that can be started, and what is to be said about it first.
pub(crate) struct Assembled {
    pub(crate) config: SessionConfig,
    pub(crate) notices: Vec<String>,
    pub(crate) enclosure: Enclosure,
}

/// What encloses the session's commands, for banner, status and result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enclosure {
    pub(crate) grade: Grade,
    pub(crate) mode: wall::Mode,
    pub(crate) network: Network,
}

impl Enclosure {
    pub(crate) fn of(workplace: &Workplace) -> Self {
        let WallConfig { mode, network, .. } = workplace.wall;
        Self { grade: wall::Wall::new(workplace.wall.clone()).grade(), mode, network }
    }

    /// The wall's grade, in one word.
    pub(crate) fn wall(&self) -> &'static str {
        match self.grade {
            Grade::Partial => "partial",
            Grade::External => "external",
            Grade::None => "none",
        }
    }

    pub(crate) fn network(&self) -> &'static str {
        match (self.grade, self.network) {
            // Without a wall of ours nothing keeps commands off the network.
            (Grade::Partial, Network::Off) => "off",
            (Grade::Partial, Network::Open) => "open",
            (Grade::External, _) => "external",
            (Grade::None, _) => "open",
        }
    }

    /// For people: the grade, and whether the workspace is only read.
    pub(crate) fn label(&self) -> String {
        let read_only = if self.mode == wall::Mode::ReadOnly { " (read-only)" } else { "" };
        format!("{}{read_only}", self.wall())
    }

    fn is_walled(&self) -> bool {
        self.grade != Grade::None || self.mode == wall::Mode::Off
    }
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
    let (workplace, place_notice) = setup.workplace(place)?;
    let store = setup.store();
    let start = start(&store, args, &workplace)?;
    let id = match &start {
        Start::Continue(id) => id.clone(),
        Start::New | Start::Fork(_) => SessionId::from(uuid::Uuid::new_v4().to_string()),
    };
    let egress = setup.egress(place.offline, id.as_str());
    let enclosure = Enclosure::of(&workplace);
    let providers = setup.providers(&id, egress.clone())?;
    let (runtime, problems) = setup.plugins(place, egress.clone(), notice).await?;
    let mut notices: Vec<String> = place_notice
        .into_iter()
        .chain(setup.project.notices.iter().cloned())
        .chain(problems.iter().map(|p| format!("plugin left out: {p}")))
        .collect();
    let mode = mode(setup, args, interactive);
    let (tools, left_out) = offered(&runtime, enclosure, mode, interactive, place.offline);
    notices.extend(left_out);
    let model = args.model.clone();
    let default_model = match (&model, &start) {
        (None, Start::New) => setup.default_model()?,
        _ => setup.settings().model_name.clone(),
    };
    let system_prompt = system_prompt(setup, args, &workplace, &tools, enclosure)?;
    prepare_tls(&providers, model.as_deref().unwrap_or(&default_model), &egress);
    let settings = AgentSettings {
        max_iterations: max_iterations(args.max_iterations.unwrap_or(setup.settings().max_iterations)),
        effort: effort(args.effort.as_deref().or(setup.settings().reasoning_effort.as_deref()))?,
        stream: !args.no_stream,
        mode,
        interactive: interactive && !args.deny_unanswered,
        walled: enclosure.is_walled(),
        wall: enclosure.wall(),
        network: enclosure.network(),
    };
    let config = SessionConfig {
        id,
        start,
        store,
        audit: setup.audit(),
        workplace,
        runtime,
        providers,
        model,
        default_model,
        system_prompt,
        tools,
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

fn mode(setup: &Setup, args: &SessionArgs, interactive: bool) -> Mode {
    match args.permission_mode {
        Some(ModeArg::Default) => Mode::Default,
        Some(ModeArg::Plan) => Mode::Plan,
        Some(ModeArg::Ask) => Mode::Ask,
        Some(ModeArg::Auto) => Mode::Auto,
        Some(ModeArg::Yolo) => Mode::Yolo,
        None if args.yolo || setup.settings().yolo_mode => Mode::Yolo,
        None if interactive => Mode::Default,
        None => Mode::Auto,
    }
}

/// The tools the model sees. Without a wall and without a person there is no shell.
pub(crate) fn offered(
    runtime: &PluginRuntime,
    enclosure: Enclosure,
    mode: Mode,
    interactive: bool,
    offline: bool,
) -> (Vec<ToolSpec>, Option<String>) {
    let unconfined = !enclosure.is_walled() && !interactive && mode != Mode::Yolo;
    let unprovable = offline && enclosure.grade != Grade::Partial;
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
