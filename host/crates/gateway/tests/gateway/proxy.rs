//! Tunnels: to granted hosts, decided like requests.

use std::time::Duration;

use egress::{EgressConfig, HostRule, Hosts, LedgerAct, NetworkGrant, Proxy, ProxyUrls};
use ml_intern_gateway::Patience;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::world::{Parts, Server, World, answer, raw, run};

/// Gives back what it gets, with a word before it.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = to.write_all(b"hello ").await;
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

async fn connect(world: &World, target: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", world.proxy)).await.unwrap();
    let head =
        format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nproxy-authorization: Basic c2VjcmV0\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut told = Vec::new();
    while !told.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap() == 0 {
            break;
        }
        told.push(byte[0]);
    }
    (stream, String::from_utf8_lossy(&told).into_owned())
}

#[test]
fn a_granted_host_is_talked_to_and_both_ways_are_on_record() {
    run(async {
        let port = echo().await;
        let tunnels = vec![format!("https://127.0.0.1:{port}")];
        let world = World::start(Parts { tunnels, ..Parts::default() }).await;
        let (mut stream, told) = connect(&world, &format!("127.0.0.1:{port}")).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        stream.write_all(&[b'x'; 100_000]).await.unwrap();
        let mut back = vec![0; 100_006];
        stream.read_exact(&mut back).await.unwrap();
        assert!(back.starts_with(b"hello xxx"));
        drop(stream);
        let closed = LedgerAct::Closed { sent: 100_000, received: 100_006 };
        while !world.ledger().contains(&closed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let LedgerAct::Request { who, method, origin, credential, .. } = world.ledger().remove(0) else {
            panic!()
        };
        assert_eq!((who.as_str(), method.as_str()), ("command pip download x", "CONNECT"));
        assert_eq!((origin, credential), (format!("https://127.0.0.1:{port}"), None));
    });
}

#[test]
fn what_is_not_granted_is_refused_with_what_to_type() {
    run(async {
        let port = echo().await;
        let world = World::start(Parts::default()).await;
        let (_, told) = connect(&world, "github.com:443").await;
        let line = told.lines().next().unwrap();
        assert!(
            line.starts_with("HTTP/1.1 403 github.com is not granted")
                && line.contains("--allow 'host(github.com)'"),
            "{told}"
        );
        let here = format!("127.0.0.1:{port}");
        assert!(connect(&world, &here).await.1.starts_with("HTTP/1.1 403"));
        world.gateway.grant(NetworkGrant::parse(&format!("https://{here}")).unwrap());
        assert!(connect(&world, &here).await.1.starts_with("HTTP/1.1 200"));
        // Another port is another place, and a name that leads to this machine is no public one.
        assert!(connect(&world, "127.0.0.1:1").await.1.starts_with("HTTP/1.1 403"));
        for target in
            ["github.com", "user@github.com:443", ":443", "github.com:", "github.com:0", "github.com:99999"]
        {
            assert!(connect(&world, target).await.1.starts_with("HTTP/1.1 400"), "{target}");
        }
        for said in [
            "GET http://github.com/ HTTP/1.1\r\nhost: github.com\r\nconnection: close\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
        ] {
            let told = raw(world.proxy, said.as_bytes()).await;
            let told = String::from_utf8_lossy(&told);
            assert!(told.starts_with("HTTP/1.1 405") && told.contains("CONNECT only"), "{told}");
        }
    });
}

#[test]
fn rules_offline_and_mirrors_bind_tunnels_too() {
    run(async {
        let port = echo().await;
        let here = format!("127.0.0.1:{port}");
        let tunnels = || vec![format!("https://{here}"), "https://pypi.org".to_owned()];
        let rule = |asks| HostRule {
            hosts: Hosts::parse("127.0.0.1").unwrap(),
            asks,
            text: "host(127.0.0.1)".to_owned(),
        };
        for config in [
            EgressConfig { offline: true, ..EgressConfig::default() },
            EgressConfig { rules: vec![rule(false)], ..EgressConfig::default() },
            EgressConfig { rules: vec![rule(true)], ..EgressConfig::default() },
            EgressConfig {
                ceiling: egress::Ceiling {
                    allow: Some(vec![NetworkGrant::parse(&format!("https://{here} GET")).unwrap()]),
                    ..egress::Ceiling::default()
                },
                ..EgressConfig::default()
            },
            EgressConfig {
                ceiling: egress::Ceiling {
                    deny: vec![Hosts::parse("127.0.0.0/8").unwrap()],
                    ..egress::Ceiling::default()
                },
                ..EgressConfig::default()
            },
        ] {
            let world = World::start(Parts { tunnels: tunnels(), config, ..Parts::default() }).await;
            let told = connect(&world, &here).await.1;
            assert!(told.starts_with("HTTP/1.1 403"), "{told}");
            assert_eq!(world.refusals().len(), 1);
        }
        let mirror = Server::start(|_| answer(200, "", "")).await;
        let mirrors = vec![("https://pypi.org", mirror.url())];
        let world = World::start(Parts { mirrors, tunnels: tunnels(), ..Parts::default() }).await;
        let told = connect(&world, "pypi.org:443").await.1;
        assert!(told.starts_with("HTTP/1.1 403") && told.contains("origins"), "{told}");
    });
}

#[test]
fn a_name_that_leads_to_this_machine_is_not_connected_to() {
    run(async {
        let port = echo().await;
        let name = own_name();
        let tunnels = vec![format!("https://{name}:{port}")];
        let world = World::start(Parts { tunnels, ..Parts::default() }).await;
        let told = connect(&world, &format!("{name}:{port}")).await.1;
        assert!(told.starts_with("HTTP/1.1 403") && told.contains("not a public address"), "{told}");
        assert_eq!(world.refusals().len(), 1, "{:?}", world.ledger());
    });
}

#[test]
fn a_tunnel_through_which_nothing_goes_is_closed() {
    run(async {
        let port = echo().await;
        let short = Duration::from_millis(100);
        let patience = Some(Patience { tunnel: short, ..Patience::default() });
        let tunnels = vec![format!("https://127.0.0.1:{port}")];
        let world = World::start(Parts { tunnels, patience, ..Parts::default() }).await;
        let (mut stream, told) = connect(&world, &format!("127.0.0.1:{port}")).await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        let mut all = Vec::new();
        let read = stream.read_to_end(&mut all);
        let _ = tokio::time::timeout(Duration::from_secs(60), read).await.expect("it is never closed");
        assert_eq!(all, b"hello ");
    });
}

#[test]
fn a_tunnel_goes_through_the_hosts_own_proxy() {
    run(async {
        let proxy = Server::start(|got| match got.line().starts_with("CONNECT") {
            true => b"HTTP/1.1 200 -\r\n\r\n".to_vec(),
            false => b"hello".to_vec(),
        })
        .await;
        let urls = ProxyUrls {
            https: Some(format!("http://user:hunter2@127.0.0.1:{}", proxy.port)),
            plugins: true,
            ..ProxyUrls::default()
        };
        let config = EgressConfig { proxy: Some(Proxy::new(&urls).unwrap()), ..EgressConfig::default() };
        let tunnels = vec!["https://192.0.2.7:99".to_owned()];
        let world = World::start(Parts { tunnels, config, ..Parts::default() }).await;
        let (mut stream, told) = connect(&world, "192.0.2.7:99").await;
        assert!(told.starts_with("HTTP/1.1 200"), "{told}");
        stream.write_all(b"said in the tunnel\r\n\r\n").await.unwrap();
        let mut hello = [0; 5];
        stream.read_exact(&mut hello).await.unwrap();
        let got = proxy.got().remove(0);
        assert_eq!((&hello, got.line()), (b"hello", "CONNECT 192.0.2.7:99 HTTP/1.1"));
        assert!(!got.head.contains("c2VjcmV0") && got.header("proxy-authorization").is_some(), "{got:?}");
        assert!(connect(&world, "192.0.2.7:98").await.1.starts_with("HTTP/1.1 403"));
        assert_eq!(proxy.lines()[1..], ["said in the tunnel"]);
    });
}

/// The machine's own name, which its hosts file has; else one that every hosts file has.
fn own_name() -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let names = hosts.lines().filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    let mut names = names.flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned));
    names.find(|name| !name.ends_with("localhost")).unwrap_or_else(|| "ip6-loopback".to_owned())
}
