//! Who connects where, and who shares a connection with whom.

use std::time::Duration;

use http::Method;
use ml_intern_egress::{
    Caller, Ceiling, EgressConfig, EgressError, HostRule, Hosts, LedgerAct, Limits, Pace,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::server::{Out, Server, answer, by_host, own_name, request, run};

#[test]
fn a_connection_is_used_again_by_its_own_plugin_only() {
    run(async {
        let server = Server::start(|_| answer(200, "", "ok")).await;
        let out = Out::new(EgressConfig::default());
        let grant = server.url();
        for plugin in ["a", "b", "a", "b"] {
            let caller = Caller::Plugin(plugin.to_owned());
            let request = request(&[&grant], &server.url());
            assert_eq!(out.send(ml_intern_egress::Outgoing { caller, ..request }).await.unwrap(), "ok");
        }
        assert_eq!(server.connections(), 2);
        // Other grants are another decision about where it may connect to.
        out.get(&[&grant, "http://127.0.0.0/8:*"], &server.url()).await.unwrap();
        assert_eq!(server.connections(), 3);
    });
}

#[test]
fn addresses_in_disguise_are_refused_before_anything_is_connected() {
    run(async {
        let server = Server::start(|_| answer(200, "", "inside")).await;
        let out = Out::new(EgressConfig::default());
        let port = server.port;
        let grants = ["https://example.com", "http://*.example.com:*", "http://10.0.0.0/8:*"];
        for host in ["127.0.0.1", "2130706433", "0x7f.1", "0177.1", "127.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let refusal = out.get(&grants, &format!("http://{host}:{port}/")).await.unwrap_err();
            assert!(matches!(refusal, EgressError::NotGranted { .. }), "{host}: {refusal}");
        }
        assert_eq!((server.connections(), out.refused().len()), (0, 7));
    });
}

#[test]
fn localhost_is_this_machine_and_needs_a_grant_that_says_so() {
    run(async {
        let server = Server::start(|_| answer(200, "", "inside")).await;
        let out = Out::new(EgressConfig::default());
        let url = |host: &str| format!("http://{host}:{}/", server.port);
        assert_eq!(out.get(&["http://localhost:*"], &url("localhost")).await.unwrap(), "inside");
        assert_eq!(out.get(&["http://127.0.0.0/8:*"], &url("2130706433")).await.unwrap(), "inside");
        assert!(server.asked()[0].contains(&format!("\r\nhost: localhost:{}", server.port)));
        // A name below it, which a name server would be asked for otherwise, is this machine as well.
        assert_eq!(out.get(&["http://x.localhost:*"], &url("x.localhost")).await.unwrap(), "inside");
        for (grant, host) in [
            ("http://127.0.0.1:*", "localhost"),
            ("http://localhost:*", "127.0.0.1"),
            ("http://localhost:*", "x.localhost"),
            ("http://example.com:*", "localhost"),
        ] {
            let refusal = out.get(&[grant], &url(host)).await.unwrap_err();
            assert!(matches!(refusal, EgressError::NotGranted { .. }), "{grant} {host}: {refusal}");
        }
        assert_eq!(server.asked().len(), 3);
    });
}

#[test]
fn a_denied_address_is_connected_to_by_no_name_and_nobody() {
    run(async {
        let server = Server::start(|_| answer(200, "", "inside")).await;
        let deny = ["127.0.0.0/8", "::1"].map(|text| Hosts::parse(text).unwrap()).to_vec();
        let ceiling = Ceiling { deny, by: "/etc/policy".to_owned(), ..Ceiling::default() };
        let out = Out::new(EgressConfig { ceiling, ..EgressConfig::default() });
        let url = |host: &str| format!("http://{host}:{}/", server.port);
        for host in [own_name().as_str(), "localhost", "x.localhost"] {
            for sent in [request(&[&url(host)[..url(host).len() - 1]], &url(host)), by_host(&url(host))] {
                let refusal = out.send(sent).await.unwrap_err();
                assert!(matches!(refusal, EgressError::ForbiddenPlace { .. }), "{host}: {refusal}");
                assert!(refusal.to_string().contains("is forbidden by /etc/policy"), "{refusal}");
            }
        }
        assert_eq!((server.connections(), out.refused().len()), (0, 6));
    });
}

#[test]
fn an_address_that_a_rule_denies_is_reached_by_no_name_of_a_plugin() {
    run(async {
        let server = Server::start(|_| answer(200, "", "inside")).await;
        let rule = |hosts: &str, asks: bool| HostRule {
            hosts: Hosts::parse(hosts).unwrap(),
            asks,
            text: format!("host({hosts}) (--deny)"),
        };
        let name = format!("http://localhost:{}", server.port);
        for denied in ["127.0.0.0/8", "::ffff:127.0.0.1"] {
            let rules = vec![rule(denied, false), rule("10.0.0.0/8", true)];
            let out = Out::new(EgressConfig { rules, ..EgressConfig::default() });
            let refusal = out.get(&[&name], &name).await.unwrap_err();
            assert!(matches!(refusal, EgressError::DeniedPlace { .. }), "{refusal}");
            assert!(refusal.to_string().contains("(--deny)` denies it"), "{refusal}");
            assert!(refusal.is_before_sending() && out.refused().len() == 1);
            assert_eq!(server.connections(), 0);
        }
        // The model is the person's own: no rule on plugins is about it.
        let rules = vec![rule("127.0.0.0/8", false)];
        let out = Out::new(EgressConfig { rules, ..EgressConfig::default() });
        assert_eq!(out.send(by_host(&name)).await.unwrap(), "inside");
    });
}

#[test]
fn offline_is_told_before_a_grant_that_would_not_help() {
    run(async {
        let out = Out::new(EgressConfig { offline: true, ..EgressConfig::default() });
        for grants in [&[][..], &["http://127.0.0.1:1"]] {
            let refusal = out.get(grants, "http://127.0.0.1:1/").await.unwrap_err();
            assert!(matches!(refusal, EgressError::Offline { .. }), "{refusal}");
        }
    });
}

#[test]
fn a_refusal_that_comes_late_is_on_record_as_one_and_what_was_given_up_too() {
    run(async {
        let out = Out::new(EgressConfig::default());
        let name = own_name();
        let refusal =
            out.get(&[&format!("http://{name}:1")], &format!("http://{name}:1/")).await.unwrap_err();
        assert!(matches!(refusal, EgressError::NotPublic { .. }), "{refusal}");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let egress = out.egress.clone();
        let waiting = request(&[&url], &url);
        let task = tokio::spawn(async move { egress.send(waiting).await.map(drop) });
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        let acts = out.ledger();
        assert!(
            matches!(
                &acts[..],
                [
                    LedgerAct::Request { .. },
                    LedgerAct::Refused { why, .. },
                    LedgerAct::Request { .. },
                    LedgerAct::Failed { why: given_up },
                ] if why.contains("is not a public address") && given_up == "given up"
            ),
            "{acts:?}"
        );
    });
}

#[test]
fn an_answer_has_no_more_headers_than_anyone_needs() {
    run(async {
        let server = Server::start(|head| {
            let headers = if head.starts_with("GET /many") {
                (0..100_000).map(|n| format!("x-{n}: y\r\n")).collect()
            } else {
                format!("x: {}\r\n", "y".repeat(1 << 20))
            };
            answer(200, &headers, "")
        })
        .await;
        let out = Out::new(EgressConfig::default());
        for path in ["many", "long"] {
            let error = out.get(&[&server.url()], &format!("{}/{path}", server.url())).await.unwrap_err();
            assert!(matches!(error, EgressError::Broken { .. }), "{error}");
        }
    });
}

#[test]
fn a_body_is_no_larger_than_allowed() {
    run(async {
        let server = Server::start(|_| answer(200, "", &"x".repeat(2 << 20))).await;
        let out = Out::new(EgressConfig::default());
        let error = out.get(&[&server.url()], &server.url()).await.unwrap_err();
        assert!(matches!(error, EgressError::TooLarge { limit: 1_048_576, .. }), "{error}");
    });
}

#[test]
fn a_server_that_only_drips_is_given_up() {
    run(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 -\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        let out = Out::new(EgressConfig::default());
        let every = Duration::from_millis(100);
        let mut sent = request(&[&url], &url);
        sent.limits = Limits {
            slowest: Some(Pace { bytes: 1_000_000, every }),
            total: Some(Duration::from_secs(20)),
            ..sent.limits
        };
        let error = out.send(sent).await.unwrap_err();
        assert!(matches!(error, EgressError::TooSlow { .. }), "{error}");
    });
}

