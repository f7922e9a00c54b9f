//! A machine with a policy: the real file at its real place, in a mount namespace of the test's own.
//!
//! The place is fixed when the program is built and nothing at run time names another, so `/etc` is
//! replaced for the program alone. That needs root; tests of the file's parsing and trust are in `policy`.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use testkit::Step;

use crate::hostile::guest::probe;
use crate::hostile::server::{Server, answer};
use crate::jobs::{self, Answer, Jobs, order};
use crate::screen::Screen;
use crate::support::{Ran, Stream, TestHost, call, messages};

const EXAMPLE: &str = include_str!("../../../configs/policy.example.toml");

/// A copy of `/etc` with `$2` as the policy, changed by `$3`, seen by the rest of the line alone.
const MANAGED: &str = r#"
set -e
etc=$1 policy=$2 change=$3
shift 3
mount -t tmpfs none "$etc"
cp -a /etc/. "$etc/"
mkdir -p "$etc/ml-intern"
chmod 755 "$etc" "$etc/ml-intern"
cp "$policy" "$etc/ml-intern/policy.toml"
chmod 644 "$etc/ml-intern/policy.toml"
cd "$etc/ml-intern"
eval "$change"
cd "$OLDPWD"
mount --bind "$etc" /etc
exec "$@"
"#;

#[expect(clippy::print_stderr, reason = "what is not tried is said")]
fn as_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("not tried: a policy can be put at its place by root only");
    }
    root
}

/// The program's command line under a policy. `change` is done to the policy's file first.
fn managed(host: &TestHost, policy: &str, change: &str, arguments: &[&str]) -> Command {
    let base = host.home.parent().unwrap();
    let etc: PathBuf = base.join("etc");
    std::fs::create_dir_all(&etc).unwrap();
    let file = base.join("policy.toml");
    std::fs::write(&file, policy).unwrap();
    let plain = host.command(arguments);
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", MANAGED, "sh"]);
    command.args([&etc, &file]).arg(change).arg(plain.get_program()).args(plain.get_args());
    command.env_clear().current_dir(&host.workspace).stdin(Stdio::null());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

fn run(host: &TestHost, policy: &str, arguments: &[&str]) -> Ran {
    Ran::of(&managed(host, policy, "", arguments).output().unwrap())
}

fn stream(host: &TestHost, policy: &str, more: &[&str]) -> Stream {
    let arguments = [&["go", "-m", "chat/m", "--json"], more].concat();
    Stream::of(&run(host, policy, &arguments))
}

#[test]
fn a_policy_that_someone_else_could_have_written_keeps_the_program_from_starting() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([]);
    let good = "version = 1\n";
    for (policy, change, told) in [
        (good, "chown 1000 policy.toml", "policy.toml belongs to user 1000 and not to root"),
        (good, "chmod 664 policy.toml", "policy.toml can be written by others (mode 664)"),
        (good, "chmod 1777 .", "/etc/ml-intern can be written by others"),
        (good, "chown 1000 ..", "/etc belongs to user 1000"),
        (good, "mv policy.toml real; ln -s real policy.toml", "policy.toml is a link"),
        (good, "rm policy.toml; mkfifo policy.toml", "is not a regular file"),
        ("version = 1\nmode = \"fast\"\n", "", "/etc/ml-intern/policy.toml:2:8: unknown variant `fast`"),
        ("version = 1\n[wall\n", "", "/etc/ml-intern/policy.toml:2:6: "),
        ("version = 1\n[flags]\nforbid = [\"--yollo\"]\n", "", "policy.toml:3: `--yollo` is no flag"),
    ] {
        for arguments in
            [&["go", "-m", "chat/m"][..], &["tool", "plan_tool"], &["plugin", "list"], &["policy", "check"]]
        {
            let ran = Ran::of(&managed(&host, policy, change, arguments).output().unwrap());
            assert_eq!(ran.code, Some(3), "{told} {arguments:?}: {}", ran.stderr);
            assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
        }
    }
    let lines = stream(&host, "versio = 1", &[]);
    assert_eq!((lines.code, &lines.result()["exit_code"]), (Some(3), &json!(3)));
    assert!(host.server.requests().is_empty());
    // Nothing of the user's names another one.
    let variable = managed(&host, "version = 2", "", &["plugin", "list"])
        .env("ML_INTERN_POLICY_PATH", "/dev/null")
        .env("ML_INTERN_POLICY_REQUIRED", "0")
        .output()
        .unwrap();
    assert_eq!(Ran::of(&variable).code, Some(3));
}

