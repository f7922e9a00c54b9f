//! Small questions to a provider beside completions. One that is not answered is no error.

use std::time::Duration;

use bytes::Bytes;
use egress::{Body, Caller, Limits, Outgoing, Policy};
use http::Method;
use serde_json::Value;
use url::Url;

use crate::target::Target;

/// Time for each part of an answer; who asks sets a limit for the whole.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer.
const MAX_ANSWER: u64 = 8 << 20;

pub(crate) async fn get(target: &Target, path: &str) -> Value {
    exchange(target, Method::GET, target.base.beside(path), Vec::new()).await
}

pub(crate) async fn post(target: &Target, path: &str, body: &Value) -> Value {
    exchange(target, Method::POST, target.base.beside(path), body.to_string().into_bytes()).await
}

/// What the server says, or null: a server that does not say is no error.
async fn exchange(target: &Target, method: Method, url: Url, body: Vec<u8>) -> Value {
    let request = Outgoing {
        caller: Caller::Host("provider"),
        policy: Policy::Model,
        approved: Vec::new(),
        method,
        url,
        headers: target.headers.clone(),
        body: Body::from(Bytes::from(body)),
        decompress: false,
        limits: Limits { head: PATIENCE, idle: PATIENCE, max_bytes: MAX_ANSWER, ..Limits::default() },
        credential: None,
    };
    let Ok(incoming) = target.egress.send(request).await else {
        return Value::Null;
    };
    if !incoming.status.is_success() {
        return Value::Null;
    }
    incoming.bytes().await.ok().and_then(|body| serde_json::from_slice(&body).ok()).unwrap_or_default()
}
