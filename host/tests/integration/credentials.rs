//! Credentials: what carries them, who sees them, what is left of them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{Ran, TestHost, call};

const VALUE: &str = "ghp_S3cretValueOfTheTest0123456789";

/// Answers every request with what it got, in small pieces.
struct Mirror {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Mirror {
    fn start() -> Self {
        // The manifest's port is replaced by one with as many digits.
        let listener = std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0").unwrap())
            .find(|listener| listener.local_addr().unwrap().port() >= 10_000)
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Some(request) = reflect(&stream) {
                    kept.lock().unwrap().push(request);
                }
            }
        });
        Self { port, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn reflect(mut stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let request = format!("{head}\r\n{}", String::from_utf8_lossy(&body));
    let hex: String = VALUE.bytes().map(|b| format!("{b:02x}")).collect();
    let answer = format!("{request} {hex}");
    let mut bytes = b"HTTP/1.1 200 OK\r\nconnection: close\r\nx-echo: it was ".to_vec();
    bytes.extend(format!("{VALUE}\r\ntransfer-encoding: chunked\r\n\r\n").bytes());
    for piece in answer.as_bytes().chunks(7) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
        bytes.extend_from_slice(piece);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(&bytes).ok()?;
    Some(request)
}

/// The probe with a mirror as its audience, in the user's plugin folder.
fn install(host: &TestHost, mirror: &Mirror) {
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    let mut bytes = std::fs::read(guests::component("probe")).unwrap();
    let (from, to) = ("127.0.0.1:65535".to_owned(), format!("127.0.0.1:{}", mirror.port));
    assert_eq!(from.len(), to.len());
    let places: Vec<usize> = bytes
        .windows(from.len())
        .enumerate()
        .filter(|(_, w)| *w == from.as_bytes())
        .map(|(at, _)| at)
        .collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    }
    std::fs::write(folder.join("probe.wasm"), bytes).unwrap();
}

fn grant(host: &TestHost, mirror: &Mirror, credentials: &str) {
    let origin = mirror.url("");
    host.home_file(
        ".config/ml-intern/grants.toml",
        &format!(
            "[probe]\nkv = true\nnetwork = [\"{origin} GET POST\"]\n[probe.credentials]\n{credentials}\n"
        ),
    );
}