#[test]
fn flags_and_settings_cannot_loosen_what_is_fixed() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([]);
    let refused = |policy: &str, arguments: &[&str], told: &str| {
        let arguments = [&["go", "-m", "chat/m"], arguments].concat();
        let ran = run(&host, &format!("version = 1\n{policy}"), &arguments);
        assert_eq!(ran.code, Some(3), "{policy} {arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{told}: {}", ran.stderr);
    };
    let by = "is forbidden by /etc/ml-intern/policy.toml";
    refused("forbid_modes = [\"yolo\"]", &["--yolo"], &format!("--yolo {by}:2"));
    refused("mode = \"ask\"", &["--permission-mode", "auto"], &format!("--permission-mode auto {by}:2"));
    refused("[flags]\nforbid = [\"--add-dir\"]", &["--add-dir", "/usr"], &format!("--add-dir {by}:3"));
    refused("[flags]\nforbid = [\"--cd\"]", &["-C", "."], &format!("--cd {by}:3"));
    refused("[network]\ncommands = \"off\"", &["--network", "open"], &format!("--network open {by}:3"));
    refused("[network]\noffline = true", &["--network", "open"], &format!("--network open {by}:3"));
    refused("[wall]\nforbid = [\"off\"]", &["--wall", "off"], &format!("--wall off {by}:3"));
    refused(
        "[wall]\nforbid = [\"off\"]",
        &["--sandbox", "danger-full-access"],
        &format!("--sandbox danger-full-access {by}:3"),
    );
    refused("[wall]\ngrade = \"partial\"", &["--wall", "external"], "working without a wall");
    refused("[network]\ncommands = \"off\"", &["--wall", "external"], "keeps commands off the network");
    refused("[models]\nallow = [\"ollama/*\"]", &[], &format!("model `chat/m` {by}:3"));
    refused("[models]\norigins = [\"https://api.example\"]", &[], "model `chat/m` at http://127.0.0.1");
    host.settings(&json!({"yolo_mode": true}));
    refused("[flags]\nforbid = [\"--yolo\"]", &[], &format!("`yolo_mode` in the settings {by}:3"));
    refused("forbid_modes = [\"yolo\"]", &[], &format!("`yolo_mode` in the settings {by}:2"));
    host.settings(&json!({"dirs": ["/usr"]}));
    refused("[flags]\nforbid = [\"--add-dir\"]", &[], &format!("`dirs` in the settings {by}:3"));
    assert!(host.server.requests().is_empty());
}

