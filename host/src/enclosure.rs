//! What encloses commands: asked for by flags, and as it really is.

use runtime::Workplace;
use wall::{Grade, Network, WallConfig};

use crate::cli::{NetworkArg, PlaceArgs, SandboxArg, WallArg};
use crate::exit::Failure;

/// What encloses commands.
pub(crate) fn enclosure(args: &PlaceArgs) -> Result<(wall::Mode, Network), Failure> {
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
#[derive(Clone, Copy, Debug)]
pub(crate) struct Enclosure {
    pub(crate) grade: Grade,
    pub(crate) mode: wall::Mode,
    pub(crate) network: Network,
}

impl Enclosure {
    pub(crate) fn of(workplace: &Workplace) -> Self {
        let WallConfig { mode, network, .. } = workplace.wall;
        Self { grade: wall::Wall::new(workplace.wall.clone()).grade(), mode, network }
    }

    /// The wall's grade, in one word.
    pub(crate) fn wall(&self) -> &'static str {
        match self.grade {
            Grade::Partial => "partial",
            Grade::External => "external",
            Grade::None => "none",
        }
    }

    pub(crate) fn network(&self) -> &'static str {
        match (self.grade, self.network) {
            // Without a wall of ours nothing keeps commands off the network.
            (Grade::Partial, Network::Off) => "off",
            (Grade::Partial, Network::Open) => "open",
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
        self.grade != Grade::None || self.mode == wall::Mode::Off
    }
}
