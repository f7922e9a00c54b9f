//! The calls by which a guest writes into a mounted folder, each counted against the folder's quota before
//! it is done. They stand in the place of those that WASI brings, as those do that look where a path leads
//! (`hidden`); what is left of it stays as it is.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, LinkerInstance, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView, WasiFilesystemView as _};
use wasmtime_wasi::p2::bindings::filesystem::preopens::Host as _;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorFlags, ErrorCode, HostDescriptor, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynOutputStream, FsResult, OutputStream, Pollable, StreamError, StreamResult};

use crate::folders::LastLink;
use crate::hidden::{hide, last};
use crate::quota::{Full, Quota, Share};
use crate::state::CallState;

/// The interfaces under the version that `wasmtime-wasi` gives them. Another one would be added and used by
/// no guest, which the tests of the quotas would see.
const TYPES: &str = "wasi:filesystem/types@0.2.12";
const PREOPENS: &str = "wasi:filesystem/preopens@0.2.12";

type Store<'a> = StoreContextMut<'a, CallState>;
type File = Resource<Descriptor>;

/// Puts the counted calls in the place of the plain ones.
pub(crate) fn meter(linker: &mut Linker<CallState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance(PREOPENS)?.func_wrap("get-directories", |mut store: Store<'_>, (): ()| {
        let state = store.data_mut();
        let folders = state.filesystem().get_directories()?;
        for (folder, name) in &folders {
            state.metered.enter(folder, name);
        }
        Ok((folders,))
    })?;
    let mut types = linker.instance(TYPES)?;
    contents(&mut types)?;
    names(&mut types)?;
    hide(&mut types)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What a file holds.
fn contents(types: &mut LinkerInstance<'_, CallState>) -> wasmtime::Result<()> {
    types.func_wrap_async(
        "[method]descriptor.write",
        |mut store: Store<'_>, (file, bytes, at): (File, Vec<u8>, u64)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.metered.take(&file, bytes.len() as u64, 0) {
                    return Ok((Err(error),));
                }
                let written = state.filesystem().write(file, bytes, at).await;
                Ok((told(written)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.set-size",
        |mut store: Store<'_>, (file, size): (File, u64)| {
            Box::new(async move {
                let state = store.data_mut();
                let has = match state.filesystem().stat(Resource::new_borrow(file.rep())).await {
                    Ok(stat) => stat.size,
                    Err(error) => return Ok((Err(error.downcast()?),)),
                };
                if let Err(error) = state.metered.take(&file, size.saturating_sub(has), 0) {
                    return Ok((Err(error),));
                }
                let set = state.filesystem().set_size(file, size).await;
                Ok((told(set)?,))
            })
        },
    )?;
    types.func_wrap(
        "[method]descriptor.write-via-stream",
        |mut store: Store<'_>, (file, at): (File, u64)| {
            let state = store.data_mut();
            let quota = state.metered.of(&file);
            let mut files = state.filesystem();
            let stream = told(files.write_via_stream(file, at))?;
            Ok((counted(&mut files, stream, quota)?,))
        },
    )?;
    types.func_wrap("[method]descriptor.append-via-stream", |mut store: Store<'_>, (file,): (File,)| {
        let state = store.data_mut();
        let quota = state.metered.of(&file);
        let mut files = state.filesystem();
        let stream = told(files.append_via_stream(file))?;
        Ok((counted(&mut files, stream, quota)?,))
    })
}

