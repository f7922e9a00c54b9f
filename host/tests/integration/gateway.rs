//! What commands reach behind the wall, and what of it is on record.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;
use testkit::Step;

use crate::support::{TestHost, call, grade};

const TOKEN: &str = "hf_AbCdEfGhIjKlMnOpQrStUvWx";

/// A server that answers every request with `body`, and hands out the heads of requests.
fn server(body: &'static str) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, heads) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|read| read > 0) {}
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = reader.get_mut().write_all(answer.as_bytes());
            if sender.send(head).is_err() {
                return;
            }
        }
    });
    (url, heads)
}

fn get(url: &str) -> String {
    format!(
        "python3 -c \"import os, urllib.request as u; print(u.urlopen(os.path.expandvars('{url}')).read().decode())\""
    )
}

#[test]
fn commands_read_mirrors_through_the_host_and_hold_no_token() {
    if grade() != "full" {
        println!("NOT RUN: this machine makes no user namespaces");
        return;
    }
    let (index, index_heads) = server("<a href=\"https://files.pythonhosted.org/packages/six.whl\">six</a>");
    let (hub, hub_heads) = server("weights");
    let mut host = TestHost::new([
        call("bash", json!({"command": "env; echo nothing fetched"})),
        call("bash", json!({"command": get("$PIP_INDEX_URL/six/")})),
        call("bash", json!({"command": get("$HF_ENDPOINT/org/gated/resolve/main/model.bin")})),
        call(
            "bash",
            json!({"command": "curl -sS -m 9 https://example.com; python3 -c \"import socket; socket.getaddrinfo('example.com', 443)\""}),
        ),
        call(
            "bash",
            json!({"command": "curl -sS -m 9 -X POST -H content-type:application/json -d '{\"name\": \"x\"}' \"$HF_ENDPOINT/api/repos/create\" -H 'Authorization: Bearer hf_ofAnAttacker0123456789abc'"}),
        ),
        Step::text("ok"),
    ]);
    host.set("HF_TOKEN", TOKEN);
    host.settings(&json!({"origins": {
        "https://pypi.org": {"to": index, "private": true},
        "https://huggingface.co": {"to": hub, "private": true, "credentials": true, "methods": ["GET", "HEAD", "POST"]},
    }}));
    let ran = host.stream(&[]);
    let outputs = ran.outputs();
    assert_eq!((ran.code, ran.lines[0]["network"].as_str()), (Some(0), Some("gateway")), "{}", ran.stderr);
    assert!(
        !outputs[0].contains(TOKEN) && outputs[0].contains("HF_ENDPOINT=http://127.0.0.1:"),
        "{}",
        outputs[0]
    );
    // The index, with links that lead back here.
    assert!(
        outputs[1].contains("http://127.0.0.1:") && outputs[1].contains("packages/six.whl"),
        "{}",
        outputs[1]
    );
    assert!(!outputs[1].contains("files.pythonhosted.org\""), "{}", outputs[1]);
    assert!(index_heads.try_recv().unwrap().starts_with("GET /simple/six/ "));
    // A gated file, by a token that the command never had.
    assert_eq!(outputs[2].trim(), "weights");
    let head = hub_heads.try_recv().unwrap();
    assert!(head.starts_with("GET /org/gated/resolve/main/model.bin ") && head.contains(TOKEN), "{head}");
    assert!(outputs[3].contains("403") && outputs[3].contains("gaierror"), "{}", outputs[3]);
    // Nothing is written, whoever's token the command has.
    assert!(outputs[4].contains("only read the Hub"), "{}", outputs[4]);
    assert!(hub_heads.try_recv().is_err());
    // What came from outside is nobody's word, from the first that did.
    let sources: Vec<bool> = ran
        .all("tool_output")
        .iter()
        .map(|event| event.to_string().contains("the network, through a command"))
        .collect();
    assert_eq!(sources[..2], [false, true], "{sources:?}");
    let net = host.run(["net"]).stdout;
    for line in ["command python3 -c", "https://huggingface.co", "https://example.com"] {
        assert!(net.contains(line), "{line}: {net}");
    }
    assert!(!net.contains(TOKEN));
}

#[test]
fn one_host_is_allowed_by_a_rule_and_offline_leaves_none() {
    if grade() != "full" {
        println!("NOT RUN: this machine makes no user namespaces");
        return;
    }
    let ask = json!({"command": "curl -sS -m 9 https://github.example/a"});
    let run = |flags: &[&str]| {
        let host = TestHost::new([call("bash", ask.clone()), Step::text("ok")]);
        let ran = host.stream(flags);
        (
            ran.lines[0]["network"].as_str().unwrap().to_owned(),
            ran.outputs()[0].to_owned(),
            host.run(["net"]).stdout,
        )
    };
    let (network, refused, net) = run(&[]);
    assert!(network == "gateway" && refused.contains("403") && net.contains("REFUSED"), "{refused} {net}");
    // Let through, the name is asked for, which nobody has.
    let (_, tried, net) = run(&["--allow", "host(github.example)"]);
    assert!(!tried.contains("403") || !net.contains("not granted"), "{tried} {net}");
    assert!(net.contains("CONNECT https://github.example"), "{net}");
    let (network, offline, _) = run(&["--offline"]);
    assert!(
        network == "off" && offline.contains("Could not resolve host") && !offline.contains("403"),
        "{offline}"
    );
}
