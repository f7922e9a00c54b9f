//! A corpus of attacks by components, servers and files, and the list of all attacks that are tested.

mod attacks;
mod commands;
mod components;
mod files;
pub(crate) mod guest;
mod limits;
mod network;
mod promises;
mod record;
pub(crate) mod server;
mod supply;

use serde_json::{Value, json};
use testkit::Step;

use crate::support::{Stream, TestHost, call};

/// Everything that the probe can be granted without the network.
fn everything() -> Value {
    json!({"exec": true, "files": true, "kv": true, "paths": ["workspace", "tmp", "data"]})
}

/// A host with these plugins in a folder, each granted what it declares here.
fn host(steps: Vec<Step>, plugins: &[(&str, Vec<u8>, Value)]) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let folder = host.home.join("plugins");
    std::fs::create_dir(&folder).unwrap();
    let mut grants = toml::Table::new();
    for (id, component, capabilities) in plugins {
        std::fs::write(folder.join(format!("{id}.wasm")), component).unwrap();
        grants.insert((*id).to_owned(), toml::Value::try_from(capabilities).unwrap());
    }
    host.home_file(".config/ml-intern/grants.toml", &grants.to_string());
    host
}

/// A host with the probe, which declares and was granted this.
fn with_probe(steps: Vec<Step>, capabilities: &Value) -> TestHost {
    host(steps, &[("probe", guest::probe(capabilities), capabilities.clone())])
}

fn run(host: &TestHost) -> Stream {
    run_with(host, &[])
}

fn run_with(host: &TestHost, more: &[&str]) -> Stream {
    let plugins = host.home.join("plugins").display().to_string();
    host.stream(&[&["--plugin-dir", plugins.as_str()], more].concat())
}

fn attack(how: &str, with: &str, list: &[&str]) -> Step {
    call("probe__attack", json!({"how": how, "with": with, "list": list}))
}

/// Nothing of what an attack tells worked.
fn all_refused(output: &str) {
    assert!(output.starts_with("refused ") && !output.contains("WORKED"), "{output}");
}
