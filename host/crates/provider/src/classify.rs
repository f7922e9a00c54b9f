//! What kind of failure an answer tells of: by status, by the error's type and code, and by its words.

use std::time::{Duration, SystemTime};

use egress::EgressError;
use http::{HeaderMap, header};
use secrecy::ExposeSecret;

use crate::error::{Complaint, ProviderError};
use crate::server_error::ServerError;
use crate::target::{LocalServer, Route, Target};

/// Longest message, in characters.
const MESSAGE_CHARS: usize = 600;

/// A shorter secret is none, and taking it out would make a message unreadable.
const SECRET_BYTES: usize = 5;

const OVERFLOW: &[&str] = &[
    "context window exceeded",
    "maximum context length",
    "max context length",
    "prompt is too long",
    "context length exceeded",
    "context_length_exceeded",
    "too many input tokens",
    "input is too long",
    "exceed context limit",
    "exceed_context_size",
    "exceeds the available context size",
    "exceeds the context window",
    "exceeds the model's context",
    "maximum model length",
    "context the overflows",
    "input length and `max_tokens` exceed",
    "reduce the length of the messages",
    "context size has been exceeded",
    "model_max_prompt_tokens_exceeded",
    "exceeds the context length",
    "exceeds the maximum number of tokens",
    "context window exceeds",
    "prompt exceeds max length",
    "exceeded model token limit",
    "maximum prompt length",
    "tokens + `max_new_tokens` must be",
    "`inputs` must have less than",
];

const BILLING: &[&str] = &[
    "insufficient credit",
    "out of credits",
    "payment required",
    "billing",
    "no credits",
    "add credits",
    "require credits",
    "requires credits",
    "credits exhausted",
    "credits used up",
    "credits limit",
    "credit limit",
    "credit balance is too low",
    "insufficient_quota",
    "insufficient quota",
    "insufficient balance",
    "quota exceeded",
    "exceeded your current quota",
    "quota exhausted",
    "quota limit",
    "quota insufficient",
    "out of monthly credits",
    "monthly credits",
    "monthly included credits",
];

const SIGNATURE: &[&str] =
    &["invalid `signature` in `thinking` block", "invalid signature in thinking block"];

const EFFORT_REJECTED: &[&str] = &[
    "invalid",
    "not supported",
    "does not support",
    "unsupported",
    "must be one of",
    "not a valid",
    "unrecognized",
    "unknown",
    "only supported by",
];

const NO_TOOLS: &[&str] = &[
    "does not support tools",
    "does not support tool",
    "tools param requires --jinja",
    "tools are not supported",
    "tool use is not supported",
    "tool calling is not supported",
    "support tool use",
    "requires --enable-auto-tool-choice",
];

const AUTH: &[&str] = &[
    "authentication",
    "unauthorized",
    "invalid x-api-key",
    "invalid api key",
    "incorrect api key",
    "api key not valid",
    "invalid_api_key",
    "invalid token",
    "invalid username or password",
];

/// What a refusal is about that another credential or more rights would lift.
const RIGHTS: &[&str] = &[
    "permission",
    "auth",
    "token",
    "key",
    "access",
    "credential",
    "forbidden",
    "allowed",
    "gated",
    "organization",
];

const PROVIDER: &[&str] = &[
    "not supported by provider",
    "no provider supports",
    "not supported by any provider",
    "not supported for task",
];

const RATE_LIMIT: &[&str] =
    &["rate limit", "rate_limit", "too many requests", "too many tokens", "request limit", "throttl"];

const OVERLOADED: &[&str] =
    &["overloaded", "capacity", "service unavailable", "server is busy", "loading model"];

const TRANSIENT: &[&str] = &[
    "timeout",
    "timed out",
    "bad gateway",
    "internal server error",
    "connection reset",
    "connection refused",
    "connection error",
    "eof",
    "broken pipe",
    "server_error",
    "api_error",
];

/// What an HTTP answer with an error says.
pub(crate) fn answered(
    target: &Target,
    status: u16,
    headers: &HeaderMap,
    error: &ServerError,
) -> ProviderError {
    classify(target, Some(status), error, retry_after(headers))
}

/// What an error inside of an answer says.
pub(crate) fn in_answer(target: &Target, error: &ServerError) -> ProviderError {
    classify(target, None, error, None)
}

/// What went wrong on the way.
pub(crate) fn on_the_way(target: &Target, error: &EgressError) -> ProviderError {
    let told = |message: &str| complaint(target, None, message);
    match error {
        EgressError::Connect { reason, .. } => ProviderError::Connect { complaint: told(reason) },
        EgressError::Broken { reason, .. } => {
            ProviderError::Transient { complaint: told(reason), retry_after: None }
        }
        EgressError::Timeout { .. } => ProviderError::Timeout { complaint: told(&error.to_string()) },
        EgressError::TooLarge { .. } => ProviderError::Protocol { complaint: told(&error.to_string()) },
        _ => ProviderError::Refused { complaint: told(&error.to_string()) },
    }
}

