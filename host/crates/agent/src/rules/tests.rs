use serde_json::json;

use super::*;

fn matches(effect: Effect, rule: &str, tool: &str, arguments: &Value) -> bool {
    let rule = Rule::parse(effect, rule, "--test", Path::new("/work")).unwrap();
    let target = ["command", "path", "repo"].iter().find_map(|name| arguments.get(name)?.as_str());
    let target_argument = Some("repo");
    let path = arguments.get("path").and_then(Value::as_str).map(|path| Path::new("/work").join(path));
    rule.is_about(&Asked {
        tool,
        arguments,
        target: target.unwrap_or_default(),
        paths: path.as_slice(),
        files: &[],
        workspace: Path::new("/work"),
        tiers: &[Tier::Read, Tier::Spend].into(),
        target_argument,
        is_lookup: false,
        is_command: tool == "bash",
    })
}

#[test]
fn rules_name_tools_targets_arguments_paths_and_tiers() {
    use Effect::Deny;
    let run = json!({"operation": "run", "repo": "me/model", "n": 3});
    for rule in ["jobs", "j*", "*", "jobs(me/*)", "jobs(operation=run)", "jobs(n=3)", "tier(spend)"] {
        assert!(matches(Deny, rule, "jobs", &run), "{rule}");
    }
    for rule in ["job", "jobs(you/*)", "jobs(operation=ps)", "jobs(other=run)", "tier(remote)"] {
        assert!(!matches(Deny, rule, "jobs", &run), "{rule}");
    }
    let write = json!({"path": "data/raw/a.csv"});
    for rule in ["path(/work/data/**)", "path(data/**)", "path(data/raw/*.csv)", "write(data/*)"] {
        assert!(matches(Deny, rule, "write", &write), "{rule}");
    }
    for rule in ["path(/data/**)", "path(a.csv)"] {
        assert!(!matches(Deny, rule, "write", &write), "{rule}");
    }
    assert!(matches(Deny, "path(data/**)", "list", &json!({"path": "data"})));
}

#[test]
fn what_denies_a_folder_denies_all_below_it_as_it_does_for_guests() {
    let write = json!({"path": "data/raw/a.csv"});
    for rule in ["path(data)", "path(data/*)", "path(DATA/Raw)", "path(**/raw)", "path(/work)", "path(/**)"] {
        assert!(matches(Effect::Deny, rule, "write", &write), "{rule}");
        let rule = Rule::parse(Effect::Deny, rule, "--test", Path::new("/work")).unwrap();
        let rules = Rules(vec![rule]);
        assert!(rules.denied_paths().iter().any(|denied| denied.covers(Path::new("/work/data/raw/a.csv"))));
    }
    for rule in ["path(dat)", "path(data/raw/b.csv)", "path(other/*)"] {
        assert!(!matches(Effect::Deny, rule, "write", &write), "{rule}");
    }
    // What allows or asks is about what it names.
    for effect in [Effect::Allow, Effect::Ask] {
        assert!(
            !matches(effect, "path(data)", "write", &write)
                && matches(effect, "path(data/**)", "write", &write)
        );
    }
}

#[test]
fn a_rule_that_allows_a_command_stops_where_another_begins() {
    let bash =
        |effect, rule: &str, command: &str| matches(effect, rule, "bash", &json!({"command": command}));
    assert!(bash(Effect::Allow, "bash(git status*)", "git status -s"));
    for more in [
        "git status; rm -rf .",
        "git status && x",
        "git status $(x)",
        "git status | sh",
        "git status\nx",
        "git status > ~/x",
    ] {
        assert!(!bash(Effect::Allow, "bash(git status*)", more), "{more}");
    }
    assert!(bash(Effect::Allow, "bash(make && make test)", "make && make test"));
    for hidden in ["cd x && git push", "(git push)", "x=$(git push origin)", "true;git push"] {
        assert!(bash(Effect::Deny, "bash(git push*)", hidden), "{hidden}");
    }
    assert!(!bash(Effect::Deny, "bash(git push*)", "git pull"));
    for push in ["git push", "git  push origin x", "git\tpush", " git push ", "cd x;git   push"] {
        assert!(bash(Effect::Deny, "bash(git push *)", push), "{push}");
    }
    assert!(!bash(Effect::Deny, "bash(git push *)", "git pushx"));
    let run = json!({"operation": "RUN", "repo": "me/model"});
    assert!(matches(Effect::Deny, "jobs(operation=run)", "jobs", &run));
    assert!(!matches(Effect::Allow, "jobs(operation=run)", "jobs", &run));
}

