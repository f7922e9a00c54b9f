//! Settings: the bundled file, under the user's, under what a trusted project may set, under flags. Every key
//! of the Python original is known.

mod keys;
mod locate;
mod merge;
pub(crate) mod network;
mod project;
mod substitute;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::environment::Environment;
use crate::exit::Failure;
use crate::paths::{Paths, check_own, read_own, way};

pub(crate) use project::{add_project, names_in_use, refused_of_project};

const BUNDLED: &str = include_str!("../../configs/cli_agent_config.json");
const BUNDLED_NAME: &str = "configs/cli_agent_config.json (bundled)";

/// Keys that are understood and have no effect in this version, and why.
pub(crate) const WITHOUT_EFFECT: [(&str, &str); 10] = [
    ("auto_file_upload", "the tool it was for is gone"),
    ("auto_save_interval", "every event is saved at once"),
    ("confirm_cpu_jobs", "there are no jobs yet"),
    ("heartbeat_interval_s", "every event is saved at once"),
    ("mcpServers", "there are no MCP servers yet"),
    ("messaging", "there are no notifications yet"),
    ("personal_trace_repo_template", "nothing is uploaded"),
    ("save_sessions", "sessions are always saved locally and never uploaded"),
    ("session_dataset_repo", "nothing is uploaded"),
    ("share_traces", "nothing is uploaded"),
];

/// Why a key has no effect, if it has none.
pub(crate) fn without_effect(key: &str) -> Option<&'static str> {
    WITHOUT_EFFECT.into_iter().find_map(|(name, why)| (name == key).then_some(why))
}

/// The settings of a run, complete.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Settings {
    pub(crate) model_name: String,
    #[serde(default)]
    pub(crate) yolo_mode: bool,
    #[serde(default = "default_iterations")]
    pub(crate) max_iterations: i64,
    #[serde(default)]
    pub(crate) tool_runtime: ToolRuntime,
    #[serde(default = "default_effort")]
    pub(crate) reasoning_effort: Option<String>,
    /// Folders added to every session: `DIR` or `DIR:rw`.
    #[serde(default)]
    pub(crate) dirs: Vec<String>,
    /// Further environment names that commands get.
    #[serde(default)]
    pub(crate) command_env: Vec<String>,
    /// Providers beside the known ones.
    #[serde(default)]
    pub(crate) providers: BTreeMap<String, ProviderEntry>,
    /// Rules beside those of the command line.
    #[serde(default)]
    pub(crate) permissions: Permissions,
    /// USD that a run without a person may order elsewhere.
    #[serde(default = "default_headless_budget")]
    pub(crate) headless_budget_usd: f64,
    /// Origins that are really somewhere else.
    #[serde(default)]
    pub(crate) origins: BTreeMap<String, network::MirrorEntry>,
    /// Without it no variable of the environment makes a proxy.
    #[serde(default)]
    pub(crate) proxy: Option<network::ProxyEntry>,
    /// PEM file of certificate authorities that are trusted beside the machine's, for all requests.
    #[serde(default)]
    pub(crate) ca: Option<String>,
    /// PEM files of the client's certificate for the host's own requests, and of its key if that is another one.
    #[serde(default)]
    pub(crate) client_certificate: Option<String>,
    #[serde(default)]
    pub(crate) client_key: Option<String>,
    /// Lower limits for all commands of a session together.
    #[serde(default)]
    pub(crate) command_limits: wall::CommandLimits,
    /// Lower limits for plugins.
    #[serde(default)]
    pub(crate) limits: runtime::Limits,
}

/// Rules, as `--allow`, `--ask` and `--deny` take them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Permissions {
    #[serde(default)]
    pub(crate) allow: Vec<String>,
    #[serde(default)]
    pub(crate) ask: Vec<String>,
    #[serde(default)]
    pub(crate) deny: Vec<String>,
}

fn default_headless_budget() -> f64 {
    10.0
}

fn default_iterations() -> i64 {
    300
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of the field")]
fn default_effort() -> Option<String> {
    Some("high".to_owned())
}

/// Where the file and shell tools run.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ToolRuntime {
    #[default]
    Local,
    Sandbox,
}

