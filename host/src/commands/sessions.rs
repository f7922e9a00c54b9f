use agent::SavedHeader;
use protocol::text::line;

use crate::assemble::Setup;
use crate::cli::SessionsArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::{json, say};

pub(super) fn run(args: &SessionsArgs, environment: Environment) -> Result<Exit, Failure> {
    let sessions = Setup::read(environment, None)?.store().list();
    if args.json {
        for session in &sessions {
            json::line(&mut std::io::stdout(), session)?;
        }
        return Ok(Exit::Done);
    }
    print(&sessions);
    Ok(Exit::Done)
}

/// `--resume` without an id: says which there are.
pub(super) fn choose(environment: Environment) -> Result<Exit, Failure> {
    print(&Setup::read(environment, None)?.store().list());
    Err(Failure::usage("name a session: --resume ID (the beginning is enough)"))
}

fn print(sessions: &[SavedHeader]) {
    if sessions.is_empty() {
        say("There are no saved sessions.");
    }
    for session in sessions {
        let id: String = session.session_id.as_str().chars().take(8).collect();
        let created: String = session.created.chars().take(16).collect();
        let told = format!(
            "{id}  {}  {}  {}",
            created.replace('T', " "),
            session.model,
            session.workspace.display()
        );
        say(&line(&told));
    }
}
