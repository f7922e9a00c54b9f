//! What the gateway costs, in one process on loopback: a small GET and a large body, direct and through it.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a measurement prints, and one that fails is none"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use egress::{Egress, EgressConfig, Ledger, MirrorTrust, Rewrite};
use ml_intern_gateway::{Face, Gateway, GatewayConfig, HubConfig, Patience};
use redact::Redactor;
use secrecy::SecretString;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Small GETs of each kind.
const SMALL: usize = 2_000;
const GIB: u64 = 1 << 30;

/// Bytes that a large body may add to the memory that is held.
const MEMORY: u64 = 32 << 20;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let upstream = upstream().await;
        let state = tempfile::tempdir().unwrap();
        let gateway = gateway(upstream, &state).await;
        let (direct, through) = (small(upstream, "/").await, small(gateway, "/files/small").await);
        let added = through.saturating_sub(direct);
        let verdict = |is_held: bool| if is_held { "ok" } else { "MISSED" };
        println!(
            "small GET: direct {direct:?}, through {through:?}, added {added:?} (bar 1 ms) {}",
            verdict(added <= Duration::from_millis(1))
        );
        let before = resident();
        large(gateway, "/files/2", 2 * GIB).await;
        let more = peak().saturating_sub(before);
        println!(
            "2 GiB: {} MiB more memory at most (bar {} MiB) {}",
            more >> 20,
            MEMORY >> 20,
            verdict(more <= MEMORY)
        );
        let relay = relay(upstream).await;
        let (mut direct, mut through, mut relayed) = (f64::MAX, f64::MAX, f64::MAX);
        for _ in 0..3 {
            direct = direct.min(large(upstream, "/1", GIB).await);
            through = through.min(large(gateway, "/files/1", GIB).await);
            relayed = relayed.min(large(relay, "/1", GIB).await);
        }
        let share = direct / through * 100.0;
        let (direct, through, relayed) = (1.0 / direct, 1.0 / through, 1.0 / relayed);
        println!(
            "1 GiB: direct {direct:.2} GiB/s, through {through:.2} GiB/s, {share:.0} % (bar 80 %) {}; a bare relay {relayed:.2} GiB/s",
            verdict(share >= 80.0)
        );
    });
}

/// What nothing but a copy from one connection to another costs: no gateway in between can do better.
async fn relay(upstream: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut there = TcpStream::connect(("127.0.0.1", upstream)).await.unwrap();
                let (one, other) = (64 << 10, 256 << 10);
                let _ = tokio::io::copy_bidirectional_with_sizes(&mut client, &mut there, one, other).await;
            });
        }
    });
    port
}

async fn upstream() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    port
}

/// `/N` is N GiB, all else is small.
async fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let piece = vec![7; 256 << 10];
    while let Some(head) = head(&mut stream).await {
        let path = head.split(' ').nth(1).unwrap().trim_start_matches('/');
        let bytes = path.parse::<u64>().map_or(2, |n| n * GIB);
        stream
            .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {bytes}\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut left = bytes;
        while left > 0 {
            let now = left.min(piece.len() as u64);
            if stream.write_all(&piece[..now as usize]).await.is_err() {
                return;
            }
            left -= now;
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
        head.extend_from_slice(&piece[..n]);
    }
    Some(String::from_utf8(head).unwrap())
}

async fn gateway(upstream: u16, state: &tempfile::TempDir) -> u16 {
    let to = format!("http://127.0.0.1:{upstream}");
    let rewrites = vec![Rewrite::new("https://files.pythonhosted.org", &to, MirrorTrust::default()).unwrap()];
    let secrets =
        Redactor::new([("hf".to_owned(), SecretString::from("hf_HostHostHostHostHostHostHostHost12"))]);
    let ledger = Some(Ledger::new(state.path(), "bench"));
    let gateway = Gateway::new(GatewayConfig {
        egress: Egress::new(EgressConfig { rewrites, secrets, ledger, ..EgressConfig::default() }),
        who: Arc::new(|| "bench".to_owned()),
        hub: HubConfig::default(),
        tunnels: Vec::new(),
        more_indexes: false,
        patience: Patience::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { gateway.serve(Face::Pypi, listener).await });
    port
}

async fn ask(stream: &mut TcpStream, path: &str) {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
}

/// The median of small GETs on one connection.
async fn small(port: u16, path: &str) -> Duration {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut times = Vec::new();
    for _ in 0..SMALL {
        let begin = Instant::now();
        ask(&mut stream, path).await;
        let mut all = Vec::new();
        while !all.ends_with(&[b'\n', 7, 7]) {
            let mut piece = [0; 4096];
            let n = stream.read(&mut piece).await.unwrap();
            assert!(n > 0);
            all.extend_from_slice(&piece[..n]);
        }
        times.push(begin.elapsed());
    }
    times.sort();
    times[SMALL / 2]
}

/// Seconds for a large body.
async fn large(port: u16, path: &str, bytes: u64) -> f64 {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let begin = Instant::now();
    ask(&mut stream, path).await;
    let (mut got, mut piece) = (0, vec![0; 256 << 10]);
    while got < bytes {
        let n = stream.read(&mut piece).await.unwrap();
        assert!(n > 0, "it ends after {got} bytes");
        got += n as u64;
    }
    begin.elapsed().as_secs_f64()
}

fn resident() -> u64 {
    of_status("VmRSS:")
}

fn peak() -> u64 {
    of_status("VmHWM:")
}

fn of_status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
