//! A model that answers at once and takes the time.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

/// One request, as the model's side saw it.
pub(crate) struct Seen {
    /// When its first byte was there.
    pub(crate) first_byte: Instant,
    /// When the last byte of the answer was handed over.
    pub(crate) answered: Instant,
    pub(crate) body_bytes: usize,
    /// Peak memory of the program in MiB at this moment.
    pub(crate) peak_mib: f64,
}

/// Plays `steps` calls of `read` and then an answer, once; what it saw comes when it is done.
pub(crate) fn play(steps: usize, pid: Receiver<u32>) -> (u16, Receiver<Vec<Seen>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (done, seen) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let mut pid = PidOnce { source: pid, known: None };
        let mut all = Vec::new();
        for step in 0..=steps {
            let (first_byte, body_bytes) = request(&mut stream);
            let peak_mib = peak(pid.get());
            stream.write_all(&answer(step < steps, step)).unwrap();
            all.push(Seen { first_byte, answered: Instant::now(), body_bytes, peak_mib });
        }
        done.send(all).unwrap();
    });
    (port, seen)
}

struct PidOnce {
    source: Receiver<u32>,
    known: Option<u32>,
}

impl PidOnce {
    fn get(&mut self) -> u32 {
        *self.known.get_or_insert_with(|| self.source.recv().unwrap())
    }
}

/// Reads one request. The clock is read when its first byte is there.
fn request(stream: &mut TcpStream) -> (Instant, usize) {
    let mut bytes = vec![0; 64 << 10];
    let mut have = stream.read(&mut bytes).unwrap();
    let first_byte = Instant::now();
    let head = loop {
        if let Some(at) = bytes[..have].windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        have += stream.read(&mut bytes[have..]).unwrap();
    };
    let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
    let length: usize =
        text.split("content-length: ").nth(1).unwrap().lines().next().unwrap().trim().parse().unwrap();
    let mut left = length - (have - head);
    while left > 0 {
        let want = left.min(bytes.len());
        left -= stream.read(&mut bytes[..want]).unwrap();
    }
    (first_byte, length)
}

fn answer(is_call: bool, step: usize) -> Vec<u8> {
    let delta = if is_call {
        format!(
            r#"{{"tool_calls":[{{"index":0,"id":"call_{step}","type":"function","function":{{"name":"read","arguments":"{{\"path\":\"a.txt\"}}"}}}}]}}"#
        )
    } else {
        r#"{"content":"Done."}"#.to_owned()
    };
    let finish = if is_call { "tool_calls" } else { "stop" };
    let body = format!(
        "data: {{\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n\
         data: {{\"choices\":[{{\"index\":0,\"delta\":{{}},\"finish_reason\":\"{finish}\"}}]}}\n\ndata: [DONE]\n\n"
    );
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

fn peak(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap_or(0.0) / 1024.0
}
