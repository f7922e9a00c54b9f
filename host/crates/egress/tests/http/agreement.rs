//! What is decided on and what is connected to are the same, however a URL is spelt.

use ml_intern_egress::{EgressConfig, NetworkGrant, Origin};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use url::Url;

use crate::server::{Out, Server, answer, run};

fn runner(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// Hosts in every dress: names, dots, capitals, percent signs, other alphabets, addresses in odd numbers.
fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9.-]{1,20}",
        "[a-z0-9]{1,5}(%2e|%2E|。|\\.)[a-z]{2,4}\\.?",
        "[bücherßöІа一]{1,6}\\.[a-z]{2,5}",
        "(0x)?[0-9a-f]{1,9}",
        "(0x|0)?[0-9]{1,3}(\\.(0x|0)?[0-9]{1,3}){0,4}",
        "\\[[0-9a-f:.%]{2,20}\\]",
        "localhost\\.?",
    ]
}

/// What a guest may write: schemes, users, ports, slashes and tails that mean something else elsewhere.
fn url() -> impl Strategy<Value = String> {
    let scheme =
        prop_oneof![Just("http"), Just("https"), Just("HTTP"), Just("hTTps"), Just("ftp"), Just("ws")];
    let slashes = prop_oneof![8 => Just("://"), 1 => Just(":/"), 1 => Just(":\\\\"), 1 => Just(":///")];
    let user = prop_oneof![6 => Just(String::new()), 1 => "[a-z.]{0,6}(:[a-z]{0,4})?@"];
    let port = prop_oneof![3 => Just(String::new()), 3 => ":[0-9]{0,6}", 1 => ":[a-z+-]{1,3}"];
    let tail = prop_oneof![2 => Just(String::new()), 6 => "[/?#\\\\][ -~é\t]{0,20}"];
    (scheme, slashes, user, host(), port, tail).prop_map(|(scheme, slashes, user, host, port, tail)| {
        format!("{scheme}{slashes}{user}{host}{port}{tail}")
    })
}

proptest! {
    #![proptest_config(runner(4_000))]

    #[test]
    fn an_origin_is_what_the_client_is_given(text in url()) {
        let Ok(url) = Url::parse(&text) else { return Ok(()) };
        let Ok(origin) = Origin::of(&url) else { return Ok(()) };
        let Ok(uri) = origin.uri(&url) else { return Ok(()) };
        prop_assert_eq!(uri.scheme_str(), Some(url.scheme()));
        prop_assert_eq!(uri.port_u16().or(url.port_or_known_default()), url.port_or_known_default());
        let host = url.host_str().unwrap();
        prop_assert_eq!(uri.host(), Some(host.strip_suffix('.').unwrap_or(host)));
        prop_assert!(url.username().is_empty() && url.password().is_none());
        prop_assert_eq!(uri.path(), url.path());
        prop_assert_eq!(uri.query(), url.query());
        // Read once more, by us or by the client's own parser, it is still the same.
        prop_assert_eq!(&Origin::of(&Url::parse(&uri.to_string()).unwrap()).unwrap(), &origin);
        prop_assert_eq!(&Origin::of(&Url::parse(&origin.to_string()).unwrap()).unwrap(), &origin);
    }

    #[test]
    fn what_is_written_as_a_grant_is_read_as_that_grant(
        text in "(https?|ftp)://(\\*\\.)?[a-zA-Z0-9.\\[\\]:-]{1,16}(/[0-9]{1,3})?(:(\\*|[0-9]{1,5}(-[0-9]{1,5})?))?( [A-Z]{1,6}){0,2}"
    ) {
        if let Ok(grant) = NetworkGrant::parse(&text) {
            prop_assert_eq!(NetworkGrant::parse(&grant.to_string()).unwrap(), grant);
        }
    }

    #[test]
    fn no_text_breaks_the_reading_of_grants(text in "\\PC{0,60}") {
        let _ = NetworkGrant::parse(&text).map_err(|e| e.to_string());
        let _ = NetworkGrant::parse(&format!("https://{text}")).map_err(|e| e.to_string());
    }

    #[test]
    fn what_two_grants_have_in_common_is_in_both(a in grant(), b in grant(), text in url()) {
        let Some(origin) = Url::parse(&text).ok().and_then(|url| Origin::of(&url).ok()) else { return Ok(()) };
        let both = a.intersection(&b).is_some_and(|both| both.allows(&origin, "GET"));
        prop_assert_eq!(both, a.allows(&origin, "GET") && b.allows(&origin, "GET"));
    }
}

fn grant() -> impl Strategy<Value = NetworkGrant> {
    let host = prop_oneof![
        Just("localhost"),
        Just("*.a.test"),
        Just("b.a.test"),
        Just("10.0.0.0/8"),
        Just("127.0.0.1"),
        Just("1.2.0.0/16")
    ];
    let port = prop_oneof![Just(""), Just(":*"), Just(":80-90")];
    (prop_oneof![Just("http"), Just("https")], host, port)
        .prop_map(|(scheme, host, port)| NetworkGrant::parse(&format!("{scheme}://{host}{port}")).unwrap())
}

#[test]
fn the_host_header_is_the_origin_that_was_decided_on() {
    run(async {
        let server = Server::start(|_| answer(200, "", "")).await;
        let out = Out::new(EgressConfig::default());
        let mut runner = proptest::test_runner::TestRunner::new(runner(64));
        let spelt = "[a-zA-Z0-9]{0,3}(%6c|%4C|l|L)ocalhost|(A\\.b|x--y|ü)\\.LOCALHOST\\.?|127\\.1|0x7f\\.0\\.1|2130706433";
        let strategy = proptest::string::string_regex(spelt).unwrap();
        let mut seen = 0;
        for _ in 0..64 {
            let host = strategy.new_tree(&mut runner).unwrap().current();
            let Ok(url) = Url::parse(&format!("http://{host}:{}/p", server.port)) else { continue };
            let origin = Origin::of(&url).unwrap();
            if out.get(&[&origin.to_string()], url.as_str()).await.is_ok() {
                let head = server.asked().pop().unwrap();
                let expected = origin.to_string().replace("http://", "");
                assert!(head.contains(&format!("\r\nhost: {expected}")), "{host}: {head}");
                seen += 1;
            }
        }
        assert!(seen > 20, "{seen}");
    });
}