#[test]
fn under_the_example_ordinary_work_goes_on_and_is_on_record() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([call("bash", json!({"command": "echo works"})), Step::text("ok")]);
    let policy = EXAMPLE.replace("http://127.0.0.1:11434", &host.server.url());
    // A budget counts everything, so that what has no price does not begin.
    let ran = stream(&host, &policy, &[]);
    let told = "has no known price, and /etc/ml-intern/policy.toml:54 bounds what a run costs";
    assert!(ran.code == Some(3) && ran.stderr.contains(told), "{}", ran.stderr);
    let price = json!({"input": 1.0, "output": 4.0});
    let chat = json!({"wire": "chat", "base_url": host.server.url(), "key_env": "TEST_KEY", "price": price});
    host.settings(&json!({"providers": {"chat": chat}}));
    let ran = stream(&host, &policy, &[]);
    assert_eq!((ran.code, ran.outputs()), (Some(0), vec!["works\n"]), "{}", ran.stderr);
    let marked = &ran.all("session")[0]["policy"];
    assert_eq!(
        (&marked["path"], &marked["revision"]),
        (&json!("/etc/ml-intern/policy.toml"), &json!("example"))
    );
    assert!(ran.stderr.contains("managed by /etc/ml-intern/policy.toml, revision example"), "{}", ran.stderr);
    // The record of the start names the policy, byte for byte.
    let records = host.run(["audit", "export", ran.result()["session_id"].as_str().unwrap()]).stdout;
    let start: Value = serde_json::from_str(records.lines().next().unwrap()).unwrap();
    assert_eq!(start["policy"]["digest"], format!("sha256:{}", audit::digest(policy.as_bytes())));
    let doctor = run(&host, &policy, &["doctor"]).stdout;
    assert!(doctor.contains("policy: managed by"), "{doctor}");
    let check = run(&host, &policy, &["policy", "check"]);
    assert!(check.stdout.contains("Plugins: only bundled ones and those listed here."), "{}", check.stdout);
    assert_eq!(
        run(&host, &policy, &["policy", "show"]).stdout.trim_end().lines().count(),
        policy.lines().count() + 1
    );
    // A stranger's plugin is neither run nor asked what it is.
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    let list = run(&host, &policy, &["plugin", "list"]);
    assert_eq!(list.code, Some(3));
    assert!(
        list.stderr.contains("plugin `probe` (it is not listed there) is forbidden by"),
        "{}",
        list.stderr
    );
    assert!(!list.stderr.contains("compiling") && !list.stdout.contains("probe__"), "{}", list.stderr);
    let without = host.run(["plugin", "list"]);
    assert!(without.stdout.contains("probe__probe"), "{}", without.stderr);
    // Known from an earlier run without the policy, and still not used under it.
    assert!(!run(&host, &policy, &["plugin", "list"]).stdout.contains("probe__"));
}

#[test]
fn calls_of_a_denied_tier_end_with_a_denial_that_names_the_policy() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([call("bash", json!({"command": "echo no > f"})), Step::text("ok")]);
    let policy = "version = 1\n[tiers]\ndeny = [\"execute\"]\n";
    let ran = stream(&host, policy, &["--yolo"]);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    let denial = &ran.result()["permission_denials"][0];
    assert_eq!((&denial["tool"], &denial["rule"]), (&json!("bash"), &json!("policy")));
    assert!(denial["remedy"].as_str().unwrap().contains("/etc/ml-intern/policy.toml:3"), "{denial}");
    let tool = run(&host, policy, &["tool", "bash", r#"{"command": "echo no > f"}"#]);
    assert_eq!(tool.code, Some(6), "{}", tool.stderr);
    assert!(!host.workspace.join("f").exists());
}

#[test]
fn a_call_without_a_model_is_under_the_whole_policy() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([]);
    let denied = |policy: &str, command: &str, rule: &str| {
        let arguments = json!({ "command": command }).to_string();
        let ran = run(&host, &format!("version = 1\n{policy}"), &["tool", "bash", &arguments]);
        assert_eq!(ran.code, Some(6), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(&format!("denied ({rule}")), "{}", ran.stderr);
        // What it is told to say instead can be said.
        for unknown in ["--yolo", "--permission-mode", "--allow", "taking the rule"] {
            assert!(!ran.stderr.contains(unknown), "{unknown}: {}", ran.stderr);
        }
    };
    denied("[rules]\ndeny = [\"bash(git push *)\"]\n", "git push origin", "rule:bash(git push *)");
    denied("mode = \"plan\"\n", "true", "mode:plan");
    denied("mode = \"ask\"\n", "true", "unanswered");
    let allowed =
        run(&host, "version = 1\nforbid_modes = [\"yolo\"]\n", &["tool", "bash", r#"{"command": "true"}"#]);
    assert_eq!(allowed.code, Some(0), "{}{}", allowed.stdout, allowed.stderr);
}

#[test]
fn what_forbids_to_grant_forbids_it_in_every_form() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([]);
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    let policy = "version = 1\n[flags]\nforbid = [\"--grant\"]\n";
    assert_eq!(host.run(["plugin", "grant", "probe"]).code, Some(0));
    assert!(host.run(["plugin", "info", "probe", "--json"]).stdout.contains("\"exec\":true,\"files\":true"));
    let grant = run(&host, policy, &["plugin", "grant", "probe"]);
    assert_eq!(grant.code, Some(3), "{}", grant.stderr);
    assert!(
        grant.stderr.contains("`plugin grant` is forbidden by /etc/ml-intern/policy.toml:3"),
        "{}",
        grant.stderr
    );
    // What was granted before counts for nothing, and can be taken back.
    let info = run(&host, policy, &["plugin", "info", "probe", "--json"]).stdout;
    assert!(info.contains("\"granted\":{\"exec\":false,\"files\":false,\"kv\":false"), "{info}");
    assert_eq!(run(&host, policy, &["plugin", "revoke", "probe"]).code, Some(0));
}

#[test]
fn hosts_have_a_ceiling_whatever_was_granted() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([Step::text("unreached")]);
    let ran = stream(&host, "version = 1\n[network]\ndeny = [\"127.0.0.1\"]\n", &[]);
    assert_ne!(ran.code, Some(0));
    assert!(host.server.requests().is_empty());
    let refused = host.requests(&[]);
    assert!(
        refused.iter().any(|line| line.to_string().contains("is forbidden by /etc/ml-intern/policy.toml")),
        "{refused:?}"
    );
    // What a plugin was granted is cut to what the policy allows.
    let folder = host.home.join(".local/share/ml-intern/plugins");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(guests::component("probe"), folder.join("probe.wasm")).unwrap();
    host.home_file(
        ".config/ml-intern/grants.toml",
        "[probe]\nnetwork = [\"http://127.0.0.1:1 GET\"]\nkv = true\n",
    );
    let info = |policy: &str| run(&host, policy, &["plugin", "info", "probe", "--json"]).stdout;
    assert!(info("version = 1\n").contains("\"granted\":{\"exec\":false,\"files\":false,\"kv\":true,\"paths\":[],\"network\":[\"http://127.0.0.1:1 GET\"]"), "{}", info("version = 1\n"));
    assert!(
        info("version = 1\n[network]\nallow = [\"https://huggingface.co\"]\n").contains("\"network\":[]}}")
    );
}

