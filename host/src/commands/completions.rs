use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::exit::{Exit, Failure};
use crate::render::say;

#[expect(clippy::unnecessary_wraps, reason = "the shape of a command")]
pub(super) fn run(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "ml-intern", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
    Ok(Exit::Done)
}
