use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use super::{answered, in_answer};
use crate::server_error::ServerError;
use crate::testing::model;
use crate::{HfPlan, ProviderError, retry_wait};

fn kind(error: &ProviderError) -> &'static str {
    match error {
        ProviderError::Auth { .. } => "auth",
        ProviderError::Billing { .. } => "billing",
        ProviderError::RateLimited { .. } => "rate",
        ProviderError::Overloaded { .. } => "overloaded",
        ProviderError::ContextOverflow { .. } => "overflow",
        ProviderError::EffortRejected { .. } => "effort",
        ProviderError::ThinkingUnsupported { .. } => "thinking",
        ProviderError::BadThinkingSignature { .. } => "signature",
        ProviderError::ModelNotFound { .. } => "model",
        ProviderError::ProviderUnsupported { .. } => "provider",
        ProviderError::TooLarge { .. } => "large",
        ProviderError::Unfit { .. } => "unfit",
        ProviderError::Transient { .. } => "transient",
        ProviderError::Timeout { .. } => "timeout",
        ProviderError::Refused { .. } => "refused",
        ProviderError::Truncated { .. } | ProviderError::Protocol { .. } | ProviderError::Connect { .. } => {
            "other"
        }
    }
}

fn answer(id: &str, status: u16, body: &str) -> ProviderError {
    answered(&model(id).target, status, &HeaderMap::new(), &ServerError::read(body.as_bytes()))
}

