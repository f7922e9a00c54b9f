//! Small values that live as long as the session: a file of lines, read at the first use.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Bytes of a key and of a value.
const MAX_KEY_BYTES: usize = 512;
const MAX_VALUE_BYTES: usize = 256 << 10;

/// Bytes of the file above which it is rewritten without what was replaced, removed or has expired.
const MAX_FILE_BYTES: u64 = 16 << 20;

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
    max_file: u64,
    state: Option<State>,
}

/// What the file says, once it was read.
#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<(String, String), Entry>,
    /// The highest version there ever was. Versions are drawn from it for all keys together, so that a key
    /// that was removed and set again has not the version it had before.
    version: u64,
    /// Bytes of the file: now, and when it was last written as a whole.
    size: u64,
    rewritten: u64,
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
        Self { path, max_file: MAX_FILE_BYTES, state: None }
    }

    pub(crate) fn get(&mut self, plugin: &str, key: &str) -> Result<Option<Entry>, KvError> {
        Ok(self.live(plugin, key)?.cloned())
    }

    /// Keeps a value, if all that the plugin keeps is within `limit` bytes then.
    pub(crate) fn set(
        &mut self,
        plugin: &str,
        key: &str,
        value: Vec<u8>,
        if_version: Option<u64>,
        ttl_s: Option<u32>,
        limit: usize,
    ) -> Result<u64, KvError> {
        let used = self.used(plugin, key)?;
        if key.len() > MAX_KEY_BYTES
            || value.len() > MAX_VALUE_BYTES
            || used + key.len() + value.len() > limit
        {
            return Err(KvError::TooLarge);
        }
        let current = self.live(plugin, key)?.map_or(0, |entry| entry.version);
        if if_version.is_some_and(|expected| expected != current) {
            return Err(KvError::Conflict { version: current });
        }
        let version = self.state()?.version + 1;
        let entry = Entry { value, version, expires: ttl_s.map(|s| now() + u64::from(s)) };
        self.append(&Line::of(plugin, key, version, Some(&entry)))?;
        let state = self.state()?;
        state.version = version;
        state.entries.insert((plugin.to_owned(), key.to_owned()), entry);
        self.rewrite_if_long()?;
        Ok(version)
    }

    pub(crate) fn delete(&mut self, plugin: &str, key: &str) -> Result<bool, KvError> {
        let Some(version) = self.live(plugin, key)?.map(|entry| entry.version) else {
            return Ok(false);
        };
        self.append(&Line::of(plugin, key, version, None))?;
        self.state()?.entries.remove(&(plugin.to_owned(), key.to_owned()));
        self.rewrite_if_long()?;
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
            .state()?
            .entries
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
        Ok(self.state()?.entries.get(&(plugin.to_owned(), key.to_owned())).filter(|entry| entry.is_live()))
    }

    /// Bytes that a plugin keeps under other keys. What has expired is kept no more.
    fn used(&mut self, plugin: &str, key: &str) -> Result<usize, KvError> {
        let entries = self.state()?.entries.iter();
        let others = entries.filter(|((owner, k), entry)| owner == plugin && k != key && entry.is_live());
        Ok(others.map(|((_, k), entry)| k.len() + entry.value.len()).sum())
    }

    fn state(&mut self) -> Result<&mut State, KvError> {
        if self.state.is_none() {
            let text = match std::fs::read_to_string(&self.path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(KvError::Io(error.to_string())),
            };
            self.state = Some(replay(&text));
            if !text.is_empty() && !text.ends_with('\n') {
                // A crash cut the last line off; the next one must not be glued to it.
                self.append_bytes(b"\n")?;
            }
        }
        Ok(self.state.get_or_insert_default())
    }

    fn append(&mut self, line: &Line) -> Result<(), KvError> {
        let text = line.text()?;
        self.append_bytes(&text)
    }

    fn append_bytes(&mut self, bytes: &[u8]) -> Result<(), KvError> {
        let file = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path);
        file.and_then(|mut file| file.write_all(bytes)).map_err(|e| KvError::Io(e.to_string()))?;
        self.state.get_or_insert_default().size += bytes.len() as u64;
        Ok(())
    }

    /// Writes the file anew once it is long, and twice as long as it has to be: not at every change where
    /// many plugins keep much.
    fn rewrite_if_long(&mut self) -> Result<(), KvError> {
        let limit = self.max_file;
        let state = self.state()?;
        if state.size <= limit.max(2 * state.rewritten) {
            return Ok(());
        }
        state.entries.retain(|_, entry| entry.is_live());
        // A line that removes nothing keeps the highest version.
        let mut text = Line::of("", "", state.version, None).text()?;
        for ((plugin, key), entry) in &state.entries {
            text.extend(Line::of(plugin, key, entry.version, Some(entry)).text()?);
        }
        let temporary = self.path.with_extension("tmp");
        let mut options = std::fs::OpenOptions::new();
        let file = options.create(true).write(true).truncate(true).mode(0o600).open(&temporary);
        file.and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_data()))
            .and_then(|()| std::fs::rename(&temporary, &self.path))
            .map_err(|e| KvError::Io(e.to_string()))?;
        let (state, length) = (self.state()?, text.len() as u64);
        (state.size, state.rewritten) = (length, length);
        Ok(())
    }
}

impl Line {
    fn of(plugin: &str, key: &str, version: u64, entry: Option<&Entry>) -> Self {
        Self {
            plugin: plugin.to_owned(),
            key: key.to_owned(),
            version,
            value: entry.map(|entry| crate::inspect::hex(&entry.value)),
            expires: entry.and_then(|entry| entry.expires),
        }
    }