#[test]
fn no_mirror_of_the_user_lifts_what_is_fixed() {
    if !as_root() {
        return;
    }
    const ROUTER: &str = "https://router.test";
    let read = call("probe__probe", json!({"trick": "http", "with": "https://huggingface.co/v1/models"}));
    let mut host = TestHost::new([Step::text("by mirror"), read, Step::text("done")]);
    let to = host.server.url();
    let chat = json!({"wire": "chat", "base_url": format!("{ROUTER}/v1"), "key_env": "TEST_KEY"});
    let mirror =
        json!({ROUTER: {"to": to, "credentials": true, "private": true, "methods": ["GET", "POST"]}});
    host.settings(&json!({"providers": {"chat": chat}, "origins": mirror}));
    let models = format!("[models]\norigins = [\"{ROUTER}\"]\n");
    for policy in ["[network]\ndeny = [\"127.0.0.1\"]\n".to_owned(), models.clone()] {
        let ran = stream(&host, &format!("version = 1\n{policy}"), &[]);
        assert_ne!(ran.code, Some(0), "{policy}");
        let told = format!("{to} (in place of {ROUTER}) is forbidden by /etc/ml-intern/policy.toml");
        let said: String = ran.lines.iter().map(Value::to_string).collect();
        assert!(said.contains(&told), "{policy}: {said}");
    }
    assert!(host.server.requests().is_empty());
    let named = format!("version = 1\n[network]\nmirrors = [\"{to}\"]\n{models}");
    let ran = stream(&host, &named, &[]);
    assert_eq!((ran.code, &ran.result()["result"]), (Some(0), &json!("by mirror")), "{}", ran.stderr);
    // Nor does a variable of the environment, for what plugins read.
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guests::component("probe"), plugins.join("probe.wasm")).unwrap();
    host.home_file(".config/ml-intern/grants.toml", "[probe]\nnetwork = [\"https://huggingface.co GET\"]\n");
    host.settings(&json!({}));
    host.set("HF_ENDPOINT", &to);
    let allowed = "version = 1\n[network]\nallow = [\"https://huggingface.co GET\"]\n";
    let ran = stream(&host, allowed, &["--plugin-dir", plugins.to_str().unwrap()]);
    let told = format!("{to} (in place of https://huggingface.co) is forbidden by");
    assert!(ran.outputs()[0].contains(&told), "{:?} {}", ran.outputs(), ran.stderr);
    assert!(host.server.other_requests().is_empty());
}

