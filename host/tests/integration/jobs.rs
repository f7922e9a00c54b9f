//! A jobs server on loopback, and the plugin that orders from it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{Stream, TestHost, call};

/// What a jobs server does with an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Answer {
    /// Takes it and says so.
    Takes,
    /// Takes it, and is cut off within its answer.
    TakesHalf,
    /// Takes it and does not answer.
    TakesSilently,
    /// Does not even take it.
    Refuses,
    /// A Hub: says whose the token is, and makes and changes repositories but for `…/there`, which is there.
    Hub,
    /// Takes it, and says that it costs so many USD.
    Costs(f64),
    /// Does not take it, and hangs up without an answer.
    Ignores,
    /// A gateway before it says that it went wrong; it was taken.
    TakesBadly,
    /// The same; and whoever looks for it is talked into more.
    Provokes,
}

/// A jobs server: what it was asked for, in order.
pub(crate) struct Jobs {
    pub(crate) port: u16,
    seen: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

/// One request: its method and path, and its body.
type Seen = (String, String);

impl Jobs {
    pub(crate) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Five digits, as the manifest has room for.
        let port = listener.local_addr().unwrap().port();
        if port < 10_000 {
            return Self::start(answer);
        }
        let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let shared = seen.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || serve(stream, answer, &shared));
            }
        });
        Self { port, seen }
    }

    /// The orders that were taken.
    pub(crate) fn taken(&self) -> Vec<String> {
        let seen = self.seen.0.lock().unwrap();
        seen.iter().map(|(line, _)| line).filter(|line| line.starts_with("POST")).cloned().collect()
    }

    /// What was only asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        let seen = self.seen.0.lock().unwrap();
        seen.iter().map(|(line, _)| line).filter(|line| line.starts_with("GET")).cloned().collect()
    }

    /// The fields of the orders that were taken.
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let seen = self.seen.0.lock().unwrap();
        let orders = seen.iter().filter(|(line, _)| line.starts_with("POST"));
        orders.map(|(_, body)| serde_json::from_str(body).unwrap()).collect()
    }

    /// Waits until an order was taken.
    pub(crate) fn wait(&self) {
        self.wait_for("POST");
    }

    /// Waits until something was asked for whose line begins so.
    pub(crate) fn wait_for(&self, first: &str) {
        let (lock, changed) = &*self.seen;
        let seen = lock.lock().unwrap();
        drop(changed.wait_while(seen, |seen| !seen.iter().any(|(line, _)| line.starts_with(first))).unwrap());
    }
}

fn serve(stream: TcpStream, answer: Answer, (lock, changed): &(Mutex<Vec<Seen>>, Condvar)) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut first = String::new();
    if reader.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    let mut length = 0_usize;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let body = String::from_utf8(body).unwrap();
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let is_order = first.starts_with("POST");
    let known = lock.lock().unwrap().iter().any(|(line, _)| *line == format!("POST {path}"));
    if !(is_order && matches!(answer, Answer::Refuses | Answer::Ignores)) {
        let line = format!("{} {path}", if is_order { "POST" } else { "GET" });
        lock.lock().unwrap().push((line, body.clone()));
        changed.notify_all();
    }
    let told = match answer {
        Answer::Costs(usd) => json!({"cost_usd": usd}).to_string(),
        _ => "ok".to_owned(),
    };
    let is_there = body.contains("/there\"");
    let told = if path == "/api/whoami-v2" { json!({"name": "me"}).to_string() } else { told };
    // Until the other side goes away.
    if path == "/follow" {
        let _ = reader.read(&mut [0]);
        return;
    }
    let status = match (is_order, answer) {
        (false, Answer::Hub) => "200 OK",
        (true, Answer::Hub) if is_there && path.ends_with("/create") => "409 Conflict",
        (true, Answer::Hub) => "200 OK",
        (true, Answer::TakesSilently) => {
            // Until the other side goes away.
            let _ = reader.read(&mut [0]);
            return;
        }
        (true, Answer::Ignores) => return,
        (true, Answer::Refuses) => "400 Bad Request",
        (true, Answer::TakesBadly | Answer::Provokes) => "502 Bad Gateway",
        (true, Answer::Takes | Answer::TakesHalf | Answer::Costs(_)) => "200 OK",
        (false, Answer::Provokes) => "418 I'm a teapot",
        (false, _) if known => "200 OK",
        (false, _) => "404 Not Found",
    };
    let mut stream = stream;
    let length = told.len() + if is_order && answer == Answer::TakesHalf { 100 } else { 0 };
    let _ =
        write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{told}");
}

/// The plugin, with the server's port in its manifest, and granted.
pub(crate) fn host(jobs: &Jobs, steps: Vec<Step>) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let mut bytes = std::fs::read(guests::component("orders")).unwrap();
    let (from, to) = (*b"127.0.0.1:00001", format!("127.0.0.1:{:05}", jobs.port));
    for at in 0..bytes.len() - from.len() {
        if bytes[at..at + from.len()] == from {
            bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
        }
    }
    std::fs::write(plugins.join("orders.wasm"), bytes).unwrap();
    let origin = format!("http://127.0.0.1:{}", jobs.port);
    let grants = format!(
        "[orders]\nnetwork = [\"{origin} GET POST\", \"https://huggingface.co GET POST\"]\n\
         paths = [\"workspace\", \"tmp\"]\n[orders.credentials]\nhub = \"hf\"\n"
    );
    host.home_file(".config/ml-intern/grants.toml", &grants);
    host
}

pub(crate) fn arguments(host: &TestHost, more: &[&str]) -> Vec<String> {
    let plugins = host.home.join("plugins").display().to_string();
    let own = ["go", "-m", "chat/m", "--json", "--plugin-dir", plugins.as_str()];
    own.iter().chain(more).map(|argument| (*argument).to_owned()).collect()
}

pub(crate) fn run(host: &TestHost, more: &[&str]) -> Stream {
    Stream::of(&host.run(arguments(host, more)))
}

pub(crate) fn order(arguments: Value) -> Step {
    call("orders__order", arguments)
}
