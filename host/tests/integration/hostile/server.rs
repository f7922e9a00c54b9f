//! A server on loopback that keeps what it was asked.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Ends with the process.
pub(crate) struct Server {
    pub(crate) port: u16,
    heads: Arc<Mutex<Vec<String>>>,
    most: Arc<AtomicUsize>,
}

impl Server {
    /// Gives each request what `answer` says to its head, on a connection of its own.
    pub(crate) fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let most = Arc::<AtomicUsize>::default();
        let (kept, peak, at_once) = (heads.clone(), most.clone(), Arc::<AtomicUsize>::default());
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let (kept, peak, at_once, answer) =
                    (kept.clone(), peak.clone(), at_once.clone(), answer.clone());
                std::thread::spawn(move || {
                    peak.fetch_max(at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    // Whoever has its answer may ask again.
                    serve(stream, &kept, &*answer, || {
                        at_once.fetch_sub(1, Ordering::SeqCst);
                    });
                });
            }
        });
        Self { port, heads, most }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What a plugin needs to reach it.
    pub(crate) fn grant(&self) -> String {
        format!("{} GET", self.url())
    }

    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// The most requests that were unanswered at a time.
    pub(crate) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

fn serve(
    mut stream: TcpStream,
    heads: &Mutex<Vec<String>>,
    answer: &dyn Fn(&str) -> String,
    done: impl FnOnce(),
) {
    let mut held = Vec::new();
    let mut piece = [0; 4_096];
    while !held.windows(4).any(|part| part == b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(n) if n > 0 => held.extend_from_slice(&piece[..n]),
            _ => return done(),
        }
    }
    let head = String::from_utf8_lossy(&held).into_owned();
    heads.lock().unwrap().push(head.clone());
    let answer = answer(&head);
    done();
    // A client that has read enough hangs up.
    let _ = stream.write_all(answer.as_bytes());
}

/// An answer with some headers.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} -\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
