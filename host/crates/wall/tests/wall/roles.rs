//! What this binary is: the harness, one test, a host to be killed, or the supervisor.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;

use crate::session::{Session, Variant};
use crate::{files, job, life, output, own, probe, quotas, refused, sealed, speed, works};

/// A test by its name.
pub(crate) type Test = (&'static str, fn(&Variant));

/// An ordinary user that every Linux has.
const NOBODY: u32 = 65534;

pub(crate) fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[1..] {
        ["supervisor"] => ml_intern_wall::supervisor_main(),
        ["one", name, variant] => one(name, variant),
        ["host", variant] => life::be_a_host(&Variant::from_name(variant)),
        ["nested"] => life::be_nested(),
        ["worker"] => job::be_a_worker(),
        _ => harness(),
    }
}

fn tests() -> Vec<Test> {
    [
        refused::TESTS,
        own::TESTS,
        sealed::TESTS,
        quotas::TESTS,
        probe::TESTS,
        files::TESTS,
        works::TESTS,
        life::TESTS,
        output::TESTS,
        job::TESTS,
    ]
    .concat()
}

fn harness() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Tests start many processes and some have a time limit.
    arguments.test_threads.get_or_insert(4);
    let users: &[&str] = if rustix::process::geteuid().is_root() { &["root", "user"] } else { &["user"] };
    let (binary, _dir) = reachable_binary();
    let mut trials = Vec::new();
    for user in users {
        for mounts in ["full", "mounts", "plain"] {
            let variant = format!("{user}-{mounts}");
            for (name, _) in tests() {
                let (variant, binary) = (variant.clone(), binary.clone());
                trials.push(Trial::test(format!("{variant}::{name}"), move || {
                    start_one(&binary, name, &variant)
                }));
            }
            for (name, _) in speed::TESTS {
                let (variant, binary) = (variant.clone(), binary.clone());
                let trial =
                    Trial::test(format!("{variant}::{name}"), move || start_one(&binary, name, &variant));
                trials.push(trial.with_ignored_flag(true));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs a test in a process of its own, with fewer rights if the variant says so.
fn start_one(binary: &Path, name: &str, variant: &str) -> Result<(), Failed> {
    let mut command = Command::new(binary);
    command.args(["one", name, variant]);
    if variant.starts_with("user") && rustix::process::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", "/nonexistent").current_dir("/");
    }
    let output = command.output()?;
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !stdout.is_empty() {
        print!("{stdout}");
    }
    if output.status.success() { Ok(()) } else { Err(format!("{}\n{stdout}{stderr}", output.status).into()) }
}

/// This binary, where every user can start it, and the folder of the copy if one was needed.
fn reachable_binary() -> (PathBuf, Option<TempDir>) {
    let own = std::env::current_exe().unwrap();
    if !rustix::process::geteuid().is_root() {
        return (own, None);
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let path = dir.path().join("wall-test");
    std::fs::copy(own, &path).unwrap();
    (path, Some(dir))
}

fn one(name: &str, variant: &str) -> ExitCode {
    let variant = Variant::from_name(variant);
    if variant.is_hardened {
        ml_intern_wall::harden_host().unwrap();
    }
    let all = [tests(), speed::TESTS.to_vec()].concat();
    let (_, test) = all.iter().find(|(known, _)| *known == name).expect("a known test");
    test(&variant);
    ExitCode::SUCCESS
}

/// Runs one script in a session of its own; most tests need no more.
pub(crate) fn sh(variant: &Variant, script: &str) -> ml_intern_wall::Exit {
    Session::new(variant).sh(script)
}
