use std::collections::BTreeMap;

use super::*;
use crate::testing::{MODELS, settings};

fn resolve(settings: ProviderSettings, id: &str) -> Result<Model, ResolveError> {
    Providers::new(settings, MODELS, Egress::new(egress::EgressConfig::default())).unwrap().resolve(id)
}

fn at(url: &str) -> Vendor {
    Vendor { base_url: Some(url.to_owned()), key: None }
}

fn corp() -> CustomProvider {
    CustomProvider {
        price: None,
        wire: WireFormat::Responses,
        base_url: "https://llm.corp.test/api".to_owned(),
        key: Some("corp-key".to_owned().into()),
        key_variable: Some("CORP_KEY".to_owned()),
        headers: BTreeMap::from([("X-Team".to_owned(), "ml".to_owned())]),
        certificates: egress::CertificateFiles::default(),
        context_window: Some(32_000),
        payer: None,
    }
}

#[test]
fn ids_go_where_they_say() {
    let settings = ProviderSettings { custom: BTreeMap::from([("corp".to_owned(), corp())]), ..settings() };
    for (id, wire_name, url, payer) in [
        (
            "org/model",
            "org/model",
            "https://router.huggingface.co/v1/chat/completions",
            "your Hugging Face account",
        ),
        (
            "huggingface/openai/gpt-5.5:fal-ai",
            "openai/gpt-5.5:fal-ai",
            "https://router.huggingface.co/v1/chat/completions",
            "your Hugging Face account",
        ),
        (
            "openai/gpt-oss-120b",
            "openai/gpt-oss-120b",
            "https://router.huggingface.co/v1/chat/completions",
            "your Hugging Face account",
        ),
        (
            "anthropic/claude-opus-4.8",
            "claude-opus-4-8",
            "https://api.anthropic.com/v1/messages",
            "your Anthropic account",
        ),
        (
            "anthropic/claude-next",
            "claude-next",
            "https://api.anthropic.com/v1/messages",
            "your Anthropic account",
        ),
        ("openai/gpt-5.5", "gpt-5.5", "https://api.openai.com/v1/responses", "your OpenAI account"),
        ("ollama/qwen3:8b", "qwen3:8b", "http://localhost:11434/v1/chat/completions", "nobody (local)"),
        (
            "vllm/Qwen/Qwen3-8B",
            "Qwen/Qwen3-8B",
            "http://localhost:8000/v1/chat/completions",
            "nobody (local)",
        ),
        ("lm_studio/m", "m", "http://127.0.0.1:1234/v1/chat/completions", "nobody (local)"),
        ("llamacpp/m", "m", "http://localhost:8080/v1/chat/completions", "nobody (local)"),
        (
            "corp/gpt-5.5:fast",
            "gpt-5.5:fast",
            "https://llm.corp.test/api/v1/responses",
            "your account at https://llm.corp.test",
        ),
    ] {
        let model = resolve(settings.clone(), id).unwrap();
        assert_eq!(
            (model.wire_name(), model.target.url.as_str(), model.payer()),
            (wire_name, url, payer),
            "{id}"
        );
        assert_eq!(model.id(), id.trim_start_matches("huggingface/"));
    }
}

#[test]
fn what_is_no_id_is_refused() {
    for id in
        ["", "gpt-5", "org/", "/model", "org//model", "org/model:", "anthropic/", "huggingface/x", "org/a/:x"]
    {
        let error = resolve(settings(), id).unwrap_err();
        assert!(matches!(error, ResolveError::Malformed { .. }), "{id}: {error}");
    }
    for id in ["ollama/", "openai-compat/x", "huggingface/vllm/", "lm_studio/a b", "llamacpp/\t"] {
        let error = resolve(settings(), id).unwrap_err().to_string();
        assert!(error.contains("Unsupported local model id"), "{id}: {error}");
    }
    let error = resolve(settings(), "lmstudio/qwen").unwrap_err().to_string();
    assert!(error.contains("did you mean `lm_studio/`"), "{error}");
}

#[test]
fn a_missing_key_is_an_error_and_never_another_route() {
    let none = ProviderSettings::default;
    let custom = CustomProvider { key: None, ..corp() };
    let corp = ProviderSettings { custom: BTreeMap::from([("corp".to_owned(), custom)]), ..none() };
    for (settings, id, needs, says) in [
        (none(), "anthropic/claude-opus-4.8", "ANTHROPIC_API_KEY", "`anthropic/claude-opus-4.8:<provider>`"),
        (settings_without_keys(), "openai/gpt-5", "OPENAI_API_KEY", "billed to your Hugging Face account"),
        (none(), "org/model", "HF_TOKEN", "hf auth login"),
        (none(), "openai/gpt-oss-20b", "HF_TOKEN", "hf auth login"),
        (corp, "corp/m", "CORP_KEY", "`corp`"),
    ] {
        match resolve(settings, id).unwrap_err() {
            ResolveError::MissingKey { variable, what_else, .. } => {
                assert_eq!(variable, needs);
                assert!(what_else.contains(says), "{what_else}");
            }
            other => panic!("{id}: {other}"),
        }
    }
    assert!(resolve(none(), "ollama/m").is_ok());
}

