use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

use crate::bindings::ml_intern::plugin::types as wit;

/// The call being made and the session it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The call's id, as the model gave it.
    pub id: String,
    /// Milliseconds this call may take.
    pub deadline_ms: u32,
    session: Session,
}

/// The facts of `tool-call.extra`. Unknown ones are of a later version.
#[derive(Clone, Debug, Default, Deserialize)]
struct Session {
    #[serde(default)]
    session: String,
    #[serde(default)]
    workspace: PathBuf,
    #[serde(default)]
    dirs: Vec<PathBuf>,
    #[serde(default)]
    tmp: PathBuf,
    #[serde(default)]
    order: Option<String>,
}

impl Call {
    /// A call in a workspace, for native tests of a tool.
    #[must_use]
    pub fn in_workspace(workspace: impl Into<PathBuf>) -> Self {
        Self { session: Session { workspace: workspace.into(), ..Session::default() }, ..Self::default() }
    }

    pub(crate) fn from_wit(call: &wit::ToolCall) -> Self {
        let session =
            call.extra.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        Self { id: call.id.clone(), deadline_ms: call.deadline_ms, session }
    }

    /// The session's id.
    #[must_use]
    pub fn session_id(&self) -> &str {
        &self.session.session
    }

    /// The id under which this call is on record, if it changes, orders or ends something elsewhere. Where
    /// the service has room for it (a label, an idempotency key), send it along: a session that goes on after
    /// a crash can then look for the order instead of making it again.
    #[must_use]
    pub fn order(&self) -> Option<&str> {
        self.session.order.as_deref()
    }

    /// The workspace: the absolute path it has outside, which is also its path inside.
    #[must_use]
    pub fn workspace(&self) -> &Path {
        &self.session.workspace
    }

    /// The folders of the session: the workspace, those the user added, and `/tmp`. A plugin sees of them
    /// what it was granted.
    #[must_use]
    pub fn folders(&self) -> Vec<&Path> {
        let Session { workspace, dirs, tmp, .. } = &self.session;
        let all = std::iter::once(workspace).chain(dirs).chain(std::iter::once(tmp));
        all.map(PathBuf::as_path).filter(|folder| !folder.as_os_str().is_empty()).collect()
    }

    /// What a path given by the model means: relative ones are taken from the workspace, `/workspace` is
    /// its other name, `.` and `..` are resolved by name. Links are left to the host.
    #[must_use]
    pub fn path(&self, given: &str) -> PathBuf {
        let mut path = PathBuf::new();
        for part in self.workspace().join(given).components() {
            match part {
                Component::CurDir => {}
                Component::ParentDir => {
                    path.pop();
                }
                other => path.push(other),
            }
        }
        match path.strip_prefix("/workspace") {
            Ok(inside) if !self.folders().iter().any(|folder| path.starts_with(folder)) => {
                self.workspace().join(inside)
            }
            _ => path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_from_the_workspace() {
        let call = Call::in_workspace("/home/ada/work");
        assert_eq!(call.path("a/./b.txt"), Path::new("/home/ada/work/a/b.txt"));
        assert_eq!(call.path("../x"), Path::new("/home/ada/x"));
        assert_eq!(call.path("/../../etc"), Path::new("/etc"));
        assert_eq!(call.path("/workspace/./x"), Path::new("/home/ada/work/x"));
        assert_eq!(
            Call::in_workspace("/workspace/deep").path("/workspace/deep/x"),
            Path::new("/workspace/deep/x")
        );
        assert_eq!(call.folders(), [Path::new("/home/ada/work")]);
    }
}
