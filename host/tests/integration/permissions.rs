//! What is refused, how it is told, and that it is never a success.

use serde_json::json;
use testkit::Step;

use crate::support::{Stream, TestHost, call, grade};

fn write(path: &str) -> Step {
    call("write", json!({"path": path, "content": "x\n"}))
}

#[test]
fn sealed_paths_need_a_person() {
    let sealed = [
        ".git/config",
        ".git/hooks/pre-commit",
        "AGENTS.md",
        "sub/CLAUDE.md",
        ".mcp.json",
        ".env",
        ".envrc",
        ".vscode/settings.json",
        ".ml-intern/x",
    ];
    let mut steps: Vec<Step> = sealed.iter().map(|path| write(path)).collect();
    steps.push(Step::text("I could not."));
    let host = TestHost::new(steps);
    let ran = host.stream(&[]);
    assert_eq!(
        (ran.code, &ran.result()["subtype"]),
        (Some(6), &json!("permission_denied")),
        "{}",
        ran.stderr
    );
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    assert_eq!(denials.len(), sealed.len());
    assert_eq!(
        (&denials[0]["tool"], &denials[0]["rule"], &denials[0]["tiers"]),
        (&json!("write"), &json!("sealed-path"), &json!(["write"]))
    );
    assert!(
        denials[0]["target"].as_str().unwrap().ends_with(".git/config")
            && denials[0]["remedy"].as_str().unwrap().contains("--yolo")
    );
    assert!(sealed.iter().all(|path| !host.workspace.join(path).exists()));
    // The same with the flag that the refusal names.
    let host = TestHost::new([write("AGENTS.md"), Step::text("ok")]);
    assert_eq!(host.stream(&["--yolo"]).code, Some(0));
    assert_eq!(host.read("AGENTS.md"), "x\n");
}

