//! One door to the binary: a home and a workspace of its own, and nothing of the machine's environment.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::{ModelServer, Step};

use crate::formats::SCHEMA;

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_ml-intern");

/// An ordinary user's id, for tests that do not run as root.
const NOBODY: u32 = 65_534;

/// A home, a workspace, and a model.
pub(crate) struct TestHost {
    _root: TempDir,
    pub(crate) home: PathBuf,
    pub(crate) workspace: PathBuf,
    pub(crate) server: ModelServer,
    variables: Vec<(String, String)>,
    /// Runs as this user, with a copy of the binary that every user can start.
    user: Option<(u32, PathBuf)>,
}

/// What a run printed, and how it ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl TestHost {
    /// A host whose model plays these steps.
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::below(&std::env::temp_dir(), steps)
    }

    /// The same, in a folder that is not `/tmp`.
    pub(crate) fn outside_tmp(steps: impl IntoIterator<Item = Step>) -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")), steps)
    }

    fn below(folder: &Path, steps: impl IntoIterator<Item = Step>) -> Self {
        let root = tempfile::Builder::new().prefix("host").tempdir_in(folder).unwrap();
        let base = root.path().canonicalize().unwrap();
        let (home, workspace) = (base.join("home"), base.join("work"));
        std::fs::create_dir_all(&home).unwrap();
        std::fs::create_dir_all(&workspace).unwrap();
        let server = ModelServer::start(steps.into_iter().collect());
        let mut host = Self { _root: root, home, workspace, server, variables: Vec::new(), user: None };
        let url = host.server.url();
        host.settings(&json!({}));
        host.set("LLAMACPP_BASE_URL", &url);
        host.set("TEST_KEY", "sk-test");
        host
    }

    /// Sets a variable of the environment.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Writes the user's settings: a provider per wire, and what is given.
    pub(crate) fn settings(&self, own: &Value) {
        let provider =
            |wire: &str| json!({"wire": wire, "base_url": self.server.url(), "key_env": "TEST_KEY"});
        let mut settings = json!({"providers": {
            "chat": provider("chat"), "messages": provider("messages"), "responses": provider("responses"),
        }});
        for (key, value) in own.as_object().unwrap() {
            settings[key] = value.clone();
        }
        self.home_file(".config/ml-intern/cli_agent_config.json", &settings.to_string());
    }

    /// Writes a file below the home.
    pub(crate) fn home_file(&self, name: &str, text: &str) {
        let path = self.home.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Writes a file of the workspace.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.workspace.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Reads a file of the workspace.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.workspace.join(name)).unwrap()
    }

    /// Gives everything to an ordinary user and runs as that user. Tests that run as one already do.
    pub(crate) fn for_nobody(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            let base = self.home.parent().unwrap().to_owned();
            for path in [base.clone(), self.home.clone(), self.workspace.clone()] {
                give(&path);
            }
            give_all(&base);
            let binary = base.join("ml-intern");
            std::fs::copy(BINARY, &binary).unwrap();
            self.user = Some((NOBODY, binary));
        }
        self
    }

    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let binary = self.user.as_ref().map_or(Path::new(BINARY), |(_, binary)| binary);
        let mut command = Command::new(binary);
        command.args(arguments).current_dir(&self.workspace).env_clear().stdin(Stdio::null());
        command.env("HOME", &self.home).env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some((uid, _)) = self.user {
            command.uid(uid).gid(uid);
        }
        command
    }

    /// Runs the binary to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(&self.command(arguments).output().unwrap())
    }

    /// Runs a prompt over the chat wire and gives every line of `stream-json`.
    pub(crate) fn stream(&self, more: &[&str]) -> Stream {
        let mut arguments = vec!["go", "-m", "chat/m", "--json"];
        arguments.extend_from_slice(more);
        Stream::of(&self.run(arguments))
    }

    /// What the audit log has of all sessions, as `show` or `export` gives it.
    pub(crate) fn audited(&self, verb: &str) -> String {
        let folder = self.home.join(".local/state/ml-intern/audit");
        let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let sessions =
            names.filter_map(|name| Some(name.strip_prefix("session-")?.strip_suffix(".jsonl")?.to_owned()));
        sessions.map(|id| self.run(["audit", verb, &id]).stdout).collect()
    }

    /// What the ledger has.
    pub(crate) fn requests(&self, more: &[&str]) -> Vec<Value> {
        let ran = self.run([&["net", "--json", "-n", "0"], more].concat());
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Calls one tool and gives its JSON result.
    pub(crate) fn tool(&self, name: &str, arguments: &Value, more: &[&str]) -> Value {
        let mut line = vec!["tool".to_owned(), name.to_owned(), arguments.to_string(), "--json".to_owned()];
        line.extend(more.iter().map(|m| (*m).to_owned()));
        let ran = self.run(line);
        serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {} {}", ran.stdout, ran.stderr))
    }
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// The lines of a `stream-json` run.
pub(crate) struct Stream {
    pub(crate) code: Option<i32>,
    pub(crate) lines: Vec<Value>,
    pub(crate) stderr: String,
}

impl Stream {
    pub(crate) fn of(ran: &Ran) -> Self {
        let line = |line: &str| {
            let value: Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
            assert!(SCHEMA.is_valid(&value), "not in the published schema: {value}");
            value
        };
        Self { code: ran.code, lines: ran.stdout.lines().map(line).collect(), stderr: ran.stderr.clone() }
    }

    /// The types of all lines, in order.
    pub(crate) fn types(&self) -> Vec<&str> {
        self.lines.iter().filter_map(|line| line["type"].as_str()).collect()
    }

    /// All lines of a type.
    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["type"] == kind).collect()
    }

    /// The output of every call, in order.
    pub(crate) fn outputs(&self) -> Vec<&str> {
        self.all("tool_output").into_iter().filter_map(|line| line["output"].as_str()).collect()
    }

    /// What the host said about itself.
    pub(crate) fn notices(&self) -> Vec<&str> {
        let logs = self.all("tool_log").into_iter().filter(|line| line["tool"] == "system");
        logs.filter_map(|line| line["log"].as_str()).collect()
    }

    pub(crate) fn result(&self) -> &Value {
        let last = self.lines.last().unwrap_or_else(|| panic!("no lines: {}", self.stderr));
        assert_eq!(last["type"], "result", "{last}");
        last
    }
}

/// One call as a model's step.
/// The grade of the wall that this machine gives: full where an ordinary user can make namespaces.
pub(crate) fn grade() -> &'static str {
    let unshare = ["--user", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc", "true"];
    let made = Command::new("unshare").args(unshare).stderr(Stdio::null()).status();
    if made.is_ok_and(|status| status.success()) { "full" } else { "partial" }
}

pub(crate) fn call(name: &str, arguments: Value) -> Step {
    Step::calls([(name, arguments)])
}

/// The messages of a request that carry what the model is told in the person's place.
pub(crate) fn messages(body: &Value, role: &str) -> Vec<String> {
    let messages = body["messages"].as_array().into_iter().flatten().filter(|m| m["role"] == role);
    messages.filter_map(|m| m["content"].as_str().map(str::to_owned)).collect()
}

fn give(path: &Path) {
    std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
}

fn give_all(folder: &Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        give(&path);
        if path.is_dir() && !path.is_symlink() {
            give_all(&path);
        }
    }
}
