//! The scripted model's server: chat completions on loopback, for this process.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::script::{self, Answer};

/// Characters of one streamed piece.
const PIECE: usize = 24;

/// Starts the server and gives its base URL. It ends with the process.
pub(super) async fn start() -> std::io::Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let http = hyper::server::conn::http1::Builder::new();
                // A connection that breaks is the client's to notice.
                let _ = http.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    Ok(url)
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_completion = request.uri().path().ends_with("/chat/completions");
    let body =
        request.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut response = Response::new(Full::default());
    match serde_json::from_slice::<Value>(&body) {
        Ok(body) if is_completion => {
            let step =
                script::answer(body.get("messages").and_then(Value::as_array).map_or(&[], Vec::as_slice));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("text/event-stream"));
            *response.body_mut() = Full::from(stream(step));
        }
        _ => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    Ok(response)
}

fn stream(answer: Answer) -> String {
    let Answer { text, calls } = answer;
    let finish = if calls.is_empty() { "stop" } else { "tool_calls" };
    let characters: Vec<char> = text.chars().collect();
    let mut deltas: Vec<Value> = characters
        .chunks(PIECE)
        .map(|piece| json!({ "content": piece.iter().collect::<String>() }))
        .collect();
    deltas.extend(calls.into_iter().enumerate().map(|(index, (id, name, arguments))| {
        let function = json!({ "name": name, "arguments": arguments.to_string() });
        json!({ "tool_calls": [{ "index": index, "id": id, "type": "function", "function": function }] })
    }));
    let mut out = String::new();
    let mut event = |delta: Value, finish: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        out.push_str(&format!(
            "data: {}\n\n",
            json!({ "object": "chat.completion.chunk", "choices": [choice] })
        ));
    };
    deltas.into_iter().for_each(|delta| event(delta, None));
    event(json!({}), Some(finish));
    out + "data: [DONE]\n\n"
}