#[test]
fn all_waits_together_have_a_limit() {
    run(async {
        // Each hop takes a hundredth of the time, and there are 255 of them.
        let total = Duration::from_secs(1);
        let server = Server::start(move |_| {
            std::thread::sleep(total / 100);
            answer(302, "location: /again\r\n", "")
        })
        .await;
        let out = Out::new(EgressConfig::default());
        let mut sent = request(&[&server.url()], &server.url());
        sent.limits = Limits { total: Some(total), redirects: u8::MAX, ..sent.limits };
        let error = out.send(sent).await.unwrap_err();
        assert!(matches!(error, EgressError::Behind(_)), "it was followed: {error}");
        assert!(matches!(error.root(), EgressError::Timeout { limit, .. } if *limit == total), "{error}");
    });
}

#[test]
fn a_small_answer_that_comes_late_is_an_answer() {
    run(async {
        let every = Duration::from_millis(20);
        let server = Server::start(move |_| answer(200, "", &"x".repeat(500))).await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let late = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 1024]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 -\r\ncontent-length: 10\r\n\r\n").await.unwrap();
            // Longer than a window, twice: the second time the answer is complete.
            for piece in [b"12345", b"67890"] {
                tokio::time::sleep(every * 2).await;
                stream.write_all(piece).await.unwrap();
            }
        });
        let out = Out::new(EgressConfig::default());
        for (url, expected) in [(server.url(), 500), (late, 10)] {
            let mut sent = request(&[&url], &url);
            sent.limits = Limits { slowest: Some(Pace { bytes: 1_000_000, every }), ..sent.limits };
            assert_eq!(out.send(sent).await.unwrap().len(), expected);
        }
    });
}

#[test]
fn what_is_no_url_is_on_record_without_its_secrets() {
    run(async {
        let out = Out::new(EgressConfig::default());
        let caller = Caller::Plugin("p".to_owned());
        for text in
            ["https://u:hunter2@a b/path?hunter2", "http://[fe80::1%25eth0]/hunter2", "no url", "https://"]
        {
            assert!(out.egress.url(&caller, &Method::GET, text).is_err(), "{text}");
        }
        for url in ["https://u:hunter2@example.com/hunter2?hunter2", "ftp://example.com/hunter2"] {
            assert!(matches!(out.get(&[], url).await, Err(EgressError::Url { .. })), "{url}");
        }
        let refused = out.refused();
        assert_eq!(refused.len(), 6);
        assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
        assert_eq!((refused[0].0.as_str(), refused[4].0.as_str()), ("https://ab", "https://example.com"));
    });
}
