use std::time::Duration;

use crate::error::ProviderError;

/// Attempts that are made at most.
const ATTEMPTS: u32 = 3;

/// Waits after the first and the second attempt.
const RATE_LIMITED: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(60)];
const TRANSIENT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

/// The longest wait that a server can ask for; who wants more is given up on.
const LONGEST: Duration = Duration::from_secs(120);

/// How long to wait before trying again, after `attempt` attempts (1 or more). None: give up.
///
/// Whether text of a broken answer was shown already is not known here.
#[must_use]
pub fn retry_wait(error: &ProviderError, attempt: u32) -> Option<Duration> {
    let (waits, asked) = match error {
        ProviderError::RateLimited { retry_after, .. } => (RATE_LIMITED, *retry_after),
        ProviderError::Overloaded { retry_after, .. } | ProviderError::Transient { retry_after, .. } => {
            (TRANSIENT, *retry_after)
        }
        ProviderError::Connect { .. } | ProviderError::Timeout { .. } | ProviderError::Truncated { .. } => {
            (TRANSIENT, None)
        }
        _ => return None,
    };
    if attempt >= ATTEMPTS {
        return None;
    }
    let usual = waits.get(attempt.saturating_sub(1) as usize).copied()?;
    Some(asked.unwrap_or(usual)).filter(|wait| *wait <= LONGEST)
}
