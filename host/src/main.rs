//! ml-intern: an ML engineer agent in the terminal.

mod assemble;
mod cli;
mod command_network;
mod commands;
mod diagnostics;
mod editor;
mod enclosure;
mod environment;
mod exit;
mod first_model;
mod grants_file;
mod hub;
mod managed;
mod named_folders;
mod outcome;
mod paths;
mod permissions;
mod render;
mod schema;
mod secret_input;
mod secrets;
mod settings;
mod signals;
mod stdin;
mod system_prompt;
mod trust;
mod way_out;
mod workspace;

use std::process::ExitCode;

use crate::assemble::{COMPILER, SUPERVISOR};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(argument) if argument == SUPERVISOR => return wall::supervisor_main(),
        Some(argument) if argument == COMPILER => return runtime::compiler_main(),
        _ => {}
    }
    let hardened = wall::harden_host();
    let mut environment = Environment::read();
    // What is a secret is in `environment` now; nobody shall read it from our block.
    let scrubbed = wall::scrub_environment();
    if let Some(error) = hardened.err().or(scrubbed.err()) {
        return fail(&Failure::new(
            Exit::Failed,
            anyhow::anyhow!("this process cannot be hardened: {error}"),
        ));
    }
    let cli = match cli::parse() {
        Ok((cli, flags)) => {
            environment.flags = flags;
            cli
        }
        Err(error) => {
            // Help and version are no errors; clap knows the stream and the code.
            let _ = error.print();
            if error.kind() == clap::error::ErrorKind::ArgumentConflict {
                render::warn(
                    "\n  tip: a prompt of several words is put in quotes; options of a command stand behind it",
                );
            }
            return if error.use_stderr() { Exit::Usage.into() } else { Exit::Done.into() };
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Failure::from(error)),
    };
    let ended = runtime.block_on(commands::run(cli, environment));
    // A guest that computes, or a person's terminal that is read, must not keep the process.
    runtime.shutdown_background();
    match ended {
        Ok(_) if !render::all_said() => {
            fail(&Failure::new(Exit::Failed, anyhow::anyhow!("the output cannot be written")))
        }
        Ok(exit) => exit.into(),
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    render::warn(&format!("ERROR: {failure}"));
    failure.exit.into()
}
