use std::path::Path;

use protocol::{FileChange, HostReply, HostRequest, Need, Tier};

use crate::bindings::ml_intern::plugin::files::{Expectation, Host, Written};
use crate::bindings::ml_intern::plugin::types::{Error, ErrorKind};
use crate::changes::{self, ChangeError};
use crate::folders::{LastLink, PathError, Place, is_sealed};
use crate::host::error;
use crate::limits::MAX_FILE_BYTES;
use crate::state::{Call, CallState};

impl CallState {
    fn files_call(&mut self) -> Result<&mut Call, Error> {
        self.granted("files", |call| call.capabilities.files)
    }
}

impl Call {
    /// Finds the place for a change, and asks the person first if it is sealed.
    async fn changeable(&mut self, path: &str, last: LastLink) -> Result<Place, Error> {
        let place =
            self.session.folders.place(Path::new(path), last).map_err(|e| self.refused_path(path, e))?;
        if let Some(rule) = self.session.folders.denies(&place.path).map(str::to_owned) {
            let shown = place.path.display().to_string();
            self.deny_path(&rule, &shown, Tier::Write);
            let message = format!("{shown}: the rule `{rule}` keeps it from being changed");
            return Err(error(ErrorKind::Denied, "path-denied", message));
        }
        if is_sealed(&place.relative) {
            self.allow_sealed(&place).await?;
        }
        Ok(place)
    }

    fn refused_path(&mut self, path: &str, reason: PathError) -> Error {
        match reason {
            PathError::Outside(target) => {
                let remedy = format!("--add-dir {}:rw", target.parent().unwrap_or(&target).display());
                let is_there = if target == Path::new(path) {
                    String::new()
                } else {
                    format!(" ({})", target.display())
                };
                let message = format!(
                    "{path}{is_there} is outside the folders that may be changed; the user can add one with {remedy}"
                );
                self.deny("path-outside", path, &remedy, Tier::Write);
                error(ErrorKind::Denied, "path-outside", message)
            }
            PathError::NotAFolder(at) => error(
                ErrorKind::InvalidArgs,
                "not-a-folder",
                format!("{}: {} is not a folder", path, at.display()),
            ),
            PathError::TooManyLinks => {
                error(ErrorKind::InvalidArgs, "too-many-links", format!("{path}: too many links"))
            }
            PathError::Io(reason) => error(io_kind(&reason), "io", format!("{path}: {reason}")),
        }
    }

    async fn allow_sealed(&mut self, place: &Place) -> Result<(), Error> {
        let path = place.path.display().to_string();
        let need = Need::SealedPath { path: path.clone() };
        match self.ask(HostRequest::Decide(need)).await {
            Some(HostReply::Allowed) => Ok(()),
            Some(HostReply::Refused { message, rule, remedy }) => {
                self.deny(&rule, &path, &remedy, Tier::Write);
                Err(error(ErrorKind::Denied, "path-sealed", message))
            }
            Some(HostReply::Noted) | None => {
                Err(error(ErrorKind::Cancelled, "cancelled", "cancelled by the user"))
            }
        }
    }
}

fn io_kind(reason: &std::io::Error) -> ErrorKind {
    match reason.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        _ => ErrorKind::Unavailable,
    }
}

fn refused(path: &str, reason: ChangeError) -> Error {
    match reason {
        ChangeError::Conflict(why) => error(ErrorKind::Conflict, "conflict", format!("{path}: {why}")),
        ChangeError::NotAFile => {
            error(ErrorKind::InvalidArgs, "not-a-file", format!("{path} is not a regular file"))
        }
        ChangeError::NotFound => error(ErrorKind::NotFound, "not-found", format!("{path} does not exist")),
        ChangeError::TooLarge => {
            let message = format!(
                "{path}: files above {} MiB are not changed by tools; use bash",
                MAX_FILE_BYTES >> 20
            );
            error(ErrorKind::TooLarge, "too-large", message)
        }
        ChangeError::Io(reason) => error(io_kind(&reason), "io", format!("{path}: {reason}")),
    }
}

impl Host for CallState {
    async fn write(
        &mut self,
        path: String,
        content: Vec<u8>,
        expects: Expectation,
    ) -> Result<Written, Error> {
        let call = self.files_call()?;
        let mut place = call.changeable(&path, LastLink::Followed).await?;
        let expects = match expects {
            Expectation::Any => changes::Expectation::Any,
            Expectation::Absent => changes::Expectation::Absent,
            Expectation::Sha256(digest) => changes::Expectation::Sha256(digest),
        };
        let session = &call.session;
        let _alone = session.changing();
        let written = changes::write(
            &mut place,
            &content,
            &expects,
            session.folders.umask,
            &session.undo,
            call.id.as_str(),
        )
        .map_err(|e| refused(&path, e))?;
        call.changes.push(written.change);
        Ok(Written {
            bytes: content.len() as u64,
            sha256: written.sha256,
            created: written.created,
            extra: (!written.undoable).then(|| r#"{"undoable":false}"#.to_owned()),
        })
    }

    async fn rename(&mut self, source: String, target: String) -> Result<(), Error> {
        let call = self.files_call()?;
        let from = call.changeable(&source, LastLink::Kept).await?;
        let mut to = call.changeable(&target, LastLink::Kept).await?;
        let session = &call.session;
        let _alone = session.changing();
        let umask = session.folders.umask;
        let changed: Vec<FileChange> =
            changes::rename(&from, &mut to, umask, &session.undo, call.id.as_str())
                .map_err(|e| refused(&source, e))?;
        call.changes.extend(changed);
        Ok(())
    }

    async fn remove(&mut self, path: String) -> Result<(), Error> {
        let call = self.files_call()?;
        let place = call.changeable(&path, LastLink::Kept).await?;
        let _alone = call.session.changing();
        let changed =
            changes::remove(&place, &call.session.undo, call.id.as_str()).map_err(|e| refused(&path, e))?;
        call.changes.push(changed);
        Ok(())
    }
}
