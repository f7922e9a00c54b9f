//! What this machine allows, and what a wall on it leaves open.

use std::path::Path;

use crate::config::{Mode, Network, WallConfig};
use crate::error::WallError;
use crate::sys;
use crate::wire::Mounts;

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
pub(crate) fn residuals(
    config: &WallConfig,
    mounts: Option<&Mounts>,
    why_no_mounts: Option<&str>,
) -> Vec<String> {
    match config.mode {
        Mode::Off => return vec!["there is no wall: commands can do what you can".into()],
        Mode::External => {
            return vec!["nothing is confined but by the container or machine around it".into()];
        }
        Mode::Workspace | Mode::ReadOnly => {}
    }
    let mut residuals = vec![
        "the processes of this machine and their command lines can be listed".to_owned(),
        "names, sizes and times of files outside can be looked up".into(),
        "the scheduling and System V memory of your other programs can be changed".into(),
        "nothing limits processes, memory and disk space".into(),
    ];
    let mut add = |residual: &str| residuals.push(residual.to_owned());
    match mounts {
        Some(mounts) => {
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
        None => {
            let why = why_no_mounts.unwrap_or("they were not wanted");
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
        add("files of the workspace that run later, such as git's hooks, can be written");
    }
    if rustix::process::geteuid().is_root() {
        add("commands run as root without capabilities and read what root owns below /usr, /opt and /proc");
    }
    residuals
}
