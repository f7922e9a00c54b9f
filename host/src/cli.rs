//! The command line. Doc comments are the help text; nothing here looks at the system.

mod plugin;

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

pub(crate) use plugin::{InstallArgs, PluginCommand};

/// An ML engineer agent in the terminal: reads, plans, edits and runs code; every tool is a sandboxed
/// WebAssembly component.
#[derive(Debug, Parser)]
#[command(name = "ml-intern", version, args_conflicts_with_subcommands = true, max_term_width = 100)]
#[command(
    after_help = "Exit codes: 0 done, 1 the agent failed, 2 usage, 3 settings or plugin refused, 4 no or bad \
    credentials, 5 the provider failed, 6 a needed permission was denied, 7 step or budget limit, 130 interrupted, 143 terminated."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    #[command(flatten)]
    pub(crate) run: RunArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Work on one prompt without asking, then end; the same as giving the prompt alone.
    #[command(alias = "exec")]
    Run(Box<RunArgs>),
    /// Watch a scripted model work with the real tools behind the real wall: no key, no network.
    Demo(DemoArgs),
    /// Call one tool without a model.
    Tool(ToolArgs),
    /// Store a Hugging Face token, or with a name another credential for plugins. It is asked for, never an argument.
    Login(LoginArgs),
    /// List plugins, show what they can reach, install and remove them, grant and revoke.
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Show the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Trust a directory: let its AGENTS.md, settings, plugins and credentials count as they are now.
    Trust(TrustArgs),
    /// List saved sessions.
    Sessions(SessionsArgs),
    /// Check and show the record of what was decided and done.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Show every request that went out, and every one that was refused.
    Net(NetArgs),
    /// Look at what the program needs and say what is missing.
    Doctor(DoctorArgs),
    /// Print what the administrator of this machine allows.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print a completion script for a shell.
    Completions { shell: clap_complete::Shell },
}

/// A run, with or without a prompt.
#[derive(Args, Debug, Default)]
pub(crate) struct RunArgs {
    /// What to do; `-` reads it from standard input. Without it standard input is read or, at a terminal, a
    /// chat starts.
    pub(crate) prompt: Option<String>,

    /// Do not chat: work on the prompt, or on standard input, and end.
    #[arg(short, long)]
    pub(crate) print: bool,

    #[command(flatten)]
    pub(crate) session: SessionArgs,

    #[command(flatten)]
    pub(crate) place: PlaceArgs,

    /// Print the answer as text, one JSON result, or every event as a JSON line.
    #[arg(long, value_enum, default_value_t = OutputFormat::Text, help_heading = "Output")]
    pub(crate) output_format: OutputFormat,

    /// The same as --output-format stream-json.
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,

    /// Write the final answer to a file too.
    #[arg(short, long = "output", value_name = "FILE", help_heading = "Output")]
    pub(crate) output: Option<PathBuf>,

    /// End with 0 although permissions were denied, if nothing else is wrong.
    #[arg(long, help_heading = "Output")]
    pub(crate) allow_denials: bool,
}

/// The model and the session.
#[derive(Args, Debug, Default)]
pub(crate) struct SessionArgs {
    /// Model id, such as `anthropic/claude-opus-4.8:fal-ai`, `ollama/NAME` or `llamacpp/NAME`.
    #[arg(short, long, value_name = "ID")]
    pub(crate) model: Option<String>,

    /// How hard the model thinks: minimal, low, medium, high, xhigh, max or off.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) effort: Option<String>,

