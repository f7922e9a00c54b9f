//! Small values that live as long as the session: a file of lines, read at the first use.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Bytes of a key, of a value, and of all that a plugin keeps.
const MAX_KEY_BYTES: usize = 512;
const MAX_VALUE_BYTES: usize = 256 << 10;
const MAX_NAMESPACE_BYTES: usize = 4 << 20;

/// Keys of one page.
const MAX_PAGE: usize = 1_000;

/// Why a value was not kept.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum KvError {
    TooLarge,
    Conflict { version: u64 },
    Io(String),
}

/// The values of one session, by plugin and key.
#[derive(Debug)]
pub(crate) struct Kv {
    path: PathBuf,
    entries: Option<BTreeMap<(String, String), Entry>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) value: Vec<u8>,
    pub(crate) version: u64,
    /// Unix seconds from which it is gone.
    expires: Option<u64>,
}

/// One change, as it stands in the file. No value: removed.
#[derive(Deserialize, Serialize)]
struct Line {
    plugin: String,
    key: String,
    version: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
}

impl Kv {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, entries: None }
    }

    pub(crate) fn get(&mut self, plugin: &str, key: &str) -> Result<Option<Entry>, KvError> {
        Ok(self.live(plugin, key)?.cloned())
    }

    pub(crate) fn set(
        &mut self,
        plugin: &str,
        key: &str,
        value: Vec<u8>,
        if_version: Option<u64>,
        ttl_s: Option<u32>,
    ) -> Result<u64, KvError> {
        let used = self.used(plugin, key)?;
        if key.len() > MAX_KEY_BYTES
            || value.len() > MAX_VALUE_BYTES
            || used + key.len() + value.len() > MAX_NAMESPACE_BYTES
        {
            return Err(KvError::TooLarge);
        }
        let version = self.live(plugin, key)?.map_or(0, |entry| entry.version);
        if if_version.is_some_and(|expected| expected != version) {
            return Err(KvError::Conflict { version });
        }
        let entry = Entry { value, version: version + 1, expires: ttl_s.map(|s| now() + u64::from(s)) };
        self.append(plugin, key, entry.version, Some(&entry))?;
        self.entries()?.insert((plugin.to_owned(), key.to_owned()), entry);
        Ok(version + 1)
    }

    pub(crate) fn delete(&mut self, plugin: &str, key: &str) -> Result<bool, KvError> {
        let Some(version) = self.live(plugin, key)?.map(|entry| entry.version) else {
            return Ok(false);
        };
        self.append(plugin, key, version, None)?;
        self.entries()?.remove(&(plugin.to_owned(), key.to_owned()));
        Ok(true)
    }

    /// Keys with a prefix after `cursor`, and the cursor of the next page.
    pub(crate) fn keys(
        &mut self,
        plugin: &str,
        prefix: &str,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<String>, Option<String>), KvError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let mut keys: Vec<String> = self
            .entries()?
            .iter()
            .filter(|((owner, key), entry)| owner == plugin && key.starts_with(prefix) && entry.is_live())
            .map(|((_, key), _)| key.clone())
            .filter(|key| cursor.is_none_or(|cursor| key.as_str() > cursor))
            .take(limit + 1)
            .collect();
        let next = (keys.len() > limit).then(|| {
            keys.truncate(limit);
            keys.last().cloned().unwrap_or_default()
        });
        Ok((keys, next))
    }

    fn live(&mut self, plugin: &str, key: &str) -> Result<Option<&Entry>, KvError> {
        Ok(self.entries()?.get(&(plugin.to_owned(), key.to_owned())).filter(|entry| entry.is_live()))
    }

    /// Bytes that a plugin keeps under other keys.
    fn used(&mut self, plugin: &str, key: &str) -> Result<usize, KvError> {
        let others = self.entries()?.iter().filter(|((owner, k), _)| owner == plugin && k != key);
        Ok(others.map(|((_, k), entry)| k.len() + entry.value.len()).sum())
    }

    fn entries(&mut self) -> Result<&mut BTreeMap<(String, String), Entry>, KvError> {
        if self.entries.is_none() {
            let text = match std::fs::read_to_string(&self.path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(KvError::Io(error.to_string())),
            };
            self.entries = Some(replay(&text));
            if !text.is_empty() && !text.ends_with('\n') {
                // A crash cut the last line off; the next one must not be glued to it.
                self.append_bytes(b"\n")?;
            }
        }
        Ok(self.entries.get_or_insert_default())
    }

    fn append(&self, plugin: &str, key: &str, version: u64, entry: Option<&Entry>) -> Result<(), KvError> {
        let line = Line {
            plugin: plugin.to_owned(),
            key: key.to_owned(),
            version,
            value: entry.map(|entry| crate::inspect::hex(&entry.value)),
            expires: entry.and_then(|entry| entry.expires),
        };
        let mut text = serde_json::to_vec(&line).map_err(|e| KvError::Io(e.to_string()))?;
        text.push(b'\n');
        self.append_bytes(&text)
    }

    fn append_bytes(&self, bytes: &[u8]) -> Result<(), KvError> {
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(|e| KvError::Io(e.to_string()))
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        self.expires.is_none_or(|at| now() < at)
    }
}