/// A provider in the user's settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderEntry {
    pub(crate) wire: Wire,
    pub(crate) base_url: String,
    /// Name of the variable that holds its key.
    #[serde(default)]
    pub(crate) key_env: Option<String>,
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// PEM file of certificate authorities that are trusted there, beside the machine's.
    #[serde(default)]
    pub(crate) ca: Option<String>,
    /// PEM file of the client's certificate and its chain.
    #[serde(default)]
    pub(crate) client_certificate: Option<String>,
    /// PEM file of its private key, if that is another one.
    #[serde(default)]
    pub(crate) client_key: Option<String>,
    #[serde(default)]
    pub(crate) context_window: Option<u64>,
    /// What it costs; without it nobody knows, and `--max-budget-usd` refuses it.
    #[serde(default)]
    pub(crate) price: Option<TokenPrice>,
    /// Who pays, for banner and session line.
    #[serde(default)]
    pub(crate) payer: Option<String>,
}

/// USD per million tokens.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "Amounts")]
pub(crate) struct TokenPrice {
    pub(crate) input: f64,
    pub(crate) output: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Amounts {
    input: f64,
    output: f64,
}

impl TryFrom<Amounts> for TokenPrice {
    type Error = &'static str;

    fn try_from(Amounts { input, output }: Amounts) -> Result<Self, Self::Error> {
        let sound = |usd: f64| usd.is_finite() && usd >= 0.0;
        let said = "a price is a number of USD per million tokens that is not negative";
        (sound(input) && sound(output)).then_some(Self { input, output }).ok_or(said)
    }
}

/// The wire formats, as settings name them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Wire {
    Chat,
    Messages,
    Responses,
}

/// One file of settings.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) value: Value,
    /// Whether it is that of a project: then nothing is filled in, and the user's limits are a ceiling.
    project: bool,
    /// The user's file that it was read from.
    file: Option<PathBuf>,
}

/// Settings with the files they came from, the strongest last.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    /// After merging and substitution.
    pub(crate) value: Value,
    pub(crate) layers: Vec<Layer>,
}

/// Reads, merges, substitutes and checks the settings. Adds the `.env` of the settings folder.
pub(crate) fn load(
    paths: &Paths,
    environment: &mut Environment,
    given: Option<&Path>,
) -> Result<Loaded, Failure> {
    let layers = layers(paths, environment, given, None)?;
    complete(layers, environment)
}

/// The bundled file and the user's. Adds the `.env` of the settings folder.
pub(crate) fn layers(
    paths: &Paths,
    environment: &mut Environment,
    given: Option<&Path>,
    workspace: Option<&Path>,
) -> Result<Vec<Layer>, Failure> {
    let mut layers = vec![layer(BUNDLED_NAME.to_owned(), BUNDLED.to_owned())?];
    // Links are the person's own way to keep settings elsewhere.
    if let Ok(real) = paths.config.canonicalize() {
        check_own(&real).map_err(Failure::settings)?;
    }
    let user = user_file(paths, environment, given, workspace)?;
    // Never the one beside another settings file: that may lie in a folder which is not trusted.
    environment.add_dotenv(&paths.dotenv())?;
    if let Some(path) = &user {
        let text = read_own(path).map_err(Failure::settings)?;
        let read = layer(path.display().to_string(), text.unwrap_or_default())?;
        layers.push(Layer { file: user, ..read });
    }
    Ok(layers)
}

/// Merges, substitutes and checks.
pub(crate) fn complete(mut layers: Vec<Layer>, environment: &Environment) -> Result<Loaded, Failure> {
    let own = layers.pop_if(|layer| layer.project);
    keys::refuse(&layers)?;
    let mut value = layers.iter().fold(Value::Null, |below, layer| merge::merge(below, layer.value.clone()));
    substitute::substitute(&mut value, environment).map_err(|(path, reason)| {
        Failure::settings(anyhow::anyhow!("{}: {reason}", locate::describe(&layers, &path)))
    })?;
    let mut settings = checked(&value, &layers)?;
    if let Some(mut own) = own {
        project::put_above(&mut value, &mut own.value, &settings);
        layers.push(own);
        settings = checked(&value, &layers)?;
    }
    Ok(Loaded { settings, value, layers })
}

fn checked(value: &Value, layers: &[Layer]) -> Result<Settings, Failure> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let at = locate::describe(layers, &locate::path_of(&error));
        Failure::settings(anyhow::anyhow!("{at}: {}", error.inner()))
    })
}

