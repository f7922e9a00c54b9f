//! What a component tries with native commands.

use serde_json::json;
use testkit::Step;

use crate::hostile::{all_refused, attack, everything, run, run_with, with_probe};
use crate::support::call;

#[test]
fn arguments_are_handed_over_as_they_are() {
    let arguments = [
        "%s\\n",
        "$(touch made)",
        "`touch made`",
        "; touch made",
        "| touch made",
        "&& touch made\ntouch made",
        "*",
        "~",
        "$HOME",
        "-v",
        "--help",
    ];
    let host = with_probe(vec![attack("arguments", "", &arguments), Step::text("ok")], &everything());
    let ran = run(&host);
    assert_eq!(ran.outputs()[0], arguments[1..].join("\n") + "\n");
    assert!(!host.workspace.join("made").exists());
}

#[test]
fn variables_that_load_or_name_something_are_refused() {
    let names = [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "DYLD_INSERT_LIBRARIES",
        "GLIBC_TUNABLES",
        "GCONV_PATH",
        "PYTHONSTARTUP",
        "PYTHONHOME",
        "NODE_OPTIONS",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_GLOBAL",
        "GIT_EXTERNAL_DIFF",
        "BASH_ENV",
        "ENV",
        "BASH_FUNC_ls%%",
        "PROMPT_COMMAND",
        "PERL5OPT",
        "RUBYOPT",
        "JAVA_TOOL_OPTIONS",
        "IFS",
        "PATH",
        "HOME",
        "TMPDIR",
        "HF_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "SSH_AUTH_SOCK",
        "DOCKER_HOST",
        "DBUS_SESSION_BUS_ADDRESS",
        "A=B",
        "",
        "A\0B",
    ];
    let host = with_probe(vec![attack("variables", "", &names), Step::text("ok")], &everything());
    let ran = run(&host);
    all_refused(ran.outputs()[0]);
    assert_eq!(ran.outputs()[0].lines().count(), names.len());
}

#[test]
fn a_run_in_ci_asks_nobody_and_changes_nothing() {
    let mut host = with_probe(
        vec![
            call("bash", json!({"command": "touch made"})),
            call("write", json!({"path": "made", "content": "x"})),
            call("probe__probe", json!({"trick": "write", "with": "made"})),
            Step::text("ok"),
        ],
        &everything(),
    );
    for (name, value) in [("CI", "true"), ("GITHUB_ACTIONS", "true"), ("TERM", "xterm-256color")] {
        host.set(name, value);
    }
    let ran = run_with(&host, &["--permission-mode", "ask"]);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert_eq!(ran.result()["permission_denials"].as_array().unwrap().len(), 3);
    assert!(!host.workspace.join("made").exists());
}
