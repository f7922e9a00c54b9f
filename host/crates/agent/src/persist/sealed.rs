//! What the records say of a session's file: a line that was changed since is found before any of it counts.

use audit::{Act, Entry};
use blake3::Hasher;
use protocol::Event;

use super::Line;

/// What a session's file began with when it was last put on record.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    bytes: u64,
    digest: String,
    /// The session ended behind it in order, so that nothing but its farewell may follow.
    ended: bool,
}

/// The bytes of a session's file so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seal {
    bytes: u64,
    hasher: Hasher,
}

impl Seal {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
    }

    /// As it is put on record.
    pub(crate) fn act(&self) -> Act {
        Act::Saved { bytes: self.bytes, digest: self.digest() }
    }

    fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

impl Sealed {
    /// The last word of a session's records about its file.
    pub(crate) fn of(records: &[Entry]) -> Option<Self> {
        let at = records.iter().rposition(|entry| matches!(entry.act, Act::Saved { .. }))?;
        let Act::Saved { bytes, digest } = &records[at].act else { return None };
        let last = records[at..].iter().rfind(|e| matches!(e.act, Act::Start { .. } | Act::End { .. }));
        let ended = last.is_some_and(|entry| matches!(entry.act, Act::End { .. }));
        Some(Self { bytes: *bytes, digest: digest.clone(), ended })
    }

    /// Whether the file, as far as it was read, can be what was put on record.
    pub(crate) fn holds(&self, read: &Seal, line: Option<&Line<'_>>) -> bool {
        match read.bytes.cmp(&self.bytes) {
            std::cmp::Ordering::Less => true,
            std::cmp::Ordering::Equal => read.digest() == self.digest,
            std::cmp::Ordering::Greater => !self.ended || line.is_none_or(is_farewell),
        }
    }

    /// Whether a file that was read to its end has all that was put on record.
    pub(crate) fn is_reached(&self, read: &Seal) -> bool {
        read.bytes >= self.bytes
    }

    /// Whether a line begins before what is on record ends, and ends behind it: then it is none of the lines
    /// that were there.
    pub(crate) fn is_skipped(&self, before: u64, read: &Seal) -> bool {
        before < self.bytes && self.bytes < read.bytes
    }
}

impl Seal {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn is_farewell(line: &Line<'_>) -> bool {
    matches!(line, Line::Event { event, .. } if matches!(**event, Event::Shutdown { .. }))
}