/// The user's file: the one given, the one the environment names, or the one in the settings folder.
fn user_file(
    paths: &Paths,
    environment: &Environment,
    given: Option<&Path>,
    workspace: Option<&Path>,
) -> Result<Option<PathBuf>, Failure> {
    let missing = |by: &str, path: &Path| {
        Failure::settings(anyhow::anyhow!("{by} names {}, which does not exist", path.display()))
    };
    if let Some(path) = given {
        // A person who types a file of the folder means it; one that only leads there may not be meant.
        let leads_in = |workspace: &Path| {
            let folder = std::path::absolute(path).ok().and_then(|path| path.parent()?.canonicalize().ok());
            let is_inside = |step: &PathBuf| step.starts_with(workspace);
            !folder.is_some_and(|folder| is_inside(&folder)) && way(path).iter().any(is_inside)
        };
        if workspace.is_some_and(leads_in) {
            return Err(Failure::settings(anyhow::anyhow!(
                "--config {} is a link into the folder that is worked in; if you mean it, name the file there",
                path.display()
            )));
        }
        return if path.is_file() { Ok(Some(path.to_owned())) } else { Err(missing("--config", path)) };
    }
    if let Some(named) = environment.text("ML_INTERN_CLI_CONFIG") {
        let path = paths.expand(named);
        if let Some(workspace) = workspace
            && way(&path).iter().any(|step| step.starts_with(workspace))
        {
            // A person who means it types it; a variable may be the project's own doing.
            return Err(Failure::settings(anyhow::anyhow!(
                "ML_INTERN_CLI_CONFIG names {}, which lies in the folder that is worked in; if you mean it, say --config {}",
                path.display(),
                path.display()
            )));
        }
        return if path.is_file() { Ok(Some(path)) } else { Err(missing("ML_INTERN_CLI_CONFIG", &path)) };
    }
    Ok(Some(paths.settings()).filter(|path| path.is_file()))
}

pub(crate) fn layer(name: String, text: String) -> Result<Layer, Failure> {
    let value: Value = serde_json::from_str(&text).map_err(|e| {
        let reason = e.to_string();
        let reason = reason.rsplit_once(" at line").map_or(reason.as_str(), |(reason, _)| reason);
        Failure::settings(anyhow::anyhow!("{name}:{}:{}: not valid JSON: {reason}", e.line(), e.column()))
    })?;
    if !value.is_object() {
        return Err(Failure::settings(anyhow::anyhow!("{name}:1:1: the settings must be a JSON object")));
    }
    Ok(Layer { name, text, value, project: false, file: None })
}

impl Loaded {
    /// The user's own file, if one was read.
    pub(crate) fn user_file(&self) -> Option<&Path> {
        self.layers.iter().find_map(|layer| layer.file.as_deref())
    }

    /// The name of the file that a key's value came from.
    pub(crate) fn origin(&self, path: &[String]) -> &str {
        let from = self.layers.iter().rev().find(|layer| lookup(&layer.value, path).is_some());
        from.map_or("default", |layer| &layer.name)
    }

    /// The file besides the bundled one that says something for a key, which is written with dots.
    pub(crate) fn said(&self, key: &str) -> Option<&str> {
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let says = |layer: &&Layer| match lookup(&layer.value, &path) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(_) => true,
        };
        self.layers.iter().skip(1).find(says).map(|layer| layer.name.as_str())
    }

    /// Keys of the user's file that this program does not know.
    pub(crate) fn unknown_keys(&self) -> Vec<String> {
        const KNOWN: [&str; 17] = [
            "model_name",
            "yolo_mode",
            "max_iterations",
            "tool_runtime",
            "reasoning_effort",
            "dirs",
            "command_env",
            "command_limits",
            "providers",
            "permissions",
            "headless_budget_usd",
            "limits",
            "origins",
            "proxy",
            "ca",
            "client_certificate",
            "client_key",
        ];
        let known = |key: &str| KNOWN.contains(&key) || WITHOUT_EFFECT.iter().any(|(name, _)| *name == key);
        let top = self.value.as_object().into_iter().flatten();
        top.map(|(key, _)| key.clone()).filter(|key| !known(key)).collect()
    }

    /// Keys of the user's own file that have no effect, and why.
    pub(crate) fn keys_without_effect(&self) -> Vec<(&'static str, &'static str)> {
        let users = self.layers.get(1).and_then(|layer| layer.value.as_object());
        WITHOUT_EFFECT
            .into_iter()
            .filter(|(key, _)| users.is_some_and(|users| users.contains_key(*key)))
            .collect()
    }
}

