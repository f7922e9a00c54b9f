//! The Hub: read with the host's token, without any of the client's.

use crate::world::{Parts, Server, TOKEN, World, answer, ask, file, get, raw, run};

const HUB: &str = "https://huggingface.co";
const CDN: &str = "https://cdn-lfs.hf.co";
const STRANGERS: &str = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567";

fn weights() -> Vec<u8> {
    (0..50_000_u32).flat_map(|n| n.to_le_bytes()).collect()
}

/// A Hub that knows one gated model, which large files of lie elsewhere.
async fn servers() -> (Server, Server) {
    let hub = Server::start(|got| {
        let is_known = got.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        let commit = "x-repo-commit: 0123456789012345678901234567890123456789\r\n";
        let linked = "x-linked-size: 200000\r\nx-linked-etag: \"abc\"\r\nx-xet-hash: 7\r\n";
        match got.path() {
            path if path.starts_with("/org/gated") && !is_known => {
                answer(401, "x-error-code: GatedRepo\r\nx-error-message: gated\r\n", "")
            }
            "/org/gated/resolve/main/weights.bin" | "/org/gated/resolve/refs%2Fpr%2F1/weights.bin" => {
                let to = "location: https://cdn-lfs.hf.co/w?Signature=s\r\n";
                answer(
                    302,
                    &format!("{commit}{linked}{to}link: <https://cas.test>; rel=\"xet-auth\"\r\n"),
                    "",
                )
            }
            "/org/gated/resolve/main/config.json" => {
                answer(307, &format!("{commit}location: /api/resolve-cache/c\r\n"), "")
            }
            "/api/resolve-cache/c" => file(got, &format!("{commit}etag: \"c\"\r\n"), b"{}"),
            "/org/old/resolve/main/config.json" => {
                answer(307, "location: /org/gated/resolve/main/config.json\r\n", "")
            }
            "/api/models?limit=1" => answer(
                200,
                "link: <https://huggingface.co/api/models?limit=1&cursor=c>; rel=\"next\"\r\n",
                "[]",
            ),
            "/org/away/resolve/main/x" => answer(302, "location: https://evil.test/x\r\n", ""),
            "/org/plain/resolve/main/x" => answer(302, "location: http://cdn-lfs.hf.co/x\r\n", ""),
            "/api/models/org/reflects" => answer(200, "", got.header("authorization").unwrap_or("nothing")),
            "/api/models/org/reflects-in-chunks" => {
                let said = got.header("authorization").unwrap_or("nothing");
                let chunk = format!("{:x}\r\n{said}\r\n0\r\n\r\n", said.len());
                let head =
                    format!("HTTP/1.1 200 -\r\nx-request-id: {said}\r\ntransfer-encoding: chunked\r\n\r\n");
                format!("{head}{chunk}").into()
            }
            _ => answer(200, "", "fine"),
        }
    })
    .await;
    let cdn = Server::start(|got| file(got, "etag: \"of-the-cdn\"\r\nx-evil: 1\r\n", &weights())).await;
    (hub, cdn)
}

async fn world() -> (World, Server, Server) {
    let (hub, cdn) = servers().await;
    let mirrors = vec![(HUB, hub.url()), (CDN, cdn.url())];
    (World::start(Parts { mirrors, ..Parts::default() }).await, hub, cdn)
}

#[test]
fn a_gated_file_comes_through_without_a_token_in_the_client() {
    run(async {
        let (world, hub, cdn) = world().await;
        let path = "/org/gated/resolve/main/weights.bin";
        let head = ask(world.hub, "HEAD", path, "", b"").await;
        assert_eq!(head.status, 200);
        let commit = Some("0123456789012345678901234567890123456789");
        for (name, value) in [
            ("x-repo-commit", commit),
            ("x-linked-etag", Some("\"abc\"")),
            ("x-linked-size", Some("200000")),
            ("etag", Some("\"abc\"")),
            ("content-length", Some("200000")),
            ("location", None),
            ("link", None),
            ("x-xet-hash", None),
        ] {
            assert_eq!(head.header(name), value, "{name}");
        }
        assert_eq!(cdn.got().len(), 0, "a head is known to the Hub");
        let whole = get(world.hub, path).await;
        assert!(whole.status == 200 && whole.body == weights(), "{:?}", whole.head);
        assert_eq!((whole.header("x-repo-commit"), whole.header("etag")), (commit, Some("\"abc\"")));
        let part = ask(world.hub, "GET", path, "range: bytes=100000-\r\n", b"").await;
        assert!(part.status == 206 && part.body == weights()[100_000..], "{:?}", part.head);
        let revision = get(world.hub, "/org/gated/resolve/refs%2Fpr%2F1/weights.bin").await;
        assert_eq!(revision.body, weights());
        // The token goes to the Hub, and to no storage.
        assert!(hub.got().iter().all(|got| got.header("authorization").is_some()));
        assert!(cdn.got().iter().all(|got| got.header("authorization").is_none()));
        assert_eq!(cdn.lines()[0], "GET /w?Signature=s HTTP/1.1");
    });
}