#[test]
fn answers_with_an_error_are_told_apart() {
    for (status, body, expected) in [
        (401, r#"{"error":{"message":"Incorrect API key provided","code":"invalid_api_key"}}"#, "auth"),
        (403, r#"{"error":"This authentication method does not have sufficient permissions"}"#, "auth"),
        (400, r#"{"error":{"message":"API key not valid. Please pass a valid API key."}}"#, "auth"),
        (403, r#"{"error":{"message":"Your input was flagged by moderation"}}"#, "refused"),
        (403, "<html><title>Attention Required</title></html>", "refused"),
        (402, r#"{"error":"You have exceeded your monthly included credits"}"#, "billing"),
        (
            429,
            r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#,
            "billing",
        ),
        (
            400,
            r#"{"error":{"message":"Your credit balance is too low to access the Anthropic API"}}"#,
            "billing",
        ),
        (429, r#"{"error":{"message":"Rate limit reached for gpt-5 on tokens per min"}}"#, "rate"),
        (429, "", "rate"),
        (529, r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, "overloaded"),
        (503, "", "overloaded"),
        (400, r#"{"error":{"message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#, "overflow"),
        (400, r#"{"error":{"message":"too much","code":"context_length_exceeded"}}"#, "overflow"),
        (
            400,
            r#"{"error":{"code":400,"message":"the request exceeds the available context size, try increasing it","type":"exceed_context_size_error","n_ctx":4096}}"#,
            "overflow",
        ),
        (
            400,
            r#"{"object":"error","message":"This model's maximum context length is 4096 tokens.","code":400}"#,
            "overflow",
        ),
        (
            400,
            r#"{"error":"Trying to keep the first 4663 tokens when context the overflows. However, the model is loaded with context length of only 4096 tokens"}"#,
            "overflow",
        ),
        (
            400,
            r#"{"error":{"message":"input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000"}}"#,
            "overflow",
        ),
        (
            413,
            r#"{"error":{"type":"request_too_large","message":"Request exceeds the maximum size"}}"#,
            "large",
        ),
        (413, r#"{"error":{"message":"prompt is too long"}}"#, "overflow"),
        (
            400,
            r#"{"error":{"message":"Unsupported value: 'reasoning_effort' does not support 'xhigh'"}}"#,
            "effort",
        ),
        (
            400,
            r#"{"error":{"message":"output_config.effort: Input should be 'low', 'medium' or 'high'; invalid"}}"#,
            "effort",
        ),
        (400, r#"{"error":{"message":"adaptive thinking is not supported on this model"}}"#, "thinking"),
        (
            400,
            r#"{"error":{"message":"messages.1.content.0: Invalid `signature` in `thinking` block"}}"#,
            "signature",
        ),
        (
            404,
            r#"{"error":{"message":"The model `gpt-9` does not exist","code":"model_not_found"}}"#,
            "model",
        ),
        (404, r#"{"type":"error","error":{"type":"not_found_error","message":"model: claude-9"}}"#, "model"),
        (404, r#"{"error":"model \"x\" not found, try pulling it first"}"#, "model"),
        (
            400,
            r#"{"error":{"message":"The requested model 'a/b' is not supported by provider 'novita'."}}"#,
            "provider",
        ),
        (404, r#"{"detail":"Not Found"}"#, "refused"),
        (400, r#"{"error":"registry.ollama.ai/library/gemma:2b does not support tools"}"#, "unfit"),
        (
            500,
            r#"{"error":{"code":500,"message":"tools param requires --jinja flag","type":"server_error"}}"#,
            "unfit",
        ),
        (
            400,
            r#"{"message":"\"auto\" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set"}"#,
            "unfit",
        ),
        (500, r#"{"error":{"message":"Internal server error"}}"#, "transient"),
        (502, "<html><head><title>502 Bad Gateway</title></head></html>", "transient"),
        (524, "", "transient"),
        (408, "", "timeout"),
        (
            400,
            r#"{"error":{"message":"tools.0.name: String should match pattern; 500 characters"}}"#,
            "refused",
        ),
        (422, r#"{"detail":[{"msg":"field required"}]}"#, "refused"),
        (302, "", "refused"),
    ] {
        assert_eq!(kind(&answer("a/b", status, body)), expected, "{status} {body}");
    }
}

#[test]
fn errors_inside_of_answers_are_told_apart_by_their_words() {
    for (body, expected) in [
        (r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#, "overloaded"),
        (r#"{"error":{"type":"rate_limit_error","message":"slow down"}}"#, "rate"),
        (r#"{"error":{"code":429,"message":"busy"}}"#, "rate"),
        (r#"{"error":{"code":"server_error","message":"The server had an error"}}"#, "transient"),
        (r#"{"error":{"code":502,"message":"Upstream failed"}}"#, "transient"),
        (r#"{"error":{"type":"api_error","message":"Internal server error"}}"#, "transient"),
        (r#"{"error":{"message":"connection reset by peer"}}"#, "transient"),
        (r#"{"error":{"code":"context_length_exceeded","message":"too long"}}"#, "overflow"),
        (r#"{"error":{"type":"authentication_error","message":"invalid x-api-key"}}"#, "auth"),
        (r#"{"error":{"message":"Payment required"}}"#, "billing"),
        (r#"{"error":{"message":"something else"}}"#, "refused"),
    ] {
        let error = in_answer(&model("a/b").target, &ServerError::read(body.as_bytes()));
        assert_eq!(kind(&error), expected, "{body}");
    }
}

#[test]
fn keys_and_long_messages_do_not_get_out() {
    let body = format!("{{\"error\":\"the key hf_secret is wrong {}\"}}", "x".repeat(2000));
    let error = answer("a/b", 401, &body);
    let complaint = error.complaint();
    assert!(complaint.message.starts_with("the key [key] is wrong"), "{complaint}");
    assert_eq!(complaint.message.chars().count(), 600);
    for text in [error.to_string(), format!("{error:?}"), error.user_message(), format!("{:?}", model("a/b"))]
    {
        assert!(!text.contains("hf_secret"), "{text}");
    }
}

#[test]
fn people_are_told_what_helps() {
    let auth = r#"{"error":"unauthorized"}"#;
    let credits = r#"{"error":"out of credits"}"#;
    let missing = r#"{"error":"model not found"}"#;
    for (id, status, body, words) in [
        ("a/b", 401, auth, &["HF_TOKEN", "hf auth login", "/model"][..]),
        ("anthropic/claude-opus-4-8", 401, auth, &["ANTHROPIC_API_KEY"]),
        ("openai/gpt-5", 401, auth, &["OPENAI_API_KEY"]),
        ("vllm/m", 401, auth, &["VLLM_API_KEY"]),
        ("a/b", 402, credits, &["appear to be exhausted", "settings/billing", "subscribe/pro"]),
        ("anthropic/claude-opus-4-8", 402, credits, &["console.anthropic.com"]),
        ("a/b:novita", 404, missing, &["MiniMaxAI/MiniMax-M2.7"]),
        ("ollama/qwen3", 404, missing, &["ollama pull qwen3"]),
        ("a/b:nobody", 400, r#"{"error":"not supported by provider nobody"}"#, &["`a/b`", "/model"]),
        (
            "llamacpp/m",
            500,
            r#"{"error":"tools param requires --jinja"}"#,
            &["`llamacpp/m`", "llama-server with `--jinja`"],
        ),
        (
            "ollama/gemma",
            400,
            r#"{"error":"gemma does not support tools"}"#,
            &["`ollama/gemma`", "ollama show"],
        ),
    ] {
        let message = answer(id, status, body).user_message();
        for word in words {
            assert!(message.contains(word), "{word}: {message}");
        }
    }
    let billing = answer("a/b", 402, credits);
    assert!(!billing.user_message_for(HfPlan::Pro).contains("subscribe/pro"));
    assert!(billing.user_message_for(HfPlan::Free).contains("subscribe/pro"));
    assert!(answer("a/b", 401, auth).is_credentials() && !billing.is_credentials());
}

fn waits(status: u16, retry_after: Option<&str>) -> [Option<u64>; 3] {
    let mut headers = HeaderMap::new();
    if let Some(value) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_str(value).unwrap());
        headers.insert(header::DATE, HeaderValue::from_static("Sun, 06 Nov 1994 08:49:00 GMT"));
    }
    let error = answered(&model("a/b").target, status, &headers, &ServerError::default());
    [1, 2, 3].map(|attempt| retry_wait(&error, attempt).as_ref().map(Duration::as_secs))
}

#[test]
fn only_what_may_pass_is_tried_again() {
    for (status, retry_after, expected) in [
        (429, None, [Some(30), Some(60), None]),
        (429, Some("7"), [Some(7), Some(7), None]),
        (429, Some("120"), [Some(120), Some(120), None]),
        (429, Some("121"), [None, None, None]),
        (429, Some("Sun, 06 Nov 1994 08:49:37 GMT"), [Some(37), Some(37), None]),
        (429, Some("Sun, 06 Nov 1994 08:48:00 GMT"), [Some(0), Some(0), None]),
        (429, Some("soon"), [Some(30), Some(60), None]),
        (503, None, [Some(5), Some(15), None]),
        (529, Some("20"), [Some(20), Some(20), None]),
        (500, None, [Some(5), Some(15), None]),
        (408, None, [Some(5), Some(15), None]),
        (400, None, [None; 3]),
        (401, None, [None; 3]),
        (402, None, [None; 3]),
        (404, Some("1"), [None; 3]),
        (413, None, [None; 3]),
    ] {
        assert_eq!(waits(status, retry_after), expected, "{status} {retry_after:?}");
    }
}
