/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("{0}")]
    Syntax(String),
    #[error("`id` is `{0}`; it must start with a-z and hold only a-z, 0-9 and `-`, at most 32 characters")]
    Id(String),
    #[error(
        "`version` is `{0}`; it must be three numbers, as in `1.0.0`, or `1.0.0-rc.1` before it (semver.org)"
    )]
    Version(String),
    #[error("it declares no tools; add a [tools.NAME] table for each tool")]
    NoTools,
    #[error("tool `{0}`: a name must start with a-z and hold only a-z, 0-9 and `_`, at most 48 characters")]
    ToolName(String),
    #[error(
        "tool `{0}`: `ID__TOOL` is what models call it by, and that has more than {max} characters; shorten one",
        max = crate::MAX_FULL_NAME
    )]
    FullName(String),
    #[error("`{0}` has a line end or another control character; write one line of plain text")]
    Control(&'static str),
    #[error("[capabilities]: {0}")]
    Network(String),
    #[error("credential `{name}`: {reason}")]
    Credential { name: String, reason: String },
    #[error("a manifest does not say where a credential comes from; declare it as [credentials.{0}]")]
    CredentialSource(String),
    #[error("capabilities: `limits` stand in grants files; a tool's longest time is its wall_time_s")]
    Limits,
    #[error("capabilities: `for` stands in grants files, not in a manifest")]
    Approval,
    #[error("tool `{tool}`: wall_time_s is {seconds}; it must lie between 1 and {}", crate::MAX_WALL_TIME_S)]
    WallTime { tool: String, seconds: u32 },
    #[error("tool `{tool}`: {reason}")]
    ToolPolicy { tool: String, reason: String },
}
