//! Money that runs of this user have set aside for what they ordered: one small file for all processes, so
//! that runs side by side do not spend the same dollar.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// Bytes of the file that are read; an entry has about 150.
const MAX_BYTES: u64 = 4 << 20;

/// Money set aside for one order.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Reservation {
    order: String,
    session: String,
    usd: f64,
    /// When what was ordered has ended for certain.
    until: Timestamp,
}

/// The file of all reservations.
#[derive(Clone, Debug)]
pub(crate) struct Reservations {
    folder: PathBuf,
}

/// Why money could not be set aside.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReserveError {
    #[error("it does not fit into what is left any more: other runs have set {0:.2} USD aside")]
    Taken(f64),
    #[error("{0:.2} USD are left of what this machine's policy lets a run cost")]
    Forbidden(f64),
    #[error("money cannot be set aside: {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
}

impl Reservations {
    /// The reservations below the program's state folder.
    pub(crate) fn new(state: &Path) -> Self {
        Self { folder: state.join("budget") }
    }

    /// USD that other sessions have set aside and not given back.
    pub(crate) fn of_others(&self, session: &str) -> Result<f64, ReserveError> {
        match File::open(self.file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0.0),
            file => Ok(others(&self.read(file.map_err(|e| self.failed(e))?)?, session)),
        }
    }

    /// Sets money aside, if it fits beside what others have set aside.
    pub(crate) fn reserve(
        &self,
        order: &str,
        session: &str,
        (usd, hours): (f64, f64),
        room: Option<f64>,
    ) -> Result<(), ReserveError> {
        self.change(|all| {
            let taken = others(all, session);
            if room.is_some_and(|room| usd > room - taken) {
                return Err(ReserveError::Taken(taken));
            }
            let seconds = jiff::SignedDuration::try_from_secs_f64(hours * 3_600.0).unwrap_or_default();
            let until = Timestamp::now().checked_add(seconds).unwrap_or(Timestamp::MAX);
            all.push(Reservation { order: order.to_owned(), session: session.to_owned(), usd, until });
            Ok(())
        })
    }

    /// Gives back what was set aside for an order.
    pub(crate) fn release(&self, order: &str) -> Result<(), ReserveError> {
        self.change(|all| {
            all.retain(|one| one.order != order);
            Ok(())
        })
    }

    /// Changes what is set aside for an order; its time stays.
    pub(crate) fn reprice(&self, order: &str, usd: f64) -> Result<(), ReserveError> {
        self.change(|all| {
            all.iter_mut().filter(|one| one.order == order).for_each(|one| one.usd = usd);
            Ok(())
        })
    }

    fn file(&self) -> PathBuf {
        self.folder.join("reservations.json")
    }

    fn failed(&self, source: io::Error) -> ReserveError {
        ReserveError::Io { path: self.file(), source }
    }

    fn read(&self, file: File) -> Result<Vec<Reservation>, ReserveError> {
        let mut text = String::new();
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|e| self.failed(e))?;
        let all: Vec<Reservation> = serde_json::from_str(&text).map_err(|e| self.failed(e.into()))?;
        if all.iter().any(|one| !one.usd.is_finite() || one.usd < 0.0) {
            return Err(self.failed(io::Error::other("an amount is negative or no number")));
        }
        Ok(all)
    }

    /// Changes the file, alone, in one step on the disk.
    fn change(
        &self,
        edit: impl FnOnce(&mut Vec<Reservation>) -> Result<(), ReserveError>,
    ) -> Result<(), ReserveError> {
        let io = |e| self.failed(e);
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder).map_err(io)?;
        let lock = private(&self.folder.join("lock")).map_err(io)?;
        flock(&lock, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
        let mut all = match File::open(self.file()) {
            Ok(file) => self.read(file)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(io(error)),
        };
        let now = Timestamp::now();
        all.retain(|one| one.until > now);
        edit(&mut all)?;
        let temporary = self.folder.join("reservations.tmp");
        let mut file = private(&temporary).map_err(io)?;
        file.set_len(0).map_err(io)?;
        let json = serde_json::to_vec(&all).map_err(|e| io(e.into()))?;
        file.write_all(&json).and_then(|()| file.sync_data()).map_err(io)?;
        std::fs::rename(&temporary, self.file()).map_err(io)
    }
}

fn others(all: &[Reservation], session: &str) -> f64 {
    let now = Timestamp::now();
    all.iter().filter(|one| one.session != session && one.until > now).map(|one| one.usd).sum()
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_side_by_side_share_one_purse() {
        let dir = tempfile::tempdir().unwrap();
        let all = Reservations::new(dir.path());
        assert_eq!(all.of_others("a").unwrap(), 0.0);
        all.reserve("1", "a", (6.0, 1.0), Some(10.0)).unwrap();
        assert!(
            matches!(all.reserve("2", "b", (6.0, 1.0), Some(10.0)), Err(ReserveError::Taken(t)) if t == 6.0)
        );
        all.reserve("3", "b", (4.0, 1.0), Some(10.0)).unwrap();
        assert_eq!((all.of_others("a").unwrap(), all.of_others("b").unwrap()), (4.0, 6.0));
        all.release("1").unwrap();
        assert_eq!(all.of_others("b").unwrap(), 0.0);
        // What has ended by itself is not counted.
        all.reserve("4", "c", (9.0, 0.0), None).unwrap();
        assert_eq!(all.of_others("b").unwrap(), 0.0);
    }

    #[test]
    fn many_at_once_never_exceed_it() {
        let dir = tempfile::tempdir().unwrap();
        let all = Reservations::new(dir.path());
        let taken: usize = std::thread::scope(|scope| {
            let one =
                |k: usize| all.reserve(&format!("o{k}"), &format!("s{k}"), (1.0, 1.0), Some(5.0)).is_ok();
            let threads: Vec<_> = (0..16).map(|k| scope.spawn(move || one(k))).collect();
            threads.into_iter().map(|thread| usize::from(thread.join().unwrap())).sum()
        });
        assert_eq!(taken, 5);
    }

    #[test]
    fn a_file_that_is_none_is_named_and_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let all = Reservations::new(dir.path());
        for text in
            ["{", "[{\"order\":\"1\",\"session\":\"a\",\"usd\":-5.0,\"until\":\"2099-01-01T00:00:00Z\"}]"]
        {
            std::fs::create_dir_all(dir.path().join("budget")).unwrap();
            std::fs::write(all.file(), text).unwrap();
            let error = all.reserve("1", "b", (1.0, 1.0), None).unwrap_err().to_string();
            assert!(error.contains("reservations.json"), "{error}");
            assert!(all.of_others("b").is_err());
            assert_eq!(std::fs::read_to_string(all.file()).unwrap(), text);
        }
    }
}
