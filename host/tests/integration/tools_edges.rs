//! Where the local tools once led into a dead end or said what was not so.

use serde_json::json;
use testkit::Step;

use crate::support::TestHost;
use crate::tools::{bash, edit, play, read, write};

#[test]
fn a_file_that_was_removed_can_be_written_again() {
    let host = TestHost::new([]);
    let results = play(
        &host,
        &[
            write("gen.py", "x = 1\n"),
            bash("rm gen.py"),
            write("gen.py", "x = 2\n"),
            edit("gen.py", "2", "3"),
        ],
    );
    assert!(results[2].1 && results[3].1, "{results:?}");
    assert_eq!(host.read("gen.py"), "x = 3\n");
}

#[test]
fn a_command_that_ends_well_at_its_timeout_has_failed() {
    let host = TestHost::new([]);
    let command = "trap 'exit 0' TERM; while :; do sleep 0.1; done";
    let results = play(&host, &[("bash", json!({"command": command, "timeout": 1}))]);
    assert!(!results[0].1 && results[0].0.contains("timeout"), "{results:?}");
}

#[test]
fn a_pipe_where_output_would_be_kept_holds_nothing_up() {
    let host = TestHost::new([]);
    let results = play(
        &host,
        &[
            bash("seq 1 20000; for k in $(seq 0 9); do mkfifo /tmp/bash_output_call_$k.txt; done"),
            bash("for f in /tmp/bash_output_*_*_*.txt; do mkfifo \"${f%_*}.txt\"; done; seq 1 20000"),
        ],
    );
    assert!(results[1].0.contains("Full output saved to /tmp/bash_output_"), "{}", results[1].0);
}

#[test]
fn a_file_is_the_same_under_every_name() {
    let host = TestHost::new([]);
    host.file("sub/real.txt", "one\n");
    std::os::unix::fs::symlink("sub", host.workspace.join("folder")).unwrap();
    std::os::unix::fs::symlink("folder/real.txt", host.workspace.join("link.txt")).unwrap();
    let results = play(
        &host,
        &[
            read("link.txt"),
            edit("sub/real.txt", "one", "two"),
            edit("folder/real.txt", "two", "three"),
            edit("/workspace/link.txt", "three", "four"),
        ],
    );
    assert!(results.iter().all(|result| result.1), "{results:?}");
    assert_eq!(host.read("sub/real.txt"), "four\n");
    assert!(host.workspace.join("link.txt").is_symlink());
}

#[test]
fn what_cannot_be_read_names_the_folders_that_can() {
    let host = TestHost::outside_tmp([]);
    let outside = host.home.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("x.txt"), "secret").unwrap();
    std::os::unix::fs::symlink("../outside/x.txt", host.workspace.join("link.txt")).unwrap();
    let results = play(
        &host,
        &[read("/opt/data/x.csv"), read("../outside/x.txt"), read("link.txt"), read(" "), read("none.txt")],
    );
    assert!(results[0].0.ends_with("the user can add one with --add-dir /opt/data"), "{results:?}");
    assert!(results[0].0.contains(&host.workspace.display().to_string()), "{results:?}");
    for result in &results[1..3] {
        let remedy = format!("--add-dir {}", outside.display());
        assert!(!result.1 && result.0.ends_with(&remedy) && !result.0.contains("secret"), "{results:?}");
    }
    assert!(results[3].0.contains("no path was given"), "{results:?}");
    assert_eq!(results[4].0, "File not found: none.txt");
}

#[test]
fn files_that_are_too_large_to_change_point_to_the_shell() {
    let host = TestHost::new([]);
    let file = std::fs::File::create(host.workspace.join("huge.txt")).unwrap();
    file.set_len(300 << 20).unwrap();
    host.file("near.txt", &"0123456\n".repeat((15 << 20) / 8));
    let results = play(
        &host,
        &[
            ("read", json!({"path": "huge.txt", "limit": 1})),
            edit("huge.txt", "a", "b"),
            write("huge.txt", "small"),
            read("near.txt"),
            (
                "edit",
                json!({"path": "near.txt", "old_str": "0123456\n", "new_str": "9", "mode": "replace_all"}),
            ),
        ],
    );
    assert!(results[0].1, "{results:?}");
    assert!(!results[1].1 && results[1].0.contains("above 15 MiB are changed with bash"), "{results:?}");
    assert!(!results[2].1 && results[2].0.contains("15 MiB") && results[2].0.contains("bash"), "{results:?}");
    assert_eq!(results[4].0, "Edited near.txt (1966080 replacements)", "{results:?}");
}

#[test]
fn arguments_are_taken_as_models_write_them() {
    let host = TestHost::new([]);
    host.file("a.txt", "one\ntwo\n");
    let results = play(
        &host,
        &[
            ("read", json!({"path": "a.txt", "offset": 2.0, "limit": 5.0})),
            ("write", json!({"path": "empty.txt"})),
            ("read", json!({"path": "a.txt", "offset": 1.5})),
        ],
    );
    assert_eq!(results[0], ("     2\ttwo".to_owned(), true));
    assert_eq!(results[1].0, "Wrote 0 bytes to empty.txt");
    assert!(!results[2].1 && results[2].0.contains("`offset`"), "{results:?}");
}

#[test]
fn a_refused_write_leaves_no_folder_and_names_where_a_link_leads() {
    let host = TestHost::outside_tmp([]);
    let outside = host.home.parent().unwrap().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink("../outside/x.txt", host.workspace.join("link.txt")).unwrap();
    let results = play(&host, &[write(".vscode/x/y/settings.json", "{}"), write("link.txt", "x")]);
    assert!(!results[0].1 && results[0].0.contains("sealed"), "{results:?}");
    assert!(!host.workspace.join(".vscode").exists());
    let remedy = format!("--add-dir {}:rw", outside.display());
    assert!(!results[1].1 && results[1].0.contains(&remedy), "{results:?}");
    assert!(!outside.join("x.txt").exists());
}

#[test]
fn of_changes_at_the_same_time_each_is_kept_or_told_to_come_too_late() {
    let lines: String = (0..6).map(|n| format!("line {n}\n")).collect();
    let change = |n: usize| {
        (
            "edit",
            json!({"path": "p.txt", "old_str": format!("line {n}\n"), "new_str": format!("changed {n}\n")}),
        )
    };
    let host = TestHost::new([
        Step::calls([("read", json!({"path": "p.txt"}))]),
        Step::calls((0..6).map(change)),
        Step::text("done"),
    ]);
    host.file("p.txt", &lines);
    let ran = host.stream(&[]);
    let succeeded = ran.all("tool_output").iter().skip(1).filter(|line| line["success"] == true).count();
    assert_eq!(host.read("p.txt").matches("changed").count(), succeeded);
    assert!(succeeded >= 1);
}
