//! Writes to the Hub: held, asked about, and sent with the host's token.

use std::sync::{Arc, Mutex};

use ml_intern_gateway::{AskWrite, HubWrite, HubWriteKind};

use crate::world::{Parts, Server, TOKEN, World, answer, ask, run};

const HUB: &str = "https://huggingface.co";

/// Answers as it is told, and keeps what it was asked.
fn asks(verdict: Result<(), &'static str>) -> (AskWrite, Arc<Mutex<Vec<HubWrite>>>) {
    let asked = Arc::<Mutex<Vec<HubWrite>>>::default();
    let kept = Arc::clone(&asked);
    let ask: AskWrite = Arc::new(move |write| {
        kept.lock().unwrap().push(write);
        Box::pin(async move { verdict.map_err(str::to_owned) })
    });
    (ask, asked)
}

async fn hub() -> Server {
    Server::start(|got| match got.path() {
        "/org/m.git/info/lfs/objects/batch" => answer(
            200,
            "content-type: application/vnd.git-lfs+json\r\n",
            concat!(
                r#"{"transfer":"multipart","objects":[{"oid":"0","size":6,"actions":{"upload":{"#,
                r#""href":"https://huggingface.co/complete","header":{"chunk_size":"3","#,
                r#""1":"https://s3.hf.co/part?n=1","Authorization":"Basic c3RvcmFnZQ=="}},"#,
                r#""download":{"href":"https://s3.hf.co/whole"}}}]}"#,
            ),
        ),
        _ => answer(200, "location: https://evil.test/\r\netag: \"e\"\r\n", "done"),
    })
    .await
}