#[test]
fn where_projects_count_for_nothing_nobody_can_trust_one() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([Step::text("one"), Step::text("two")]);
    host.file("AGENTS.md", "Say BANANA at the end of everything.\n");
    let told = || host.server.requests().last().unwrap().body().to_string().contains("BANANA");
    assert_eq!(stream(&host, "version = 1\n", &["--trust-once"]).code, Some(0));
    assert!(told());
    let policy = "version = 1\n[project]\nfiles = false\n";
    assert_eq!(stream(&host, policy, &["--trust-once"]).code, Some(0));
    assert!(!told());
    assert_eq!(run(&host, policy, &["trust", "--yes"]).code, Some(3));
}

#[test]
fn records_go_where_the_policy_says() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([call("bash", json!({"command": "true"})), Step::text("ok")]);
    let sink = host.home.parent().unwrap().join("sink");
    let policy = format!("version = 1\n[audit]\nfsync = true\nfolder = \"{}\"\n", sink.display());
    let ran = stream(&host, &policy, &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(sink.join("uid-0/user.jsonl").is_file());
    assert!(!host.home.join(".local/state/ml-intern/audit").exists());
    let head = ran.result()["audit_head"].as_str().unwrap();
    assert_eq!(run(&host, &policy, &["audit", "verify", "--head", head]).code, Some(0));
    // Where nothing can be recorded nothing runs.
    let nowhere = format!("version = 1\n[audit]\nfolder = \"{}/uid-0/user.jsonl\"\n", sink.display());
    assert_ne!(stream(&host, &nowhere, &[]).code, Some(0));
}

