use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use ml_intern_wall::{
    Captured, Command, CommandLimits, Exit, Grade, Mode, Network, Space, SupervisorCommand, Wall, WallConfig,
    WallError,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How a test is run.
#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) mounts: bool,
    /// Namespaces of the session's own.
    pub(crate) full: bool,
    /// As root the host is left as it is, so that the wall alone must hold.
    pub(crate) is_hardened: bool,
}

impl Variant {
    pub(crate) fn from_name(name: &str) -> Self {
        let full = name.ends_with("full");
        let mounts = full || name.ends_with("mounts");
        Self { name: name.into(), mounts, full, is_hardened: name.starts_with("user") }
    }
}

/// A wall around a workspace in a folder of its own.
pub(crate) struct Session {
    runtime: Runtime,
    wall: Option<Wall>,
    /// How strong it came out.
    pub(crate) found: Arc<OnceLock<Grade>>,
    /// Holds `work`, `home`, `tmp` and `caches`.
    pub(crate) root: PathBuf,
    _dir: tempfile::TempDir,
}

impl Session {
    pub(crate) fn new(variant: &Variant) -> Self {
        Self::with(variant, |_, _| {})
    }

    /// A session whose configuration and folder `change` may change first.
    pub(crate) fn with(variant: &Variant, change: impl FnOnce(&mut WallConfig, &Path)) -> Self {
        let dir = base(variant);
        let root = fs::canonicalize(dir.path()).unwrap();
        fs::create_dir(root.join("work")).unwrap();
        let mut config = WallConfig {
            supervisor: SupervisorCommand {
                program: "/proc/self/exe".into(),
                args: vec!["supervisor".into()],
            },
            mode: Mode::Workspace,
            network: Network::Off,
            workspace: root.join("work"),
            read_dirs: Vec::new(),
            write_dirs: Vec::new(),
            home: root.join("home"),
            tmp: root.join("tmp"),
            caches: root.join("caches"),
            private_dirs: Vec::new(),
            user_env: std::env::vars_os().collect(),
            extra_env_names: Vec::new(),
            refused_env_names: Vec::new(),
            space: match (variant.full, variant.mounts) {
                (true, _) => Space::Own,
                (false, true) => Space::Mounts,
                (false, false) => Space::Machine,
            },
            limits: CommandLimits::default(),
            sealed: |path| {
                path.components().any(|part| {
                    let name = part.as_os_str().as_encoded_bytes();
                    name.starts_with(b".env") || [&b".git"[..], b"AGENTS.md", b".vscode"].contains(&name)
                })
            },
            loopback: None,
            required: None,
            commands: Arc::default(),
            found: Arc::default(),
        };
        change(&mut config, &root);
        let found = config.found.clone();
        Self { runtime: Runtime::new().unwrap(), found, wall: Some(Wall::new(config)), root, _dir: dir }
    }

    pub(crate) fn wall(&self) -> &Wall {
        self.wall.as_ref().unwrap()
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join("work")
    }

    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub(crate) fn run(&self, command: Command) -> Result<Exit, WallError> {
        self.block_on(self.wall().run(command, CancellationToken::new()))
    }

    /// Runs a shell script in the workspace.
    pub(crate) fn sh(&self, script: &str) -> Exit {
        self.run(sh(script)).unwrap()
    }

    pub(crate) fn python(&self, script: &str) -> Exit {
        self.run(Command { program: "python3".into(), args: vec!["-c".into(), script.into()], ..sh("") })
            .unwrap()
    }

    /// Ends the session.
    pub(crate) fn shutdown(&mut self) {
        let wall = self.wall.take().unwrap();
        self.runtime.block_on(wall.shutdown());
    }
}

/// A folder outside the private mounts where there is one, so that both cases are met.
fn base(variant: &Variant) -> tempfile::TempDir {
    let home = std::env::var_os("HOME").filter(|_| variant.full || !variant.mounts);
    let in_home = home.and_then(|home| tempfile::Builder::new().prefix("wall-").tempdir_in(home).ok());
    in_home.unwrap_or_else(|| tempfile::Builder::new().prefix("wall-").tempdir().unwrap())
}

/// The command that runs a shell script.
pub(crate) fn sh(script: &str) -> Command {
    Command {
        program: "sh".into(),
        args: vec!["-c".into(), script.into()],
        cwd: None,
        env: Vec::new(),
        stdin: None,
        timeout: Duration::from_secs(60),
        max_output: 64 << 10,
    }
}

pub(crate) trait Text {
    /// All that was kept, as text.
    fn text(&self) -> String;
}

impl Text for Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&[self.head.as_slice(), &self.tail].concat()).into_owned()
    }
}

/// The output of a command that must succeed.
#[track_caller]
pub(crate) fn ok(exit: &Exit) -> String {
    assert_eq!(
        exit.code,
        Some(0),
        "stdout: {}\nstderr: {}\n{exit:?}",
        exit.stdout.text(),
        exit.stderr.text()
    );
    exit.stdout.text().trim().to_owned()
}

/// The errors of a command that must fail.
#[track_caller]
pub(crate) fn fails(exit: &Exit) -> String {
    assert_ne!(exit.code, Some(0), "it succeeded: {}", exit.stdout.text());
    exit.stderr.text()
}

/// Waits until `condition` holds.
#[track_caller]
pub(crate) fn eventually(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many processes of this machine have `mark` in their command line. Zombies have none.
pub(crate) fn processes(mark: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries
        .filter(|entry| {
            fs::read(entry.path().join("cmdline")).is_ok_and(|line| contains(&line, mark.as_bytes()))
        })
        .count()
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

/// A number that no other test uses, for arguments that mark processes.
pub(crate) fn mark() -> String {
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    format!("4{:06}.{nanos:09}", std::process::id())
}

/// An environment with these variables and the real `PATH`.
pub(crate) fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let mut env: Vec<_> = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
    if !variables.iter().any(|(name, _)| *name == "PATH") {
        env.push(("PATH".into(), std::env::var_os("PATH").unwrap()));
    }
    env
}
