use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::exit::{Exit, Failure};

#[expect(clippy::unnecessary_wraps, reason = "the shape of a command")]
pub(super) fn run(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    clap_complete::generate(shell, &mut Cli::command(), "ml-intern", &mut std::io::stdout());
    Ok(Exit::Done)
}
