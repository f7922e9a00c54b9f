//! Compiles the plugins to components, once for all of them, in a target folder of their own.
#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What is compiled: the shipped plugins, and the two that only tests use.
const PLUGINS: [&str; 5] = ["shell", "workspace", "plan", "probe", "orders"];

/// What the plugins are made from. Not all of `sdk`: its example has a target folder of its own.
const WATCHED: [&str; 9] = [
    "plugins",
    "sdk/src",
    "sdk/macros",
    "sdk/manifest",
    "sdk/Cargo.toml",
    "wit",
    "Cargo.toml",
    "Cargo.lock",
    "rust-toolchain.toml",
];

const TARGET: &str = "wasm32-wasip2";

/// Settings of the outer build that must not reach the plugins: their bytes would depend on them.
const FOREIGN: [&str; 9] = [
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOCFLAGS",
    "CLIPPY_ARGS",
    "CARGO_BUILD_",
    "CARGO_PROFILE_",
    "CARGO_TARGET_",
    "CARGO_ENCODED_RUSTFLAGS",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    println!("cargo::rustc-env=GUESTS={}", out.display());
    println!("cargo::rerun-if-env-changed=ML_INTERN_GUESTS");
    let made = match env::var_os("ML_INTERN_GUESTS") {
        Some(ready) => copy(Path::new(&ready), &out, |plugin| format!("{plugin}.wasm")),
        None => compile(&out),
    };
    if let Err(message) = made {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn compile(out: &Path) -> Result<(), String> {
    let workspace = fs::canonicalize(Path::new(&variable("CARGO_MANIFEST_DIR")).join("../../.."))
        .map_err(|e| format!("the workspace cannot be found: {e}"))?;
    for watched in WATCHED {
        println!("cargo::rerun-if-changed={}", workspace.join(watched).display());
    }
    let sysroot = sysroot()?;
    if !sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        return Err(format!("the plugins need the target {TARGET}: run `rustup target add {TARGET}`"));
    }
    let target_dir = target_dir(out)?;
    println!(
        "cargo::warning=building the plugins (half a minute), then the host (about ten minutes the first time)"
    );
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(&workspace).args([
        "build",
        "--locked",
        "--profile",
        "plugin",
        "--target",
        TARGET,
        "--target-dir",
    ]);
    cargo.arg(&target_dir);
    cargo.args(PLUGINS.iter().flat_map(|plugin| ["-p".to_owned(), format!("plugin-{plugin}")]));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if FOREIGN
            .iter()
            .any(|foreign| text == *foreign || (foreign.ends_with('_') && text.starts_with(foreign)))
        {
            cargo.env_remove(&name);
        }
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", remap(&workspace, &sysroot));
    let done = cargo.output().map_err(|e| format!("cargo cannot be started: {e}"))?;
    if !done.status.success() {
        return Err(format!("the plugins do not compile:\n{}", String::from_utf8_lossy(&done.stderr)));
    }
    copy(&target_dir.join(TARGET).join("plugin"), out, |plugin| format!("plugin_{plugin}.wasm"))
}

/// The same plugins on every machine: paths of this one are left out of them.
fn remap(workspace: &Path, sysroot: &Path) -> OsString {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .unwrap_or_default();
    let mut flags = OsString::new();
    for (from, to) in [(home.as_path(), "/cargo"), (sysroot, "/rust"), (workspace, "/ml-intern")] {
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    flags
}

fn sysroot() -> Result<PathBuf, String> {
    let rustc = variable("RUSTC");
    let printed = Command::new(&rustc).args(["--print", "sysroot"]).output();
    let printed = printed.map_err(|e| format!("{} cannot be started: {e}", rustc.to_string_lossy()))?;
    Ok(PathBuf::from(String::from_utf8_lossy(&printed.stdout).trim()))
}

/// A folder that check, clippy, test and build share, beside and not in the outer target folder, whose
/// lock the outer cargo holds.
fn target_dir(out: &Path) -> Result<PathBuf, String> {
    let outermost = out.ancestors().filter(|folder| folder.join("CACHEDIR.TAG").is_file()).last();
    outermost
        .map(|folder| folder.join("guests"))
        .ok_or_else(|| format!("no target folder above {}", out.display()))
}

fn copy(from: &Path, out: &Path, name: impl Fn(&str) -> String) -> Result<(), String> {
    for plugin in PLUGINS {
        let source = from.join(name(plugin));
        if plugin == "probe" && !source.exists() {
            continue;
        }
        fs::copy(&source, out.join(format!("{plugin}.wasm")))
            .map_err(|e| format!("{}: {e}", source.display()))?;
    }
    Ok(())
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_default()
}
