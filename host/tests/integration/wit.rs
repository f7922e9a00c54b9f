//! A released interface never changes.

use std::path::{Path, PathBuf};

fn wit(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit").join(folder);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "wit"));
    files.sort();
    let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    files.iter().map(|path| (name(path), std::fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn the_sdk_builds_against_the_frozen_interface() {
    // Once something is added for 0.1.1 this becomes: the frozen text is contained in the current one.
    assert_eq!(wit(""), wit("frozen/0.1.0"));
}