fn carry(name: &str, method: &str, url: &str, rest: &str) -> Value {
    json!({"trick": "carry", "with": format!("{name}\n{method}\n{url}{rest}")})
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The value is in no file of the program but the named one.
fn is_nowhere(host: &TestHost, but: &str) {
    let state = host.home.join(".local/state/ml-intern");
    for path in files(&state).into_iter().filter(|path| !path.ends_with(but)) {
        let bytes = std::fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(!text.contains(VALUE), "{}: {text}", path.display());
    }
}

fn logged_in(host: &TestHost, arguments: &[&str], value: &str) -> Ran {
    let mut child = host
        .command(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A name that is refused is refused before anything is read.
    let _ = child.stdin.take().unwrap().write_all(value.as_bytes());
    Ran::of(&child.wait_with_output().unwrap())
}

#[test]
fn a_plugin_uses_a_credential_that_it_never_sees() {
    let mut host = TestHost::outside_tmp([]);
    host.set("GITHUB_TOKEN", VALUE);
    let mirror = Mirror::start();
    install(&host, &mirror);
    grant(
        &host,
        &mirror,
        "secret = \"env:GITHUB_TOKEN\"\nquery = \"env:GITHUB_TOKEN\"\nfilled = \"env:GITHUB_TOKEN\"",
    );
    let tool = |arguments: &Value| host.tool("probe__probe", arguments, &[]);
    let kind = "\ncontent-type: application/json";
    for (name, method, rest, sent) in [
        ("secret", "GET", "", format!("authorization: Bearer {VALUE}\r\n")),
        ("query", "GET", "", format!("GET /x?api_key={VALUE} HTTP")),
        (
            "filled",
            "POST",
            &*format!("{kind}\n\n{{\"t\": \"{{{{credential:filled}}}}\"}}"),
            format!("{{\"t\": \"{VALUE}\"}}"),
        ),
    ] {
        let result = tool(&carry(name, method, &mirror.url("/x"), rest));
        assert_eq!(result["success"], true, "{result}");
        let output = result.to_string();
        assert!(
            output.contains("it was [redacted:") && output.matches("[redacted:").count() >= 3,
            "{output}"
        );
        assert!(!output.contains("S3cretValue") && !output.contains("53336372657456616c7565"), "{output}");
        let request = mirror.requests().pop().unwrap();
        assert!(request.contains(&sent), "{request}");
    }
    is_nowhere(&host, "-");
    // The ledger and the audit log name the credential, and never its value.
    let ledger = host.requests(&[]);
    let names: Vec<&Value> = ledger.iter().map(|request| &request["credential"]).collect();
    assert_eq!(names, ["secret", "query", "filled"]);
    let sessions = files(&host.home.join(".local/state/ml-intern/audit"));
    let audit: String = sessions.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    assert_eq!(audit.matches("\"act\":\"credential\"").count(), 3, "{audit}");
    assert!(audit.contains("\"credential\":\"secret\"") && audit.contains(&mirror.url("")), "{audit}");
    assert_eq!(host.run(["audit", "verify"]).code, Some(0));
}

#[test]
fn what_a_plugin_tries_with_a_credential_is_refused() {
    let mut host = TestHost::outside_tmp([]);
    host.set("GITHUB_TOKEN", VALUE);
    host.set("HF_TOKEN", "hf_AbCdEfGhIjKlMnOpQrStUv");
    let mirror = Mirror::start();
    install(&host, &mirror);
    grant(
        &host,
        &mirror,
        "secret = \"env:GITHUB_TOKEN\"\nquery = \"env:HF_TOKEN\"\nfilled = \"env:NOT_THERE\"",
    );
    let refused = |name: &str, url: &str, rest: &str, told: &str| {
        let result = host.tool("probe__probe", &carry(name, "GET", url, rest), &[]);
        assert_eq!(result["success"], false, "{result}");
        assert!(result["output"].as_str().unwrap().contains(told), "{told}: {result}");
        assert!(!result.to_string().contains(VALUE), "{result}");
        result
    };
    let url = mirror.url("/x");
    refused("other", &url, "", "does not declare");
    refused("secret", "http://127.0.0.1:1/", "", "goes to");
    refused("secret", "https://example.com/", "", "goes to");
    refused("secret", &url, "\nauthorization: mine", "is set by the host");
    refused("query", &url, "", "Hugging Face's own hosts");
    let missing = refused("filled", &url, "", "where there is none");
    assert!(missing["denial"]["remedy"].as_str().unwrap().contains("set NOT_THERE"), "{missing}");
    // A plugin that came to know the value cannot send it, with a credential or without.
    for name in ["", "secret"] {
        refused(name, &mirror.url(&format!("/{VALUE}")), "", "holds a secret");
        refused(name, &url, &format!("\nx-a: {VALUE}"), "holds a secret");
        refused(name, &url, &format!("\n\n{VALUE}"), "holds a secret");
    }
    grant(&host, &mirror, "");
    let missing = refused("secret", &url, "", "is not granted");
    assert_eq!(missing["denial"]["rule"], "grant");
    let remedy = missing["denial"]["remedy"].as_str().unwrap();
    assert!(remedy.starts_with("ml-intern plugin grant probe --credential secret=env:NAME"), "{remedy}");
    assert_eq!(mirror.requests(), Vec::<String>::new());
}

#[test]
fn a_session_puts_each_use_on_record_and_keeps_no_value() {
    let mirror = Mirror::start();
    let steps = [
        call("probe__probe", carry("secret", "GET", &mirror.url("/x"), "")),
        // What it gets another way does not come through either: results are searched too.
        call("read", json!({"path": "leak.txt"})),
        Step::text("ok"),
    ];
    let mut host = TestHost::outside_tmp(steps);
    host.set("GITHUB_TOKEN", VALUE);
    install(&host, &mirror);
    host.home_file(
        ".config/ml-intern/grants.toml",
        &format!(
            "[probe]\nnetwork = [\"{} GET\"]\n[probe.credentials]\nsecret = \"env:GITHUB_TOKEN\"\n",
            mirror.url("")
        ),
    );
    let hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    host.file("leak.txt", &format!("token = {VALUE}\nhash = {hash}\n"));
    let ran = host.stream(&[]);
    let outputs = ran.outputs();
    assert!(outputs[0].contains("[redacted:secret]"), "{outputs:?} {}", ran.stderr);
    assert!(outputs[1].contains("token = [redacted:secret]") && outputs[1].contains(hash), "{outputs:?}");
    assert!(!format!("{:?}{}", ran.lines, ran.stderr).contains(VALUE));
    assert!(host.server.requests().iter().all(|request| !request.contains(VALUE)));
    assert!(mirror.requests()[0].contains(VALUE));
    is_nowhere(&host, "-");
    let session = ran.result()["session_id"].as_str().unwrap();
    let shown = host.run(["audit", "show", session]).stdout;
    assert!(
        shown.contains(&format!("uses      credential secret of probe at {}", mirror.url(""))),
        "{shown}"
    );
}

#[test]
fn credentials_are_granted_by_name_and_taken_back() {
    let host = TestHost::outside_tmp([]);
    let mirror = Mirror::start();
    install(&host, &mirror);
    let done = |arguments: &[&str]| {
        let ran = host.run(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}", ran.stderr);
        ran.stdout
    };
    let sheet = done(&["plugin", "info", "probe"]);
    let line = format!(
        "send your SECRET credential to {} in header Authorization – the plugin never sees it",
        mirror.url("")
    );
    assert!(sheet.contains(&line) && sheet.contains("asked for, NOT granted"), "{sheet}");
    let granted = done(&["plugin", "grant", "probe"]);
    assert!(
        granted.contains("ml-intern plugin grant probe --credential secret=env:SECRET_TOKEN"),
        "{granted}"
    );
    assert!(!granted.contains("credential secret from"), "{granted}");
    done(&[
        "plugin",
        "grant",
        "probe",
        "--credential",
        "secret=stored:github",
        "--credential",
        "query=env:API_KEY",
    ]);
    // Granting the rest again takes none back.
    done(&["plugin", "grant", "probe"]);
    let listed = done(&["plugin", "grants", "probe"]);
    assert!(listed.contains("probe: credential secret from stored:github"), "{listed}");
    assert!(listed.contains("probe: credential filled is not granted"), "{listed}");
    assert!(done(&["plugin", "info", "probe"]).contains("granted from stored:github"));
    let revoked = done(&["plugin", "revoke", "probe"]);
    assert!(revoked.contains("revoked probe: credential query from env:API_KEY"), "{revoked}");
    assert!(done(&["plugin", "grants", "probe"]).contains("probe: nothing"));
    for wrong in [format!("secret={VALUE}"), VALUE.to_owned(), "other=hf".to_owned(), "secret=hf".to_owned()]
    {
        let ran = host.run(["plugin", "grant", "probe", "--credential", &wrong]);
        assert_eq!(ran.code, Some(2), "{wrong}: {}", ran.stdout);
        assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
    }
    grant(&host, &mirror, &format!("secret = \"{VALUE}\""));
    let ran = host.run(["plugin", "list"]);
    assert_eq!(ran.code, Some(3));
    assert!(
        ran.stderr.contains("`env:GITHUB_TOKEN`, `hf` or `stored:NAME`") && !ran.stderr.contains(VALUE),
        "{}",
        ran.stderr
    );
}

#[test]
fn what_is_stored_is_for_its_owner_and_never_shown() {
    let host = TestHost::outside_tmp([]);
    let mirror = Mirror::start();
    install(&host, &mirror);
    grant(&host, &mirror, "secret = \"stored:github\"");
    let stored = logged_in(&host, &["login", "github"], &format!("{VALUE}\n"));
    assert_eq!(stored.code, Some(0), "{}", stored.stderr);
    let kept = host.home.join(".local/state/ml-intern/credentials/github");
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), VALUE);
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    host.tool("probe__probe", &carry("secret", "GET", &mirror.url("/x"), ""), &[]);
    assert!(mirror.requests()[0].contains(VALUE));
    let hub = logged_in(&host, &["login"], "hf_AbCdEfGhIjKlMnOpQrStUv\n");
    assert_eq!(hub.code, Some(0), "{}", hub.stderr);
    let listed = host.run(["login", "--list"]);
    assert_eq!(listed.stdout, "github\nhf\n");
    let doctor = host.run(["doctor"]).stdout;
    assert!(doctor.contains("hugging face: the token is taken from ml-intern login"), "{doctor}");
    // The Hub's own places come first.
    host.home_file(".cache/huggingface/token", "hf_ZyXwVuTsRqPoNmLkJiHgFe\n");
    let doctor = host.run(["doctor"]).stdout;
    let file = host.home.join(".cache/huggingface/token");
    assert!(doctor.contains(&format!("the token is taken from {}", file.display())), "{doctor}");
    assert_eq!(host.run(["login", "--remove", "github"]).code, Some(0));
    assert_eq!(host.run(["login", "--remove", "github"]).code, Some(2));
    assert!(!kept.exists());
    for shown in [&stored, &hub, &listed] {
        let text = format!("{}{}", shown.stdout, shown.stderr);
        assert!(!text.contains(VALUE) && !text.contains("hf_AbCd"), "{text}");
    }
    is_nowhere(&host, "credentials/github");
    let audit = host.run(["audit", "show"]).stdout;
    assert!(
        audit.contains("login     github stored") && audit.contains("login     github removed"),
        "{audit}"
    );
}