pub(crate) fn lookup<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, key| match value {
        Value::Array(items) => items.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_user(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let mut all = vec![("HOME", home.as_str())];
        all.extend_from_slice(variables);
        let mut environment = Environment::of(&all);
        let paths = Paths::find(&environment).unwrap();
        std::fs::create_dir_all(&paths.config).unwrap();
        std::fs::write(paths.settings(), text).unwrap();
        load(&paths, &mut environment, None).map_err(|e| e.to_string().replace(&home, "~"))
    }

    #[test]
    fn the_bundled_file_alone_is_complete() {
        let loaded = load_user("{}", &[]).unwrap();
        assert_eq!(loaded.settings.model_name, "anthropic/claude-opus-4.8:fal-ai");
        assert_eq!((loaded.settings.max_iterations, loaded.settings.yolo_mode), (300, false));
        assert_eq!(loaded.settings.reasoning_effort.as_deref(), Some("high"));
        assert!(loaded.unknown_keys().is_empty());
    }

    #[test]
    fn the_users_file_wins_and_placeholders_are_filled() {
        let user = r#"{"model_name": "${M:-a/b}", "reasoning_effort": null, "mcpServers": {"x": {"url": "${U}"}}, "later": 1}"#;
        let loaded = load_user(user, &[("U", "http://u")]).unwrap();
        assert_eq!(
            (loaded.settings.model_name.as_str(), loaded.settings.reasoning_effort.clone()),
            ("a/b", None)
        );
        assert_eq!(loaded.value["mcpServers"]["x"]["url"], "http://u");
        assert!(loaded.value["mcpServers"]["hf-mcp-server"].is_object());
        assert_eq!(loaded.unknown_keys(), ["later"]);
        assert!(loaded.origin(&["model_name".to_owned()]).ends_with("cli_agent_config.json"));
        assert_eq!(loaded.origin(&["yolo_mode".to_owned()]), BUNDLED_NAME);
    }

    #[test]
    fn mistakes_are_told_with_file_line_and_column() {
        let error = |text: &str| load_user(text, &[]).unwrap_err();
        let file = "~/.config/ml-intern/cli_agent_config.json";
        assert_eq!(
            error("{\n  \"model_name\": \"a/b\",\n}"),
            format!("{file}:3:1: not valid JSON: trailing comma")
        );
        assert_eq!(error("[]"), format!("{file}:1:1: the settings must be a JSON object"));
        assert!(
            error("{\n  \"max_iterations\": \"many\"\n}")
                .starts_with(&format!("{file}:2:21: max_iterations: invalid type"))
        );
        assert!(
            error("{\"tool_runtime\": \"cloud\"}")
                .contains("unknown variant `cloud`, expected `local` or `sandbox`")
        );
        let missing = error("{\n \"dirs\": [\"a\",\n  \"${NOPE}/x\"]}");
        assert!(
            missing.starts_with(&format!("{file}:3:3: dirs.1: the variable NOPE is not set")),
            "{missing}"
        );
    }

    #[test]
    fn keys_in_the_clear_are_refused_and_not_repeated() {
        let key = "hf_AbCdEfGhIjKlMnOpQrSt1";
        let provider = |more: &str| {
            format!(
                "{{\"providers\": {{\"w\": {{\"wire\": \"chat\", \"base_url\": \"https://a.example\", {more}}}}}}}"
            )
        };
        for (text, remedy) in [
            (provider(&format!("\"key_env\": \"{key}\"")), "\"key_env\": \"WORK_KEY\""),
            (provider(&format!("\"headers\": {{\"authorization\": \"Bearer {key}\"}}")), "${WORK_KEY}"),
            (format!("{{\"command_env\": [\"A\", \"{key}\"]}}"), "${WORK_KEY}"),
        ] {
            let error = load_user(&text, &[]).unwrap_err();
            assert!(error.contains(remedy) && error.contains(".env") && !error.contains(key), "{error}");
        }
        assert!(
            load_user(&provider("\"headers\": {\"authorization\": \"Bearer ${K}\"}"), &[("K", key)]).is_ok()
        );
        assert!(load_user(&provider("\"key_env\": \"WORK_KEY\""), &[]).is_ok());
    }

    #[test]
    fn a_file_that_is_named_must_exist() {
        let mut environment =
            Environment::of(&[("HOME", "/nonexistent"), ("ML_INTERN_CLI_CONFIG", "~/no.json")]);
        let paths = Paths::find(&environment).unwrap();
        let error = load(&paths, &mut environment, None).unwrap_err().to_string();
        assert_eq!(error, "ML_INTERN_CLI_CONFIG names /nonexistent/no.json, which does not exist");
    }
}
