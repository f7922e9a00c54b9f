//! Machine code of plugins that are not bundled. Losing it costs time only; changing it is noticed: each
//! file ends with a MAC under a key that lies elsewhere.

use std::fs::{File, OpenOptions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::OFlags;
use wasmtime::component::Component;

use crate::engine::Shared;
use crate::inspect::hex;
use crate::key;
use crate::limits::MAX_CACHE_BYTES;

/// Bytes of the MAC at the end of a file.
const MAC_BYTES: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct CodeCache {
    folder: PathBuf,
    key: PathBuf,
}

impl CodeCache {
    pub(crate) fn new(folder: PathBuf, key: PathBuf) -> Self {
        Self { folder, key }
    }

    /// The code of a component, if it is there and authentic. Anything else is told and ignored.
    pub(crate) fn load(&self, shared: &Shared, digest: &str) -> Option<Component> {
        let path = self.path(shared, digest);
        let started = Instant::now();
        match self.try_load(shared, &path) {
            Ok(component) => {
                let took_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                tracing::debug!(took_us, found = component.is_some(), "compiled code looked up");
                component
            }
            Err(reason) => {
                tracing::warn!("compiled code {} is not used: {reason}", path.display());
                None
            }
        }
    }

    fn try_load(&self, shared: &Shared, path: &Path) -> Result<Option<Component>, String> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let metadata = file.metadata().map_err(|e| e.to_string())?;
        if !metadata.is_file()
            || metadata.uid() != rustix::process::geteuid().as_raw()
            || metadata.mode() & 0o022 != 0
        {
            return Err("its owner or mode is not right".to_owned());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        let (code, mac) = bytes.split_last_chunk::<MAC_BYTES>().ok_or("it is too short")?;
        let key = key::existing(&self.key)?.ok_or("its key is gone")?;
        // Hashes are compared in constant time.
        if mac_of(&key, path, code) != *mac {
            return Err("it was changed".to_owned());
        }
        map(shared, &file).map(Some).map_err(|e| format!("{e:#}"))
    }

    /// Keeps code for the next start.
    pub(crate) fn store(&self, shared: &Shared, digest: &str, code: &[u8]) -> Result<(), String> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|e| e.to_string())?;
        let path = self.path(shared, digest);
        let mac = mac_of(&key::existing_or_new(&self.key)?, &path, code);
        let temporary = self.folder.join(format!(".{}.tmp", hex(&random::<8>()?)));
        let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).and_then(
            |mut file| {
                file.write_all(code)?;
                file.write_all(mac.as_bytes())?;
                std::fs::rename(&temporary, &path)
            },
        );
        if written.is_err() {
            // What is left behind is only the unfinished copy.
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(|e| format!("{}: {e}", path.display()))?;
        self.make_room(&path, MAX_CACHE_BYTES);
        Ok(())
    }

    /// Removes the oldest code until there is no more than may be kept. What was just made stays.
    fn make_room(&self, fresh: &Path, limit: u64) {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some((metadata.modified().ok()?, metadata.len(), entry.path()))
            })
            .filter(|(_, _, path)| path != fresh)
            .collect();
        files.sort();
        let mut sum: u64 = std::fs::metadata(fresh).map_or(0, |metadata| metadata.len());
        for (_, bytes, path) in files.into_iter().rev() {
            sum = sum.saturating_add(bytes);
            if sum > limit
                && let Err(error) = std::fs::remove_file(&path)
            {
                tracing::warn!(%error, "old compiled code cannot be removed");
            }
        }
    }

    /// Code for another engine or another build of the host is another file.
    fn path(&self, shared: &Shared, digest: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        shared.engine.precompile_compatibility_hash().hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        self.folder.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }
}

/// The code of one plugin says nothing about the file of another: the name is part of what is vouched for.
fn mac_of(key: &[u8; 32], path: &Path, code: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    let name = path.file_name().map(std::ffi::OsStr::as_encoded_bytes).unwrap_or_default();
    hasher.update(&(name.len() as u64).to_le_bytes()).update(name).update(code);
    hasher.finalize()
}

/// Maps the very file whose bytes were checked, whatever its name leads to now.
#[expect(unsafe_code, reason = "machine code cannot be checked; the MAC vouches for where it came from")]
fn map(shared: &Shared, file: &File) -> wasmtime::Result<Component> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the MAC says that this user's host wrote these bytes; the folder and the file are ours
    // alone, and the file is only ever replaced, never written in place.
    unsafe { Component::deserialize_file(&shared.engine, path) }
}

fn random<const N: usize>() -> Result<[u8; N], String> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| e.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_oldest_code_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = CodeCache::new(dir.path().into(), dir.path().join("key"));
        for (name, age) in [("old", 30), ("older", 40), ("new", 20), ("fresh", 50)] {
            let file = File::create(dir.path().join(name)).unwrap();
            file.set_len(100).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        }
        cache.make_room(&dir.path().join("fresh"), 250);
        let mut left: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["fresh", "new"]);
    }
}