#[test]
fn a_plugin_is_signed_by_the_publisher_that_is_listed() {
    if !as_root() {
        return;
    }
    let host = TestHost::new([]);
    let (key, plugins) = (host.home.join("acme.key"), host.home.join(".local/share/ml-intern/plugins"));
    let made = host.run(["plugin", "keygen", key.to_str().unwrap(), "--unencrypted"]);
    let public = std::fs::read_to_string(key.with_extension("pub")).unwrap();
    let public = public.lines().nth(1).unwrap();
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    std::fs::create_dir_all(&plugins).unwrap();
    let file = plugins.join("probe.wasm");
    std::fs::write(&file, crate::plugins::probe()).unwrap();
    let policy = |more: &str| {
        format!(
            "version = 1\n[plugins]\nonly_listed = true\nallow = [{{id = \"probe\", publisher = \"{public}\"}}]\n{more}"
        )
    };
    let list = |more: &str| run(&host, &policy(more), &["plugin", "list"]);
    let unsigned = list("");
    assert!(!unsigned.stdout.contains("probe__"), "{}", unsigned.stdout);
    assert!(unsigned.stderr.contains("it is not signed by RW"), "{}", unsigned.stderr);
    // One that was taken in before there was a policy has to be signed all the same.
    assert!(host.run(["plugin", "list"]).stdout.contains("probe__probe"));
    assert!(list("").stderr.contains("it is not signed by RW"));
    let signed = host.run(["plugin", "sign", file.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert_eq!(signed.code, Some(0), "{}", signed.stderr);
    let taken = host.run(["plugin", "install", file.to_str().unwrap(), "--yes", "--publisher", public]);
    assert_eq!(taken.code, Some(0), "{}", taken.stderr);
    let listed = list("");
    assert!(listed.stdout.contains("probe__probe"), "{}", listed.stderr);
    let revoked = list(&format!("revoked_publishers = [\"{public}\"]\n"));
    assert!(revoked.stderr.contains("its publisher's key is revoked"), "{}", revoked.stderr);
    assert!(!revoked.stdout.contains("probe__"));
}

#[test]
fn what_a_policy_forbids_is_not_asked_for_while_a_call_runs() {
    if !as_root() {
        return;
    }
    let get = json!({"trick": "http", "with": "http://127.0.0.1:1/"});
    let host = TestHost::new([call("probe__probe", get), Step::text("ok")]);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guests::component("probe"), plugins.join("probe.wasm")).unwrap();
    let policy = "version = 1\n[network]\nallow = [\"https://huggingface.co GET\"]\n";
    let ran = stream(&host, policy, &["--plugin-dir", plugins.to_str().unwrap()]);
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    assert_eq!((ran.code, denials.len()), (Some(6), 1), "{} {:?}", ran.stderr, ran.outputs());
    assert_eq!(
        (&denials[0]["rule"], &denials[0]["target"]),
        (&json!("policy"), &json!("http://127.0.0.1:1 GET"))
    );
    assert!(denials[0]["remedy"].as_str().unwrap().contains("/etc/ml-intern/policy.toml"), "{denials:?}");
}

#[test]
fn what_forbids_to_grant_is_not_gone_around_while_a_call_runs() {
    if !as_root() {
        return;
    }
    let server = Server::start(|_| answer(200, "", "reached"));
    let get = || call("probe__probe", json!({"trick": "http", "with": server.url()}));
    let steps = [get(), Step::text("ok"), get(), Step::text("ok"), get(), Step::text("the end")];
    let host = TestHost::outside_tmp(steps);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::write(plugins.join("probe.wasm"), probe(&json!({"network": [server.grant()]}))).unwrap();
    let folder = ["--plugin-dir", plugins.to_str().unwrap()];
    host.settings(&json!({"permissions": {"allow": ["host(127.0.0.1)"]}}));
    // Without a policy the rule answers.
    assert_eq!(stream(&host, "version = 1\n", &folder).outputs(), ["reached"]);
    let policy = "version = 1\n[flags]\nforbid = [\"--grant\"]\n";
    let ran = stream(&host, policy, &folder);
    let denial = &ran.result()["permission_denials"][0];
    assert_eq!(
        (ran.code, &denial["rule"]),
        (Some(6), &json!("policy")),
        "{} {:?}",
        ran.stderr,
        ran.outputs()
    );
    assert!(denial["remedy"].as_str().unwrap().contains("policy.toml:3"), "{denial}");
    // Nor is a person asked, also where a rule wants it: a yes would grant it.
    host.settings(&json!({"permissions": {"ask": ["host(127.0.0.1)"]}}));
    let chat = ["-m", "chat/m", folder[0], folder[1]];
    let mut screen = Screen::of(managed(&host, policy, "", &chat));
    screen.say("go");
    screen.next("the end", None);
    assert!(!screen.text.contains("Approval required"), "{}", screen.text);
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn no_yes_and_no_new_conversation_lifts_what_a_run_may_cost() {
    if !as_root() {
        return;
    }
    let jobs = Jobs::start(Answer::Takes);
    let job = |timeout: &str| {
        order(json!({"operation": "run", "name": "nightly", "flavor": "large", "timeout": timeout}))
    };
    let steps = [job("2h"), job("1h"), Step::text("first end"), job("1h"), Step::text("second end")];
    let host = jobs::host(&jobs, steps.into());
    let price = json!({"input": 0.001, "output": 0.001});
    let chat = json!({"wire": "chat", "base_url": host.server.url(), "key_env": "TEST_KEY", "price": price});
    host.settings(&json!({"providers": {"chat": chat}}));
    let plugins = host.home.join("plugins").display().to_string();
    let chat = ["-m", "chat/m", "--plugin-dir", &plugins, "--yolo"];
    let mut screen = Screen::of(managed(&host, "version = 1\n[budget]\nmax_usd = 5.0\n", "", &chat));
    screen.say("go");
    // 8 USD are refused without a card; 4 are not.
    screen.next("first end", None);
    assert_eq!(jobs.taken().len(), 1, "{}", screen.text);
    assert!(!screen.text.contains("Approval required"), "{}", screen.text);
    screen.say("/new");
    screen.say("go");
    screen.next("second end", None);
    assert_eq!(jobs.taken().len(), 1, "{}", screen.text);
    let told = messages(&host.server.requests().last().unwrap().body(), "tool").pop().unwrap();
    assert!(told.contains("left of what this machine's policy lets a run cost"), "{told}");
}
