//! Every hop is decided anew.

use http::{HeaderValue, Method};
use ml_intern_egress::{Body, EgressConfig, EgressError, LedgerAct, Outgoing};

use crate::server::{Out, Server, answer, request, run};

fn to(status: u16, place: &str) -> Vec<u8> {
    answer(status, &format!("location: {place}\r\n"), "")
}

#[test]
fn a_redirect_to_what_is_not_granted_is_refused_and_on_record() {
    run(async {
        let inside = Server::start(|_| answer(200, "", "inside")).await;
        let place = format!("http://2130706433:{}/secret?q", inside.port);
        let server = Server::start(move |_| to(302, &place)).await;
        let out = Out::new(EgressConfig::default());
        let refusal = out.get(&[&server.url()], &server.url()).await.unwrap_err();
        assert!(matches!(refusal.root(), EgressError::NotGranted { .. }), "{refusal}");
        assert!(!refusal.is_before_sending(), "the first server had it");
        assert_eq!(inside.connections(), 0);
        let origin = inside.url();
        assert_eq!(out.refused(), [(origin.clone(), format!("GET {origin} is not granted"))]);
        assert_eq!(out.ledger().len(), 3);
    });
}

#[test]
fn another_origin_gets_neither_the_callers_headers_nor_its_body() {
    run(async {
        let other = Server::start(|_| answer(200, "", "there")).await;
        let place = format!("{}/b", other.url());
        let server = Server::start(move |head| match head.split(' ').nth(1).unwrap() {
            "/a" => to(307, "/same"),
            "/same" => to(303, &place),
            kept => to(kept[1..].parse().unwrap(), &place),
        })
        .await;
        let out = Out::new(EgressConfig::default());
        let grant = "http://127.0.0.1:* GET POST";
        let mut sent = request(&[grant], &format!("{}/a", server.url()));
        for (name, value) in [
            ("x-own", "1"),
            ("content-type", "text/x"),
            ("accept", "*/*"),
            ("cookie", "c"),
            ("range", "bytes=0-7"),
        ] {
            sent.headers.insert(name, HeaderValue::from_static(value));
        }
        let sent = Outgoing { method: Method::POST, body: Body::from(bytes::Bytes::from("body")), ..sent };
        assert_eq!(out.send(sent.clone()).await.unwrap(), "there");
        let same = &server.asked()[1];
        assert!(
            same.starts_with("POST /same") && same.contains("x-own: 1") && same.contains("content-length: 4")
        );
        let there = &other.asked()[0];
        assert!(there.starts_with("GET /b") && there.contains("accept: */*"), "{there}");
        assert!(there.contains("range: bytes=0-7"), "{there}");
        for header in ["x-own", "content-type", "content-length", "cookie", "referer"] {
            assert!(!there.contains(header), "{there}");
        }
        // What would keep method and body goes nowhere else.
        for status in [307, 308] {
            let url = format!("{}/{status}", server.url()).parse().unwrap();
            let refusal = out.send(Outgoing { url, ..sent.clone() }).await.unwrap_err();
            assert!(matches!(refusal.root(), EgressError::Elsewhere { .. }), "{refusal}");
            assert!(!refusal.is_before_sending(), "the first server had it");
        }
        assert_eq!((other.asked().len(), out.refused().len()), (1, 2));
    });
}

#[test]
fn a_circle_ends() {
    run(async {
        let server = Server::start(|_| to(301, "/again")).await;
        let out = Out::new(EgressConfig::default());
        let error = out.get(&[&server.url()], &server.url()).await.unwrap_err();
        assert!(matches!(error, EgressError::TooManyRedirects(_)), "{error}");
        assert_eq!(server.asked().len(), 6);
        let left = out.ledger().iter().filter(|act| matches!(act, LedgerAct::Request { .. })).count();
        assert_eq!(left, 6);
    });
}