    /// Completions per turn at most (300 unless the settings say otherwise; negative: no limit).
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) max_iterations: Option<i64>,

    /// Wait for whole answers instead of streaming them.
    #[arg(long)]
    pub(crate) no_stream: bool,

    /// Text added to the system prompt; `@FILE` reads it from a file.
    #[arg(long, value_name = "TEXT|@FILE")]
    pub(crate) append_system_prompt: Option<String>,

    /// Go on with the last session of this directory.
    #[arg(short, long, help_heading = "Session", conflicts_with = "resume")]
    pub(crate) r#continue: bool,

    /// Go on with a session, by id or the beginning of one; without it the sessions are listed.
    #[arg(short, long, value_name = "ID", num_args = 0..=1, default_missing_value = "", help_heading = "Session")]
    pub(crate) resume: Option<String>,

    /// Go on in a new session and leave the old one as it is (with --continue or --resume).
    #[arg(long, help_heading = "Session")]
    pub(crate) fork: bool,

    /// How much is allowed without asking.
    #[arg(long, value_enum, value_name = "MODE", help_heading = "Permissions")]
    pub(crate) permission_mode: Option<ModeArg>,

    /// Allow everything. The wall around commands stays as it is.
    #[arg(long, conflicts_with = "permission_mode", help_heading = "Permissions")]
    pub(crate) yolo: bool,

    /// Allow calls without asking, by a rule such as `hf_jobs(operation=run)` or `bash(git push *)`; with
    /// `host(api.example.com)`, what plugins declare there.
    #[arg(long, value_name = "RULE", help_heading = "Permissions")]
    pub(crate) allow: Vec<String>,

    /// Ask for calls that would be allowed, by a rule; with `host(*.example.com)`, before a plugin sends there.
    #[arg(long, value_name = "RULE", help_heading = "Permissions")]
    pub(crate) ask: Vec<String>,

    /// Deny calls, by a rule such as `tier(spend)`, `path(data/raw/**)` or `host(*.example.com)`. What denies
    /// beats what allows. Rules on paths and hosts bind plugins; what binds commands is the wall.
    #[arg(long, value_name = "RULE", help_heading = "Permissions")]
    pub(crate) deny: Vec<String>,

    /// Stop when completions and orders have cost this many USD.
    #[arg(long, value_name = "USD", value_parser = usd, allow_negative_numbers = true, help_heading = "Permissions")]
    pub(crate) max_budget_usd: Option<f64>,

    /// Refuse whatever would have to be asked.
    #[arg(long, help_heading = "Permissions")]
    pub(crate) deny_unanswered: bool,
}

/// Where the work is done and what it may touch.
#[derive(Args, Debug, Default)]
pub(crate) struct PlaceArgs {
    /// Work in this directory.
    #[arg(short = 'C', long = "cd", value_name = "DIR", help_heading = "Permissions")]
    pub(crate) directory: Option<PathBuf>,

    /// Let tools and commands read another directory, or write to it with `:rw`.
    #[arg(long, value_name = "DIR[:rw]", help_heading = "Permissions")]
    pub(crate) add_dir: Vec<String>,

    /// What confines commands: the workspace can be written, or only read; an external wall (this
    /// container or VM); none. Without the wall of this program the network is open to them.
    #[arg(long, value_enum, help_heading = "Permissions")]
    pub(crate) wall: Option<WallArg>,

    /// What commands can connect to.
    #[arg(long, value_enum, help_heading = "Permissions")]
    pub(crate) network: Option<NetworkArg>,

    /// Nothing but the model is contacted.
    #[arg(long, help_heading = "Permissions")]
    pub(crate) offline: bool,

    /// As other agents call it: read-only, workspace-write, danger-full-access.
    #[arg(long, value_enum, hide = true, conflicts_with_all = ["wall", "network"])]
    pub(crate) sandbox: Option<SandboxArg>,

    /// Trust the project files of the working directory as they are, for this run.
    #[arg(long, help_heading = "Permissions")]
    pub(crate) trust_once: bool,

    /// Give an installed plugin everything that it declares, for this run.
    #[arg(long, value_name = "PLUGIN", help_heading = "Permissions")]
    pub(crate) grant: Vec<String>,

