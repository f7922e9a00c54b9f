//! What components and servers try on the way out.

use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::server::{Server, answer};
use crate::hostile::{all_refused, attack, run, with_probe};

fn granted(servers: &[&Server]) -> Value {
    json!({"network": servers.iter().map(|server| server.grant()).collect::<Vec<_>>()})
}

#[test]
fn a_component_has_no_sockets_and_asks_no_name_server() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let (stream, datagram) = (tcp.local_addr().unwrap(), udp.local_addr().unwrap());
    // What it may ask through the host opens no socket to it.
    let capabilities = json!({"network": [format!("http://{stream} GET"), format!("http://{datagram} GET")]});
    let (stream, datagram) = (stream.to_string(), datagram.to_string());
    let local = stream.replace("127.0.0.1", "localhost");
    let addresses =
        [&stream, &datagram, &local, "127.0.0.1:0", "[::1]:0", "0.0.0.0:0", "c2VjcmV0.evil.example:53"];
    let host = with_probe(vec![attack("sockets", "", &addresses), Step::text("ok")], &capabilities);
    let ran = run(&host);
    all_refused(ran.outputs()[0]);
    assert_eq!(ran.outputs()[0].lines().count(), 4 * addresses.len() + 2);
    assert_eq!(tcp.accept().map(|_| ()).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(udp.recv(&mut [0; 8]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn headers_of_the_host_and_smuggled_ones_are_refused_one_by_one() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let capabilities = granted(&[&server]);
    let forbidden = [
        "Host: evil.example",
        "hOST: evil.example",
        "Content-Length: 0",
        "Transfer-Encoding: chunked",
        "transfer-encoding: identity",
        "Connection: keep-alive, x-secret",
        "Keep-Alive: timeout=1",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        "TE: trailers",
        "Trailer: X",
        "Expect: 100-continue",
        "Proxy-Authorization: Basic x",
        "Proxy-Connection: keep-alive",
        "Authorization: Bearer stolen",
        "Cookie: session=stolen",
        "X-Value: a\r\nHost: evil.example",
        "X-Value: a\nX-More: b",
        "X-Value: a\rb",
        "X-Value: a\0b",
        "X-Value: a\r\n\r\nGET /second HTTP/1.1\r\nHost: evil.example",
        "X-Name\r\nX-More: b",
        "X Name: b",
        "X-Name\t: b",
        ":authority: evil.example",
        "é: b",
        ": b",
    ];
    let host = with_probe(
        vec![
            attack("headers", &server.url(), &forbidden),
            attack("headers", &server.url(), &["X-Fine: yes"]),
            Step::text("ok"),
        ],
        &capabilities,
    );
    let ran = run(&host);
    all_refused(ran.outputs()[0]);
    assert!(ran.outputs()[1].starts_with("WORKED "), "{:?}", ran.outputs());
    let heads = server.heads();
    assert_eq!(heads.len(), 1, "{heads:?}");
    let names: Vec<&str> =
        heads[0].lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0)).collect();
    assert_eq!(names.iter().filter(|name| name.eq_ignore_ascii_case("host")).count(), 1, "{names:?}");
    assert!(
        heads[0].contains(&format!("127.0.0.1:{}", server.port)) && heads[0].contains("x-fine: yes"),
        "{heads:?}"
    );
}

#[test]
fn an_answer_has_no_cookies_and_no_flood_of_headers() {
    let server = Server::start(|head| {
        if head.starts_with("GET /flood") {
            return answer(200, &"x: y\r\n".repeat(100_000), "flooded");
        }
        if head.starts_with("GET /one") {
            return answer(200, &format!("x: {}\r\n", "y".repeat(4 << 20)), "flooded");
        }
        answer(200, "Set-Cookie: session=planted\r\nset-cookie2: a=planted\r\nx-fine: yes\r\n", "fine")
    });
    let url = server.url();
    let host = with_probe(
        vec![
            attack("fetch", &url, &[]),
            attack("fetch", &format!("{url}/flood"), &[]),
            attack("fetch", &format!("{url}/one"), &[]),
            attack("headers", &url, &["X-Fine: yes"]),
            Step::text("ok"),
        ],
        &granted(&[&server]),
    );
    let ran = run(&host);
    let outputs = ran.all("tool_output");
    let told = |k: usize| outputs[k]["output"].as_str().unwrap();
    assert!(told(0).contains("x-fine") && !told(0).contains("set-cookie\""), "{}", told(0));
    for flood in [1, 2] {
        assert_eq!(outputs[flood]["success"], false, "{}", told(flood));
        assert!(told(flood).len() < 2_000 && !told(flood).contains("flooded"), "{}", told(flood));
    }
    assert!(told(3).starts_with("WORKED ") && server.heads().iter().all(|head| !head.contains("planted")));
}

