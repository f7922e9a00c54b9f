//! A proxy is used by those for whom it is set, and learns nothing about others.

use ml_intern_egress::{
    Caller, Ceiling, EgressConfig, EgressError, HostRule, Hosts, Outgoing, Proxy, ProxyUrls,
};

use crate::server::{Out, Server, answer, by_host, request, run};

fn through(server: &Server, plugins: bool) -> Out {
    bounded(server, plugins, &[])
}

fn bounded(server: &Server, plugins: bool, deny: &[&str]) -> Out {
    let deny = deny.iter().map(|text| Hosts::parse(text).unwrap()).collect();
    let ceiling = Ceiling { deny, ..Ceiling::default() };
    let url = Some(format!("http://user:hunter2@127.0.0.1:{}", server.port));
    let urls = ProxyUrls { http: url.clone(), https: url, no_proxy: vec!["10.0.0.0/8".to_owned()], plugins };
    Out::new(EgressConfig { proxy: Some(Proxy::new(&urls).unwrap()), ceiling, ..EgressConfig::default() })
}

#[test]
fn the_hosts_own_requests_go_through_it_by_name() {
    run(async {
        let server = Server::start(|head| {
            if head.starts_with("CONNECT") { answer(403, "", "") } else { answer(200, "", "by proxy") }
        })
        .await;
        let out = through(&server, false);
        assert_eq!(out.send(by_host("http://never.invalid:81/x?y")).await.unwrap(), "by proxy");
        let error = out.send(by_host("https://never.invalid/x")).await.unwrap_err();
        assert!(
            matches!(error, EgressError::Connect { .. }) && !error.to_string().contains("hunter2"),
            "{error}"
        );
        let asked = server.asked();
        assert!(asked[0].starts_with("GET http://never.invalid:81/x?y HTTP/1.1"), "{asked:?}");
        assert!(asked[1].starts_with("CONNECT never.invalid:443 HTTP/1.1"), "{asked:?}");
        for head in asked {
            assert!(head.to_lowercase().contains("proxy-authorization: basic dxnlcjpodw50zxiy"), "{head}");
        }
        assert!(!format!("{:?} {:?}", out.ledger(), out.egress).contains("hunter2"));
    });
}

#[test]
fn who_asks_decides_about_it_and_not_what_may_be_reached() {
    run(async {
        let server = Server::start(|_| answer(200, "", "by proxy")).await;
        let out = through(&server, false);
        // As `login --check` does: the host's own request, bound to one origin.
        let url = "http://192.0.2.7:99/";
        let own = Outgoing { caller: Caller::Host("login"), ..request(&["http://192.0.2.7:99"], url) };
        assert_eq!(out.send(own).await.unwrap(), "by proxy");
        assert!(server.asked()[0].starts_with("GET http://192.0.2.7:99/"), "{:?}", server.asked());
        // A name that only the proxy knows is its affair there, too. It is not, where a plugin asks.
        let url = "http://never.invalid/";
        let own = Outgoing { caller: Caller::Host("login"), ..request(&["http://never.invalid"], url) };
        assert_eq!(out.send(own).await.unwrap(), "by proxy");
    });
}

#[test]
fn no_rule_on_what_plugins_reach_is_about_the_proxy_between() {
    run(async {
        let server = Server::start(|_| answer(200, "", "by proxy")).await;
        let urls = ProxyUrls { http: Some(server.url()), plugins: true, ..ProxyUrls::default() };
        let rule = |hosts: &str| HostRule {
            hosts: Hosts::parse(hosts).unwrap(),
            asks: false,
            text: format!("host({hosts})"),
        };
        let out = Out::new(EgressConfig {
            proxy: Some(Proxy::new(&urls).unwrap()),
            rules: vec![rule("127.0.0.1"), rule("192.0.2.8")],
            ..EgressConfig::default()
        });
        let grants = ["http://192.0.2.7:*", "http://192.0.2.8:*"];
        assert_eq!(out.get(&grants, "http://192.0.2.7:99/").await.unwrap(), "by proxy");
        let refusal = out.get(&grants, "http://192.0.2.8:99/").await.unwrap_err();
        assert!(matches!(refusal, EgressError::Rule { .. }), "{refusal}");
        assert_eq!(server.asked().len(), 1);
    });
}

#[test]
fn a_denied_address_is_not_asked_of_it_and_it_is_none_itself() {
    run(async {
        let server = Server::start(|_| answer(200, "", "by proxy")).await;
        let out = bounded(&server, false, &["192.0.2.0/24"]);
        for url in ["http://192.0.2.7/", "http://[::ffff:192.0.2.7]/"] {
            assert!(matches!(out.send(by_host(url)).await, Err(EgressError::Forbidden { .. })), "{url}");
        }
        // A name that only the proxy knows is its affair.
        assert_eq!(out.send(by_host("http://never.invalid/")).await.unwrap(), "by proxy");
        let out = bounded(&server, false, &["127.0.0.0/8"]);
        let refusal = out.send(by_host("http://never.invalid/")).await.unwrap_err();
        assert!(matches!(refusal, EgressError::ForbiddenPlace { .. }), "{refusal}");
        // Nor by its name.
        let url = Some("http://proxy.evil.invalid:3128".to_owned());
        let proxy = Proxy::new(&ProxyUrls { http: url, ..ProxyUrls::default() }).unwrap();
        let deny = vec![Hosts::parse("*.evil.invalid").unwrap()];
        let ceiling = Ceiling { deny, ..Ceiling::default() };
        let out = Out::new(EgressConfig { proxy: Some(proxy), ceiling, ..EgressConfig::default() });
        let refusal = out.send(by_host("http://a.test/")).await.unwrap_err();
        assert!(refusal.to_string().contains("leads to proxy.evil.invalid, which is forbidden"), "{refusal}");
        assert_eq!(server.asked().len(), 1);
    });
}

#[test]
fn a_plugin_goes_through_it_only_if_settings_say_so_and_is_decided_on_first() {
    run(async {
        let server = Server::start(|_| answer(200, "", "by proxy")).await;
        let grants = ["http://192.0.2.7:*", "http://*.example.com:*", "http://own.invalid:*"];
        let direct = through(&server, false).get(&["http://127.0.0.1:*"], &server.url()).await.unwrap();
        assert_eq!((direct.as_str(), server.asked()[0].starts_with("GET / ")), ("by proxy", true));
        let out = through(&server, true);
        assert_eq!(out.get(&grants, "http://192.0.2.7:99/").await.unwrap(), "by proxy");
        assert!(server.asked()[1].starts_with("GET http://192.0.2.7:99/"), "{:?}", server.asked());
        for url in ["http://192.0.2.8:99/", "https://192.0.2.7:99/", "http://169.254.169.254/"] {
            let refusal = out.get(&grants, url).await.unwrap_err();
            assert!(matches!(refusal, EgressError::NotGranted { .. }), "{url}: {refusal}");
        }
        // A name that leads nowhere is not handed on for the proxy to find.
        let refusal = out.get(&grants, "http://own.invalid/").await.unwrap_err();
        assert!(matches!(refusal, EgressError::Connect { .. }), "{refusal}");
        assert_eq!(server.asked().len(), 2);
    });
}