/// A token for the router, and empty keys, which count as none.
fn settings_without_keys() -> ProviderSettings {
    let empty = Vendor { base_url: Some(" ".to_owned()), key: Some(String::new().into()) };
    ProviderSettings { anthropic: empty.clone(), openai: empty, ..settings() }
}

#[test]
fn base_urls_are_taken_in_their_order() {
    let shared = ProviderSettings { local_base_url: Some("http://box:9/".to_owned()), ..settings() };
    let own = ProviderSettings { vllm: at("http://gpu:7/v1/"), ..shared.clone() };
    let url = |settings, id: &str| resolve(settings, id).unwrap().target.url.to_string();
    assert_eq!(url(shared, "vllm/m"), "http://box:9/v1/chat/completions");
    assert_eq!(url(own.clone(), "vllm/m"), "http://gpu:7/v1/chat/completions");
    assert_eq!(url(own, "ollama/m"), "http://box:9/v1/chat/completions");
    let key = settings().anthropic.key;
    let gateway = Vendor { base_url: Some("https://gate.test/anthropic".to_owned()), key };
    let model =
        resolve(ProviderSettings { anthropic: gateway, ..settings() }, "anthropic/claude-opus-4-8").unwrap();
    assert_eq!(model.target.url.as_str(), "https://gate.test/anthropic/v1/messages");
    assert_eq!(model.payer(), "your account at https://gate.test");
    let bad = resolve(ProviderSettings { vllm: at("gpu:7"), ..settings() }, "vllm/m").unwrap_err();
    assert!(matches!(bad, ResolveError::BadBaseUrl { .. }), "{bad}");
}

#[test]
fn every_wire_gets_its_headers() {
    let settings = ProviderSettings {
        custom: BTreeMap::from([("corp".to_owned(), corp())]),
        local_api_key: Some("local-key".to_owned().into()),
        session_id: "é".repeat(300),
        ..settings()
    };
    let header = |id: &str, name: &str| {
        let model = resolve(settings.clone(), id).unwrap();
        let value = model.target.headers.get(name).cloned();
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    assert_eq!(header("a/b", "authorization").as_deref(), Some("Bearer hf_secret"));
    assert_eq!(header("a/b", "x-hf-session-id").unwrap().chars().count(), 256);
    assert_eq!(header("anthropic/claude-opus-4-8", "x-api-key").as_deref(), Some("sk-ant-secret"));
    assert_eq!(header("anthropic/claude-opus-4-8", "anthropic-version").as_deref(), Some("2023-06-01"));
    assert_eq!(header("anthropic/claude-opus-4-8", "authorization"), None);
    assert_eq!(header("openai/gpt-5", "authorization").as_deref(), Some("Bearer sk-secret"));
    assert_eq!(header("openai/gpt-5", "x-hf-session-id"), None);
    assert_eq!(header("vllm/m", "authorization").as_deref(), Some("Bearer local-key"));
    assert_eq!(header("corp/m", "authorization").as_deref(), Some("Bearer corp-key"));
    assert_eq!(header("corp/m", "x-team").as_deref(), Some("ml"));
    let keyless = ProviderSettings { local_api_key: None, ..settings.clone() };
    let local = resolve(keyless, "vllm/m").unwrap();
    assert_eq!(local.target.headers["authorization"], "Bearer sk-local-no-key-required");
}

#[test]
fn windows_and_prices_are_said_as_far_as_they_are_known() {
    let usage = protocol::Usage { prompt_tokens: 1_000_000, ..protocol::Usage::default() };
    let settings = ProviderSettings { custom: BTreeMap::from([("corp".to_owned(), corp())]), ..settings() };
    for (id, window, cost) in [
        ("anthropic/claude-opus-4.8", 1_000_000, Some(5.0)),
        ("anthropic/claude-opus-4.8:fal-ai", 1_000_000, None),
        ("openai/gpt-5.5:fal-ai", 922_000, None),
        ("org/unknown", 200_000, None),
        ("ollama/m", 200_000, Some(0.0)),
        ("corp/gpt-5.5", 32_000, None),
    ] {
        let model = resolve(settings.clone(), id).unwrap();
        assert_eq!((model.context_window(), model.cost_usd(&usage)), (window, cost), "{id}");
    }
    let model = resolve(settings, "ollama/m").unwrap().with_context_window(4_096);
    assert_eq!(model.context_window(), 4_096);
}

#[test]
fn names_that_mean_something_else_are_refused() {
    let custom = BTreeMap::from([("openai".to_owned(), corp())]);
    let settings = ProviderSettings { custom, ..settings() };
    let error = Providers::new(settings, MODELS, Egress::new(egress::EgressConfig::default())).unwrap_err();
    assert!(matches!(error, CatalogError::ReservedName(_)), "{error}");
}
