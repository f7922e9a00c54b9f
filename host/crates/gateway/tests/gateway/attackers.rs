//! What is said to the gateway by somebody who means it no good.

use std::time::Duration;

use ml_intern_gateway::{Face, Patience};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Parts, Server, World, answer, get, raw, run};

async fn world(patience: Option<Patience>) -> (World, Server) {
    let hub = Server::start(|got| answer(200, "", format!("you asked for {}", got.line()))).await;
    let mirrors = vec![("https://huggingface.co", hub.url()), ("https://pypi.org", hub.url())];
    (World::start(Parts { mirrors, patience, ..Parts::default() }).await, hub)
}

async fn status(port: u16, bytes: &str) -> String {
    let told = raw(port, bytes.as_bytes()).await;
    let told = String::from_utf8_lossy(&told).into_owned();
    told.split(' ').nth(1).unwrap_or("closed").to_owned()
}

#[test]
fn targets_and_hosts_that_mean_two_things_reach_nobody() {
    run(async {
        let (world, hub) = world(None).await;
        for port in [world.pypi, world.hub] {
            for target in [
                "http://127.0.0.1/simple/x",
                "https://evil.test/",
                "evil.test:443",
                "*",
                "//evil.test/x",
                "/simple/../../x",
                "/simple/%2e%2e/x",
                "/simple//x",
                "/simple/\\..\\x",
                "/simple/%00",
                "/simple/%0d%0aHost:%20evil.test",
            ] {
                let told = status(
                    port,
                    &format!("GET {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"),
                )
                .await;
                assert_eq!(told, "400", "{target}");
            }
            for (host, expected) in [
                ("host: evil.test\r\n", "421"),
                ("", "400"),
                ("host: localhost\r\nhost: localhost\r\n", "400"),
                ("host: localhost@evil.test\r\n", "421"),
            ] {
                let told =
                    status(port, &format!("GET /simple/x/ HTTP/1.1\r\n{host}connection: close\r\n\r\n"))
                        .await;
                assert_eq!(told, expected, "{host}");
            }
        }
        assert_eq!(hub.got().len(), 0);
    });
}

#[test]
fn one_request_is_never_two() {
    run(async {
        let (world, hub) = world(None).await;
        let inner = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let length = inner.len();
        for attack in [
            format!(
                "POST /api/models/o/m/paths-info/main HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
            ),
            format!(
                "POST /api/models/o/m/paths-info/main HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\ncontent-length: {length}\r\n\r\n{inner}"
            ),
            format!("GET /o/m HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{inner}"),
            format!("GET /o/m HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: xchunked\r\n\r\n{inner}"),
            format!(
                "GET /o/m HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n{inner}"
            ),
            format!("GET /o/m HTTP/1.1\r\nhost: localhost\r\nx: a\r\n folded: b\r\n\r\n{inner}"),
        ] {
            let mut stream = TcpStream::connect(("127.0.0.1", world.hub)).await.unwrap();
            stream.write_all(attack.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut told = Vec::new();
            let _ = stream.read_to_end(&mut told).await;
            let smuggled = hub.lines().iter().any(|line| line.contains("smuggled"));
            assert!(!smuggled, "{attack}\n{}", String::from_utf8_lossy(&told));
        }
    });
}

#[test]
fn who_says_nothing_or_takes_nothing_is_given_up() {
    run(async {
        let short = Duration::from_millis(200);
        let patience = Patience { head: short, stall: short, tunnel: short };
        let large = Server::start(|_| answer(200, "", vec![0; 64 << 20])).await;
        let mirrors = vec![("https://huggingface.co", large.url())];
        let world = World::start(Parts { mirrors, patience: Some(patience), ..Parts::default() }).await;
        // Nothing, a part of a head, a whole request and then nothing.
        for said in ["", "GET /o/m HT", "GET /o/m HTTP/1.1\r\nhost: localhost\r\n\r\n"] {
            raw(world.hub, said.as_bytes()).await;
        }
        // A body that does not come.
        let said =
            "POST /api/models/o/m/paths-info/main HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{";
        let told = raw(world.hub, said.as_bytes()).await;
        assert!(told.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&told));
        // An answer that is not taken: the connection is gone when somebody looks.
        let mut stream = TcpStream::connect(("127.0.0.1", world.hub)).await.unwrap();
        stream.write_all(b"GET /o/m HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let is_answer = |act: &egress::LedgerAct| matches!(act, egress::LedgerAct::Answer { .. });
        // The second: one was taken before.
        let given_up = async {
            while world.ledger().iter().filter(|act| is_answer(act)).count() < 2 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), given_up).await.expect("it is never given up");
        let mut taken = Vec::new();
        let _ = stream.read_to_end(&mut taken).await;
        assert!(taken.len() < 64 << 20, "{}", taken.len());
    });
}

#[test]
fn connections_beyond_the_cap_are_told_so_and_those_before_go_on() {
    run(async {
        let (world, _hub) = world(None).await;
        let mut held = Vec::new();
        for _ in 0..512 {
            held.push(TcpStream::connect(("127.0.0.1", world.hub)).await.unwrap());
        }
        let told = raw(world.hub, b"GET /o/m HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
        assert!(told.starts_with(b"HTTP/1.1 503"), "{}", String::from_utf8_lossy(&told));
        let mut first = held.remove(0);
        first.write_all(b"GET /o/m HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut told = Vec::new();
        first.read_to_end(&mut told).await.unwrap();
        assert!(told.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&told));
        drop(held);
        // With those gone there is room again.
        loop {
            let told =
                raw(world.hub, b"GET /o/m HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await;
            if told.starts_with(b"HTTP/1.1 200") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn an_answer_brings_nothing_along_that_is_not_on_the_list() {
    run(async {
        let hub = Server::start(|_| {
            let headers = concat!(
                "set-cookie: a=b\r\nlocation: https://evil.test/\r\nrefresh: 0;url=https://evil.test/\r\n",
                "alt-svc: h3=\":443\"\r\nx-xet-hash: 0\r\nx-xet-cas-url: https://cas.test\r\n",
                "x-xet-access-token: t\r\nlink: <https://cas.test>; rel=\"xet-auth\"\r\n",
                "connection: x-hop\r\nx-hop: 1\r\nupgrade: h2c\r\nstrict-transport-security: max-age=1\r\n",
                "proxy-authenticate: Basic\r\ncontent-type: text/plain\r\n",
            );
            answer(200, headers, "ok")
        })
        .await;
        let mirrors = vec![("https://huggingface.co", hub.url())];
        let world = World::start(Parts { mirrors, ..Parts::default() }).await;
        let told = get(world.hub, "/o/m/resolve/main/x").await;
        let mut names: Vec<String> = told
            .head
            .head
            .lines()
            .skip(1)
            .filter_map(|line| Some(line.split_once(':')?.0.to_lowercase()))
            .collect();
        names.sort();
        assert_eq!(names, ["connection", "content-length", "content-type", "date"]);
    });
}

#[test]
fn all_connections_end_with_their_listener() {
    run(async {
        let (world, _hub) = world(None).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let gateway = world.gateway.clone();
        let serving = tokio::spawn(async move { gateway.serve(Face::Hub, listener).await });
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(b"GET /o/m HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut piece = [0; 16];
        stream.read_exact(&mut piece).await.unwrap();
        serving.abort();
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await.unwrap();
    });
}