    /// Load the plugins of this directory too.
    #[arg(long, value_name = "DIR", help_heading = "Settings")]
    pub(crate) plugin_dir: Vec<PathBuf>,

    /// Settings file, instead of the one in the settings folder.
    #[arg(long, value_name = "FILE", help_heading = "Settings")]
    pub(crate) config: Option<PathBuf>,

    /// Print diagnostics to standard error.
    #[arg(short, long, help_heading = "Settings")]
    pub(crate) verbose: bool,
}

/// An amount of money: a number that is not negative.
fn usd(text: &str) -> Result<f64, String> {
    let amount: f64 = text.parse().map_err(|_| "it is a number of USD, such as 2.50".to_owned())?;
    let is_amount = amount.is_finite() && amount >= 0.0;
    is_amount.then_some(amount).ok_or_else(|| "it is a number of USD that is not negative".to_owned())
}

#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Print every event as a JSON line.
    #[arg(long)]
    pub(crate) json: bool,

    /// Work in this directory, which must be empty or not exist, and keep it.
    #[arg(short = 'C', long = "cd", value_name = "DIR")]
    pub(crate) directory: Option<PathBuf>,

    /// Reach nothing but the script on this machine that plays the model.
    #[arg(long)]
    pub(crate) offline: bool,
}

#[derive(Args, Debug)]
pub(crate) struct ToolArgs {
    /// The tool's name, as the model uses it.
    pub(crate) name: String,

    /// Its arguments; `-` reads them from standard input.
    #[arg(default_value = "{}")]
    pub(crate) arguments: String,

    /// Print the whole result as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Args, Debug)]
pub(crate) struct LoginArgs {
    /// What to call it; without a name it is the Hugging Face token. Read from standard input if that is no terminal.
    pub(crate) name: Option<String>,

    /// Ask Hugging Face whose token it is.
    #[arg(long)]
    pub(crate) check: bool,

    /// List the names of what is stored.
    #[arg(long, conflicts_with_all = ["name", "check"])]
    pub(crate) list: bool,

    /// Forget what is stored under a name; `hf` is the Hugging Face token.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "check", "list"])]
    pub(crate) remove: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Check a policy and print it as plain sentences.
    Check {
        /// A file that is to become the policy; without it the policy of this machine is checked.
        file: Option<PathBuf>,
    },
    /// Print the policy of this machine as it stands in its file.
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Print the settings as they are after merging.
    Show {
        /// Say where each value comes from.
        #[arg(long)]
        origin: bool,
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print the JSON Schema of the lines of `--output-format stream-json`.
    Schema,
}

/// Shows what a directory would tell this program - `AGENTS.md` of the directory and of the top of its
/// repository, `.ml-intern/settings.json`, `.ml-intern/plugins`, `.env` - and asks whether that counts. A file
/// that changes later is shown again before it does.
#[derive(Args, Debug)]
pub(crate) struct TrustArgs {
    /// The directory; without it the one you stand in.
    pub(crate) directory: Option<PathBuf>,

    /// Do not ask.
    #[arg(long, conflicts_with_all = ["list", "revoke"])]
    pub(crate) yes: bool,

    /// List what is trusted.
    #[arg(long, conflicts_with_all = ["directory", "revoke"])]
    pub(crate) list: bool,

    /// Take it back.
    #[arg(long)]
    pub(crate) revoke: bool,
}

#[derive(Args, Debug)]
pub(crate) struct SessionsArgs {
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no record was changed or removed since it was written.
    Verify {
        /// An `audit_head` that was kept from a result line: it must still be on record.
        #[arg(long, value_name = "HASH")]
        head: Option<String>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what was decided in a session; without one, what began, ended, was installed and granted.
    Show {
        /// A session, by id or the beginning of one.
        session: Option<String>,
    },
    /// Print the records of a session, or those of the user, as JSON lines.
    Export {
        /// A session, by id or the beginning of one.
        session: Option<String>,
    },
}

#[derive(Args, Debug)]
pub(crate) struct NetArgs {
    /// Requests of one run only: a session, by id or the beginning of one.
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// The last N requests; 0 shows all.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    pub(crate) last: usize,
    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[arg(long)]
    pub(crate) json: bool,