#[test]
fn renamed_repositories_and_cached_files_are_followed_here() {
    run(async {
        let (world, ..) = world().await;
        for path in ["/org/gated/resolve/main/config.json", "/org/old/resolve/main/config.json"] {
            for method in ["GET", "HEAD"] {
                let told = ask(world.hub, method, path, "", b"").await;
                assert_eq!((told.status, told.header("etag")), (200, Some("\"c\"")), "{method} {path}");
                assert_eq!((told.header("content-length"), told.header("location")), (Some("2"), None));
            }
        }
        let list = get(world.hub, "/api/models?limit=1").await;
        let next = format!("<http://127.0.0.1:{}/api/models?limit=1&cursor=c>; rel=\"next\"", world.hub);
        assert_eq!(list.header("link"), Some(next.as_str()));
        for (path, status, why) in [
            ("/org/away/resolve/main/x", 403, "GET https://evil.test is not granted"),
            ("/org/plain/resolve/main/x", 502, "which is not encrypted"),
        ] {
            let told = get(world.hub, path).await;
            assert!(told.status == status && told.text().contains(why), "{told:?}");
            assert_eq!(told.header("location"), None);
        }
    });
}

#[test]
fn no_token_of_a_client_goes_out_in_any_place() {
    run(async {
        let (world, hub, _cdn) = world().await;
        let port = world.hub;
        let headers = format!(
            "authorization: Bearer {STRANGERS}\r\ncookie: token={STRANGERS}\r\nx-hf: {STRANGERS}\r\n"
        );
        let own = format!(
            "{headers}user-agent: {STRANGERS}\r\nif-none-match: {STRANGERS}\r\naccept: {STRANGERS}\r\n"
        );
        assert_eq!(ask(port, "GET", "/api/models/org/m", &own, b"").await.text(), "fine");
        assert_eq!(ask(port, "GET", "/org/m", &own, b"").await.text(), "fine");
        let got = hub.got();
        assert!(got.iter().all(|got| !got.head.contains(STRANGERS)), "{got:?}");
        // The host's own goes along where a repository is read, and nowhere else.
        assert_eq!(got[0].header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
        assert_eq!(got[1].header("authorization"), None);
        let percent: String = STRANGERS.bytes().map(|b| format!("%{b:02x}")).collect();
        for path in [
            format!("/api/models?token={}", "x"),
            format!("/api/models?access_token={}", "x"),
            format!("/api/models?q={STRANGERS}"),
            format!("/org/m/resolve/main/{STRANGERS}"),
            format!("/org/m/resolve/main/{percent}"),
            "/api/models/org/m/xet-read-token/main".to_owned(),
            "/api/spaces/org/s/jwt".to_owned(),
            "/settings/tokens".to_owned(),
        ] {
            let told = get(port, &path).await;
            assert!(matches!(told.status, 403 | 404), "{path} {told:?}");
        }
        let body = format!("{{\"paths\":[\"{STRANGERS}\"]}}");
        let told = ask(port, "POST", "/api/models/org/m/paths-info/main", "", body.as_bytes()).await;
        assert_eq!(told.status, 403);
        assert_eq!(hub.got().len(), 2, "{:?}", hub.lines());
        assert_eq!(world.refusals().len(), 9, "{:?}", world.refusals());
    });
}

#[test]
fn the_hosts_token_never_comes_back() {
    run(async {
        let (world, ..) = world().await;
        let told = get(world.hub, "/api/models/org/reflects-in-chunks").await;
        assert_eq!(told.text(), "Bearer [redacted:hf]");
        assert_eq!(told.header("x-request-id"), Some("Bearer [redacted:hf]"));
        // Without it the body is not as long as it was said to be: the connection ends.
        let said = "GET /api/models/org/reflects HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let told = String::from_utf8(raw(world.hub, said.as_bytes()).await).unwrap();
        assert!(!told.contains(TOKEN), "{told}");
        // Nor does it go where a command would have it.
        let leaked = get(world.hub, &format!("/api/models/org/{TOKEN}")).await;
        assert_eq!(leaked.status, 403);
    });
}

#[test]
fn questions_by_post_are_those_of_the_list_and_small() {
    run(async {
        let (world, hub, _cdn) = world().await;
        let path = "/api/datasets/org/d/paths-info/refs%2Fconvert%2Fparquet";
        let form = "content-type: application/x-www-form-urlencoded\r\nx-secret: 1\r\n";
        let told = ask(world.hub, "POST", path, form, b"paths=a&expand=False").await;
        assert_eq!((told.status, told.text().as_str()), (200, "fine"));
        let got = hub.got().remove(0);
        assert_eq!(got.body, b"paths=a&expand=False");
        assert_eq!(got.header("content-type"), Some("application/x-www-form-urlencoded"));
        assert!(got.header("authorization").is_some() && got.header("x-secret").is_none());
        let told = ask(world.hub, "POST", path, "", &vec![b'a'; (1 << 20) + 1]).await;
        assert_eq!(told.status, 413);
        // Everything else writes, and nobody can be asked about it here.
        for (method, path) in [
            ("POST", "/api/models/org/m/commit/main"),
            ("POST", "/api/repos/create"),
            ("DELETE", "/api/repos/delete"),
            ("POST", "/org/m.git/git-receive-pack"),
            ("PUT", "/api/models/org/m/settings"),
            ("POST", "/api/anything"),
        ] {
            let told = ask(world.hub, method, path, "", br#"{"key":"header","name":"m"}"#).await;
            assert_eq!(told.status, 403, "{method} {path}");
            assert!(told.text().contains("{\"error\":\"commands only read the Hub here"), "{told:?}");
        }
        assert_eq!(hub.got().len(), 1);
    });
}

#[test]
fn git_asks_and_fetches_and_its_packed_questions_are_unpacked() {
    use std::io::Write as _;
    run(async {
        let (world, hub, _cdn) = world().await;
        let refs = "/org/m/info/refs?service=git-upload-pack";
        ask(world.hub, "GET", refs, "git-protocol: version=2\r\nuser-agent: git/2.39.2\r\n", b"").await;
        let got = hub.got().remove(0);
        assert_eq!(
            (got.header("git-protocol"), got.header("user-agent")),
            (Some("version=2"), Some("git/2.39.2"))
        );
        let question = b"0032want 0123456789012345678901234567890123456789\n00000009done\n";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(question).unwrap();
        let packed = packed.finish().unwrap();
        let kind = "content-type: application/x-git-upload-pack-request\r\n";
        let zipped = format!("{kind}content-encoding: gzip\r\n");
        for (headers, body) in [(kind, &question[..]), (&zipped, &packed[..])] {
            let told = ask(world.hub, "POST", "/org/m/git-upload-pack", headers, body).await;
            assert_eq!(told.text(), "fine");
            let got = hub.got().pop().unwrap();
            assert_eq!((got.body.as_slice(), got.header("content-encoding")), (&question[..], None));
            assert_eq!(got.header("content-type"), Some("application/x-git-upload-pack-request"));
        }
        let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        bomb.write_all(&vec![0; 17 << 20]).unwrap();
        let told = ask(world.hub, "POST", "/org/m/git-upload-pack", &zipped, &bomb.finish().unwrap()).await;
        assert_eq!(told.status, 413);
    });
}

#[test]
fn a_mirror_that_gets_no_credentials_is_read_without() {
    run(async {
        let (hub, _cdn) = servers().await;
        let world =
            World::start(Parts { mirrors: vec![(HUB, hub.url())], without_token: true, ..Parts::default() })
                .await;
        let told = get(world.hub, "/org/gated/resolve/main/weights.bin").await;
        assert_eq!((told.status, told.header("x-error-code")), (401, Some("GatedRepo")));
    });
}

#[test]
fn what_runs_is_on_record_without_the_hosts_token() {
    run(async {
        let (hub, _cdn) = servers().await;
        let mirrors = vec![(HUB, hub.url())];
        let who = Some("curl -H 'hf_HostHostHostHostHostHostHostHost12'");
        let world = World::start(Parts { mirrors, who, ..Parts::default() }).await;
        get(world.hub, "/org/m").await;
        get(world.hub, "/api/models?token=x").await;
        let ledger = format!("{:?}", world.ledger());
        assert!(
            !ledger.contains(TOKEN) && ledger.matches("curl -H '[redacted:hf]'").count() == 2,
            "{ledger}"
        );
    });
}