/// What a folder holds.
fn names(types: &mut LinkerInstance<'_, CallState>) -> wasmtime::Result<()> {
    types.func_wrap_async(
        "[method]descriptor.open-at",
        |mut store: Store<'_>,
         (folder, at, path, open, flags): (File, PathFlags, String, OpenFlags, DescriptorFlags)| {
            Box::new(async move {
                let state = store.data_mut();
                if let Err(error) = state.check_path(&folder, &path, last(at)) {
                    return Ok((Err(error),));
                }
                if open.contains(OpenFlags::CREATE)
                    && let Err(error) = state.metered.take(&folder, 0, 1)
                {
                    return Ok((Err(error),));
                }
                let quota = state.metered.of(&folder);
                let opened = told(state.filesystem().open_at(folder, at, path, open, flags).await)?;
                let Ok(file) = opened else { return Ok((opened,)) };
                if let Err(error) = state.check_opened(&file) {
                    HostDescriptor::drop(&mut state.filesystem(), file)?;
                    return Ok((Err(error),));
                }
                state.metered.hand_on(&file, quota);
                Ok((Ok(file),))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.create-directory-at",
        |mut store: Store<'_>, (folder, path): (File, String)| {
            Box::new(async move {
                let state = store.data_mut();
                let allowed = state.check_path(&folder, &path, LastLink::Kept);
                if let Err(error) = allowed.and_then(|()| state.metered.take(&folder, 0, 1)) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().create_directory_at(folder, path).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.symlink-at",
        |mut store: Store<'_>, (folder, target, path): (File, String, String)| {
            Box::new(async move {
                let state = store.data_mut();
                let allowed = state.check_path(&folder, &path, LastLink::Kept);
                if let Err(error) = allowed.and_then(|()| state.metered.take(&folder, target.len() as u64, 1))
                {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().symlink_at(folder, target, path).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.link-at",
        |mut store: Store<'_>, (folder, at, path, other, name): (File, PathFlags, String, File, String)| {
            Box::new(async move {
                let state = store.data_mut();
                let named = state
                    .check_path(&folder, &path, last(at))
                    .and_then(|()| state.check_path(&other, &name, LastLink::Kept));
                if let Err(error) = named {
                    return Ok((Err(error),));
                }
                let metered = &state.metered;
                let allowed = metered.allow_within(&folder, &other).and_then(|()| metered.take(&other, 0, 1));
                if let Err(error) = allowed {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().link_at(folder, at, path, other, name).await)?,))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]descriptor.rename-at",
        |mut store: Store<'_>, (folder, path, other, name): (File, String, File, String)| {
            Box::new(async move {
                let state = store.data_mut();
                let named = state
                    .check_path(&folder, &path, LastLink::Kept)
                    .and_then(|()| state.check_path(&other, &name, LastLink::Kept));
                if let Err(error) = named.and_then(|()| state.metered.allow_within(&folder, &other)) {
                    return Ok((Err(error),));
                }
                Ok((told(state.filesystem().rename_at(folder, path, other, name).await)?,))
            })
        },
    )
}

/// An error for the guest, or the end of the call.
pub(crate) fn told<T>(result: FsResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.downcast()?)),
    }
}

/// A stream that counts what goes through it.
fn counted(
    files: &mut WasiFilesystemCtxView<'_>,
    stream: Result<Resource<DynOutputStream>, ErrorCode>,
    quota: Option<Arc<Quota>>,
) -> wasmtime::Result<Result<Resource<DynOutputStream>, ErrorCode>> {
    let (Ok(plain), Some(quota)) = (&stream, quota) else { return Ok(stream) };
    let inner = files.table.delete(Resource::<DynOutputStream>::new_own(plain.rep()))?;
    let counted: DynOutputStream = Box::new(Counted { inner, quota });
    Ok(Ok(files.table.push(counted)?))
}

/// Which quota each open file of a call counts against.
#[derive(Debug, Default)]
pub(crate) struct Metered {
    /// Folders by the name the guest sees.
    pub(crate) mounts: Vec<(String, Share)>,
    open: HashMap<u32, Arc<Quota>>,
}

impl Metered {
    fn enter(&mut self, folder: &File, name: &str) {
        let quota = self.mounts.iter().find(|(mount, _)| mount == name).map(|(_, share)| share.0.clone());
        self.hand_on(folder, quota);
    }

    /// Numbers are used again after a file was closed, so every new one is entered, also without a quota.
    fn hand_on(&mut self, file: &File, quota: Option<Arc<Quota>>) {
        match quota {
            Some(quota) => drop(self.open.insert(file.rep(), quota)),
            None => drop(self.open.remove(&file.rep())),
        }
    }

    fn of(&self, file: &File) -> Option<Arc<Quota>> {
        self.open.get(&file.rep()).cloned()
    }

    fn take(&self, file: &File, bytes: u64, files: u64) -> Result<(), ErrorCode> {
        let Some(quota) = self.open.get(&file.rep()) else { return Ok(()) };
        quota.take(bytes, files).map_err(|_: Full| ErrorCode::Quota)
    }

    /// Folders with quotas of their own are disks of their own: nothing goes uncounted from one to another.
    fn allow_within(&self, from: &File, to: &File) -> Result<(), ErrorCode> {
        let quota = |file: &File| self.open.get(&file.rep()).map(Arc::as_ptr);
        if quota(from) == quota(to) { Ok(()) } else { Err(ErrorCode::CrossDevice) }
    }
}

struct Counted {
    inner: DynOutputStream,
    quota: Arc<Quota>,
}

impl Counted {
    fn take(&self, bytes: usize) -> StreamResult<()> {
        self.quota.take(bytes as u64, 0).map_err(|_: Full| {
            // A guest that asks learns that the disk is full; the C library of most says that writing failed.
            let full = std::io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error());
            StreamError::LastOperationFailed(full.into())
        })
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for Counted {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(bytes.len())?;
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.inner.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.take(bytes.len())?;
        self.inner.blocking_write_and_flush(bytes).await
    }

    async fn cancel(&mut self) {
        self.inner.cancel().await;
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Counted {
    async fn ready(&mut self) {
        self.inner.ready().await;
    }
}
