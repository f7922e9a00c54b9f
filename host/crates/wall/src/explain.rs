//! Says which of a command's errors a rule of the wall explains, and what would change it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use crate::command::{Captured, Exit};
use crate::config::{Mode, Network};
use crate::rights::{Access, Rights};

/// Bytes at the end of an output that are looked at. What refused a program stands near its end.
const MAX_TEXT: usize = 64 << 10;

/// Most sentences; further refusals are only counted.
const MAX_NOTES: usize = 4;

const DENIED: [&str; 7] = [
    "Permission denied",
    "Operation not permitted",
    "Read-only file system",
    "Device or resource busy",
    "permission denied",
    "operation not permitted",
    "EACCES",
];

/// What is said of a path that was left out of a root of the session's own.
const MISSING: [&str; 3] = ["No such file or directory", "no such file or directory", "ENOENT"];

const NO_NETWORK: [&str; 15] = [
    "Network is unreachable",
    "Temporary failure in name resolution",
    "Temporary failure resolving",
    "Could not resolve host",
    "could not resolve host",
    "Could not resolve hostname",
    "Name or service not known",
    "Name does not resolve",
    "nodename nor servname provided",
    "failed to lookup address",
    "dns error",
    "EAI_AGAIN",
    "Failed to establish a new connection",
    "Failed to connect to",
    "Couldn't connect to server",
];

/// Words beside a refused operation, and what they say of it.
const OPERATIONS: [(&[&str], &str); 3] = [
    (&["ptrace", "PTRACE", "strace", "gdb"], "debuggers and tracers (ptrace) do not work behind the wall"),
    (
        &["unshare", "setns", "mount", "namespace", "bwrap", "pivot_root", "chroot"],
        "mounts and namespaces cannot be made behind the wall",
    ),
    (&["kill", "signal"], "commands can signal only processes of this session"),
];

/// Folders nobody should add for commands, so that no sentence proposes it.
const NOT_TO_ADD: [&str; 10] =
    ["/bin", "/boot", "/dev", "/etc", "/lib", "/proc", "/run", "/sbin", "/sys", "/usr"];

const NETWORK_NOTE: &str = "the network is off for commands; `--network open` opens it";

const GATEWAY_NOTE: &str = "commands reach package indexes and the Hub, and by `https_proxy` hosts that were granted; \
     `--allow 'host(NAME)'` grants one, `--network open` all";

/// What the wall looked like to the command.
pub(crate) struct View<'a> {
    pub(crate) rights: &'a Rights,
    pub(crate) mode: Mode,
    pub(crate) network: Network,
    pub(crate) cwd: &'a Path,
    /// Folders that are the session's own.
    pub(crate) replaced: &'a [PathBuf],
    /// Which paths of the session's folders commands must not change.
    pub(crate) is_sealed: fn(&Path) -> bool,
    /// Whether what commands were not given is not there for them.
    pub(crate) is_own: bool,
}

/// The sentences for what a command wrote, and how many lines they explain.
///
/// A shell often sends errors to stdout, and a pipe or `|| true` ends with 0 all the same. stdout is looked
/// at where stderr explains nothing; there, and after a success, a text about refusals is likelier to be
/// just a text, so that one sentence is said and only for lines that look like a program's message.
pub(crate) fn explain(exit: &Exit, view: &View<'_>) -> (Vec<String>, u32) {
    let has_failed = exit.code != Some(0);
    let said = explain_output(&exit.stderr, has_failed, view);
    if said.0.is_empty() { explain_output(&exit.stdout, false, view) } else { said }
}

fn explain_output(output: &Captured, is_error: bool, view: &View<'_>) -> (Vec<String>, u32) {
    let text = if output.tail.is_empty() { &output.head } else { &output.tail };
    let text = text.get(text.len().saturating_sub(MAX_TEXT)..).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let uses_sockets = text.contains("socket");
    let max_notes = if is_error { MAX_NOTES } else { 1 };
    let mut notes: Vec<String> = Vec::new();
    let mut refusals = 0;
    for line in text.lines().filter(|line| is_error || is_message(line)) {
        let Some(note) = explain_line(line, uses_sockets, view) else {
            continue;
        };
        refusals += 1;
        if notes.len() < max_notes && !notes.contains(&note) {
            notes.push(note);
        }
    }
    (notes, refusals)
}

