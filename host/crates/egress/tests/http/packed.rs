//! Compressed bodies: handed on as they are, or unpacked with a limit.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use ml_intern_egress::{EgressConfig, EgressError, Limits, Outgoing};

use crate::server::{Out, Server, request, run};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

async fn serving(encoding: &'static str, body: Vec<u8>) -> Server {
    Server::start(move |_| {
        let head = format!(
            "HTTP/1.1 200 -\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.as_bytes(), &body].concat()
    })
    .await
}

async fn unpacked(server: &Server, max_bytes: u64) -> Result<Vec<u8>, EgressError> {
    let out = Out::new(EgressConfig::default());
    let sent = request(&[&server.url()], &server.url());
    let limits = Limits { max_bytes, ..sent.limits };
    let answer = out.egress.send(Outgoing { decompress: true, limits, ..sent }).await?;
    assert!(
        !answer.headers.contains_key("content-encoding") && !answer.headers.contains_key("content-length")
    );
    Ok(answer.bytes().await?.to_vec())
}

#[test]
fn what_was_asked_for_is_unpacked() {
    run(async {
        let text: Vec<u8> = (0..200_000_u32).flat_map(|n| n.to_string().into_bytes()).collect();
        for encoding in ["gzip", "x-gzip"] {
            let server = serving(encoding, gzip(&text)).await;
            assert!(unpacked(&server, 64 << 20).await.unwrap() == text, "{encoding}");
            assert!(server.asked()[0].contains("accept-encoding: gzip"));
            assert!(!server.asked()[0].contains("deflate"), "{:?}", server.asked());
        }
    });
}

#[test]
fn what_was_not_asked_for_is_handed_on_as_it_came() {
    run(async {
        let packed = gzip(b"text");
        let server = serving("gzip", packed.clone()).await;
        let out = Out::new(EgressConfig::default());
        let answer = out.egress.send(request(&[&server.url()], &server.url())).await.unwrap();
        assert_eq!(answer.headers["content-encoding"], "gzip");
        assert_eq!(answer.bytes().await.unwrap(), packed);
        assert!(!server.asked()[0].contains("accept-encoding"));
    });
}

#[test]
fn bombs_do_not_go_off() {
    run(async {
        let zeros = vec![0; 32 << 20];
        let bomb = serving("gzip", gzip(&zeros)).await;
        let error = unpacked(&bomb, 1 << 30).await.unwrap_err();
        assert!(matches!(error, EgressError::Bomb(_)), "{error}");
        // The limit is on what is handed on, and not on what came.
        let small = serving("gzip", gzip(&zeros[..1 << 20])).await;
        let error = unpacked(&small, 100_000).await.unwrap_err();
        assert!(matches!(error, EgressError::TooLarge { .. }), "{error}");
        // One bomb in another, and several behind each other.
        let nested = unpacked(&serving("gzip", gzip(&gzip(&zeros))).await, 1 << 30).await.unwrap();
        assert_eq!(nested, gzip(&zeros));
        let many = gzip(&zeros[..4 << 20]).repeat(16);
        let error = unpacked(&serving("gzip", many).await, 1 << 30).await.unwrap_err();
        assert!(matches!(error, EgressError::Bomb(_)), "{error}");
    });
}

#[test]
fn a_body_that_ends_too_early_or_is_no_gzip_is_broken() {
    run(async {
        let packed = gzip(&vec![7; 10_000]);
        for body in [packed[..packed.len() - 9].to_vec(), b"no gzip at all".to_vec()] {
            let error = unpacked(&serving("gzip", body).await, 1 << 20).await.unwrap_err();
            assert!(matches!(error, EgressError::Broken { .. }), "{error}");
        }
        assert!(unpacked(&serving("gzip", Vec::new()).await, 1 << 20).await.unwrap().is_empty());
    });
}