    fn text(&self) -> Result<Vec<u8>, KvError> {
        let mut text = serde_json::to_vec(self).map_err(|e| KvError::Io(e.to_string()))?;
        text.push(b'\n');
        Ok(text)
    }
}

impl Entry {
    fn is_live(&self) -> bool {
        self.expires.is_none_or(|at| now() < at)
    }
}

/// A line that was cut off by a crash ends the file; what came before it counts.
fn replay(text: &str) -> State {
    let mut state = State { size: text.len() as u64, ..State::default() };
    for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
        state.version = state.version.max(line.version);
        let key = (line.plugin, line.key);
        match line.value.as_deref().and_then(unhex) {
            Some(value) => {
                let entry = Entry { value, version: line.version, expires: line.expires };
                state.entries.insert(key, entry);
            }
            None => {
                state.entries.remove(&key);
            }
        }
    }
    state
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

    const LIMIT: usize = 4 << 20;

    #[test]
    fn values_are_there_again_when_the_session_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.jsonl");
        let mut kv = Kv::new(path.clone());
        assert_eq!(kv.set("a", "k", b"1".to_vec(), None, None, LIMIT), Ok(1));
        assert_eq!(kv.set("a", "k", b"2".to_vec(), Some(1), None, LIMIT), Ok(2));
        assert_eq!(kv.set("a", "gone", b"x".to_vec(), None, None, LIMIT), Ok(3));
        assert_eq!(kv.delete("a", "gone"), Ok(true));
        std::fs::OpenOptions::new()
            .append(true)
            .open(&path)
            .unwrap()
            .write_all(b"{\"plugin\":\"a\",\"ke")
            .unwrap();
        let mut again = Kv::new(path.clone());
        assert_eq!(again.set("a", "later", b"3".to_vec(), None, None, LIMIT), Ok(4));
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
        assert_eq!(kv.set("a", "k", Vec::new(), Some(3), None, LIMIT), Err(KvError::Conflict { version: 0 }));
        assert_eq!(kv.set("a", &"k".repeat(513), Vec::new(), None, None, LIMIT), Err(KvError::TooLarge));
        assert_eq!(kv.set("a", "k", vec![0; MAX_VALUE_BYTES + 1], None, None, LIMIT), Err(KvError::TooLarge));
        assert_eq!(kv.set("a", "four", vec![0; 4], None, None, 7), Err(KvError::TooLarge));
        for k in 0..15 {
            kv.set("a", &format!("big{k}"), vec![0; MAX_VALUE_BYTES], None, None, LIMIT).unwrap();
        }
        assert_eq!(
            kv.set("a", "one too many", vec![0; MAX_VALUE_BYTES], None, None, LIMIT),
            Err(KvError::TooLarge)
        );
        assert_eq!(kv.set("b", "short", vec![0; MAX_VALUE_BYTES], None, Some(0), LIMIT), Ok(16));
        assert_eq!(kv.get("b", "short"), Ok(None));
        for k in 0..15 {
            kv.set("b", &format!("big{k}"), vec![0; MAX_VALUE_BYTES], None, None, LIMIT).unwrap();
        }
    }

    #[test]
    fn a_key_never_has_a_version_twice() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.jsonl");
        let mut kv = Kv { max_file: 200, ..Kv::new(path.clone()) };
        assert_eq!(kv.set("a", "k", b"1".to_vec(), None, None, LIMIT), Ok(1));
        kv.delete("a", "k").unwrap();
        assert_eq!(kv.set("a", "k", b"2".to_vec(), Some(0), None, LIMIT), Ok(2));
        kv.delete("a", "k").unwrap();
        while kv.state().unwrap().rewritten == 0 {
            kv.set("a", "other", b"x".to_vec(), None, None, LIMIT).unwrap();
            kv.delete("a", "other").unwrap();
        }
        let highest = kv.state().unwrap().version;
        assert_eq!(Kv::new(path).set("a", "k", b"3".to_vec(), Some(0), None, LIMIT), Ok(highest + 1));
    }

    #[test]
    fn the_file_is_rewritten_when_it_is_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kv.jsonl");
        let mut kv = Kv { max_file: 4_000, ..Kv::new(path.clone()) };
        kv.set("b", "stays", b"here".to_vec(), None, None, LIMIT).unwrap();
        kv.set("b", "gone", vec![0; 1_000], None, Some(0), LIMIT).unwrap();
        for k in 0..500_u32 {
            kv.set("a", "k", k.to_le_bytes().to_vec(), None, None, LIMIT).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= 4_200);
        }
        assert!(!path.with_extension("tmp").exists());
        let mut again = Kv::new(path);
        assert_eq!(again.get("a", "k").unwrap().unwrap().value, 499_u32.to_le_bytes());
        assert_eq!(again.get("b", "stays").unwrap().unwrap().value, b"here");
    }

    #[test]
    fn keys_come_in_pages() {
        let dir = tempfile::tempdir().unwrap();
        let mut kv = Kv::new(dir.path().join("kv.jsonl"));
        for key in ["a1", "a2", "a3", "b1"] {
            kv.set("p", key, Vec::new(), None, None, LIMIT).unwrap();
        }
        let (first, next) = kv.keys("p", "a", None, 2).unwrap();
        assert_eq!((first, next.as_deref()), (vec!["a1".to_owned(), "a2".to_owned()], Some("a2")));
        assert_eq!(kv.keys("p", "a", Some("a2"), 2).unwrap(), (vec!["a3".to_owned()], None));
    }
}