    /// Try each forbidden act behind the wall and tell what happened.
    #[arg(long)]
    pub(crate) wall_acts: bool,

    #[command(flatten)]
    pub(crate) place: PlaceArgs,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum OutputFormat {
    #[default]
    Text,
    Json,
    StreamJson,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Ask before what leaves this machine; commands run behind the wall.
    Default,
    /// Look only.
    Plan,
    /// Ask for everything but looking.
    Ask,
    /// Nobody is there: refuse what would be asked.
    Auto,
    /// Allow everything.
    Yolo,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum WallArg {
    Workspace,
    ReadOnly,
    External,
    Off,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum NetworkArg {
    /// Nothing.
    Off,
    /// Package indexes and the Hub for reading, and hosts that `--allow 'host(NAME)'` names.
    Gateway,
    /// Everything.
    Open,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum SandboxArg {
    ReadOnly,
    WorkspaceWrite,
    DangerFullAccess,
}

/// Parses the command line: what it means, and the flags that were given, in their long form, those with one of
/// a few words also with that word.
pub(crate) fn parse() -> Result<(Cli, Vec<String>), clap::Error> {
    let matches = Cli::command().try_get_matches()?;
    let mut flags = Vec::new();
    given(&Cli::command(), &matches, &mut flags);
    Ok((Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut Cli::command()))?, flags))
}

fn given(command: &clap::Command, matches: &ArgMatches, flags: &mut Vec<String>) {
    let said = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let arguments = command.get_arguments().filter(|argument| said(argument.get_id().as_str()));
    for argument in arguments {
        let Some(long) = argument.get_long() else { continue };
        flags.push(format!("--{long}"));
        // Where one of a few words is said, some of them say what another flag says.
        if !argument.get_possible_values().is_empty() {
            let words = matches.get_raw(argument.get_id().as_str()).into_iter().flatten();
            flags.extend(words.map(|word| format!("--{long} {}", word.to_string_lossy())));
        }
    }
    if let Some((name, below)) = matches.subcommand()
        && let Some(command) = command.find_subcommand(name)
    {
        given(command, below, flags);
    }
}

/// All flags that there are, in their long form.
pub(crate) fn flags(command: &clap::Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(clap::Arg::get_long).map(|long| format!("--{long}"));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_flag_takes_a_secret() {
        fn walk(command: &clap::Command, seen: &mut usize) {
            for argument in command.get_arguments() {
                *seen += 1;
                let name = argument.get_id().as_str();
                // `--credential NAME=SOURCE` says where one comes from, and refuses everything else; a key is named by
                // its file.
                let value = argument.get_value_names().map(|names| names[0].as_str());
                let is_source =
                    matches!((name, value), ("credential", Some("NAME=SOURCE")) | ("key", Some("FILE")));
                assert!(!wall::names_a_credential(name) || is_source, "{} {name}", command.get_name());
            }
            command.get_subcommands().for_each(|command| walk(command, seen));
        }
        let mut seen = 0;
        walk(&Cli::command(), &mut seen);
        assert!(seen > 50, "{seen}");
    }

    #[test]
    fn a_prompt_needs_no_subcommand() {
        let cli = Cli::parse_from(["ml-intern", "fix it", "-m", "a/b", "--max-iterations", "-1"]);
        assert_eq!(cli.run.prompt.as_deref(), Some("fix it"));
        assert_eq!(cli.run.session.max_iterations, Some(-1));
        let cli = Cli::parse_from(["ml-intern", "run", "fix it", "--json"]);
        assert!(matches!(cli.command, Some(Command::Run(run)) if run.json));
    }
}
