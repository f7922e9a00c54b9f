//! What encloses commands: asked for by flags, and as it really is.

use std::sync::{Arc, OnceLock};

use policy::{Commands, Policy};
use runtime::Workplace;
use wall::{Grade, Network, WallConfig};

use crate::cli::{NetworkArg, PlaceArgs, SandboxArg, WallArg};
use crate::exit::Failure;

/// What encloses commands.
pub(crate) fn enclosure(args: &PlaceArgs, policy: &Policy) -> Result<(wall::Mode, Network), Failure> {
    let (wall, network) = match args.sandbox {
        Some(SandboxArg::ReadOnly) => (Some(WallArg::ReadOnly), None),
        Some(SandboxArg::WorkspaceWrite) => (Some(WallArg::Workspace), None),
        Some(SandboxArg::DangerFullAccess) => (Some(WallArg::Off), Some(NetworkArg::Open)),
        None => (args.wall, args.network),
    };
    let mode = match wall.unwrap_or(WallArg::Workspace) {
        WallArg::Workspace => wall::Mode::Workspace,
        WallArg::ReadOnly => wall::Mode::ReadOnly,
        WallArg::External => wall::Mode::External,
        WallArg::Off => wall::Mode::Off,
    };
    let network = match network {
        Some(NetworkArg::Open) if !args.offline => Network::Open,
        Some(NetworkArg::Gateway) if !args.offline => Network::Gateway,
        None if !args.offline && policy.commands(Commands::Gateway, "").is_ok() => Network::Gateway,
        _ => Network::Off,
    };
    // Nothing is promised that nothing holds.
    if matches!(mode, wall::Mode::External | wall::Mode::Off) && args.network == Some(NetworkArg::Off) {
        return Err(Failure::usage(
            "--network off needs the wall: with --wall off or external this program keeps no command off the network",
        ));
    }
    if mode == wall::Mode::Off && args.offline {
        return Err(Failure::usage("--offline cannot hold with --wall off: commands could connect anywhere"));
    }
    Ok((mode, network))
}

/// What encloses the session's commands, for banner, status and result.
#[derive(Clone, Debug)]
pub(crate) struct Enclosure {
    expected: Grade,
    /// As it came out, once a command was started.
    found: Arc<OnceLock<Grade>>,
    pub(crate) mode: wall::Mode,
    pub(crate) network: Network,
}

impl Enclosure {
    pub(crate) fn of(workplace: &Workplace) -> Self {
        let WallConfig { mode, network, .. } = workplace.wall;
        let expected = wall::Wall::new(workplace.wall.clone()).grade();
        Self { expected, found: workplace.wall.found.clone(), mode, network }
    }

    #[cfg(test)]
    pub(crate) fn with(grade: Grade, mode: wall::Mode, network: Network) -> Self {
        Self { expected: grade, found: Arc::default(), mode, network }
    }

    /// How strong it is; before the first command, how strong it should be here.
    pub(crate) fn grade(&self) -> Grade {
        self.found.get().copied().unwrap_or(self.expected)
    }

    /// The wall's grade, in one word.
    pub(crate) fn wall(&self) -> &'static str {
        self.grade().name()
    }

    pub(crate) fn network(&self) -> &'static str {
        match (self.grade(), self.network) {
            // Without a wall of ours nothing keeps commands off the network.
            (Grade::Full, Network::Gateway) => "gateway",
            (Grade::Full | Grade::Partial, Network::Off) | (Grade::Partial, Network::Gateway) => "off",
            (Grade::Full | Grade::Partial, Network::Open) => "open",
            (Grade::External, _) => "external",
            (Grade::None, _) => "open",
        }
    }

    /// For people: the grade, and whether the workspace is only read.
    pub(crate) fn label(&self) -> String {
        let read_only = if self.mode == wall::Mode::ReadOnly { " (read-only)" } else { "" };
        format!("{}{read_only}", self.wall())
    }

    pub(crate) fn is_walled(&self) -> bool {
        self.grade() != Grade::None || self.mode == wall::Mode::Off
    }
}