/// Who said what, with nothing in it that must not be shown.
pub(crate) fn complaint(target: &Target, status: Option<u16>, message: &str) -> Box<Complaint> {
    let mut message = message.to_owned();
    for secret in &target.secrets {
        let secret = secret.expose_secret();
        if secret.len() >= SECRET_BYTES {
            message = message.replace(secret, "[key]");
        }
    }
    if message.chars().count() > MESSAGE_CHARS {
        message = message.chars().take(MESSAGE_CHARS - 1).chain(['…']).collect();
    }
    Box::new(Complaint {
        status,
        origin: target.origin().to_owned(),
        message,
        model: target.id.clone(),
        wire_name: target.wire_name.clone(),
        route: target.route.clone(),
    })
}

/// A model, or its server as it was started, that cannot call tools.
pub(crate) fn unfit(target: &Target, status: Option<u16>, message: &str) -> ProviderError {
    ProviderError::Unfit { complaint: complaint(target, status, message), remedy: remedy(target) }
}

fn classify(
    target: &Target,
    status: Option<u16>,
    error: &ServerError,
    retry_after: Option<Duration>,
) -> ProviderError {
    let text = format!("{}{}", error.kind, error.message.to_lowercase());
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    let complaint = complaint(target, status, &error.message);
    // A request that was understood and is wrong, or an error without a status of its own.
    let rejected = matches!(status, None | Some(400 | 404 | 405 | 409 | 422 | 500 | 501));
    let limited =
        status == Some(429) || status.is_none() && (says(RATE_LIMIT) || error.kind.contains("429 "));

    if says(OVERFLOW) && !limited && (rejected || status == Some(413)) {
        return ProviderError::ContextOverflow { complaint };
    }
    if rejected && says(SIGNATURE) {
        return ProviderError::BadThinkingSignature { complaint };
    }
    if rejected && says(NO_TOOLS) {
        return unfit(target, status, &error.message);
    }
    if rejected && text.contains("thinking") && text.contains("not support") {
        return ProviderError::ThinkingUnsupported { complaint };
    }
    if rejected && (text.contains("effort") || text.contains("output_config")) && says(EFFORT_REJECTED) {
        return ProviderError::EffortRejected { complaint };
    }
    if status == Some(402) || matches!(status, None | Some(400 | 403 | 429)) && says(BILLING) {
        return ProviderError::Billing { complaint };
    }
    if says(PROVIDER) {
        return ProviderError::ProviderUnsupported { complaint };
    }
    if is_no_such_model(status, &text) {
        return ProviderError::ModelNotFound { complaint };
    }
    let no_rights = status == Some(403) && !error.is_html && (says(RIGHTS) || error.message.is_empty());
    if status == Some(401) || no_rights || matches!(status, None | Some(400)) && says(AUTH) {
        return ProviderError::Auth { complaint };
    }
    if limited {
        return ProviderError::RateLimited { complaint, retry_after };
    }
    match status {
        Some(413) => ProviderError::TooLarge { complaint },
        Some(503 | 529) => ProviderError::Overloaded { complaint, retry_after },
        Some(408) => ProviderError::Timeout { complaint },
        Some(500..) => ProviderError::Transient { complaint, retry_after },
        Some(_) => ProviderError::Refused { complaint },
        None if says(OVERLOADED) || error.kind.contains("503 ") => {
            ProviderError::Overloaded { complaint, retry_after }
        }
        None if says(TRANSIENT) || error.kind.contains("50") => {
            ProviderError::Transient { complaint, retry_after }
        }
        None => ProviderError::Refused { complaint },
    }
}

fn is_no_such_model(status: Option<u16>, text: &str) -> bool {
    let missing = ["not found", "does not exist", "not exist"].iter().any(|words| text.contains(words));
    text.contains("model_not_found")
        || (matches!(status, None | Some(400 | 403 | 404)) && text.contains("model") && missing)
        // The Messages API says no more than the name.
        || (status == Some(404) && text.contains("not_found_error model:"))
}

fn remedy(target: &Target) -> String {
    let name = &target.wire_name;
    match &target.route {
        Route::Local(LocalServer::LlamaCpp) => format!(
            "Start llama-server with `--jinja` (and `--chat-template-file` if the template of `{name}` knows no tools), \
             or use a model whose template does."
        ),
        Route::Local(LocalServer::Vllm) => format!(
            "Start it with `vllm serve {name} --enable-auto-tool-choice --tool-call-parser PARSER`, with the parser for \
             this model, or use another model."
        ),
        Route::Local(LocalServer::Ollama) => {
            "Use a model that `ollama show MODEL` lists with the capability `tools`.".to_owned()
        }
        Route::Local(LocalServer::LmStudio) => {
            "Use a model that LM Studio shows with the tool badge; `lms ls` lists what is there.".to_owned()
        }
        Route::Custom { name: provider, .. } => {
            format!("Turn tool calls on where `{provider}` serves `{name}`, or use another model.")
        }
        Route::Router | Route::Anthropic | Route::OpenAi => {
            "Use a model that can call tools: /model lists some.".to_owned()
        }
    }
}

/// How long the server wants to be left alone.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text =
        |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let wanted = text(header::RETRY_AFTER)?;
    if let Ok(seconds) = wanted.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds.max(0.0)).ok();
    }
    let until = httpdate::parse_http_date(wanted).ok()?;
    // The server's own clock, if it says what time it has.
    let now = text(header::DATE)
        .and_then(|date| httpdate::parse_http_date(date).ok())
        .unwrap_or_else(SystemTime::now);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests;
