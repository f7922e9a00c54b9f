//! Crash loops: a plugin that keeps crashing is not called any more in the session.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::limits::{FAULT_WINDOW, MAX_FAULTS};

/// When each plugin of a session crashed or met a limit.
#[derive(Debug, Default)]
pub(crate) struct Faults(Mutex<HashMap<String, Vec<Instant>>>);

impl Faults {
    /// Counts a fault. Once there were too many, the plugin stays suspended.
    pub(crate) fn count(&self, plugin: &str, now: Instant) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_plugin = faults.entry(plugin.to_owned()).or_default();
        if of_plugin.len() < MAX_FAULTS {
            of_plugin.retain(|at| now.duration_since(*at) < FAULT_WINDOW);
            of_plugin.push(now);
        }
    }

    /// Why a plugin is not called, if it is not.
    pub(crate) fn suspended(&self, plugin: &str) -> Option<String> {
        let faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (faults.get(plugin)?.len() >= MAX_FAULTS).then(|| {
            format!(
                "the plugin `{plugin}` is suspended for this session: it crashed or met its limits {MAX_FAULTS} times within {} \
                 minutes; a new session tries it again, `ml-intern plugin info {plugin}` shows what it is",
                FAULT_WINDOW.as_secs() / 60
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn too_many_faults_in_a_short_time_suspend_one_plugin() {
        let (faults, start) = (Faults::default(), Instant::now());
        for k in 0..10 {
            faults.count("slow", start + FAULT_WINDOW / 4 * k);
        }
        assert_eq!(faults.suspended("slow"), None);
        for k in 0..5 {
            assert_eq!(faults.suspended("wild"), None);
            faults.count("wild", start + Duration::from_secs(k));
        }
        assert!(faults.suspended("wild").unwrap().contains("crashed or met its limits 5 times"));
        faults.count("wild", start + FAULT_WINDOW * 2);
        assert!(faults.suspended("wild").is_some());
        assert_eq!(faults.suspended("slow"), None);
    }
}
