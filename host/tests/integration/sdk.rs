//! A plugin as a stranger writes it, built and used from outside the workspace.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::TestHost;

#[test]
fn a_strangers_plugin_is_built_installed_granted_and_called() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk/example");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("example");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--locked", "--target", "wasm32-wasip2", "--target-dir"])
        .arg(&target)
        .current_dir(&example)
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let component = target.join("wasm32-wasip2/release/dataset_card.wasm");
    let host = TestHost::new([]);
    host.file("pets.csv", "name,kind\nRex,dog\n");
    let info = host.run(["plugin", "info", component.to_str().unwrap()]);
    assert_eq!(info.code, Some(0), "{}", info.stderr);
    assert!(
        info.stdout.contains("read the workspace") && info.stdout.contains("start commands"),
        "{}",
        info.stdout
    );
    assert_eq!(host.run(["plugin", "install", "--yes", component.to_str().unwrap()]).code, Some(0));
    let draft = || host.tool("dataset-card__draft_card", &json!({"path": "pets.csv", "title": null}), &[]);
    let refused = draft();
    assert_eq!(refused["success"], false, "{refused}");
    host.home_file(".config/ml-intern/grants.toml", "[dataset-card]\npaths = [\"workspace\"]\n");
    assert!(
        draft()["output"].as_str().unwrap().starts_with("# pets.csv\n\n1 row, 2 columns."),
        "{}",
        draft()
    );
}