/// Whether the line has an error behind a colon, as in `cat: f: Permission denied`, and not within quotes, as
/// a source file has it.
fn is_message(line: &str) -> bool {
    let before =
        DENIED.iter().chain(&NO_NETWORK).chain(&MISSING).find_map(|phrase| Some(line.split_once(phrase)?.0));
    before.is_some_and(|before| before.contains(':') && !before.ends_with(['"', '\'', '`', '‘']))
}

fn explain_line(line: &str, uses_sockets: bool, view: &View<'_>) -> Option<String> {
    let is_off = view.network != Network::Open;
    if is_off && NO_NETWORK.iter().any(|phrase| line.contains(phrase)) {
        let is_served = view.network == Network::Gateway && view.is_own;
        return Some(if is_served { GATEWAY_NOTE } else { NETWORK_NOTE }.into());
    }
    if let Some((before, after)) = MISSING.iter().find_map(|phrase| line.split_once(phrase)) {
        let path = named_path(before, after).filter(|path| view.is_own && path.starts_with('/'))?;
        return explain_path(&absolute(view.cwd, &path), true, view);
    }
    let (before, after) = DENIED.iter().find_map(|phrase| line.split_once(phrase))?;
    if let Some(path) = named_path(before, after) {
        let note = explain_path(&absolute(view.cwd, &path), false, view);
        if note.is_some() {
            return note;
        }
    }
    if line.contains("not permitted") {
        let found = OPERATIONS.iter().find(|(words, _)| words.iter().any(|word| line.contains(word)));
        return found.map(|(_, note)| (*note).into());
    }
    let names_no_file = after.trim().is_empty() && !before.contains('/');
    (is_off && uses_sockets && names_no_file).then(|| NETWORK_NOTE.into())
}

/// The file that an error line is about: in quotes, or the word before or after the error itself.
fn named_path(before: &str, after: &str) -> Option<String> {
    let quoted = |text: &str| {
        [('\'', '\''), ('"', '"'), ('`', '\''), ('‘', '’'), ('`', '`')].iter().find_map(|(open, close)| {
            let (_, rest) = text.split_once(*open)?;
            let (path, _) = rest.split_once(*close)?;
            Some(path.to_owned()).filter(|path| !path.is_empty())
        })
    };
    let word = |text: &str, last: bool| {
        let mut words = text.split([' ', '\t', ':', '(', ')', ',']).filter(|word| !word.is_empty());
        let word = if last { words.next_back() } else { words.next() };
        word.map(str::to_owned)
    };
    quoted(after)
        .or_else(|| quoted(before))
        .or_else(|| word(after, false).filter(|word| word.starts_with('/')))
        .or_else(|| word(before, true))
}

/// `path` from `cwd` on, without `.` and `..`.
fn absolute(cwd: &Path, path: &str) -> PathBuf {
    let mut result = PathBuf::new();
    for part in cwd.join(path).components() {
        match part {
            Component::ParentDir => {
                result.pop();
            }
            Component::CurDir => {}
            other => result.push(other),
        }
    }
    result
}