#[test]
fn a_thousand_requests_wait_for_their_turn_and_a_call_has_its_share() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let flood = || ("probe__attack", json!({"how": "flood", "with": server.url(), "list": []}));
    let host =
        with_probe(vec![Step::calls((0..16).map(|_| flood())), Step::text("ok")], &granted(&[&server]));
    let ran = run(&host);
    let outputs = ran.outputs();
    assert_eq!(outputs.len(), 16);
    for output in outputs {
        assert!(output.starts_with("64 answered, then ") && output.contains("64 requests"), "{output}");
    }
    assert_eq!(server.heads().len(), 16 * 64);
    assert!(server.most() <= 8, "{} requests at a time", server.most());
    let ledger = host.requests(&[]);
    assert_eq!(ledger.iter().filter(|line| line["who"] == "plugin probe").count(), 16 * 64);
}

#[test]
fn what_is_far_too_long_is_refused_and_leaves_a_ledger_that_can_be_read() {
    let server = Server::start(|_| answer(200, "", "fine"));
    let capabilities = json!({"network": [server.grant(), "http://*.names.example:8099 GET"]});
    // More often than faults suspend a plugin: a request that is refused is none.
    let mut steps: Vec<Step> = (0..6).map(|_| attack("extremes", &server.url(), &[])).collect();
    steps.extend([attack("fetch", &server.url(), &[]), Step::text("ok")]);
    let host = with_probe(steps, &capabilities);
    let ran = run(&host);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    let outputs = ran.outputs();
    for output in &outputs[..6] {
        all_refused(output);
        assert_eq!(output.lines().count(), 3, "{output}");
        assert!(output.contains("at most 128 headers") && output.len() < 2_000, "{output}");
    }
    assert!(outputs[6].contains("status: 200") && server.heads().len() == 1, "{}", outputs[6]);
    // `ml-intern net` ends with 1 where a line cannot be read.
    assert!(host.requests(&[]).iter().filter(|line| line["refused"] == true).count() >= 6);
    let folder = std::fs::read_dir(host.home.join(".local/state/ml-intern/net")).unwrap();
    let bytes: u64 = folder.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes < 64 << 10, "{bytes}");
}

#[test]
fn text_is_of_the_origin_that_it_came_from_in_the_end() {
    let other = Server::start(|_| answer(200, "", "elsewhere"));
    let to = other.url();
    let server = Server::start(move |_| answer(302, &format!("location: {to}\r\n"), ""));
    let steps = vec![attack("fetch", &server.url(), &[]), Step::text("ok")];
    let ran = run(&with_probe(steps, &granted(&[&server, &other])));
    let output = ran.all("tool_output")[0];
    assert!(output["output"].as_str().unwrap().contains("101, 108, 115, 101"), "{output}");
    assert_eq!(output["source"], json!(other.url()), "{output}");
}

#[test]
fn a_server_leads_a_component_nowhere_else() {
    let inside = Server::start(|_| answer(200, "", "secret"));
    let hidden = inside.url();
    let server = Server::start(move |head| {
        let to = match head.split(' ').nth(1).unwrap() {
            "/private" => hidden.clone(),
            "/local" => hidden.replace("127.0.0.1", "localhost"),
            "/mapped" => hidden.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
            "/decimal" => hidden.replace("127.0.0.1", "2130706433"),
            "/metadata" => "http://169.254.169.254/latest/meta-data/".to_owned(),
            "/file" => "file:///etc/passwd".to_owned(),
            "/user" => hidden.replace("http://", "http://127.0.0.1@"),
            "/chain" => "/private".to_owned(),
            _ => "/circle".to_owned(),
        };
        answer(302, &format!("location: {to}\r\n"), "")
    });
    let paths = ["private", "local", "mapped", "decimal", "metadata", "file", "user", "chain", "circle"];
    let mut steps: Vec<Step> =
        paths.iter().map(|path| attack("fetch", &format!("{}/{path}", server.url()), &[])).collect();
    steps.push(Step::text("ok"));
    let host = with_probe(steps, &granted(&[&server]));
    let ran = run(&host);
    assert_eq!(ran.outputs().len(), paths.len());
    for (path, output) in paths.iter().zip(ran.all("tool_output")) {
        assert_eq!(output["success"], false, "{path}: {output}");
    }
    assert!(server.heads().len() > paths.len(), "{:?}", ran.outputs());
    assert_eq!(inside.heads(), Vec::<String>::new());
}
