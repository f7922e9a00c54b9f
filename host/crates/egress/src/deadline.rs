use std::time::Duration;

use tokio::time::Instant;

use crate::{EgressError, Limits, Origin, Pace};

/// The times of one request: each wait has its own limit, and all of them together have one.
#[derive(Debug)]
pub(crate) struct Deadline {
    end: Option<(Instant, Duration)>,
    pace: Option<(Pace, Window)>,
}

/// What arrived since a moment.
#[derive(Debug)]
struct Window {
    since: Instant,
    bytes: u64,
}

impl Deadline {
    pub(crate) fn start(limits: &Limits) -> Self {
        let now = Instant::now();
        let end = limits.total.and_then(|total| Some((now.checked_add(total)?, total)));
        Self { end, pace: limits.slowest.map(|pace| (pace, Window { since: now, bytes: 0 })) }
    }

    /// Waits, `limit` at most.
    pub(crate) async fn wait<T>(
        &self,
        origin: &Origin,
        limit: Duration,
        what: impl Future<Output = T>,
    ) -> Result<T, EgressError> {
        let own = Instant::now().checked_add(limit);
        let (until, limit) = match (own, self.end) {
            (Some(own), Some((end, total))) if end < own => (end, total),
            (Some(own), _) => (own, limit),
            (None, Some(end)) => end,
            (None, None) => return Ok(what.await),
        };
        let timeout = |_| EgressError::Timeout { origin: origin.to_string(), limit };
        tokio::time::timeout_at(until, what).await.map_err(timeout)
    }

    /// The body begins now: the time before is not counted as slowness.
    pub(crate) fn body(&mut self) {
        if let Some((_, window)) = &mut self.pace {
            *window = Window { since: Instant::now(), bytes: 0 };
        }
    }

    /// Counts a piece of the body. A server that only drips is given up.
    pub(crate) fn arrived(&mut self, origin: &Origin, bytes: u64) -> Result<(), EgressError> {
        let Some((pace, window)) = &mut self.pace else { return Ok(()) };
        window.bytes += bytes;
        if window.since.elapsed() < pace.every {
            return Ok(());
        }
        if window.bytes < pace.bytes {
            return Err(EgressError::TooSlow { origin: origin.to_string(), pace: *pace });
        }
        *window = Window { since: Instant::now(), bytes: 0 };
        Ok(())
    }
}
