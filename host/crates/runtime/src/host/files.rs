use std::path::Path;

use protocol::{FileChange, HostReply, HostRequest, Need, Tier};

use crate::bindings::ml_intern::plugin::files::{Expectation, Host, Written};
use crate::bindings::ml_intern::plugin::types::{Error, ErrorKind};
use crate::changes::{self, Becomes, ChangeError, Preview};
use crate::folders::{LastLink, PathError, Place, is_sealed};
use crate::host::error;
use crate::limits::{Limits, MAX_CHANGES, MAX_DIFF_BYTES, MAX_FILE_BYTES, MAX_REFUSALS};
use crate::state::{Call, CallState};

impl CallState {
    fn files_call(&mut self) -> Result<&mut Call, Error> {
        self.granted("files", |call| call.capabilities.files)
    }
}

impl Call {
    /// Finds the place for a change.
    fn changeable(&mut self, path: &str, last: LastLink) -> Result<Place, Error> {
        let place =
            self.session.folders.place(Path::new(path), last).map_err(|e| self.refused_path(path, e))?;
        if let Some(rule) = self.session.folders.denies(&place.path).map(str::to_owned) {
            let shown = place.path.display().to_string();
            self.deny_path(&rule, &shown, Tier::Write);
            let message = format!("{shown}: the rule `{rule}` keeps it from being changed");
            return Err(error(ErrorKind::Denied, "path-denied", message));
        }
        Ok(place)
    }

    /// Takes from the quota of `/tmp` what is written there, and refuses a change too many: the host keeps a
    /// record of each until the call ends.
    fn room_for(&self, place: &Place, bytes: u64, limits: &Limits) -> Result<(), Error> {
        let shown = place.path.display();
        if self.changes.len() >= MAX_CHANGES {
            let message = format!("{shown}: one call changes at most {MAX_CHANGES} files; use bash");
            return Err(error(ErrorKind::TooLarge, "too-many-changes", message));
        }
        if place.path.starts_with(&self.session.folders.tmp)
            && self.session.tmp_share(limits).0.take(bytes, 1).is_err()
        {
            let message = format!("{shown}: what tools may write to /tmp in one session is used up");
            return Err(error(ErrorKind::TooLarge, "quota", message));
        }
        Ok(())
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

    /// Asks the person for a change if its place is sealed, and shows what it would be. Nobody is asked about what
    /// could not be made anyway, about the same twice in a call, or once more after some refusals.
    async fn allow_sealed(
        &mut self,
        place: &Place,
        becomes: Becomes<'_>,
        expects: &changes::Expectation,
    ) -> Result<(), Error> {
        if !is_sealed(&place.relative) {
            return Ok(());
        }
        let path = place.path.display().to_string();
        let Preview { sha256, change } =
            changes::preview(place, becomes, expects).map_err(|e| refused(&path, e))?;
        let sealed = |message: String| error(ErrorKind::Denied, "path-sealed", message);
        let asked = (path.clone(), sha256.clone());
        if let Some(message) = self.refused_changes.get(&asked) {
            return Err(sealed(message.clone()));
        }
        if self.refused_changes.len() >= MAX_REFUSALS {
            let message = format!(
                "{path} is sealed; {MAX_REFUSALS} changes of sealed paths were refused in this call, and no more is asked about"
            );
            return Err(sealed(message));
        }
        let need = Need::SealedPath { path: path.clone(), sha256, change: Some(change) };
        match self.ask(HostRequest::Decide(need)).await {
            Some(HostReply::Allowed) => Ok(()),
            Some(HostReply::Refused { message, rule, remedy }) => {
                self.deny(&rule, &path, &remedy, Tier::Write);
                self.refused_changes.insert(asked, message.clone());
                Err(sealed(message))
            }
            Some(HostReply::Noted) | None => {
                Err(error(ErrorKind::Cancelled, "cancelled", "cancelled by the user"))
            }
        }
    }
}

/// Keeps what was changed for the result. Beyond a number of bytes, how many lines are told and not which.
fn keep(changes: &mut Vec<FileChange>, change: FileChange) {
    let shown: usize = changes.iter().filter_map(|change| change.diff.as_ref().map(String::len)).sum();
    let diff = change.diff.filter(|diff| shown + diff.len() <= MAX_DIFF_BYTES);
    changes.push(FileChange { diff, ..change });
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
        let limits = self.limits;
        let call = self.files_call()?;
        let mut place = call.changeable(&path, LastLink::Followed)?;
        let expects = match expects {
            Expectation::Any => changes::Expectation::Any,
            Expectation::Absent => changes::Expectation::Absent,
            Expectation::Sha256(digest) => changes::Expectation::Sha256(digest),
        };
        call.room_for(&place, content.len() as u64, &limits)?;
        call.allow_sealed(&place, Becomes::Content(&content), &expects).await?;
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
        let undoable = written.undoable;
        keep(&mut call.changes, written.change);
        Ok(Written {
            bytes: content.len() as u64,
            sha256: written.sha256,
            created: written.created,
            extra: (!undoable).then(|| r#"{"undoable":false}"#.to_owned()),
        })
    }

    async fn rename(&mut self, source: String, target: String) -> Result<(), Error> {
        let limits = self.limits;
        let call = self.files_call()?;
        let from = call.changeable(&source, LastLink::Kept)?;
        let mut to = call.changeable(&target, LastLink::Kept)?;
        call.room_for(&to, 0, &limits)?;
        if is_sealed(&from.relative) || is_sealed(&to.relative) {
            changes::vacant(&to).map_err(|e| refused(&source, e))?;
        }
        call.allow_sealed(&from, Becomes::Nothing, &changes::Expectation::Any).await?;
        let sealed = if is_sealed(&to.relative) {
            Some(changes::moved(&from).map_err(|e| refused(&source, e))?)
        } else {
            None
        };
        if let Some(moved) = &sealed {
            call.allow_sealed(&to, Becomes::Content(moved), &changes::Expectation::Absent).await?;
        }
        let session = &call.session;
        let _alone = session.changing();
        let umask = session.folders.umask;
        let changed: Vec<FileChange> =
            changes::rename(&from, &mut to, sealed.as_deref(), umask, &session.undo, call.id.as_str())
                .map_err(|e| refused(&source, e))?;
        changed.into_iter().for_each(|change| keep(&mut call.changes, change));
        Ok(())
    }

    async fn remove(&mut self, path: String) -> Result<(), Error> {
        let limits = self.limits;
        let call = self.files_call()?;
        let place = call.changeable(&path, LastLink::Kept)?;
        call.room_for(&place, 0, &limits)?;
        call.allow_sealed(&place, Becomes::Nothing, &changes::Expectation::Any).await?;
        let _alone = call.session.changing();
        let changed =
            changes::remove(&place, &call.session.undo, call.id.as_str()).map_err(|e| refused(&path, e))?;
        keep(&mut call.changes, changed);
        Ok(())
    }
}