#[test]
fn a_token_is_not_said_to_be_refused_where_it_was_not_sent() {
    let mut host = TestHost::new([]);
    let mirror = Mirror::start();
    host.set("HF_ENDPOINT", &mirror.url(""));
    let ran = logged_in(&host, &["login", "--check"], "hf_AbCdEfGhIjKlMnOpQrStUv\n");
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let told = "which stands for https://huggingface.co, gets no credentials, so that `hf` cannot go along";
    assert!(ran.stderr.contains("could not be checked") && ran.stderr.contains(told), "{}", ran.stderr);
    assert_eq!(mirror.requests(), Vec::<String>::new());
}

#[test]
fn what_is_no_credential_is_not_stored() {
    let host = TestHost::new([]);
    for (arguments, value, code) in [
        (vec!["login"], VALUE, 4),
        (vec!["login"], "hf_short\n", 4),
        (vec!["login", "github"], "short\n", 4),
        (vec!["login", "github"], "", 4),
        (vec!["login", "github"], "two lines\nof something\n", 4),
        (vec!["login", VALUE], "", 2),
        (vec!["login", "../x"], VALUE, 2),
        (vec!["login", "github", "--check"], VALUE, 2),
    ] {
        let ran = logged_in(&host, &arguments, value);
        assert_eq!(ran.code, Some(code), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains(VALUE) && !ran.stdout.contains(VALUE), "{}", ran.stderr);
    }
    assert!(host.run(["login", "--list"]).stdout.contains("nothing is stored"));
}