#[test]
fn what_is_no_rule_is_refused_with_the_forms() {
    for text in ["", "()", "bash(", "bash()", "ba sh", "path", "tier(free)", "bash(a**b)", "write(a)b"] {
        let error = Rule::parse(Effect::Allow, text, "--allow", Path::new("/")).unwrap_err().to_string();
        assert!(
            error.starts_with("--allow: ") && error.contains("hf_jobs(operation=run)"),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_target_is_named_by_the_argument_that_the_manifest_says_it_is() {
    let names = |rule: &str, arguments: &Value| {
        let target = arguments.get("repo").and_then(Value::as_str).unwrap_or("data/x.py");
        let asked = Asked {
            tool: "jobs",
            arguments,
            target,
            paths: &["/work/data/x.py".into()],
            files: &[],
            workspace: Path::new("/work"),
            tiers: &[Tier::Spend].into(),
            target_argument: Some("repo"),
            is_lookup: false,
            is_command: false,
        };
        Rule::parse(Effect::Allow, rule, "", Path::new("/work")).unwrap().names_target(&asked)
    };
    let run = json!({"operation": "run", "repo": "me/model", "script": "data/x.py"});
    for rule in ["jobs(me/*)", "jobs(me/model)", "jobs(repo=me/*)", "j*(me/model)"] {
        assert!(names(rule, &run), "{rule}");
    }
    for rule in [
        "jobs",
        "jobs(*)",
        "jobs(*/*)",
        "jobs(*/model)",
        "jobs([a-z]*/*)",
        "jobs(m*)",
        "jobs(datasets/*)",
        "jobs(https://*)",
        "jobs(https://hub.test*)",
        "jobs(hf://*)",
        "jobs(*/me/model)",
        "jobs(me*/model)",
        "jobs(repo=*)",
        "jobs(operation=run)",
        "jobs(script=data/x.py)",
        "jobs(/work/data/*)",
        "path(data/**)",
        "path(/work/data/x.py)",
        "tier(spend)",
    ] {
        assert!(!names(rule, &run), "{rule}");
    }
    let address = json!({"repo": "https://hub.test/me/model"});
    // One part is left open, and no more.
    assert!(names("jobs(https://hub.test/me/*)", &address) && names("jobs(https://hub.test/**)", &address));
    assert!(!names("jobs(https://hub.test/*)", &address));
    for (rule, elsewhere) in [
        ("jobs(me/*)", "me/../you/x"),
        ("jobs(me/*)", "me/.."),
        ("jobs(me/*)", "me/%2e%2e"),
        ("jobs(me/**)", "me/%2e%2e/you/x"),
        ("jobs(me/**)", "me/../you/x"),
        ("jobs(me/*)", "me/x?y=/../../you/z"),
        ("jobs(me/*)", "me/x#y"),
        ("jobs(me/*)", "me/x\\..\\y"),
        ("jobs(me/*)", "me/"),
        ("jobs(me/*)", "me/x/y"),
        ("jobs(repo=me/*)", "me/../you/x"),
        ("jobs(hf://datasets/*)", "hf://datasets/you"),
        ("jobs(hf://datasets/*)", "hf://datasets/you/x"),
        ("jobs(https://hub.test/Datasets/**)", "https://hub.test/Datasets/you/x"),
        ("jobs(https://hub.test/me/**)", "https://hub.test/me//you/x"),
    ] {
        assert!(!names(rule, &json!({"repo": elsewhere})), "{rule} {elsewhere}");
    }
    assert!(names("jobs(hf://datasets/me/*)", &json!({"repo": "hf://datasets/me/x-1.0_y"})));
    // The very word is named whatever it is.
    assert!(names("jobs(me/../you#x)", &json!({"repo": "me/../you#x"})));
    assert!(!names("jobs(https://*/me/model)", &address) && !names("jobs(https://*)", &address));
    let blank = json!({"repo": " me/model "});
    assert!(!matches(Effect::Allow, "jobs(me/model)", "jobs", &blank));
    assert!(!matches(Effect::Allow, "jobs(repo=me/model)", "jobs", &blank));
    for denied in [" me/model ", "Me/Model", "ME/model"] {
        for rule in ["jobs(me/*)", "jobs(repo=me/*)"] {
            assert!(matches(Effect::Deny, rule, "jobs", &json!({"repo": denied})), "{rule} {denied}");
        }
    }
    // Without it the target is another argument, which says nothing of where the call goes.
    assert!(!names("jobs(data/x.py)", &json!({"operation": "run", "script": "data/x.py"})));
}

#[test]
fn what_denies_a_file_holds_whether_its_text_stands_in_its_place_or_not() {
    let file = runtime::NamedFile {
        argument: "/script".to_owned(),
        path: "./sub/deploy.py".to_owned(),
        real: "/work/sub/deploy.py".into(),
        bytes: 8,
        sha256: String::new(),
    };
    let is_about = |effect, rule: &str, files: &[runtime::NamedFile]| {
        let arguments = json!({"script": "print(1)", "other": "x"});
        let asked = Asked {
            tool: "jobs",
            arguments: &arguments,
            target: "print(1)",
            paths: &[],
            files,
            workspace: Path::new("/work"),
            tiers: &[Tier::Spend].into(),
            target_argument: Some("script"),
            is_lookup: false,
            is_command: false,
        };
        Rule::parse(effect, rule, "", Path::new("/work")).unwrap().is_about(&asked)
    };
    let files = [file];
    for rule in [
        "jobs(script=./sub/deploy.py)",
        "jobs(script=sub/Deploy.py)",
        "jobs(script=*/deploy.py)",
        "jobs(script=/work/sub/deploy.py)",
        "jobs(script=print*)",
        "jobs(sub/deploy.py)",
        "jobs(*deploy*)",
    ] {
        for effect in [Effect::Deny, Effect::Ask] {
            assert!(is_about(effect, rule, &files), "{rule}");
        }
        // What allows is about the text that the tool gets.
        assert_eq!(is_about(Effect::Allow, rule, &files), rule.contains("print"), "{rule}");
    }
    for rule in ["jobs(script=deploy.py)", "jobs(other=sub/deploy.py)", "jobs(other=*deploy*)"] {
        assert!(!is_about(Effect::Deny, rule, &files), "{rule}");
    }
    assert!(!is_about(Effect::Deny, "jobs(script=sub/deploy.py)", &[]));
}
