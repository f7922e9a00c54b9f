//! Where the text came from that a call has read and nobody vouches for.

use std::sync::{Mutex, PoisonError};

/// Bytes of the sources that are told of a call.
const MAX_BYTES: usize = 400;

/// All of them, first to last: one of the session's own never hides one of somebody else.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<Vec<String>>);

impl Sources {
    pub(crate) fn note(&self, source: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes: usize = known.iter().map(String::len).sum();
        if bytes < MAX_BYTES && !known.iter().any(|one| one == source) {
            known.push(source.to_owned());
        }
    }

    /// The sources in one line; none if nothing was read.
    pub(crate) fn told(&self) -> Option<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (!known.is_empty()).then(|| known.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_told_once_and_not_without_end() {
        let sources = Sources::default();
        assert_eq!(sources.told(), None);
        ["a", "b", "a"].into_iter().for_each(|source| sources.note(source));
        assert_eq!(sources.told().as_deref(), Some("a, b"));
        (0..1_000).for_each(|n| sources.note(&format!("https://host-{n}.example")));
        assert!(sources.told().unwrap().len() < 2 * MAX_BYTES);
    }
}
