//! What this machine allows, and what a wall on it leaves open.

use std::path::Path;

use crate::config::{Mode, Network, WallConfig};
use crate::error::WallError;
use crate::sys;
use crate::wire::Files;

/// Why this kernel cannot confine commands, if so.
pub(crate) fn why_unavailable() -> Option<String> {
    const NEEDED_LANDLOCK: i64 = 6;
    let abi = sys::landlock_abi();
    if abi == 0 {
        Some("this kernel has no Landlock, or it is not switched on".into())
    } else if abi < NEEDED_LANDLOCK {
        Some(format!(
            "this kernel's Landlock has version {abi}, and {NEEDED_LANDLOCK} (Linux 6.12) is needed"
        ))
    } else if !sys::has_seccomp() {
        Some("this kernel has no seccomp filters".into())
    } else {
        None
    }
}

/// Whether this user may make namespaces, as far as the kernel's settings say.
pub(crate) fn has_user_namespaces() -> bool {
    let setting = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let is = |path: &str, value: &str| setting(path).is_some_and(|text| text == value);
    let is_confined_by_apparmor = || is("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1");
    !is("/proc/sys/user/max_user_namespaces", "0")
        && !is("/proc/sys/kernel/unprivileged_userns_clone", "0")
        && (rustix::process::geteuid().is_root() || !is_confined_by_apparmor())
}

/// The error for that.
pub(crate) fn unavailable(reason: String) -> WallError {
    let remedies = [
        "use Linux 6.12 or later with Landlock switched on (`landlock` in the kernel's `lsm=` list)",
        "run in a container or virtual machine that confines everything, and say so with `--wall external`",
        "use `--wall off` to run commands unconfined",
    ];
    WallError::Unavailable { reason, remedies: remedies.map(String::from).into() }
}

/// What is open although the wall stands, a sentence each.
pub(crate) fn residuals(config: &WallConfig, files: &Files, lost: &[String]) -> Vec<String> {
    match config.mode {
        Mode::Off => return vec!["there is no wall: commands can do what you can".into()],
        Mode::External => {
            return vec!["nothing is confined but by the container or machine around it".into()];
        }
        Mode::Workspace | Mode::ReadOnly => {}
    }
    let mut residuals = vec!["nothing limits how much of the disk is used".to_owned()];
    let mut add = |residual: &str| residuals.push(residual.to_owned());
    if !matches!(files, Files::Own(_)) {
        let why = lost.first().map_or("not wanted", String::as_str);
        add(&format!("there are no namespaces of its own ({why})"));
        add("nothing limits processes and memory");
        add("the processes of this machine and their command lines can be listed");
        add("names, sizes and times of files outside can be looked up");
        add("the scheduling and System V memory of your other programs can be changed");
    }
    match files {
        Files::Own(_) => add("names of this machine's devices and network interfaces can be read below /sys"),
        Files::Mounts(mounts) => {
            add(
                "sockets of other programs outside /run and /tmp can be connected to where file permissions allow",
            );
            for (folder, replaced) in
                [("/tmp", &mounts.over_tmp), ("/run", &mounts.empty), ("/dev/shm", &mounts.empty)]
            {
                if !replaced.iter().any(|path| path == Path::new(folder)) {
                    add(&format!(
                        "{folder} is the machine's, because the session was given it or it is a link"
                    ));
                }
            }
        }
        Files::Machine => {
            let why = lost.last().map_or("they were not wanted", String::as_str);
            add(&format!("there are no private mounts ({why})"));
            add("modes, owners and times of your files outside can be changed, their contents not");
            add("sockets of other programs can be connected to where file permissions allow");
            add("your other terminals can be opened by path");
            add("shared memory of your other programs can be opened in /dev/shm");
            add("the machine's /tmp is out of reach, programs must use $TMPDIR");
        }
    }
    if config.network == Network::Open {
        add("the network is open: commands can connect to everything, this machine's services included");
    }
    if config.mode == Mode::Workspace {
        add(match files {
            Files::Machine => {
                "what other programs obey in the workspace, such as git's hooks, can be changed"
            }
            _ => "what other programs obey can be made in the workspace where it was not, and is named then",
        });
        add("sockets of your other programs that lie in the workspace can be connected to");
    }
    if rustix::process::geteuid().is_root() {
        add("commands run as root without capabilities and read what root owns below /usr, /opt and /proc");
    }
    residuals
}
