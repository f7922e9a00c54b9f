//! The mirror of PyPI: pages lead back, files pass as they are, and only what is on the list goes out.

use egress::{EgressConfig, LedgerAct};

use crate::world::{Parts, Server, World, answer, ask, file, get, run};

const PYPI: &str = "https://pypi.org";
const FILES: &str = "https://files.pythonhosted.org";

/// A wheel that is none, long enough to come in pieces.
fn wheel() -> Vec<u8> {
    (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect()
}

async fn index() -> Server {
    Server::start(|got| {
        let page = concat!(
            r#"<a href="https://files.pythonhosted.org/packages/a/x-1.whl#sha256=0" data-core-metadata="sha256=1">x</a>"#,
            r#"<a href="../../packages/b/x-2.whl">y</a>"#,
        );
        match (got.path(), got.header("accept").unwrap_or_default()) {
            ("/simple/x/", accept) if accept.contains("vnd.pypi.simple.v1+json") => answer(
                200,
                "content-type: application/vnd.pypi.simple.v1+json\r\netag: \"e\"\r\n",
                r#"{"files":[{"url":"https://files.pythonhosted.org/packages/a/x-1.whl"},{"url":"../y.whl"}]}"#,
            ),
            ("/simple/x/", _) if got.header("if-none-match") == Some("\"e\"") => b"HTTP/1.1 304 -\r\netag: \"e\"\r\n\r\n".to_vec(),
            ("/simple/x/", _) => file(got, "content-type: text/html\r\netag: \"e\"\r\nset-cookie: a=b\r\nx-evil: 1\r\n", page.as_bytes()),
            ("/simple/x", _) => answer(301, "location: /simple/x/\r\n", ""),
            ("/simple/away/", _) => answer(302, "location: https://evil.test/\r\n", ""),
            ("/packages/b/x-2.whl", _) => answer(302, "location: https://files.pythonhosted.org/packages/b/x-2.whl\r\n", ""),
            _ => answer(404, "content-type: text/html\r\n", "no such project"),
        }
    })
    .await
}

async fn world() -> (World, Server, Server) {
    let index = index().await;
    let files = Server::start(|got| match got.path() {
        "/packages/a/x-1.whl" | "/packages/b/x-2.whl" => {
            file(got, "content-type: application/octet-stream\r\netag: \"w\"\r\n", &wheel())
        }
        "/packages/a/x-1.whl.metadata" => answer(200, "", "Name: x"),
        _ => answer(404, "", ""),
    })
    .await;
    let mirrors = vec![(PYPI, index.url()), (FILES, files.url())];
    (World::start(Parts { mirrors, ..Parts::default() }).await, index, files)
}

#[test]
fn pages_lead_back_to_the_gateway_and_files_pass_as_they_are() {
    run(async {
        let (world, index, files) = world().await;
        let port = world.pypi;
        let here = format!("http://127.0.0.1:{port}");
        let page = get(port, "/simple/x/").await;
        assert_eq!(page.status, 200);
        let links = page.text();
        assert!(
            links.contains(&format!("{here}/files/packages/a/x-1.whl#sha256=0\" data-core-metadata")),
            "{links}"
        );
        assert!(links.contains("\"../../packages/b/x-2.whl\"") && !links.contains("pythonhosted"), "{links}");
        assert_eq!(
            (page.header("etag"), page.header("set-cookie"), page.header("x-evil")),
            (Some("\"e\""), None, None)
        );
        let json =
            ask(port, "GET", "/simple/x/", "accept: application/vnd.pypi.simple.v1+json\r\n", b"").await;
        assert_eq!(
            json.text(),
            format!(r#"{{"files":[{{"url":"{here}/files/packages/a/x-1.whl"}},{{"url":"../y.whl"}}]}}"#)
        );
        for path in ["/files/packages/a/x-1.whl", "/packages/b/x-2.whl"] {
            let whole = get(port, path).await;
            assert!(whole.status == 200 && whole.body == wheel(), "{path} {}", whole.status);
            assert_eq!(whole.header("content-length"), Some("1200000"));
            assert_eq!(whole.header("location"), None);
        }
        assert_eq!(get(port, "/files/packages/a/x-1.whl.metadata").await.text(), "Name: x");
        assert_eq!(get(port, "/simple/x").await.text(), links);
        assert_eq!(get(port, "/simple/nothing/").await.status, 404);
        for (method, path) in [("GET", "/"), ("GET", "/elsewhere"), ("GET", "/files"), ("GET", "/files/")] {
            assert_eq!(ask(port, method, path, "", b"").await.status, 404, "{path}");
        }
        // The origins that were asked for, whatever stands for them, and who asked.
        let origins: Vec<String> = world
            .ledger()
            .into_iter()
            .filter_map(|act| match act {
                LedgerAct::Request { who, origin, .. } => Some(format!("{who}: {origin}")),
                _ => None,
            })
            .collect();
        assert_eq!(origins[0], "command pip download x: https://pypi.org");
        assert!(origins.contains(&"command pip download x: https://files.pythonhosted.org".to_owned()));
        assert!(index.got().iter().chain(&files.got()).all(|got| got.header("authorization").is_none()));
    });
}

#[test]
fn ranges_conditions_and_heads_work() {
    run(async {
        let (world, _index, files) = world().await;
        let (port, path) = (world.pypi, "/files/packages/a/x-1.whl");
        let part = ask(port, "GET", path, "range: bytes=4-11\r\n", b"").await;
        assert_eq!((part.status, part.header("content-range")), (206, Some("bytes 4-11/1200000")));
        assert_eq!(part.body, wheel()[4..12]);
        let tail = ask(port, "GET", path, "range: bytes=-5\r\n", b"").await;
        assert_eq!(tail.body, wheel()[1_199_995..]);
        let head = ask(port, "HEAD", path, "", b"").await;
        assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("1200000"), 0));
        assert_eq!((head.header("accept-ranges"), head.header("etag")), (Some("bytes"), Some("\"w\"")));
        assert!(files.lines().contains(&"HEAD /packages/a/x-1.whl HTTP/1.1".to_owned()));
        let known = ask(port, "GET", "/simple/x/", "if-none-match: \"e\"\r\n", b"").await;
        assert_eq!((known.status, known.body.len()), (304, 0));
        // A part of a page would have links that nobody sees.
        let page = ask(port, "GET", "/simple/x/", "range: bytes=0-40\r\n", b"").await;
        assert!(page.status == 200 && page.text().contains("/files/packages/a/x-1.whl"), "{page:?}");
        let head = ask(port, "HEAD", "/simple/x/", "", b"").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
    });
}

