//! Where requests really go: mirrors, the environment's Hub, proxies.

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{TestHost, call};

const GRANTS: &str = "[probe]\nnetwork = [\"https://huggingface.co GET\"]\n";

fn host(own: &Value) -> TestHost {
    let read = call("probe__probe", json!({"trick": "http", "with": "https://huggingface.co/v1/models"}));
    let host = TestHost::outside_tmp([read, Step::text("done")]);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guests::component("probe"), plugins.join("probe.wasm")).unwrap();
    host.home_file(".config/ml-intern/grants.toml", GRANTS);
    host.settings(own);
    host
}

/// The answer of the call, notices, and the plugin's line in the ledger.
fn run(host: &TestHost) -> (String, String, Value) {
    let plugins = host.home.join("plugins").display().to_string();
    let ran = host.stream(&["--plugin-dir", &plugins]);
    let mut ledger = host.requests(&[]);
    ledger.retain(|line| line["who"] == "plugin probe");
    assert_eq!(ledger.len(), 1, "{ledger:?} {}", ran.stderr);
    (ran.outputs()[0].to_owned(), ran.stderr.clone() + &ran.notices().join("\n"), ledger.remove(0))
}

#[test]
fn a_mirror_of_the_settings_stands_for_its_origin() {
    let mut host = host(&json!({}));
    let to = host.server.url();
    // What settings name, the environment does not change.
    host.set("HF_ENDPOINT", "http://127.0.0.1:1");
    host.settings(&json!({"origins": {"https://huggingface.co": {"to": to, "credentials": true}}}));
    let (_, notices, line) = run(&host);
    assert!(!notices.contains("HF_ENDPOINT"), "{notices}");
    assert_eq!((&line["origin"], &line["real"]), (&json!("https://huggingface.co"), &json!(to)));
    assert_eq!((&line["why"], &line["refused"]), (&json!("https://huggingface.co GET"), &json!(false)));
    assert!(host.server.other_requests().iter().any(|request| request.path == "/v1/models"));
    let told = host.run(["net"]).stdout;
    assert!(told.contains(&format!("https://huggingface.co (at {to})")), "{told}");
    let doctor = host.run(["doctor"]).stdout;
    let line = format!("origin: https://huggingface.co: is reached at {to}: GET and HEAD, with credentials");
    assert!(doctor.contains(&line), "{doctor}");
}

#[test]
fn the_environments_hub_is_a_mirror_without_credentials_and_said_aloud() {
    let mut host = host(&json!({}));
    let to = host.server.url();
    host.set("HF_ENDPOINT", &format!("{to}/"));
    let (_, notices, line) = run(&host);
    assert_eq!(line["real"], json!(to));
    assert!(
        notices.contains(&format!("HF_ENDPOINT: https://huggingface.co is reached at {to}, with GET")),
        "{notices}"
    );
}

#[test]
fn a_proxy_of_the_environment_counts_only_if_settings_say_so() {
    let mut host = host(&json!({}));
    // Nothing listens there.
    for name in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        host.set(name, "http://user:hunter2@192.0.2.1:9");
    }
    host.set("HF_ENDPOINT", &host.server.url());
    let (_, _, line) = run(&host);
    assert_eq!(line["failed"], Value::Null, "{line}");
    host.set("ALL_PROXY", "socks5://user:hunter2@proxy");
    host.set("HTTPS_PROXY", "");
    host.set("https_proxy", "");
    host.settings(&json!({"proxy": "environment"}));
    let refused = host.run(["go", "-m", "chat/m"]);
    assert_eq!(refused.code, Some(3), "{}", refused.stderr);
    assert!(refused.stderr.contains("`socks5://proxy` is not a proxy"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}

#[test]
fn the_password_of_a_proxy_is_not_shown() {
    let host = host(&json!({}));
    for url in ["http://user:hunter2@192.0.2.1:9", "user:hunter2@192.0.2.1:9"] {
        host.settings(&json!({"proxy": {"url": url}}));
        for verb in [["config", "show"].as_slice(), &["config", "show", "--origin"], &["doctor"]] {
            let ran = host.run(verb);
            let shown = ran.stdout + &ran.stderr;
            assert!(!shown.is_empty() && !shown.contains("hunter2"), "{shown}");
        }
    }
}

#[test]
fn what_settings_say_wrong_about_the_network_is_named() {
    let host = host(&json!({}));
    for (own, reason) in [
        (
            json!({"origins": {"https://huggingface.co": {"to": "http://m", "credential": true}}}),
            "unknown field `credential`",
        ),
        (json!({"origins": {"https://huggingface.co/api": {"to": "http://m"}}}), "is not an origin"),
        (json!({"proxy": "envronment"}), "`proxy` is \"environment\" or"),
        (json!({"proxy": {"url": "http://u:hunter2@p/x"}}), "is not a proxy that can be used"),
    ] {
        host.settings(&own);
        let refused = host.run(["go", "-m", "chat/m"]);
        assert_eq!(refused.code, Some(3), "{}", refused.stderr);
        assert!(refused.stderr.contains(reason) && !refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
}
