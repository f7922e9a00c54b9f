//! What guests may still write into a folder that they can write to directly.
//!
//! Counted as it is written, so that a write looks at nothing. What was removed or written over is found when
//! the folder is looked through, and that is done between calls: a file without a name takes room for as long
//! as somebody holds it open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes and files.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Amount {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

impl Amount {
    fn and(self, bytes: u64, files: u64) -> Self {
        Self { bytes: self.bytes.saturating_add(bytes), files: self.files.saturating_add(files) }
    }

    fn holds(self, other: Self) -> bool {
        other.bytes <= self.bytes && other.files <= self.files
    }
}

/// The quota of one folder.
#[derive(Debug)]
pub(crate) struct Quota {
    folder: PathBuf,
    limit: Amount,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    /// What guests have there, or more. None: not looked at yet.
    used: Option<Amount>,
    /// Whether something was refused since the folder was looked through.
    refused: bool,
    /// Calls that can write there now.
    calls: usize,
}

/// There is no room left.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Full;

/// The right of one call to write as much as the quota leaves.
#[derive(Debug)]
pub(crate) struct Share(pub(crate) Arc<Quota>);

impl Drop for Share {
    fn drop(&mut self) {
        self.0.counted().calls -= 1;
    }
}

impl Quota {
    /// A folder that others write to as well: what they have there is not the guests'.
    pub(crate) fn shared(folder: PathBuf, limit: Amount) -> Self {
        let counted = Counted { used: Some(Amount::default()), ..Counted::default() };
        Self { folder, limit, counted: Mutex::new(counted) }
    }

    /// A folder that has what earlier sessions left.
    pub(crate) fn lasting(folder: PathBuf, limit: Amount) -> Self {
        Self { folder, limit, counted: Mutex::default() }
    }

    /// For a call that begins. If no other can write there now, room that is little is counted anew.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        let mut counted = self.counted();
        counted.calls += 1;
        let looked = match counted.used {
            None => Some(self.look()),
            Some(used) if counted.calls == 1 && self.is_worth_a_look(&counted, used) => {
                let there = self.look();
                // Not looked through to the end: what was not seen may be the guests'.
                let there = if there.files > self.limit.files { used } else { there };
                // What others wrote is not the guests'.
                Some(Amount { bytes: used.bytes.min(there.bytes), files: used.files.min(there.files) })
            }
            Some(_) => None,
        };
        if looked.is_some() {
            *counted = Counted { used: looked, calls: counted.calls, ..Counted::default() };
        }
        Share(self.clone())
    }

    /// Counts what is about to be written, if there is room for it.
    pub(crate) fn take(&self, bytes: u64, files: u64) -> Result<(), Full> {
        let mut counted = self.counted();
        let used = counted.used.unwrap_or_default().and(bytes, files);
        if !self.limit.holds(used) {
            counted.refused = true;
            return Err(Full);
        }
        counted.used = Some(used);
        Ok(())
    }

    /// More than half is used, or something was refused since the last look.
    fn is_worth_a_look(&self, counted: &Counted, used: Amount) -> bool {
        let half = Amount { bytes: self.limit.bytes / 2, files: self.limit.files / 2 };
        counted.refused || !half.holds(used)
    }

    /// What lies in the folder. More files than the quota are not counted to their end.
    fn look(&self) -> Amount {
        let mut sum = Amount::default();
        let mut folders = vec![self.folder.clone()];
        while let Some(folder) = folders.pop() {
            self.add_entries(&folder, &mut sum, &mut folders);
        }
        sum
    }

    /// What cannot be read is not there for guests either.
    fn add_entries(&self, folder: &Path, sum: &mut Amount, folders: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if sum.files > self.limit.files {
                return;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            *sum = sum.and(if metadata.is_dir() { 0 } else { metadata.len() }, 1);
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Amount = Amount { bytes: 1_000, files: 10 };

    #[test]
    fn what_is_removed_is_given_back_when_no_call_can_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Arc::new(Quota::shared(dir.path().into(), LIMIT));
        let first = quota.share();
        assert_eq!(quota.take(1_000, 1), Ok(()));
        // Nothing lies there: it was removed, but may be open.
        assert_eq!(quota.take(1, 0), Err(Full));
        let second = quota.share();
        assert_eq!(quota.take(1, 0), Err(Full));
        drop((first, second));
        let _third = quota.share();
        std::fs::write(dir.path().join("a"), [0; 950]).unwrap();
        assert_eq!(quota.take(1_000, 10), Ok(()));
    }

    #[test]
    fn what_others_put_there_hides_nothing_of_the_guests() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Arc::new(Quota::shared(dir.path().into(), LIMIT));
        let first = quota.share();
        assert_eq!(quota.take(900, 2), Ok(()));
        drop(first);
        // More files of a command's than the quota: the folder is not looked through to its end.
        (0..50).for_each(|k| std::fs::write(dir.path().join(k.to_string()), "").unwrap());
        let _second = quota.share();
        assert_eq!(quota.take(200, 0), Err(Full));
    }

    #[test]
    fn what_is_written_over_and_over_does_not_use_up_the_quota() {
        let dir = tempfile::tempdir().unwrap();
        let quota = Arc::new(Quota::lasting(dir.path().into(), LIMIT));
        for _ in 0..100 {
            let _share = quota.share();
            assert_eq!(quota.take(300, 1), Ok(()));
            std::fs::write(dir.path().join("state"), [0; 300]).unwrap();
        }
    }

    #[test]
    fn what_others_wrote_is_not_counted_and_what_was_left_is() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), [0; 5_000]).unwrap();
        let shared = Arc::new(Quota::shared(dir.path().into(), LIMIT));
        let share = shared.share();
        assert_eq!((shared.take(900, 1), shared.take(200, 1)), (Ok(()), Err(Full)));
        drop(share);
        let _share = shared.share();
        assert_eq!((shared.take(101, 1), shared.take(100, 1)), (Err(Full), Ok(())));
        let lasting = Arc::new(Quota::lasting(dir.path().into(), Amount { bytes: 5_500, files: 10 }));
        let _share = lasting.share();
        assert_eq!((lasting.take(501, 0), lasting.take(499, 0)), (Err(Full), Ok(())));
    }

    #[test]
    fn files_count_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("one/two")).unwrap();
        let quota = Arc::new(Quota::lasting(dir.path().into(), Amount { bytes: 1_000, files: 3 }));
        let _share = quota.share();
        assert_eq!((quota.take(0, 1), quota.take(0, 1)), (Ok(()), Err(Full)));
    }
}