#[test]
fn nothing_is_sent_but_what_is_asked_for() {
    run(async {
        let (world, index, _files) = world().await;
        let port = world.pypi;
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FROB"] {
            assert_eq!(ask(port, method, "/simple/x/", "", b"").await.status, 405, "{method}");
        }
        assert_eq!(ask(port, "GET", "/simple/x/", "", b"data").await.status, 400);
        let chunked = "transfer-encoding: chunked\r\n\r\n4\r\ndata\r\n0\r\n";
        assert_eq!(ask(port, "GET", "/simple/x/", chunked, b"").await.status, 400);
        assert_eq!(index.got().len(), 0);
        let headers = concat!(
            "authorization: Basic c2VjcmV0\r\ncookie: secret\r\nx-forwarded-for: secret\r\nreferer: secret\r\n",
            "user-agent: pip/24.0 {\"secret\":1}\r\nproxy-authorization: secret\r\nte: secret\r\n",
            "upgrade: h2c\r\nconnection: upgrade, x-hop\r\nx-hop: secret\r\nx-http-method-override: DELETE\r\n",
        );
        assert_eq!(ask(port, "GET", "/simple/x/", headers, b"").await.status, 200);
        let head = index.got()[0].head.to_lowercase();
        assert!(!head.contains("secret") && head.contains("user-agent: pip/24.0"), "{head}");
        let names: Vec<&str> =
            head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
        assert!(
            names.iter().all(|name| ["host", "user-agent", "accept-encoding"].contains(name)),
            "{names:?}"
        );
    });
}

#[test]
fn what_is_redirected_elsewhere_offline_or_not_mirrored_is_refused_with_words() {
    run(async {
        let (world, ..) = world().await;
        let away = get(world.pypi, "/simple/away/").await;
        assert!(
            away.status == 403 && away.text().contains("GET https://evil.test is not granted"),
            "{away:?}"
        );
        assert_eq!(away.header("location"), None);
        let index = index().await;
        let parts = |offline| Parts {
            mirrors: vec![(PYPI, index.url())],
            config: EgressConfig { offline, ..EgressConfig::default() },
            ..Parts::default()
        };
        let world = World::start(parts(true)).await;
        let offline = get(world.pypi, "/simple/x/").await;
        assert!(offline.status == 403 && offline.text().contains("--offline"), "{offline:?}");
        // The reason is in the first line, where some clients show nothing else.
        assert!(offline.head.line().contains("--offline"), "{offline:?}");
        assert_eq!(index.got().len(), 0);
        assert_eq!(world.refusals().len(), 1);
    });
}

#[test]
fn other_indexes_are_mirrored_where_they_are_switched_on() {
    run(async {
        let npm = Server::start(|got| match got.path() {
            "/@scope%2fx" => answer(
                200,
                "content-type: application/json\r\n",
                r#"{"dist":{"tarball":"https://registry.npmjs.org/@scope/x/-/x-1.0.0.tgz"}}"#,
            ),
            "/@scope/x/-/x-1.0.0.tgz" => answer(200, "content-type: application/octet-stream\r\n", "tar"),
            _ => answer(404, "", ""),
        })
        .await;
        let conda = Server::start(|got| answer(200, "content-type: application/json\r\n", got.path())).await;
        let mirrors = || {
            vec![
                ("https://registry.npmjs.org", npm.url()),
                ("https://conda.anaconda.org", conda.url()),
                ("https://repo.anaconda.com", conda.url()),
            ]
        };
        let world = World::start(Parts { mirrors: mirrors(), ..Parts::default() }).await;
        for (port, path) in [(world.npm, "/x"), (world.conda, "/conda-forge/noarch/repodata.json")] {
            let told = get(port, path).await;
            assert!(told.status == 403 && told.text().contains("not switched on"), "{told:?}");
        }
        let world = World::start(Parts { mirrors: mirrors(), more_indexes: true, ..Parts::default() }).await;
        let here = format!("http://127.0.0.1:{}", world.npm);
        let told = get(world.npm, "/@scope%2fx").await;
        assert_eq!(told.text(), format!(r#"{{"dist":{{"tarball":"{here}/@scope/x/-/x-1.0.0.tgz"}}}}"#));
        assert_eq!(get(world.npm, "/@scope/x/-/x-1.0.0.tgz").await.text(), "tar");
        for path in ["/conda-forge/noarch/repodata.json", "/pkgs/main/linux-64/repodata.json"] {
            assert_eq!(get(world.conda, path).await.text(), path);
        }
        for (port, path) in [(world.npm, "/-/npm/v1/security/audits"), (world.conda, "/conda-forge/noarch/x")]
        {
            assert_eq!(ask(port, "POST", path, "", b"{}").await.status, 405);
        }
    });
}