/// `is_missing` says that it was not there for the command.
fn explain_path(path: &Path, is_missing: bool, view: &View<'_>) -> Option<String> {
    let shown = path.display();
    let access = view.rights.access(path);
    // Such a path is one of the session's own, not the machine's.
    let is_in_tmp = || ["/tmp", "/var/tmp"].iter().any(|tmp| path.starts_with(tmp));
    if access.is_none() && view.replaced.iter().any(|folder| path.starts_with(folder)) {
        // But a program looked for one of the machine's.
        let is_machines = is_missing && is_in_tmp() && path.exists();
        let tmp = if path.starts_with("/tmp") { "/tmp" } else { "/var/tmp" };
        return is_machines.then(|| {
            let advice = advice(path, "[:rw]", view);
            format!("`{shown}` is in the machine's `{tmp}`, and the session has one of its own{advice}")
        });
    }
    let is_sealed = |dir: &PathBuf| path.strip_prefix(dir).is_ok_and(|path| (view.is_sealed)(path));
    if access.is_some_and(Access::writes) && !is_missing && view.rights.granted.iter().any(is_sealed) {
        return Some(format!(
            "the wall refused to change `{shown}`: other programs obey it, so commands may only read it; the `write` \
             and `edit` tools ask whether it may be changed"
        ));
    }
    if access.is_some_and(|access| access.writes()) || !would_work_outside(path, access.is_some()) {
        return None;
    }
    if access.is_some() {
        if view.mode == Mode::ReadOnly && view.rights.granted.iter().any(|dir| path.starts_with(dir)) {
            return Some(format!(
                "the wall refused to write `{shown}`: it is read-only; `--wall workspace` lets commands write in \
                 the workspace"
            ));
        }
        let advice = advice(path, ":rw", view);
        return Some(format!("the wall refused to write `{shown}`: commands may only read it{advice}"));
    }
    if is_missing && !path.exists() {
        return None;
    }
    if ["/tmp", "/var/tmp"].iter().any(|tmp| path.parent() == Some(Path::new(tmp))) {
        return Some(format!(
            "the wall refused `{shown}`: the machine's `/tmp` is not the session's here; use `$TMPDIR`"
        ));
    }
    let advice = advice(path, "[:rw]", view);
    Some(format!("the wall refused `{shown}`: it is outside the workspace and the added folders{advice}"))
}

/// Which flag would change it, if one should be used for this.
fn advice(path: &Path, access: &str, view: &View<'_>) -> String {
    let folder = if path.is_dir() { Some(path) } else { path.parent() };
    let Some(folder) = folder.filter(|folder| folder.parent().is_some()) else {
        return String::new();
    };
    if view.rights.is_secret(path) || NOT_TO_ADD.iter().any(|system| folder.starts_with(system)) {
        return String::new();
    }
    format!("; `--add-dir {}{access}` adds the folder", folder.display())
}

/// Whether the file permissions alone would have let the command through: to write if it may read already,
/// otherwise to read or to make the file.
fn would_work_outside(path: &Path, may_read: bool) -> bool {
    const READ: u32 = 4;
    const WRITE: u32 = 2;
    let Ok(metadata) = path.metadata() else {
        let parent = path.parent().and_then(|parent| parent.metadata().ok());
        return parent.is_some_and(|parent| permits(&parent, WRITE));
    };
    permits(&metadata, WRITE) || (!may_read && permits(&metadata, READ))
}