#[test]
fn a_write_waits_for_a_yes_and_goes_out_with_the_hosts_token() {
    run(async {
        let hub = hub().await;
        let (ask_write, asked) = asks(Ok(()));
        let mirrors = vec![(HUB, hub.url())];
        let world = World::start(Parts { mirrors, ask: Some(ask_write), ..Parts::default() }).await;
        let body = concat!(
            r#"{"key":"header","value":{"summary":"s"}}"#,
            "\n",
            r#"{"key":"file","value":{"path":"a.txt","content":"aGVsbG8=","encoding":"base64"}}"#,
        );
        let headers = "content-type: application/x-ndjson\r\nauthorization: Bearer mine\r\n";
        let told =
            ask(world.hub, "POST", "/api/models/org/m/commit/main?create_pr=1", headers, body.as_bytes())
                .await;
        assert_eq!((told.status, told.text().as_str(), told.header("location")), (200, "done", None));
        let write = asked.lock().unwrap().remove(0);
        assert_eq!((write.kind, write.repository.as_deref()), (HubWriteKind::Commit, Some("org/m")));
        assert_eq!(
            (write.target.as_str(), write.bytes),
            ("/api/models/org/m/commit/main?create_pr=1", body.len() as u64)
        );
        assert_eq!((write.files[0].path.as_str(), write.files[0].bytes), ("a.txt", Some(5)));
        let got = hub.got().remove(0);
        assert_eq!(got.body, body.as_bytes());
        assert_eq!(got.header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
        assert_eq!(got.header("content-type"), Some("application/x-ndjson"));
    });
}

#[test]
fn a_no_is_told_and_nothing_is_sent() {
    run(async {
        let hub = hub().await;
        let (ask_write, asked) = asks(Err("refused: --allow 'repository(org/m)'"));
        let mirrors = vec![(HUB, hub.url())];
        let world = World::start(Parts { mirrors, ask: Some(ask_write), ..Parts::default() }).await;
        let upload = br#"{"operation":"upload","objects":[{"oid":"0","size":6}]}"#;
        for (method, path, body) in [
            ("POST", "/api/repos/create", &br#"{"name":"m","organization":"org","private":false}"#[..]),
            ("DELETE", "/api/repos/delete", br#"{"name":"m"}"#),
            ("POST", "/api/models/org/m/preupload/main", br#"{"files":[{"path":"a","size":1}]}"#),
            ("POST", "/org/m.git/info/lfs/objects/batch", upload),
            ("POST", "/org/m.git/git-receive-pack", b"0000"),
            ("PUT", "/api/models/org/m/settings", br#"{"private":false}"#),
        ] {
            let told = ask(world.hub, method, path, "", body).await;
            assert_eq!(told.status, 403, "{path}");
            assert_eq!(told.text(), r#"{"error":"refused: --allow 'repository(org/m)'"}"#);
        }
        assert_eq!(hub.got().len(), 0);
        let kinds: Vec<HubWriteKind> = asked.lock().unwrap().iter().map(|write| write.kind).collect();
        use HubWriteKind::{Create, Delete, GitPush, LargeFiles, Other, Preupload};
        assert_eq!(kinds, [Create, Delete, Preupload, LargeFiles, GitPush, Other]);
        let names: Vec<Option<String>> = asked.lock().unwrap().iter().map(|w| w.repository.clone()).collect();
        let expected = ["org/m", "m", "org/m", "org/m", "org/m", "org/m"].map(|name| Some(name.to_owned()));
        assert_eq!(names, expected);
        assert_eq!(asked.lock().unwrap()[3].files[0].bytes, Some(6));
    });
}

#[test]
fn large_files_go_by_links_of_the_gateway_and_only_after_a_yes() {
    run(async {
        let hub = hub().await;
        let storage = Server::start(|_| answer(200, "etag: \"part\"\r\n", "stored")).await;
        let (ask_write, asked) = asks(Ok(()));
        let mirrors = vec![(HUB, hub.url()), ("https://s3.hf.co", storage.url())];
        let world = World::start(Parts { mirrors, ask: Some(ask_write), ..Parts::default() }).await;
        let batch = async |operation: &str| {
            let body = format!(r#"{{"operation":"{operation}","objects":[{{"oid":"0","size":6}}]}}"#);
            let told = ask(world.hub, "POST", "/org/m.git/info/lfs/objects/batch", "", body.as_bytes()).await;
            assert_eq!(told.status, 200);
            assert!(!told.text().contains("hf.co") && !told.text().contains("huggingface.co"), "{told:?}");
            assert!(!told.text().contains("Authorization"), "{told:?}");
            let links: serde_json::Value = serde_json::from_slice(&told.body).unwrap();
            let actions = &links["objects"][0]["actions"];
            let path = |link: &serde_json::Value| {
                let here = format!("http://127.0.0.1:{}", world.hub);
                link.as_str().unwrap().strip_prefix(&here).unwrap().to_owned()
            };
            assert_eq!(actions["upload"]["header"]["chunk_size"], "3");
            [&actions["upload"]["header"]["1"], &actions["upload"]["href"], &actions["download"]["href"]]
                .map(path)
        };
        let [part, _, whole] = batch("download").await;
        assert_eq!(asked.lock().unwrap().len(), 0);
        assert_eq!(ask(world.hub, "GET", &whole, "", b"").await.text(), "stored");
        assert_eq!(ask(world.hub, "PUT", &part, "", b"data").await.status, 403);
        assert_eq!(storage.lines(), ["GET /whole HTTP/1.1"]);
        let [part, complete, _] = batch("upload").await;
        assert_eq!(asked.lock().unwrap().len(), 1);
        let told = ask(world.hub, "PUT", &part, "authorization: Bearer mine\r\n", b"abc").await;
        assert_eq!((told.status, told.header("etag")), (200, Some("\"part\"")));
        let got = storage.got().pop().unwrap();
        assert_eq!((got.line(), got.body.as_slice()), ("PUT /part?n=1 HTTP/1.1", &b"abc"[..]));
        assert_eq!(got.header("authorization"), None);
        ask(world.hub, "POST", &complete, "content-type: application/json\r\n", b"{}").await;
        let got = hub.got().pop().unwrap();
        assert_eq!((got.path(), got.header("authorization")), ("/complete", Some("Basic c3RvcmFnZQ==")));
        assert_eq!(ask(world.hub, "GET", "/_lfs/999", "", b"").await.status, 404);
    });
}
