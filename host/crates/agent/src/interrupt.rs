use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Stops the running turn. It is no operation: it does not wait for its turn.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<Mutex<CancellationToken>>);

impl Interrupt {
    /// Stops the turn that runs, or the next one if it did not begin yet; the session goes on with the
    /// operation after it.
    pub fn interrupt(&self) {
        self.lock().cancel();
    }

    /// Takes an interrupt back that no turn met: it came when the last one was over already.
    pub fn reset(&self) {
        let mut token = self.lock();
        if token.is_cancelled() {
            *token = CancellationToken::new();
        }
    }

    /// What the turn that begins listens to. It may be cancelled already: nothing that was asked for
    /// before the turn began is lost.
    pub(crate) fn token(&self) -> CancellationToken {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, CancellationToken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupt_before_the_turn_stops_that_turn_and_no_other() {
        let interrupt = Interrupt::default();
        interrupt.interrupt();
        assert!(interrupt.token().is_cancelled());
        interrupt.reset();
        let token = interrupt.token();
        assert!(!token.is_cancelled());
        interrupt.interrupt();
        assert!(token.is_cancelled());
    }
}
