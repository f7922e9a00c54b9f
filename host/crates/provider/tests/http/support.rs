use std::collections::BTreeMap;

use egress::{CertificateFiles, Egress, EgressConfig};
use ml_intern_provider::{
    Completion, CompletionOptions, CompletionStream, CustomProvider, Delta, Model, ProviderError,
    ProviderSettings, Providers, Vendor, WireFormat,
};
use protocol::{Item, ToolSpec};
use serde_json::value::RawValue;
use testkit::ModelServer;

pub(crate) const MODELS: &str = include_str!("../../../../../configs/models.toml");

/// One model for each wire format, as its vendor or as a provider of the user's settings.
pub(crate) const WIRES: [&str; 3] = ["chat/scripted", "anthropic/claude-opus-4-8", "openai/gpt-5.5"];

/// Settings in which every route but the router's leads to `url`.
pub(crate) fn settings(url: &str) -> ProviderSettings {
    let custom = |wire| CustomProvider {
        price: None,
        wire,
        base_url: url.to_owned(),
        key: Some("custom-secret".to_owned().into()),
        key_variable: None,
        headers: BTreeMap::new(),
        certificates: CertificateFiles::default(),
        context_window: None,
        payer: None,
    };
    let vendor = || Vendor { base_url: Some(url.to_owned()), key: Some("vendor-secret".to_owned().into()) };
    ProviderSettings {
        anthropic: vendor(),
        openai: vendor(),
        local_base_url: Some(url.to_owned()),
        custom: BTreeMap::from([
            ("chat".to_owned(), custom(WireFormat::Chat)),
            ("messages".to_owned(), custom(WireFormat::Messages)),
            ("responses".to_owned(), custom(WireFormat::Responses)),
        ]),
        session_id: "session-1".to_owned(),
        ..ProviderSettings::default()
    }
}

pub(crate) fn model_at(url: &str, id: &str) -> Model {
    Providers::new(settings(url), MODELS, Egress::new(EgressConfig::default())).unwrap().resolve(id).unwrap()
}

pub(crate) fn model(server: &ModelServer, id: &str) -> Model {
    model_at(&server.url(), id)
}

pub(crate) fn tool(name: &str) -> ToolSpec {
    let parameters =
        r#"{"type": "object", "properties": {"command": {"type": "string"}, "count": {"type": "integer"}}}"#;
    ToolSpec {
        name: name.to_owned(),
        description: format!("does {name}"),
        parameters: RawValue::from_string(parameters.to_owned()).unwrap(),
    }
}

pub(crate) fn user(text: &str) -> Item {
    Item::User { content: text.to_owned(), note: false }
}

pub(crate) fn result(id: &str, text: &str) -> Item {
    Item::Tool { tool_call_id: id.into(), tool: "bash".to_owned(), content: text.to_owned(), success: true }
}

pub(crate) fn streaming() -> CompletionOptions {
    CompletionOptions::default()
}

pub(crate) fn plain() -> CompletionOptions {
    CompletionOptions { stream: false, ..CompletionOptions::default() }
}

/// Everything that came of a completion.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) text: String,
    pub(crate) reasoning: String,
    pub(crate) deltas: usize,
    pub(crate) completion: Completion,
}

/// Asks once, with a question and a tool, and reads the answer to its end.
pub(crate) async fn ask(model: &Model, options: &CompletionOptions) -> Result<Seen, ProviderError> {
    let mut prompt = model.prompt("be brief", &[tool("bash")]);
    prompt.push(&user("hello"));
    drain(model.complete(&prompt, options).await?).await
}

pub(crate) async fn drain(mut stream: CompletionStream) -> Result<Seen, ProviderError> {
    let mut seen = Seen::default();
    while let Some(delta) = stream.next().await? {
        seen.deltas += 1;
        match delta {
            Delta::Text(text) => seen.text.push_str(&text),
            Delta::Reasoning(text) => seen.reasoning.push_str(&text),
        }
    }
    seen.completion = stream.finish();
    Ok(seen)
}

/// Runs a future to its end.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}
