//! Paths that rules deny, kept from guests: each call of WASI that names a path is refused where the path leads
//! to a denied one, whatever it is called there. Without such rules nothing is looked up.

use std::ffi::OsString;
use std::fs::File as HostFile;
use std::os::fd::{AsFd, AsRawFd as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use protocol::Tier;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2, readlink};
use rustix::io::Errno;
use wasmtime::StoreContextMut;
use wasmtime::component::{LinkerInstance, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView as _};
use wasmtime_wasi::p2::ReaddirIterator;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    ErrorCode, HostDescriptor as _, HostDirectoryEntryStream as _, NewTimestamp, PathFlags,
};

use crate::folders::{LastLink, normal};
use crate::metered::told;
use crate::state::CallState;

type Store<'a> = StoreContextMut<'a, CallState>;
type File = Resource<Descriptor>;

/// Times that a path is looked up again because somebody moved folders meanwhile.
const ATTEMPTS: usize = 8;

/// Puts checked calls in the place of the plain ones, for those that are not counted.
pub(crate) fn hide(types: &mut LinkerInstance<'_, CallState>) -> wasmtime::Result<()> {
    types.func_wrap_async(
        "[method]descriptor.stat-at",
        |mut store: Store<'_>, (folder, at, path): (File, PathFlags, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, last(at)) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().stat_at(folder, at, path).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.metadata-hash-at",
        |mut store: Store<'_>, (folder, at, path): (File, PathFlags, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, last(at)) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().metadata_hash_at(folder, at, path).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.set-times-at",
        |mut store: Store<'_>,
         (folder, at, path, read, changed): (File, PathFlags, String, NewTimestamp, NewTimestamp)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, last(at)) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().set_times_at(folder, at, path, read, changed).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: Store<'_>, (folder,): (File,)| {
            Box::new(async move {
                let state = store.data_mut();
                let place = match state.place_of(&folder) {
                    Ok(place) => place,
                    Err(error) => return Ok((Err(error),)),
                };
                let listed = told(state.filesystem().read_directory(folder).await)?;
                if let (Ok(entries), Some(place), Some(call)) = (&listed, place, &mut state.call) {
                    call.listed.insert(entries.rep(), place);
                }
                Ok((listed,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: Store<'_>, (entries,): (Resource<ReaddirIterator>,)| {
            Box::new(async move {
                let state = store.data_mut();
                loop {
                    let next = Resource::new_borrow(entries.rep());
                    let entry = told(state.filesystem().read_directory_entry(next).await)?;
                    match &entry {
                        // What is denied is not there: most C libraries ask about each entry, and a folder would
                        // be refused as a whole.
                        Ok(Some(found)) if state.leaves_out(&entries, &found.name) => {}
                        _ => return Ok((entry,)),
                    }
                }
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.readlink-at",
        |mut store: Store<'_>, (folder, path): (File, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, LastLink::Kept) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().readlink_at(folder, path).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.remove-directory-at",
        |mut store: Store<'_>, (folder, path): (File, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, LastLink::Kept) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().remove_directory_at(folder, path).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.unlink-file-at",
        |mut store: Store<'_>, (folder, path): (File, String)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, LastLink::Kept) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().unlink_file_at(folder, path).await)?,))
            })
        },
    )
}

/// What a link at the end of a path stands for, as the guest asks for it.
pub(crate) fn last(flags: PathFlags) -> LastLink {
    if flags.contains(PathFlags::SYMLINK_FOLLOW) { LastLink::Followed } else { LastLink::Kept }
}

impl CallState {
    fn hides(&self) -> bool {
        self.call.as_ref().is_some_and(|call| !call.session.folders.denied.is_empty())
    }

    /// Refuses a path below an open folder, by its name and by where that really leads.
    pub(crate) fn check_path(&mut self, folder: &File, path: &str, last: LastLink) -> Result<(), ErrorCode> {
        if !self.hides() {
            return Ok(());
        }
        let Some(folder) = self.host_file(folder) else { return Err(ErrorCode::BadDescriptor) };
        let named = normal(&real(&folder).map_err(code)?.join(path));
        let leads_to = lead(&folder, Path::new(path), last).map_err(code)?;
        self.check(&named)?;
        self.check(&leads_to)
    }

    /// Takes back what was opened if it turns out to be denied: a link may have been put on the way since it
    /// was looked up.
    pub(crate) fn check_opened(&mut self, file: &File) -> Result<(), ErrorCode> {
        self.place_of(file)?.map_or(Ok(()), |place| self.check(&place))
    }

    /// Where an open folder is, if that matters.
    fn place_of(&mut self, folder: &File) -> Result<Option<PathBuf>, ErrorCode> {
        if !self.hides() {
            return Ok(None);
        }
        let folder = self.host_file(folder).ok_or(ErrorCode::BadDescriptor)?;
        real(&folder).map(Some).map_err(code)
    }

    /// Whether a listing leaves a name out.
    fn leaves_out(&self, entries: &Resource<ReaddirIterator>, name: &str) -> bool {
        self.call.as_ref().is_some_and(|call| {
            let folder = call.listed.get(&entries.rep());
            folder.is_some_and(|folder| call.session.folders.denies(&folder.join(name)).is_some())
        })
    }

    fn host_file(&mut self, file: &File) -> Option<Arc<HostFile>> {
        Some(match self.filesystem().table.get(file).ok()? {
            Descriptor::Dir(dir) => dir.dir.clone(),
            Descriptor::File(file) => file.file.clone(),
        })
    }

    fn check(&mut self, path: &Path) -> Result<(), ErrorCode> {
        let Some(call) = &mut self.call else { return Err(ErrorCode::Access) };
        let Some(rule) = call.session.folders.denies(path).map(str::to_owned) else { return Ok(()) };
        call.deny_path(&rule, &path.display().to_string(), Tier::Read);
        Err(ErrorCode::Access)
    }
}

/// The path of an open file, free of links.
fn real(file: impl AsFd) -> Result<PathBuf, Errno> {
    let link = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(OsString::from_vec(readlink(link, Vec::new())?.into_bytes()).into())
}

/// Where a path below a folder really leads. Of what does not exist: where it would be made.
fn lead(folder: &HostFile, path: &Path, last: LastLink) -> Result<PathBuf, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if last == LastLink::Kept {
        flags |= OFlags::NOFOLLOW;
    }
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = (0..ATTEMPTS)
        .map(|_| openat2(folder, path, flags, Mode::empty(), resolve))
        .find(|found| !matches!(found, Err(Errno::AGAIN)));
    match found {
        Some(Ok(file)) => real(&file),
        Some(Err(Errno::NOENT)) => {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                return Err(Errno::NOENT);
            };
            let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
            Ok(lead(folder, above, LastLink::Followed)?.join(name))
        }
        Some(Err(error)) => Err(error),
        None => Err(Errno::AGAIN),
    }
}

fn code(error: Errno) -> ErrorCode {
    match error {
        Errno::NOENT => ErrorCode::NoEntry,
        Errno::NOTDIR => ErrorCode::NotDirectory,
        Errno::LOOP => ErrorCode::Loop,
        Errno::NAMETOOLONG => ErrorCode::NameTooLong,
        Errno::XDEV => ErrorCode::NotPermitted,
        _ => ErrorCode::Access,
    }
}
