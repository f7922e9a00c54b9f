use std::convert::Infallible;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::unfold;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Response, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::oneshot;

use super::step::Gate;
use super::{Request, State, Step, Wire, chat, messages, responses};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A part of an answer in pieces.
#[derive(Debug)]
enum Piece {
    Bytes(Bytes),
    Stall(Gate),
    Cut,
}

/// What an event of a stream counts as.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// It carries a piece of the answer.
    Piece,
    /// It frames the answer.
    Frame,
}

/// One event of a stream, as it is sent.
pub(crate) type Event = (Kind, String);

/// Serves until the sender of `stopped` is gone.
#[expect(clippy::expect_used, reason = "a test without its server cannot go on")]
pub(crate) fn serve(listener: TcpListener, state: Arc<State>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        let accept = async {
            while let Ok((connection, _)) = listener.accept().await {
                // Answers are small and somebody waits for each of them.
                let _ = connection.set_nodelay(true);
                state.connected();
                let state = Arc::clone(&state);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                let served = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service);
                // A client that went away is the client's business.
                tokio::spawn(async move { drop(served.await) });
            }
        };
        tokio::select! {
            () = accept => {}
            _ = stopped => {}
        }
    });
}

async fn answer(state: Arc<State>, request: hyper::Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let (head, body) = request.into_parts();
    let header = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let request = Request {
        method: head.method.to_string(),
        path: head.uri.path_and_query().map_or_else(String::new, ToString::to_string),
        headers: head.headers.iter().map(header).collect(),
        raw: body.collect().await.map_err(io::Error::other)?.to_bytes(),
    };
    match request.wire() {
        Some(wire) if request.method == "POST" => complete(&state, wire, &request),
        _ => {
            let (status, page) = state.page(&request);
            Ok(whole(status, "application/json", page.to_string(), &[]))
        }
    }
}

fn complete(state: &State, wire: Wire, request: &Request) -> Result<Response<Body>, io::Error> {
    let (mut step, number) = state.next_step(request);
    if let Some(check) = &step.check
        && let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(request)))
    {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        state.check_failed(
            number,
            text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a check failed"),
        );
    }
    if let Some(reply) = step.reply.take() {
        step = reply(request);
    }
    if step.hang_up {
        return Err(io::Error::other("the script hangs up"));
    }
    if let Some((status, body)) = &step.error {
        let kind = if body.trim_start().starts_with('<') { "text/html" } else { "application/json" };
        return Ok(whole(*status, kind, body.clone(), &step.headers));
    }
    if request.wants_stream() && !step.always_plain || step.raw.is_some() {
        return Ok(pieces(wire, &step, events(wire, &step, number)));
    }
    let answer: Value = match wire {
        Wire::Chat => chat::whole(&step, number),
        Wire::Messages => messages::whole(&step, number),
        Wire::Responses => responses::whole(&step, number),
    };
    Ok(whole(200, "application/json", answer.to_string(), &step.headers))
}

fn events(wire: Wire, step: &Step, number: usize) -> Vec<Event> {
    match wire {
        Wire::Chat => chat::events(step, number),
        Wire::Messages => messages::events(step, number),
        Wire::Responses => responses::events(step, number),
    }
}

fn whole(status: u16, kind: &str, body: String, headers: &[(String, String)]) -> Response<Body> {
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {}).boxed_unsync();
    respond(status, kind, body, headers)
}

#[expect(clippy::expect_used, reason = "headers come from the test's own script")]
fn respond(status: u16, kind: &str, body: Body, headers: &[(String, String)]) -> Response<Body> {
    let mut response = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(body).expect("headers that can be sent")
}

fn pieces(wire: Wire, step: &Step, events: Vec<Event>) -> Response<Body> {
    let pieces = plan(wire, step, events).into_iter();
    let stream = unfold(pieces, |mut pieces| async move {
        loop {
            match pieces.next()? {
                Piece::Bytes(bytes) => return Some((Ok(Frame::data(bytes)), pieces)),
                Piece::Stall(gate) => gate.pass().await,
                Piece::Cut => {
                    // What was sent before goes out while this waits.
                    tokio::task::yield_now().await;
                    return Some((Err(io::Error::other("the script cuts the stream")), pieces));
                }
            }
        }
    });
    respond(200, "text/event-stream; charset=utf-8", StreamBody::new(stream).boxed_unsync(), &step.headers)
}

/// Lays down in which order bytes, waits and cuts come.
fn plan(wire: Wire, step: &Step, events: Vec<Event>) -> Vec<Piece> {
    let events: Vec<(Kind, Bytes)> = match &step.raw {
        Some(raw) => raw.iter().map(|piece| (Kind::Piece, piece.clone().into())).collect(),
        None => events.into_iter().map(|(kind, text)| (kind, text.into())).collect(),
    };
    let mut planned = Vec::with_capacity(events.len() + 2);
    let mut sent = 0;
    let mut stall = step.stall.clone();
    for (kind, bytes) in events {
        if let Some((_, gate)) = stall.take_if(|(after, _)| sent >= *after) {
            planned.push(Piece::Stall(gate));
        }
        if step.cut_after.is_some_and(|after| sent >= after) {
            planned.push(Piece::Cut);
            return planned;
        }
        if let Some((after, body)) = &step.stream_error
            && sent >= *after
        {
            let name = if wire == Wire::Chat { "" } else { "event: error\n" };
            planned.push(Piece::Bytes(format!("{name}data: {body}\n\n").into()));
            return planned;
        }
        planned.push(Piece::Bytes(bytes));
        sent += usize::from(kind == Kind::Piece);
    }
    planned
}