#[test]
fn denials_can_be_declared_harmless() {
    let steps = || [write("AGENTS.md"), Step::text("ok")];
    assert_eq!(TestHost::new(steps()).stream(&["--allow-denials"]).code, Some(0));
    let ran = TestHost::new(steps()).run(["go", "-m", "chat/m"]);
    assert_eq!(ran.code, Some(6));
    assert!(
        ran.stderr.contains("denied: write ") && ran.stderr.contains("it would be allowed by: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn files_outside_are_not_changed_even_with_yolo() {
    let host = TestHost::outside_tmp([
        write("../outside.txt"),
        write("/etc/ml-intern-test"),
        write("link/x"),
        Step::text("ok"),
    ]);
    let outside = host.home.parent().unwrap().join("target");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, host.workspace.join("link")).unwrap();
    let ran = host.stream(&["--yolo"]);
    assert_eq!(ran.code, Some(6), "{}", ran.stderr);
    assert!(
        ran.outputs()
            .iter()
            .all(|o| o.contains("outside the folders that may be changed") && o.contains("--add-dir")),
        "{:?}",
        ran.outputs()
    );
    assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
    assert!(!host.workspace.parent().unwrap().join("outside.txt").exists());
}

#[test]
fn added_folders_are_read_and_written_as_they_were_added() {
    let host = TestHost::new([]);
    let base = host.home.parent().unwrap().to_owned();
    for name in ["data", "out"] {
        std::fs::create_dir(base.join(name)).unwrap();
        std::fs::write(base.join(name).join("a.txt"), "one\n").unwrap();
    }
    let (data, out) = (base.join("data").display().to_string(), base.join("out").display().to_string());
    for step in [
        call("read", json!({"path": format!("{data}/a.txt")})),
        call("write", json!({"path": format!("{data}/b.txt"), "content": "x"})),
        call("write", json!({"path": format!("{out}/b.txt"), "content": "x"})),
        call(
            "bash",
            json!({"command": format!("cat {data}/a.txt; echo y > {out}/c.txt; echo z > {data}/c.txt")}),
        ),
        Step::text("ok"),
    ] {
        host.server.push(step);
    }
    let ran = host.stream(&["--add-dir", &data, "--add-dir", &format!("{out}:rw")]);
    let outputs = ran.outputs();
    assert_eq!(outputs[0], "     1\tone");
    assert!(outputs[1].contains("outside the folders") && outputs[2].starts_with("Wrote"), "{outputs:?}");
    assert!(
        outputs[3].starts_with("one\n") && outputs[3].contains("the wall refused to write"),
        "{outputs:?}"
    );
    assert!(base.join("out/c.txt").exists() && !base.join("data/c.txt").exists());
}

#[test]
fn modes_decide_by_tier() {
    let steps = || {
        [
            call("read", json!({"path": "a.txt"})),
            write("b.txt"),
            call("bash", json!({"command": "echo hi"})),
            Step::text("ok"),
        ]
    };
    let ran_in = |mode: &str| {
        let host = TestHost::new(steps());
        host.file("a.txt", "one\n");
        let ran = host.stream(&["--permission-mode", mode]);
        let done: Vec<bool> = ran.all("tool_output").iter().map(|o| o["success"] == true).collect();
        let rules: Vec<String> = ran.result()["permission_denials"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["rule"].as_str().unwrap().to_owned())
            .collect();
        (done, rules, ran.code)
    };
    assert_eq!(ran_in("plan"), (vec![true, false, false], vec!["mode:plan".to_owned(); 2], Some(6)));
    assert_eq!(ran_in("ask"), (vec![true, false, false], vec!["unanswered".to_owned(); 2], Some(6)));
    assert_eq!(ran_in("auto"), (vec![true, true, true], Vec::new(), Some(0)));
    assert_eq!(ran_in("yolo"), (vec![true, true, true], Vec::new(), Some(0)));
}

#[test]
fn a_read_only_wall_holds_for_tools_and_commands() {
    let host = TestHost::new([
        write("a.txt"),
        call("bash", json!({"command": "echo x > b.txt; echo y > /tmp/c && cat /tmp/c"})),
        Step::text("ok"),
    ]);
    let ran = host.stream(&["--wall", "read-only"]);
    assert!(!host.workspace.join("a.txt").exists() && !host.workspace.join("b.txt").exists());
    assert!(ran.outputs()[1].contains('y') && ran.outputs()[1].contains("b.txt"), "{:?}", ran.outputs());
}

#[test]
fn commands_have_no_network_unless_it_is_opened() {
    let command = "python3 - <<'E'\nimport socket\ns=socket.socket(); s.connect(('127.0.0.1', PORT)); print('connected')\nE";
    let run = |flags: &[&str]| {
        let host = TestHost::new([]);
        let port = host.server.url().rsplit(':').next().unwrap().to_owned();
        host.server.push(call("bash", json!({"command": command.replace("PORT", &port)})));
        host.server.push(Step::text("ok"));
        let mut arguments = vec!["go", "-m", "chat/m", "--json"];
        arguments.extend_from_slice(flags);
        Stream::of(&host.run(arguments)).outputs()[0].to_owned()
    };
    // Behind a wall of grade full it is a loopback of their own on which nobody listens.
    for flags in [&[][..], &["--network", "off"], &["--network", "gateway"]] {
        let refused = run(flags);
        let is_told = refused.contains("Connection refused") || refused.contains("--network open");
        assert!(!refused.contains("connected") && is_told, "{refused}");
    }
    assert!(run(&["--network", "open"]).contains("connected"));
    assert!(!run(&["--network", "open", "--offline"]).contains("connected"));
}

#[test]
fn an_ordinary_user_has_the_same_wall() {
    let host = TestHost::new([
        call("bash", json!({"command": "id -u; echo x > made && cat made; echo y > /tmp/t && cat /tmp/t; ls /root; echo z > /opt/z"})),
        call("read", json!({"path": "made"})),
        Step::text("ok"),
    ])
    .for_nobody();
    let ran = host.stream(&[]);
    let outputs = ran.outputs();
    assert!(
        outputs[0].contains("x\n")
            && outputs[0].contains("y\n")
            && outputs[0].contains("cannot create /opt/z"),
        "{outputs:?} {}",
        ran.stderr
    );
    assert_eq!(outputs[1], "     1\tx");
    assert_eq!(ran.lines[0]["wall"], grade());
}

#[test]
fn a_command_cannot_move_the_workspace_elsewhere() {
    let host = TestHost::outside_tmp([
        call(
            "bash",
            json!({"command": "mv ../foo ../foo.bak && ln -s ../secret ../foo; (setsid sh -c \"sleep 0.2; kill -9 $PPID\" &); sleep 1; echo moved"}),
        ),
        call("read", json!({"path": "/workspace/key"})),
        call("write", json!({"path": "/workspace/pwned", "content": "x"})),
        call("bash", json!({"command": "cat ../secret/key; cat key"})),
        Step::text("ok"),
    ]);
    let secret = host.file("secret/key", "TOPSECRET");
    host.file("projects/foo/a.txt", "one");
    // The link leads from `projects/foo` to a folder that was not given.
    std::os::unix::fs::symlink("../secret", host.workspace.join("projects/secret")).unwrap();
    let projects = format!("{}:rw", host.workspace.join("projects").display());
    let ran = host.stream(&["-C", "projects/foo", "--add-dir", &projects]);
    let outputs = ran.outputs();
    assert!(host.workspace.join("projects/foo").is_symlink(), "{outputs:?}");
    assert!(outputs.iter().all(|output| !output.contains("TOPSECRET")), "{outputs:?}");
    assert!(!secret.with_file_name("pwned").exists(), "{outputs:?}");
}

/// A model that was talked into widening its own access: each way is refused, and the run says so.
#[test]
fn a_model_cannot_widen_its_own_access() {
    let host = TestHost::outside_tmp([]);
    let config = host.home.join(".config/ml-intern");
    let plugins = host.home.join(".local/share/ml-intern/plugins");
    let grants = "[probe]\nkv = true\n";
    host.home_file(".config/ml-intern/grants.toml", grants);
    host.home_file(".local/share/ml-intern/plugins/README", "here lie plugins\n");
    host.file("AGENTS.md", "be careful\n");
    std::fs::copy(guests::component("probe"), host.workspace.join("probe.wasm")).unwrap();
    std::fs::copy(crate::support::BINARY, host.workspace.join("ml-intern")).unwrap();
    let to = |path: &std::path::Path| json!({"path": path, "content": "pwned\n"});
    let home = host.home.display().to_string();
    let install = format!(
        "export HOME={home} XDG_DATA_HOME={home}/.local/share; ./ml-intern plugin install probe.wasm --yes"
    );
    // The same without the program's leave, and past it.
    let smuggle = format!(
        "unset ML_INTERN_INSIDE; export HOME={home} XDG_DATA_HOME={home}/.local/share; \
         ./ml-intern plugin install probe.wasm --yes; cp probe.wasm {home}/.local/share/ml-intern/plugins/; echo end"
    );
    let tries = [
        call("read", json!({"path": "AGENTS.md"})),
        // Installs a plugin.
        call("bash", json!({"command": smuggle})),
        call("bash", json!({"command": install})),
        // Grants itself a host.
        call("write", to(&config.join("grants.toml"))),
        // Edits the policy.
        call("write", to(std::path::Path::new("/etc/ml-intern/policy.toml"))),
        // Writes into a folder of plugins.
        call("write", to(&plugins.join("evil.wasm"))),
        // Changes what later runs are told.
        call("edit", json!({"path": "AGENTS.md", "old_str": "careful", "new_str": "careless"})),
        // Approves its own call.
        call(
            "exec_approval",
            json!({"approvals": [{"tool_call_id": "call_6", "approved": true, "for_session": true}]}),
        ),
    ];
    let count = tries.len();
    for step in tries {
        host.server.push(step);
    }
    host.server.push(Step::text("I could not."));
    let ran = host.stream(&[]);
    let outputs = ran.all("tool_output");
    assert_eq!(outputs.len(), count, "{:?}", ran.outputs());
    // Its command ran, in a place where nothing of the program's own exists; what it left there is gone.
    for output in &outputs[2..] {
        // Six refusals, the first by the program itself.
        assert_eq!(output["success"], false, "{output}");
    }
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    let rules: Vec<&str> = denials.iter().map(|denial| denial["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["path-outside", "path-outside", "path-outside", "sealed-path"], "{denials:?}");
    assert!(outputs[2]["output"].as_str().unwrap().contains("is for a person"), "{}", outputs[2]);
    assert_eq!(outputs[2..].len(), 6);
    assert!(outputs[7]["output"].as_str().unwrap().contains("there is no tool `exec_approval`"));
    assert_eq!((ran.code, &ran.result()["subtype"]), (Some(6), &json!("permission_denied")));
    // And nothing is otherwise than it was.
    assert_eq!(std::fs::read_to_string(config.join("grants.toml")).unwrap(), grants);
    assert_eq!(host.read("AGENTS.md"), "be careful\n");
    let left: Vec<_> = std::fs::read_dir(&plugins).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["README"]);
    assert!(!std::path::Path::new("/etc/ml-intern/policy.toml").exists());
}

#[test]
fn rules_of_the_command_line_and_of_the_settings_hold() {
    let steps = || {
        [
            write("src/a.txt"),
            write("data/b.txt"),
            call("bash", json!({"command": "cd . && git push origin"})),
            call("bash", json!({"command": "echo hi"})),
            Step::text("ok"),
        ]
    };
    let host = TestHost::new(steps());
    host.settings(&json!({"permissions": {"deny": ["bash(git push*)"]}}));
    let ran = host.stream(&["--deny", "path(data/**)", "--ask", "write(src/*)"]);
    let denials = ran.result()["permission_denials"].as_array().unwrap();
    let rules: Vec<&str> = denials.iter().map(|denial| denial["rule"].as_str().unwrap()).collect();
    assert_eq!(
        rules,
        [
            "rule:write(src/*) (--ask)",
            "rule:path(data/**) (--deny)",
            "rule:bash(git push*) (permissions.deny of the settings)"
        ],
        "{:?}",
        ran.outputs()
    );
    assert_eq!((ran.outputs()[3].contains("hi"), ran.code), (true, Some(6)));
    for (flags, code, said) in [
        (["--deny", "bash("], 2, "--deny: `bash(` is no rule: the closing `)` is missing"),
        (["--max-budget-usd", "-1"], 2, "not negative"),
        (["--max-budget-usd", "nan"], 2, "not negative"),
        (["--max-budget-usd", "5"], 2, "has no known price"),
        (["--grant", "nobody"], 2, "there is no such plugin"),
    ] {
        let ran = host.run(["go", "-m", "chat/m", flags[0], flags[1]]);
        assert!(
            ran.code == Some(code) && ran.stderr.contains(said),
            "{flags:?} {:?} {}",
            ran.code,
            ran.stderr
        );
    }
    host.settings(&json!({"permissions": {"allow": ["tier(free)"]}}));
    let ran = host.run(["go", "-m", "chat/m"]);
    assert!(ran.code == Some(3) && ran.stderr.contains("tiers are read, write"), "{}", ran.stderr);
    host.settings(&json!({"headless_budget_usd": -1}));
    assert_eq!(host.run(["go", "-m", "chat/m"]).code, Some(3));
}
