//! The command line: what it takes, what it prints where, how it ends.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::json;
use testkit::Step;

use crate::support::{Ran, TestHost, call, grade};

#[test]
fn the_answer_goes_to_stdout_and_everything_else_to_stderr() {
    let host = TestHost::new([
        call("read", json!({"path": "a.txt"})).saying("Looking."),
        Step::text("It says **hi**."),
    ]);
    host.file("a.txt", "hi\n");
    let ran = host.run(["what does a.txt say?", "-m", "chat/m"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "It says **hi**.\n"), "{}", ran.stderr);
    for part in [
        "Model: chat/m (http://127.0.0.1:",
        "Tool runtime: local filesystem",
        "Max iterations: 300",
        "Prompt: what does",
        "Looking.",
        "▸ read  a.txt",
        "--- Agent turn_complete (history_size=4) ---",
    ] {
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
}

#[test]
fn json_is_one_result_and_a_file_gets_the_answer() {
    let host = TestHost::new([Step::text("42")]);
    let ran = host.run(["q", "-m", "chat/m", "--output-format", "json", "-o", "answer.txt"]);
    let result: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(
        (&result["result"], &result["exit_code"], &result["subtype"]),
        (&json!("42"), &json!(0), &json!("success"))
    );
    assert_eq!(host.read("answer.txt"), "42");
}

#[test]
fn the_prompt_comes_from_the_argument_or_standard_input_or_both() {
    let host = TestHost::new([Step::text("ok").repeat(4)]);
    let piped = |arguments: &[&str], input: &str| {
        let mut child = host
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Ran::of(&child.wait_with_output().unwrap())
    };
    let last = || {
        let requests = host.server.requests();
        let body = requests.last().unwrap().body();
        body["messages"].as_array().unwrap().last().unwrap()["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(piped(&["-m", "chat/m", "-p"], "from a pipe").code, Some(0));
    assert_eq!(last(), "from a pipe");
    assert_eq!(piped(&["explain", "-m", "chat/m"], "the log").code, Some(0));
    assert_eq!(last(), "explain\n\nthe log");
    assert_eq!(piped(&["run", "-", "-m", "chat/m"], "dash").code, Some(0));
    assert_eq!(last(), "dash");
    // A pipe that says nothing does not keep a run with a prompt waiting.
    let mut child = host
        .command(["silent", "-m", "chat/m"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let held = child.stdin.take();
    assert_eq!(Ran::of(&child.wait_with_output().unwrap()).code, Some(0));
    drop(held);
    assert_eq!(last(), "silent");
}

#[test]
fn usage_errors_end_with_2() {
    let host = TestHost::new([]);
    for arguments in [
        vec!["--no-such-flag"],
        vec!["-p", "-m", "chat/m"],
        vec!["x", "-m", "nothing"],
        vec!["x", "-m", "llama-cpp/x"],
        vec!["x", "-m", "chat/m", "-C", "none"],
        vec!["x", "-m", "chat/m", "--effort", "enormous"],
        vec!["x", "-m", "chat/m", "--fork"],
        vec!["x", "-m", "chat/m", "--continue"],
        vec!["x", "-m", "chat/m", "--resume", "ffff"],
        vec!["tool", "nothing", "{}"],
        vec!["tool", "read", "{"],
    ] {
        let ran = host.run(&arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(!ran.stderr.trim().is_empty(), "{arguments:?}");
    }
    let ran = host.run(["x", "-m", "llama-cpp/x"]);
    assert!(ran.stderr.contains("did you mean `llamacpp/`?"), "{}", ran.stderr);
    assert!(host.server.requests().is_empty());
}

#[test]
fn a_run_without_a_credential_ends_with_4_and_says_what_to_do() {
    let host = TestHost::new([]);
    host.home_file(".config/ml-intern/cli_agent_config.json", "{}");
    let ran = host.run(["x"]);
    assert_eq!(ran.code, Some(4));
    for way in ["HF_TOKEN", "ollama/NAME", "ml-intern demo"] {
        assert!(ran.stderr.contains(way), "{}", ran.stderr);
    }
    for (model, variable) in [
        ("anthropic/claude-opus-4-8", "ANTHROPIC_API_KEY"),
        ("openai/gpt-5.5", "OPENAI_API_KEY"),
        ("org/model:novita", "HF_TOKEN"),
    ] {
        let ran = host.run(["x", "-m", model]);
        assert_eq!(ran.code, Some(4), "{}", ran.stderr);
        assert!(ran.stderr.contains(variable), "{}", ran.stderr);
    }
}

#[test]
fn broken_settings_end_with_3_and_name_the_place() {
    let host = TestHost::new([]);
    let file = ".config/ml-intern/cli_agent_config.json";
    for (text, message) in [
        ("{\n  \"model_name\" \"x\"\n}", "cli_agent_config.json:2:16: not valid JSON: expected `:`"),
        ("{\"max_iterations\": []}", "cli_agent_config.json:1:20: max_iterations: invalid type"),
        (
            "{\"model_name\": \"${NOT_SET}\"}",
            "cli_agent_config.json:1:16: model_name: the variable NOT_SET is not set",
        ),
        ("{\"tool_runtime\": \"sandbox\"}", "tool_runtime is `sandbox`"),
    ] {
        host.home_file(file, text);
        let ran = host.run(["x", "-m", "llamacpp/m"]);
        assert_eq!(ran.code, Some(3), "{text}: {}", ran.stderr);
        assert!(ran.stderr.contains(message), "{text}: {}", ran.stderr);
    }
    host.home_file(file, "{}");
    host.home_file(".config/ml-intern/grants.toml", "[x]\nexek = true\n");
    let ran = host.run(["x", "-m", "llamacpp/m"]);
    assert_eq!(ran.code, Some(3));
    assert!(
        ran.stderr.contains("grants.toml") && ran.stderr.contains("unknown field `exek`"),
        "{}",
        ran.stderr
    );
}

#[test]
fn settings_say_where_they_come_from_and_hide_secrets() {
    let host = TestHost::new([]);
    host.settings(&json!({"model_name": "a/${WHICH:-b}", "mcpServers": {"x": {"headers": {"Authorization": "Bearer abc"}}}}));
    host.home_file(".config/ml-intern/.env", "WHICH=from-dotenv\n");
    let ran = host.run(["config", "show", "--origin"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let row = |key: &str| {
        ran.stdout
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or_else(|| panic!("{key}: {}", ran.stdout))
            .to_owned()
    };
    assert!(
        row("model_name").contains("\"a/from-dotenv\"")
            && row("model_name").contains("cli_agent_config.json)")
    );
    assert!(row("yolo_mode").contains("(bundled)"));
    assert!(row("mcpServers.x.headers.Authorization").contains("(hidden)"));
    assert!(!host.run(["config", "show"]).stdout.contains("Bearer abc"));
}

#[test]
fn the_home_is_no_workspace() {
    let host = TestHost::new([call("write", json!({"path": "x.txt", "content": "x"})), Step::text("ok")]);
    let mut command = host.command(["go", "-m", "chat/m", "--json"]);
    let ran = Ran::of(&command.current_dir(&host.home).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("is not used as the workspace: it is your home") && ran.stderr.contains("-C DIR"),
        "{}",
        ran.stderr
    );
    assert!(!host.home.join("x.txt").exists());
}

#[test]
fn doctor_and_completions_answer() {
    let host = TestHost::new([]);
    host.settings(&json!({"share_traces": false, "mystery": 1}));
    let ran = host.run(["doctor"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    for part in [
        "settings: share_traces: has no effect",
        "settings: mystery: is not known",
        &format!("wall: {}: ", grade()),
        "plugins: shell, workspace, plan with 5 tools",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(host.run(["completions", "bash"]).stdout.contains("ml-intern"));
    assert!(host.run(["--version"]).stdout.starts_with("ml-intern 0.1.0"));
}

#[test]
fn the_demo_works_without_a_key_and_meets_the_wall() {
    let host = TestHost::new([]);
    host.home_file(".config/ml-intern/cli_agent_config.json", "{}");
    let ran = host.run(["demo", "-C", "demo"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    for part in [
        "9 duplicates** letter by letter",
        "**16** once",
        "naive Bayes **0.906**",
        "**0.862** on the clean one",
        "was refused by the wall",
    ] {
        assert!(ran.stdout.contains(part), "{part}: {}", ran.stdout);
    }
    assert!(ran.stderr.contains("the model is a script"));
    assert_eq!(host.read("demo/reviews.clean.tsv").lines().count(), 147);
    assert!(host.server.requests().is_empty());
}

#[test]
fn secrets_of_the_environment_are_in_no_file_and_no_request_but_their_own() {
    let mut host = TestHost::new([
        call(
            "bash",
            json!({"command": "env; cat /proc/$PPID/environ /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; true"}),
        ),
        Step::text("ok"),
    ]);
    host.set("MY_SECRET_TOKEN", "tok-3f9a");
    host.set("HF_TOKEN", "hf_4c2bSecretValue");
    let ran = host.stream(&[]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let seen = format!("{:?}{}", ran.lines, ran.stderr);
    assert!(!seen.contains("tok-3f9a") && !seen.contains("hf_4c2bSecretValue"), "{seen}");
    let requests = host.server.requests();
    assert!(
        requests
            .iter()
            .all(|r| !r.contains("hf_4c2bSecretValue") && !format!("{:?}", r.headers).contains("hf_4c2b"))
    );
}

#[test]
fn what_cannot_hold_is_refused_before_anything_runs() {
    let host = TestHost::new([]);
    for (arguments, told) in [
        (vec!["go", "--wall", "off", "--network", "off"], "--network off needs the wall"),
        (vec!["go", "--wall", "off", "--offline"], "--offline cannot hold"),
        (vec!["-C", ".", "sessions"], "`sessions` is a command"),
        (vec!["go", "-m", "chat/m", "-o", "no/such/folder/a.txt"], "-o no/such/folder/a.txt"),
    ] {
        let ran = host.run(&arguments);
        assert_eq!(ran.code, Some(2), "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(told), "{}", ran.stderr);
    }
    assert_eq!(host.server.completions(), 0);
}

#[test]
fn whoever_reads_lines_gets_a_result_also_if_nothing_could_begin() {
    let host = TestHost::new([]);
    let ran = host.run(["go", "-m", "openai/gpt-5.5", "--json"]);
    let result: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&result["type"], &result["exit_code"], ran.code), (&json!("result"), &json!(4), Some(4)));
    assert!(result["error"].as_str().unwrap().contains("OPENAI_API_KEY"), "{result}");
}

#[test]
fn a_reader_that_goes_away_ends_the_run_in_order() {
    let host = TestHost::new([call("bash", json!({"command": "echo one"})).repeat(50), Step::text("done")]);
    let mut child = host
        .command(["go", "-m", "chat/m", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    // It ended in order: the session's end is on record and it goes on.
    assert_eq!(host.run(["audit", "verify"]).stdout.matches("no recorded end").count(), 0);
    let help = host.command(["config", "schema"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut help = help.unwrap();
    drop(help.stdout.take());
    assert_eq!(help.wait().unwrap().code(), Some(0));
}
