//! What became of the requests of a call that change something elsewhere.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts them: also a call that traps, hangs or is stopped afterwards has sent what it sent.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// On their way, or answered by nobody who could know.
    open: AtomicUsize,
    accepted: AtomicUsize,
}

impl Sent {
    /// One leaves.
    pub(crate) fn leaves(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    /// It is known what came of one: it was accepted, or certainly was not.
    pub(crate) fn settles(&self, accepted: bool) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.accepted.fetch_add(usize::from(accepted), Ordering::SeqCst);
    }

    pub(crate) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst) > 0
    }

    pub(crate) fn was_accepted(&self) -> bool {
        self.accepted.load(Ordering::SeqCst) > 0
    }
}
