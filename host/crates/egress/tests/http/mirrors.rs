//! Who names an origin gets what stands for it, and no more than its entry says.

use bytes::Bytes;
use http::{HeaderValue, Method};
use ml_intern_egress::{
    Body, Caller, EgressConfig, EgressError, LedgerAct, MirrorTrust, Outgoing, Policy, Rewrite,
};

use crate::server::{Out, Server, answer, request, run};

const HUB: &str = "https://hub.test";

fn mirrored(to: &str, trust: MirrorTrust) -> Out {
    let rewrites = vec![Rewrite::new(HUB, to, trust).unwrap()];
    Out::new(EgressConfig { rewrites, ..EgressConfig::default() })
}

fn redirecting(head: &str) -> Vec<u8> {
    let port = head.lines().find_map(|line| line.strip_prefix("host: 127.0.0.1:")).unwrap_or("1");
    match head.split(' ').nth(1).unwrap_or_default() {
        "/hub/a" => answer(302, "location: /hub/b?c\r\n", ""),
        "/hub/b?c" => answer(307, &format!("location: http://127.0.0.1:{port}/hub/end\r\n"), ""),
        "/hub/away" => answer(302, "location: /elsewhere\r\n", ""),
        _ => answer(200, "", "mirrored"),
    }
}

#[test]
fn grants_name_the_origin_and_redirects_on_the_mirror_stay_with_it() {
    run(async {
        let server = Server::start(redirecting).await;
        let out = mirrored(&format!("{}/hub", server.url()), MirrorTrust::default());
        let answered = out.egress.send(request(&[HUB], "https://hub.test/a")).await.unwrap();
        assert_eq!(answered.url.as_str(), "https://hub.test/end");
        drop(answered);
        let paths: Vec<String> =
            server.asked().iter().filter_map(|head| Some(head.split(' ').nth(1)?.to_owned())).collect();
        assert_eq!(paths, ["/hub/a", "/hub/b?c", "/hub/end"]);
        for act in out.ledger() {
            let LedgerAct::Request { origin, real, .. } = act else { continue };
            assert_eq!((origin.as_str(), real), (HUB, Some(server.url())));
        }
        // What leaves the mirror's own path is a place like any other.
        let refusal = out.get(&[HUB], "https://hub.test/away").await.unwrap_err();
        assert!(
            matches!(refusal.root(), EgressError::NotGranted { .. } | EgressError::Downgrade { .. }),
            "{refusal}"
        );
        // A grant of the mirror is no grant of what it stands for.
        let refusal = out.get(&[&server.url()], "https://hub.test/a").await.unwrap_err();
        assert!(matches!(refusal, EgressError::NotGranted { .. }), "{refusal}");
    });
}

#[test]
fn a_mirror_gets_credentials_and_other_methods_only_if_its_entry_says_so() {
    run(async {
        let server = Server::start(|_| answer(200, "", "ok")).await;
        let post = || {
            let mut sent = request(&[], "https://hub.test/v1/chat");
            sent.headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
            sent.headers.insert("x-api-key", HeaderValue::from_static("hunter2"));
            let body = Body::from(Bytes::from("{}"));
            Outgoing {
                caller: Caller::Host("test"),
                policy: Policy::Model,
                method: Method::POST,
                body,
                ..sent
            }
        };
        let refusal = mirrored(&server.url(), MirrorTrust::default()).send(post()).await.unwrap_err();
        assert!(refusal.to_string().contains("takes GET and HEAD and not POST"), "{refusal}");
        let methods = vec!["POST".to_owned()];
        let trust = MirrorTrust { methods: methods.clone(), ..MirrorTrust::default() };
        mirrored(&server.url(), trust).send(post()).await.unwrap();
        let trust = MirrorTrust { methods, credentials: true, ..MirrorTrust::default() };
        mirrored(&server.url(), trust).send(post()).await.unwrap();
        let asked = server.asked();
        assert!(!asked[0].contains("hunter2") && asked[1].matches("hunter2").count() == 2, "{asked:?}");
    });
}

#[test]
fn a_mirrors_name_leads_nowhere_private_unless_its_entry_says_so() {
    run(async {
        let server = Server::start(|_| answer(200, "", "ok")).await;
        // A name that the machine's own files lead here.
        let here = format!("http://{}:{}", own_name(), server.port);
        let refusal = mirrored(&here, MirrorTrust::default()).get(&[HUB], HUB).await.unwrap_err();
        assert!(matches!(refusal, EgressError::NotPublic { .. }), "{refusal}");
        assert_eq!(server.connections(), 0);
        let trust = MirrorTrust { private: true, ..MirrorTrust::default() };
        let reached = mirrored(&here, trust.clone()).get(&[HUB], HUB).await;
        assert!(!matches!(reached, Err(EgressError::NotPublic { .. })), "{reached:?}");
        let metadata = mirrored("http://[::ffff:169.254.169.254]", trust).get(&[HUB], HUB).await.unwrap_err();
        assert!(matches!(metadata, EgressError::NotPublic { .. }), "{metadata}");
    });
}

/// The machine's own name, which its hosts file has; else one that every hosts file has.
fn own_name() -> String {
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap_or_default();
    let names = hosts.lines().filter(|line| line.starts_with("127.") || line.starts_with("::1"));
    let mut names = names.flat_map(|line| line.split_whitespace().skip(1).map(str::to_owned));
    names.find(|name| !name.ends_with("localhost")).unwrap_or_else(|| "ip6-loopback".to_owned())
}
