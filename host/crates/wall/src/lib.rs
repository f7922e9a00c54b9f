//! The wall: the OS confinement of native commands.
//!
//! A [`Wall`] belongs to one session. Its first command starts a supervisor, which is this binary
//! started anew; the supervisor confines itself with Landlock and seccomp, gives up every capability,
//! tries what it must not be able to do, and only then starts commands. Whatever a command starts lives
//! behind the same wall and ends with the session.
//!
//! Not here: who may run a command (that is approval), and what a command means.

mod command;
mod command_list;
mod config;
mod editor;
mod error;
mod job_error;
mod keys;

pub use command::{Captured, Command, Exit};
pub use command_list::CommandList;
pub use config::{
    Act, CommandLimits, Grade, INSIDE, Loopback, Mode, Network, Outcome, Report, Space, SupervisorCommand,
    WallConfig,
};
pub use editor::run_editor;
pub use error::WallError;
pub use job_error::JobError;
pub use keys::{is_credential, looks_like_key, names_a_credential};

#[cfg(target_os = "linux")]
mod capture;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod environment;
#[cfg(target_os = "linux")]
mod explain;
#[cfg(target_os = "linux")]
mod folders;
#[cfg(target_os = "linux")]
mod git;
#[cfg(target_os = "linux")]
mod grade;
#[cfg(target_os = "linux")]
mod ground;
#[cfg(target_os = "linux")]
mod host;
#[cfg(target_os = "linux")]
mod job;
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod no_links;
#[cfg(target_os = "linux")]
mod python;
#[cfg(target_os = "linux")]
mod rights;
#[cfg(target_os = "linux")]
mod sealed;
#[cfg(target_os = "linux")]
mod secrets;
#[cfg(target_os = "linux")]
mod small_file;
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
mod space;
#[cfg(target_os = "linux")]
mod supervisor;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod tools;
#[cfg(target_os = "linux")]
mod wall;
#[cfg(target_os = "linux")]
mod wire;

#[cfg(target_os = "linux")]
pub use host::{harden_host, scrub_environment, user_umask};
#[cfg(target_os = "linux")]
pub use job::{Job, JobEnd, job_main};
#[cfg(target_os = "linux")]
pub use no_links::open_without_links;
#[cfg(target_os = "linux")]
pub use supervisor::supervisor_main;
#[cfg(target_os = "linux")]
pub use wall::Wall;

#[cfg(not(target_os = "linux"))]
mod elsewhere;
#[cfg(not(target_os = "linux"))]
pub use elsewhere::{
    Job, JobEnd, Wall, harden_host, job_main, open_without_links, scrub_environment, supervisor_main,
    user_umask,
};