/// A line that was cut off by a crash ends the file; what came before it counts.
fn replay(text: &str) -> BTreeMap<(String, String), Entry> {
    let mut entries = BTreeMap::new();
    for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        let key = (line.plugin, line.key);
        match line.value.as_deref().and_then(unhex) {
            Some(value) => {
                entries.insert(key, Entry { value, version: line.version, expires: line.expires });
            }
            None => {
                entries.remove(&key);
            }
        }
    }
    entries
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16);
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok())
        .collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_there_again_when_the_session_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.jsonl");
        let mut kv = Kv::new(path.clone());
        assert_eq!(kv.set("a", "k", b"1".to_vec(), None, None), Ok(1));
        assert_eq!(kv.set("a", "k", b"2".to_vec(), Some(1), None), Ok(2));
        assert_eq!(kv.set("a", "gone", b"x".to_vec(), None, None), Ok(1));
        assert_eq!(kv.delete("a", "gone"), Ok(true));
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"plugin\":\"a\",\"ke")
            .unwrap();
        let mut again = Kv::new(path.clone());
        assert_eq!(again.set("a", "later", b"3".to_vec(), None, None), Ok(1));
        let mut again = Kv::new(path);
        assert_eq!(again.get("a", "later").unwrap().unwrap().value, b"3");
        assert_eq!(again.get("a", "k").unwrap().unwrap().value, b"2");
        assert_eq!(again.get("a", "gone"), Ok(None));
        assert_eq!(again.get("b", "k"), Ok(None));
    }

    #[test]
    fn versions_sizes_and_lifetimes_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut kv = Kv::new(dir.path().join("kv.jsonl"));
        assert_eq!(kv.set("a", "k", Vec::new(), Some(3), None), Err(KvError::Conflict { version: 0 }));
        assert_eq!(kv.set("a", &"k".repeat(513), Vec::new(), None, None), Err(KvError::TooLarge));
        assert_eq!(kv.set("a", "k", vec![0; MAX_VALUE_BYTES + 1], None, None), Err(KvError::TooLarge));
        for k in 0..15 {
            kv.set("a", &format!("big{k}"), vec![0; MAX_VALUE_BYTES], None, None).unwrap();
        }
        assert_eq!(kv.set("a", "one too many", vec![0; MAX_VALUE_BYTES], None, None), Err(KvError::TooLarge));
        assert_eq!(kv.set("b", "short", b"x".to_vec(), None, Some(0)), Ok(1));
        assert_eq!(kv.get("b", "short"), Ok(None));
    }

    #[test]
    fn keys_come_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let mut kv = Kv::new(dir.path().join("kv.jsonl"));
        for key in ["a1", "a2", "a3", "b1"] {
            kv.set("p", key, Vec::new(), None, None).unwrap();
        }
        let (first, next) = kv.keys("p", "a", None, 2).unwrap();
        assert_eq!((first, next.as_deref()), (vec!["a1".to_owned(), "a2".to_owned()], Some("a2")));
        assert_eq!(kv.keys("p", "a", Some("a2"), 2).unwrap(), (vec!["a3".to_owned()], None));
    }
}
