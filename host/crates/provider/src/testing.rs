//! For the unit tests of this crate: models with every key set, and items of a transcript.

use egress::{Egress, EgressConfig};
use protocol::{Assistant, Item, Reasoning, ToolCall, ToolSpec};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::{CompletionOptions, Model, Prompt, ProviderSettings, Providers, Vendor};

pub(crate) const MODELS: &str = include_str!("../../../../configs/models.toml");

pub(crate) fn settings() -> ProviderSettings {
    let vendor = |key: &str| Vendor { base_url: None, key: Some(key.to_owned().into()) };
    ProviderSettings {
        hf_token: Some("hf_secret".to_owned().into()),
        anthropic: vendor("sk-ant-secret"),
        openai: vendor("sk-secret"),
        session_id: "session-1".to_owned(),
        ..ProviderSettings::default()
    }
}

pub(crate) fn model(id: &str) -> Model {
    let providers = Providers::new(settings(), MODELS, Egress::new(EgressConfig::default())).unwrap();
    providers.resolve(id).unwrap()
}

pub(crate) fn tool(name: &str) -> ToolSpec {
    let parameters =
        r#"{"type":"object","properties":{"count":{"type":"integer"},"text":{"type":"string"}}}"#;
    ToolSpec {
        name: name.to_owned(),
        description: format!("does {name}"),
        parameters: RawValue::from_string(parameters.to_owned()).unwrap(),
    }
}

pub(crate) fn user(text: &str) -> Item {
    Item::User { content: text.to_owned(), note: false }
}

pub(crate) fn call(id: &str) -> ToolCall {
    ToolCall { id: id.into(), name: "bash".to_owned(), arguments: r#"{"command":"ls"}"#.to_owned() }
}

pub(crate) fn calls(text: Option<&str>, ids: &[&str]) -> Assistant {
    let tool_calls = ids.iter().map(|id| call(id)).collect();
    Assistant { content: text.map(str::to_owned), tool_calls, ..Assistant::default() }
}

pub(crate) fn with_reasoning(mut assistant: Assistant, model: &Model, data: Value) -> Item {
    let wire = model.wire().as_str().to_owned();
    assistant.reasoning = Some(Reasoning { wire, model: model.id().to_owned(), data });
    Item::Assistant(assistant)
}

pub(crate) fn result(id: &str, text: &str, success: bool) -> Item {
    Item::Tool { tool_call_id: id.into(), tool: "bash".to_owned(), content: text.to_owned(), success }
}

pub(crate) fn bytes(model: &Model, prompt: &Prompt, options: &CompletionOptions) -> Vec<u8> {
    prompt.body(&model.target, options).concat()
}

pub(crate) fn body(model: &Model, prompt: &Prompt, options: &CompletionOptions) -> Value {
    serde_json::from_slice(&bytes(model, prompt, options)).unwrap()
}
