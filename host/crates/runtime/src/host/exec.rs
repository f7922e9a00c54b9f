use std::time::Duration;

use wall::WallError;

use crate::bindings::ml_intern::plugin::exec::{Captured, Command, Exit, Host};
use crate::bindings::ml_intern::plugin::types::{Error, ErrorKind};
use crate::host::error;
use crate::state::CallState;

/// Arguments and additions to the environment, in bytes; the kernel takes little more.
const MAX_COMMAND_BYTES: usize = 1 << 20;

fn refused(reason: &WallError) -> Error {
    let (kind, code) = match reason {
        WallError::Unavailable { .. } => (ErrorKind::Unavailable, "no-wall"),
        WallError::ProgramMissing { .. } => (ErrorKind::NotFound, "program-missing"),
        WallError::WorkingFolder { .. } => (ErrorKind::NotFound, "working-folder"),
        WallError::Environment { .. } => (ErrorKind::InvalidArgs, "environment"),
        WallError::Folder { .. } | WallError::Start { .. } => (ErrorKind::Unavailable, "start"),
        WallError::Supervisor { .. } => (ErrorKind::Internal, "supervisor"),
    };
    let remedies = reason.remedies();
    let message =
        if remedies.is_empty() { reason.to_string() } else { format!("{reason}; {}", remedies.join("; ")) };
    error(kind, code, message)
}

fn captured(output: wall::Captured) -> Captured {
    Captured { head: output.head, tail: output.tail, total: output.total, file: output.file }
}

impl Host for CallState {
    async fn run(&mut self, command: Command) -> Result<Exit, Error> {
        let call = self.granted("exec", |call| call.capabilities.exec)?;
        let size: usize = command.args.iter().map(String::len).sum::<usize>()
            + command.env.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if size > MAX_COMMAND_BYTES {
            let message = "the command is longer than 1 MiB; put it into a file and run that";
            return Err(error(ErrorKind::TooLarge, "command", message));
        }
        let command = wall::Command {
            program: command.program,
            args: command.args,
            cwd: command.cwd.map(Into::into),
            env: command.env,
            stdin: command.stdin,
            timeout: Duration::from_millis(command.timeout_ms.into()),
            max_output: usize::try_from(command.max_output).unwrap_or(usize::MAX),
        };
        if call.session.wall.reaches_network() {
            // Before it runs: what it fetches lies somewhere, whatever becomes of the call.
            let unmarked = |reason| error(ErrorKind::Denied, "cannot-be-marked", reason);
            call.reads("the network, through a command".to_owned()).map_err(unmarked)?;
        }
        let ran = call.session.wall.run(command, call.cancel.clone()).await;
        // Also where it failed, or left something running that fetched it.
        if call.session.wall.has_fetched() {
            let unmarked = |reason| error(ErrorKind::Denied, "cannot-be-marked", reason);
            call.reads("the network, through a command".to_owned()).map_err(unmarked)?;
        }
        let exit = ran.map_err(|e| refused(&e))?;
        if exit.cancelled {
            return Err(error(ErrorKind::Cancelled, "cancelled", "cancelled by the user"));
        }
        Ok(Exit {
            code: exit.code,
            signal: exit.signal,
            timed_out: exit.timed_out,
            duration_ms: exit.duration_ms,
            stdout: captured(exit.stdout),
            stderr: captured(exit.stderr),
            notes: exit.notes,
            extra: None,
        })
    }
}
