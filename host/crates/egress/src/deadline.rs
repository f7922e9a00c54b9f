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
    /// The one before had too little.
    after_a_slow_one: bool,
}

impl Window {
    fn open(after_a_slow_one: bool) -> Self {
        Self { since: Instant::now(), bytes: 0, after_a_slow_one }
    }
}

impl Deadline {
    pub(crate) fn start(limits: &Limits) -> Self {
        let now = Instant::now();
        let end = limits.total.and_then(|total| Some((now.checked_add(total)?, total)));
        Self { end, pace: limits.slowest.map(|pace| (pace, Window::open(false))) }
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
            *window = Window::open(false);
        }
    }

    /// Counts a piece of the body. A server that only drips is given up at its second slow window in a row:
    /// a small answer that comes late is none.
    pub(crate) fn arrived(&mut self, origin: &Origin, bytes: u64) -> Result<(), EgressError> {
        let Some((pace, window)) = &mut self.pace else { return Ok(()) };
        window.bytes += bytes;
        if window.since.elapsed() < pace.every {
            return Ok(());
        }
        let is_slow = window.bytes < pace.bytes;
        if is_slow && window.after_a_slow_one {
            return Err(EgressError::TooSlow { origin: origin.to_string(), pace: *pace });
        }
        *window = Window::open(is_slow);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_window_is_late_and_two_in_a_row_are_a_drip() {
        let every = Duration::from_millis(20);
        let limits = Limits { slowest: Some(Pace { bytes: 1_000, every }), ..Limits::default() };
        let origin = Origin::of(&"http://a.test".parse().unwrap()).unwrap();
        let mut deadline = Deadline::start(&limits);
        // At least as long as a window is.
        let mut arrive = |bytes| {
            std::thread::sleep(every);
            deadline.arrived(&origin, bytes).is_ok()
        };
        let windows = [(10, true), (2_000, true), (10, true), (1_000, true), (10, true), (10, false)];
        for (k, (bytes, goes_on)) in windows.into_iter().enumerate() {
            assert_eq!(arrive(bytes), goes_on, "{k}");
        }
    }
}
