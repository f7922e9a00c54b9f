use std::time::Duration;

use serde_json::{Value, json};

use crate::model::Model;
use crate::probe::{get, post};
use crate::target::{LocalServer, Route, Target};
use crate::usage::number;

/// How long a local server has for saying how it was started.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tokens that a session with tools is comfortable with; what remedies name.
const COMFORTABLE: u64 = 65_536;

/// Tokens that Ollama and LM Studio load a model with when nobody asked for more, on a machine without
/// much memory.
const DEFAULT: u64 = 4_096;

/// The window that a local server really serves a model with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServedWindow {
    /// Tokens.
    pub tokens: u64,
    /// What enlarges it: a command to type or a setting to change.
    pub remedy: String,
    /// The model is not loaded yet: this is what the server gives unless it was told otherwise.
    pub assumed: bool,
}

/// What a server says about a model.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    served: Option<u64>,
    /// What the model was made for.
    trained: Option<u64>,
    assumed: bool,
}

impl Model {
    /// Asks a local server which window it serves the model with. None: it is not local, does not answer
    /// within 2 s, or does not say.
    pub async fn served_window(&self) -> Option<ServedWindow> {
        let target = &self.target;
        let Route::Local(server) = target.route else {
            return None;
        };
        let known = tokio::time::timeout(PATIENCE, ask(target, server)).await.ok()?;
        let tokens = known.served.filter(|tokens| *tokens > 0)?;
        let remedy = remedy(server, &target.wire_name, tokens, known.trained);
        Some(ServedWindow { tokens, remedy, assumed: known.assumed })
    }
}

async fn ask(target: &Target, server: LocalServer) -> Known {
    match server {
        LocalServer::Ollama => ollama(target).await,
        LocalServer::LlamaCpp => {
            let props = get(target, "/props").await;
            let served =
                number(&props["default_generation_settings"]["n_ctx"]).or_else(|| number(&props["n_ctx"]));
            Known { served, ..Known::default() }
        }
        LocalServer::Vllm => {
            let models = get(target, "/v1/models").await;
            let entry = listed(&models["data"], &target.wire_name);
            Known { served: entry.and_then(|entry| number(&entry["max_model_len"])), ..Known::default() }
        }
        LocalServer::LmStudio => lm_studio(target).await,
    }
}

async fn ollama(target: &Target) -> Known {
    let name = with_tag(&target.wire_name);
    let running = get(target, "/api/ps").await;
    let is_it = |entry: &&Value| {
        ["model", "name"].iter().any(|key| entry[*key].as_str().map(with_tag).as_ref() == Some(&name))
    };
    let loaded = running["models"].as_array().into_iter().flatten().find(is_it);
    let served = loaded.and_then(|entry| number(&entry["context_length"]));
    let shown = post(target, "/api/show", &json!({"model": target.wire_name})).await;
    let trained = shown["model_info"]
        .as_object()
        .and_then(|info| info.iter().find(|(key, _)| key.ends_with(".context_length")))
        .and_then(|(_, value)| number(value));
    if served.is_some() {
        return Known { served, trained, assumed: false };
    }
    let asked_for = shown["parameters"].as_str().and_then(|parameters| {
        parameters.lines().find_map(|line| line.trim().strip_prefix("num_ctx")?.trim().parse().ok())
    });
    let default = trained.map(|trained| trained.min(DEFAULT));
    Known { served: asked_for.or(default), trained, assumed: asked_for.is_none() }
}

/// Ollama's names have a tag, `latest` if none is given.
fn with_tag(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

async fn lm_studio(target: &Target) -> Known {
    let models = get(target, "/api/v0/models").await;
    let Some(entry) = listed(&models["data"], &target.wire_name) else {
        return Known::default();
    };
    let trained = number(&entry["max_context_length"]);
    let loaded = number(&entry["loaded_context_length"]);
    Known {
        served: loaded.or(trained.map(|trained| trained.min(DEFAULT))),
        trained,
        assumed: loaded.is_none(),
    }
}

/// The entry of a list of models that has this name, or the only one there is.
fn listed<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let list = list.as_array()?;
    list.iter().find(|entry| entry["id"] == name).or_else(|| list.first().filter(|_| list.len() == 1))
}

fn remedy(server: LocalServer, name: &str, served: u64, trained: Option<u64>) -> String {
    let more = trained.unwrap_or(COMFORTABLE).min(COMFORTABLE);
    if more <= served {
        return match trained {
            Some(trained) if trained <= served => {
                format!("`{name}` was made for {trained} tokens: use a model with a larger window")
            }
            _ => larger(server, name, served * 2),
        };
    }
    larger(server, name, more)
}

fn larger(server: LocalServer, name: &str, tokens: u64) -> String {
    match server {
        LocalServer::Ollama => {
            format!("stop Ollama and start it with `OLLAMA_CONTEXT_LENGTH={tokens} ollama serve`")
        }
        LocalServer::Vllm => format!("restart it with `vllm serve {name} --max-model-len {tokens}`"),
        LocalServer::LmStudio => {
            format!("reload it with `lms unload {name} && lms load {name} --context-length {tokens}`")
        }
        LocalServer::LlamaCpp => format!(
            "restart it with `llama-server -c {tokens} -np 1 --jinja` and its model: the window is divided among the slots"
        ),
    }
}
