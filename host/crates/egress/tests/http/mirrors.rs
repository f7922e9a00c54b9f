//! Who names an origin gets what stands for it, and no more than its entry says.

use bytes::Bytes;
use http::{HeaderValue, Method};
use ml_intern_egress::{
    Body, Caller, Ceiling, Credential, EgressConfig, EgressError, HostRule, Hosts, LedgerAct, MirrorTrust,
    NetworkGrant, Origin, Outgoing, Placement, Policy, Rewrite, Secret,
};
use redact::Redactor;
use secrecy::SecretString;

use crate::server::{Out, Server, answer, by_host, own_name, request, run};

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
fn a_request_with_a_credential_is_never_sent_to_a_mirror_without_it() {
    run(async {
        let server = Server::start(|_| answer(200, "", "ok")).await;
        let secret = || Secret { value: SecretString::from("hunter2-hunter2"), hugging_face: false };
        let with = |credentials: bool| {
            let secrets = Redactor::new([("key".to_owned(), secret().value)]);
            let trust = MirrorTrust { credentials, ..MirrorTrust::default() };
            let rewrites = vec![Rewrite::new(HUB, &server.url(), trust).unwrap()];
            Out::new(EgressConfig { rewrites, secrets, ..EgressConfig::default() })
        };
        let place = Placement::Header { name: http::header::AUTHORIZATION, prefix: "Bearer ".to_owned() };
        let credential = Credential::new("key", &[HUB.to_owned()], place, secret()).unwrap();
        let sent =
            || Outgoing { credential: Some(credential.clone()), ..request(&[HUB], "https://hub.test/a") };
        let out = with(false);
        let refusal = out.send(sent()).await.unwrap_err();
        assert!(matches!(refusal, EgressError::MirrorCredential { .. }), "{refusal}");
        assert!(
            refusal.to_string().contains("gets no credentials, so that `key` cannot go along"),
            "{refusal}"
        );
        assert!(out.egress.carries(&credential, &sent().url).is_err());
        assert_eq!((server.connections(), out.refused().len()), (0, 1));
        let out = with(true);
        assert!(out.egress.carries(&credential, &sent().url).is_ok());
        assert_eq!(out.send(sent()).await.unwrap(), "ok");
        assert!(server.asked()[0].contains("authorization: Bearer hunter2-hunter2"));
    });
}

#[test]
fn what_the_machine_forbids_no_mirror_gets() {
    run(async {
        let server = Server::start(|_| answer(200, "", "ok")).await;
        let grants = |grants: &[&str]| -> Vec<NetworkGrant> {
            grants.iter().map(|grant| NetworkGrant::parse(grant).unwrap()).collect()
        };
        let real = server.url();
        let under = |ceiling: Ceiling| {
            let methods = vec!["GET".to_owned(), "POST".to_owned()];
            let trust = MirrorTrust { credentials: true, private: true, methods };
            let rewrites = vec![Rewrite::new(HUB, &real, trust).unwrap()];
            Out::new(EgressConfig { rewrites, ceiling, ..EgressConfig::default() })
        };
        let deny = vec![Hosts::parse("127.0.0.1").unwrap()];
        let denied = Ceiling { deny, mirrors: grants(&[&real]), ..Ceiling::default() };
        let allowed = Ceiling { allow: Some(grants(&[HUB])), ..Ceiling::default() };
        let models = Ceiling { models: Some(grants(&[HUB])), ..Ceiling::default() };
        let (plugin, model) = (|| request(&[HUB], HUB), || by_host(HUB));
        for (ceiling, sent) in
            [(&denied, plugin()), (&denied, model()), (&allowed, plugin()), (&models, model())]
        {
            let refusal = under(ceiling.clone()).send(sent).await.unwrap_err();
            assert!(matches!(refusal, EgressError::Forbidden { .. }), "{refusal}");
            assert!(refusal.to_string().contains(&format!("{real} (in place of {HUB})")), "{refusal}");
        }
        assert_eq!(server.connections(), 0);
        for (ceiling, sent) in [(allowed, plugin()), (models, model())] {
            let named = Ceiling { mirrors: grants(&[&real]), ..ceiling };
            assert_eq!(under(named).send(sent).await.unwrap(), "ok");
        }
    });
}

#[test]
fn a_rule_that_asks_about_a_mirror_is_asked_about_and_one_that_denies_it_never() {
    run(async {
        let server = Server::start(|_| answer(200, "", "ok")).await;
        let under = |asks: bool| {
            let hosts = Hosts::parse("127.0.0.1").unwrap();
            let rules = vec![HostRule { hosts, asks, text: "host(127.0.0.1)".to_owned() }];
            let rewrites = vec![Rewrite::new(HUB, &server.url(), MirrorTrust::default()).unwrap()];
            Out::new(EgressConfig { rewrites, rules, ..EgressConfig::default() })
        };
        let origin = Origin::of(&HUB.parse().unwrap()).unwrap();
        let approved = || Outgoing {
            approved: vec![NetworkGrant::parse(&format!("{HUB} GET")).unwrap()],
            ..request(&[HUB], HUB)
        };
        let out = under(true);
        assert_eq!(out.egress.can_be_asked(&origin, "GET").unwrap(), Some("host(127.0.0.1)"));
        let refusal = out.get(&[HUB], HUB).await.unwrap_err();
        assert!(matches!(refusal, EgressError::Rule { asks: true, .. }), "{refusal}");
        assert_eq!(server.connections(), 0);
        // Who said yes said it to the origin.
        assert_eq!(out.send(approved()).await.unwrap(), "ok");
        let out = under(false);
        assert!(out.egress.can_be_asked(&origin, "GET").is_err());
        let refusal = out.send(approved()).await.unwrap_err();
        assert!(matches!(refusal, EgressError::Rule { asks: false, .. }), "{refusal}");
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
