//! One file per verb.

mod audit;
mod chat;
mod completions;
mod config;
mod demo;
mod doctor;
mod headless;
mod login;
mod net;
mod plugin;
mod policy;
mod sessions;
mod tool;
mod trust;

use std::io::IsTerminal as _;

use clap::CommandFactory as _;

pub(crate) use headless::SessionLine;

use crate::cli::{Cli, Command, PluginCommand, RunArgs};
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::stdin;

/// Does what the command line says.
pub(crate) async fn run(cli: Cli, environment: Environment) -> Result<Exit, Failure> {
    // The rest reads it with the settings, and tells what is wrong in the form that was asked for.
    if !matches!(cli.command, None | Some(Command::Run(_) | Command::Policy(_))) {
        crate::managed::read()?;
    }
    if let Some(act) = cli.command.as_ref().and_then(of_a_person)
        && environment.text(wall::INSIDE).is_some()
    {
        return Err(Failure::new(
            Exit::Denied,
            anyhow::anyhow!(
                "`ml-intern {act}` is for a person: a command that the agent started changes nothing about what the agent may do"
            ),
        ));
    }
    match cli.command {
        None => chat_or_run(cli.run, environment).await,
        Some(Command::Run(args)) => headless::run(RunArgs { print: true, ..*args }, environment).await,
        Some(Command::Demo(args)) => demo::run(args, environment).await,
        Some(Command::Tool(args)) => tool::run(args, environment).await,
        Some(Command::Login(args)) => login::run(args, environment).await,
        Some(Command::Plugin(command)) => plugin::run(command, environment).await,
        Some(Command::Config(command)) => config::run(&command, environment),
        Some(Command::Trust(args)) => trust::run(&args, &environment),
        Some(Command::Sessions(args)) => sessions::run(&args, environment),
        Some(Command::Audit(command)) => audit::run(&command, environment),
        Some(Command::Net(args)) => net::run(&args, environment),
        Some(Command::Doctor(args)) => doctor::run(args, environment).await,
        Some(Command::Policy(command)) => policy::run(&command),
        Some(Command::Completions { shell }) => completions::run(shell),
    }
}

/// What only a person says: it decides what the agent may do.
fn of_a_person(command: &Command) -> Option<&'static str> {
    match command {
        Command::Plugin(PluginCommand::Install(_)) => Some("plugin install"),
        Command::Plugin(PluginCommand::Remove { .. }) => Some("plugin remove"),
        Command::Plugin(PluginCommand::Grant { .. }) => Some("plugin grant"),
        Command::Plugin(PluginCommand::Revoke { .. }) => Some("plugin revoke"),
        Command::Trust(_) => Some("trust"),
        Command::Login(_) => Some("login"),
        _ => None,
    }
}

/// A prompt, or a standard input that is no terminal, makes it a run; otherwise it is a chat.
async fn chat_or_run(args: RunArgs, environment: Environment) -> Result<Exit, Failure> {
    let is_command = |word: &str| Cli::command().get_subcommands().any(|command| command.get_name() == word);
    if let Some(word) = args.prompt.as_deref().filter(|word| is_command(word)) {
        return Err(Failure::usage(format!(
            "`{word}` is a command: put the options behind it, `ml-intern {word} …`; as a prompt it is `ml-intern run {word}`"
        )));
    }
    if args.session.resume.as_deref() == Some("") {
        return sessions::choose(environment);
    }
    let wants_chat = args.prompt.is_none() && !args.print && !args.json && std::io::stdin().is_terminal();
    if wants_chat && std::io::stdout().is_terminal() {
        return chat::run(args, environment).await;
    }
    headless::run(args, environment).await
}

/// The prompt of a run, which must be there.
async fn needed_prompt(argument: Option<String>) -> Result<String, Failure> {
    let prompt = stdin::prompt(argument).await?.filter(|prompt| !prompt.trim().is_empty());
    prompt.ok_or_else(|| Failure::usage("there is no prompt; give one as the argument or on standard input"))
}