#[test]
fn the_process_shows_nothing_of_what_it_holds() {
    let mut host = TestHost::new([]).for_nobody();
    host.set("HF_TOKEN", "hf_AbCdEfGhIjKlMnOpQrStUv");
    host.set("MY_SERVICE", VALUE);
    host.set("PLAIN", "plain-to-see");
    let mut child =
        host.command(["login", "github"]).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let proc = Path::new("/proc").join(child.id().to_string());
    let read = |name: &str| std::fs::read(proc.join(name)).map(|b| String::from_utf8_lossy(&b).into_owned());
    // It waits for its standard input once it has threads; it hardened itself before it started one.
    while std::fs::read_dir(proc.join("task")).unwrap().count() < 2 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    assert!(read("status").unwrap().contains("Umask:\t0077"));
    let core = read("limits").unwrap();
    let core = core.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
    // What cannot be dumped belongs to root, so that nobody else looks into it.
    assert_eq!(std::fs::metadata(proc.join("environ")).unwrap().uid(), 0);
    if rustix::process::geteuid().is_root() {
        let environ = read("environ").unwrap();
        assert_eq!(environ.trim_matches('\0'), "");
    } else {
        assert!(read("environ").is_err());
    }
    drop(child.stdin.take());
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn own_files_are_for_the_user_alone_and_settings_hold_no_keys() {
    let host = TestHost::new([call("bash", json!({"command": "echo hi"})), Step::text("ok")]);
    assert_eq!(host.stream(&[]).code, Some(0));
    let state = host.home.join(".local/state/ml-intern");
    for path in files(&state)
        .into_iter()
        .filter(|path| !path.is_symlink() && !path.starts_with(state.join("workspaces")))
    {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
    }
    host.settings(&json!({"command_env": ["GOOD", VALUE]}));
    let ran = host.run(["doctor"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stdout);
    assert!(
        ran.stderr.contains("command_env.1") && ran.stderr.contains(".env") && !ran.stderr.contains(VALUE),
        "{}",
        ran.stderr
    );
}