/// What the permission bits say for this user without capabilities, which commands do not have.
fn permits(metadata: &Metadata, wanted: u32) -> bool {
    let bits = if metadata.uid() == rustix::process::geteuid().as_raw() {
        metadata.mode() >> 6
    } else if rustix::process::getgroups()
        .is_ok_and(|groups| groups.iter().any(|g| g.as_raw() == metadata.gid()))
    {
        metadata.mode() >> 3
    } else {
        metadata.mode()
    };
    bits & wanted != 0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::rights::{Access, Rule};

    /// What is said of one line, with `DIR` standing for an existing folder outside the wall.
    fn said(mode: Mode, network: Network, line: &str) -> Option<String> {
        let notes = said_after(1, mode, network, line);
        assert!(notes.len() <= 1, "{notes:?}");
        notes.into_iter().next()
    }

    /// The same of lines that a command with this exit code wrote, to stdout where it is 0.
    fn said_after(exit_code: i32, mode: Mode, network: Network, line: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let dir = fs::canonicalize(root.path()).unwrap();
        for folder in ["work", "data", "readable"] {
            fs::create_dir(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("data/file"), "").unwrap();
        let work = if mode == Mode::ReadOnly { Access::Tool } else { Access::Write };
        let rules = [("work", work), ("readable", Access::Tool)]
            .map(|(name, access)| Rule { path: dir.join(name), access });
        let rights = Rights::for_tests(rules.into(), vec![dir.join("work")]);
        let view = View {
            rights: &rights,
            mode,
            network,
            cwd: &dir.join("work"),
            replaced: &[],
            is_sealed: |_| false,
            is_own: false,
        };
        let text = line.replace("DIR", dir.to_str().unwrap());
        let output = Captured { head: text.into(), ..Captured::default() };
        let exit = match exit_code {
            0 => Exit { code: Some(0), stdout: output, ..Exit::default() },
            code => Exit { code: Some(code), stderr: output, ..Exit::default() },
        };
        let (notes, refusals) = explain(&exit, &view);
        assert!(notes.len() <= refusals as usize);
        notes.into_iter().map(|note| note.replace(dir.to_str().unwrap(), "DIR")).collect()
    }

    #[test]
    fn a_refused_path_is_named_with_what_would_change_it() {
        for line in [
            "cat: DIR/data/file: Permission denied",
            "PermissionError: [Errno 13] Permission denied: 'DIR/data/file'",
            "open(\"DIR/data/file\"): Permission denied",
            "cat: ../data/file: Permission denied",
            "Error: EACCES: permission denied, open 'DIR/data/file'",
        ] {
            assert_eq!(
                said(Mode::Workspace, Network::Off, line).as_deref(),
                Some(
                    "the wall refused `DIR/data/file`: it is outside the workspace and the added folders; \
                     `--add-dir DIR/data[:rw]` adds the folder"
                ),
                "{line}"
            );
        }
        assert_eq!(
            said(Mode::Workspace, Network::Off, "touch: cannot touch ‘DIR/readable/x’: Permission denied")
                .as_deref(),
            Some(
                "the wall refused to write `DIR/readable/x`: commands may only read it; `--add-dir DIR/readable:rw` \
                 adds the folder"
            )
        );
        assert_eq!(
            said(Mode::ReadOnly, Network::Off, "sh: 1: cannot create x: Permission denied").as_deref(),
            Some(
                "the wall refused to write `DIR/work/x`: it is read-only; `--wall workspace` lets commands write \
                 in the workspace"
            )
        );
    }

    #[test]
    fn what_the_wall_does_not_explain_is_left_alone() {
        for line in [
            "sh: 1: cannot create x: Permission denied",
            "cat: /nowhere/at/all: Permission denied",
            "ssh: Permission denied (publickey).",
            "cat: DIR/data/file: No such file or directory",
            "all is well",
        ] {
            assert_eq!(said(Mode::Workspace, Network::Off, line), None, "{line}");
        }
        assert_eq!(said(Mode::Workspace, Network::Open, "curl: (6) Could not resolve host: a.example"), None);
    }

    #[test]
    fn a_success_is_explained_once_and_only_by_messages() {
        let said = |network, text| said_after(0, Mode::Workspace, network, text);
        for line in [
            "curl: (6) Could not resolve host: a.example",
            "fatal: unable to access 'https://a.example/': Could not resolve host: a.example",
            "a\ncurl: (6) Could not resolve host: a\ncat: DIR/data/file: Permission denied\nb",
        ] {
            assert_eq!(said(Network::Off, line), [NETWORK_NOTE], "{line}");
        }
        assert_eq!(said(Network::Off, "cat: DIR/data/file: Permission denied").len(), 1);
        for line in [
            "    \"Could not resolve host\",",
            "x = [\"a:\", \"Permission denied\"]",
            "What to do when it says Could not resolve host and Permission denied",
            "cat: DIR/work/file: Permission denied",
            "git@a.example: Permission denied (publickey).",
        ] {
            assert!(said(Network::Off, line).is_empty(), "{line}");
        }
        assert!(said(Network::Open, "curl: (6) Could not resolve host: a.example").is_empty());
    }

    #[test]
    fn the_network_and_refused_operations_are_explained() {
        for line in [
            "curl: (6) Could not resolve host: a.example",
            "socket.gaierror: [Errno -3] Temporary failure in name resolution",
            "  socket.create_connection(a)\nPermissionError: [Errno 13] Permission denied",
        ] {
            assert_eq!(said(Mode::Workspace, Network::Off, line).as_deref(), Some(NETWORK_NOTE), "{line}");
        }
        let note =
            said(Mode::Workspace, Network::Open, "strace: ptrace(PTRACE_TRACEME): Operation not permitted");
        assert_eq!(note.as_deref(), Some(OPERATIONS[0].1));
    }
}
