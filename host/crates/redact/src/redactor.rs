use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::Scrubber;
use crate::forms::forms;
use crate::lines::{self, Joined};

/// Bytes a value needs to be looked for: a shorter one is a word that occurs by itself.
pub const MIN_BYTES: usize = 8;

/// The secrets of a process. Cheap to clone; nothing is built before the first look.
#[derive(Clone, Default)]
pub struct Redactor {
    shared: Option<Arc<Shared>>,
}

struct Shared {
    secrets: Vec<(String, SecretString)>,
    net: OnceLock<Option<Net>>,
}

/// All forms of all secrets.
pub(crate) struct Net {
    automaton: AhoCorasick,
    forms: Vec<Vec<u8>>,
    /// What takes the place of each form.
    instead: Vec<Arc<[u8]>>,
    /// Bytes that the longest form takes up when it is broken into lines.
    pub(crate) longest: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redactor").finish_non_exhaustive()
    }
}

impl Redactor {
    /// Looks for these values, each with the name that stands in its place. Those shorter than
    /// [`MIN_BYTES`] are left out. Of a value with several names the first is used.
    #[must_use]
    pub fn new(secrets: impl IntoIterator<Item = (String, SecretString)>) -> Self {
        let mut known: Vec<(String, SecretString)> = Vec::new();
        for (name, value) in secrets {
            let is_new = !known.iter().any(|(_, other)| other.expose_secret() == value.expose_secret());
            if value.expose_secret().len() >= MIN_BYTES && is_new {
                known.push((name, value));
            }
        }
        let shared = Shared { secrets: known, net: OnceLock::new() };
        Self { shared: (!shared.secrets.is_empty()).then(|| Arc::new(shared)) }
    }

    pub(crate) fn net(&self) -> Option<&Net> {
        let shared = self.shared.as_deref()?;
        shared.net.get_or_init(|| Net::of(&shared.secrets)).as_ref()
    }

    /// Whether there is nothing to look for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.is_none()
    }

    /// Whether a form of a secret stands there.
    #[must_use]
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.net().is_some_and(|net| {
            let found = |bytes: &[u8]| net.automaton.is_match(bytes);
            found(bytes) || Joined::of(bytes).is_some_and(|joined| found(&joined.bytes))
        })
    }

    /// Whether a secret stands in a name of a host or a header, where capitals are not kept.
    #[must_use]
    pub fn finds_in_name(&self, name: &str) -> bool {
        let secrets = self.shared.iter().flat_map(|shared| &shared.secrets);
        let lower = name.to_ascii_lowercase();
        let mut secrets = secrets.map(|(_, value)| value.expose_secret());
        self.finds(name.as_bytes())
            || secrets.any(|value| value.len() <= lower.len() && lower.contains(&value.to_ascii_lowercase()))
    }

    /// The bytes without secrets.
    #[must_use]
    pub fn bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.finds(bytes) {
            return Cow::Borrowed(bytes);
        }
        let mut scrubber = self.scrubber();
        let mut out = scrubber.push(bytes);
        out.extend(scrubber.end());
        Cow::Owned(out)
    }

    /// The text without secrets.
    #[must_use]
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// Takes secrets out of a text.
    pub fn clean(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.text(text) {
            *text = clean;
        }
    }

    /// Takes secrets out of every text of a JSON value, its keys too.
    pub fn clean_json(&self, value: &mut Value) {
        match value {
            Value::String(text) => self.clean(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.clean_json(item)),
            Value::Object(fields) => {
                if fields.keys().any(|key| self.finds(key.as_bytes())) {
                    let taken = std::mem::take(fields);
                    fields
                        .extend(taken.into_iter().map(|(key, field)| (self.text(&key).into_owned(), field)));
                }
                fields.values_mut().for_each(|field| self.clean_json(field));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Whether a secret stands in a text of a JSON value, or in a key.
    #[must_use]
    pub fn finds_in_json(&self, value: &Value) -> bool {
        match value {
            _ if self.is_empty() => false,
            Value::String(text) => self.finds(text.as_bytes()),
            Value::Array(items) => items.iter().any(|item| self.finds_in_json(item)),
            Value::Object(fields) => {
                fields.iter().any(|(key, field)| self.finds(key.as_bytes()) || self.finds_in_json(field))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// Takes secrets out of bytes that come piece by piece.
    #[must_use]
    pub fn scrubber(&self) -> Scrubber {
        Scrubber::new(self.clone())
    }
}

impl Net {
    /// None where the forms are too many for an automaton, which values that fit into memory never are.
    fn of(secrets: &[(String, SecretString)]) -> Option<Self> {
        let (mut patterns, mut instead) = (Vec::new(), Vec::new());
        for (name, value) in secrets {
            let replacement: Arc<[u8]> = format!("[redacted:{name}]").into_bytes().into();
            for form in forms(value.expose_secret()) {
                patterns.push(form);
                instead.push(replacement.clone());
            }
        }
        let longest = lines::broken(patterns.iter().map(Vec::len).max()?);
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .kind(Some(AhoCorasickKind::ContiguousNFA))
            .build(&patterns)
            .ok()?;
        Some(Self { automaton, forms: patterns, instead, longest })
    }

    /// Where at the end of a text a form may have begun that is not whole yet.
    pub(crate) fn begun(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest);
        let tail = &bytes[from..];
        let begins =
            |rest: &[u8]| self.forms.iter().any(|form| form.len() > rest.len() && form.starts_with(rest));
        let first = |text: &[u8]| (0..text.len()).find(|at| begins(&text[*at..]));
        let across = |text: &[u8]| {
            let joined = Joined::of(text)?;
            let start = first(&joined.bytes)?;
            Some(joined.place(start..joined.bytes.len()).start)
        };
        // A line may be about to end there.
        let end = lines::begun(tail);
        let cut = &tail[..end.unwrap_or(tail.len())];
        let places = [first(tail), across(tail), first(cut), across(cut), end];
        from + places.into_iter().flatten().min().unwrap_or(tail.len())
    }

    /// Where forms stand, from left to right, and what takes their place. Two of them may overlap: one that
    /// is on one line, and one that is not.
    pub(crate) fn find<'a>(&'a self, bytes: &[u8]) -> Vec<(Range<usize>, &'a [u8])> {
        let mut all = self.find_plain(bytes);
        if let Some(joined) = Joined::of(bytes) {
            let across = self.find_plain(&joined.bytes);
            all.extend(across.into_iter().map(|(part, instead)| (joined.place(part), instead)));
            all.sort_by_key(|(place, _)| place.start);
        }
        all
    }

    fn find_plain<'a>(&'a self, bytes: &[u8]) -> Vec<(Range<usize>, &'a [u8])> {
        let found = self.automaton.find_iter(bytes);
        found.map(|found| (found.range(), &*self.instead[found.pattern().as_usize()])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redactor(secrets: &[(&str, &str)]) -> Redactor {
        Redactor::new(secrets.iter().map(|(name, value)| ((*name).to_owned(), SecretString::from(*value))))
    }

    #[test]
    fn every_secret_has_its_own_name() {
        let both =
            redactor(&[("hf", "hf_0123456789"), ("github", "ghp_abcdefgh"), ("again", "hf_0123456789")]);
        assert_eq!(both.text("a hf_0123456789, ghp_abcdefgh!"), "a [redacted:hf], [redacted:github]!");
        // Of two that begin alike the longer one counts.
        let alike = redactor(&[("a", "prefix-1"), ("b", "prefix-1-and-more")]);
        assert_eq!(alike.text("prefix-1-and-more prefix-1"), "[redacted:b] [redacted:a]");
    }

    #[test]
    fn what_is_broken_into_lines_is_found() {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let value =
            "hf_QwErTyUiOpAsDfGhJkLz0123456789-and-as-long-as-the-token-of-a-session-may-be-in-the-end";
        let redactor = redactor(&[("hf", value)]);
        for before in 0..80 {
            let encoded = STANDARD.encode(format!("{}{value}.", "x".repeat(before)));
            for width in [60, 64, 76] {
                for end in ["\n", "\r\n", "\\n", "\\r\\n", "\n      ", "\\\\n", "\\\\\\r\\\\\\n  ", "%0D%0A"]
                {
                    let lines: Vec<&str> = encoded
                        .as_bytes()
                        .chunks(width)
                        .map(|line| std::str::from_utf8(line).unwrap())
                        .collect();
                    let text = format!("a{end}{}{end}b", lines.join(end));
                    let clean = redactor.text(&text);
                    assert!(redactor.finds(text.as_bytes()), "{text}");
                    assert!(
                        clean.starts_with(&format!("a{end}")) && clean.ends_with(&format!("{end}b")),
                        "{clean}"
                    );
                    assert!(
                        clean.contains("[redacted:hf]") && clean.len() < text.len() - value.len(),
                        "{clean}"
                    );
                    let mut scrubber = redactor.scrubber();
                    let mut pieces: Vec<u8> =
                        text.as_bytes().chunks(7).flat_map(|p| scrubber.push(p)).collect();
                    pieces.extend(scrubber.end());
                    assert_eq!(pieces, clean.as_bytes());
                }
            }
        }
        // One on a line of its own beside one that is broken.
        let (head, tail) = value.split_at(20);
        let text = format!("{value}\n{head}\n{tail}{value}");
        assert_eq!(redactor.text(&text), "[redacted:hf]\n[redacted:hf][redacted:hf]");
    }

    #[test]
    fn short_values_are_not_looked_for() {
        let short = redactor(&[("a", "sk-test"), ("b", "")]);
        assert_eq!(short.text("sk-test"), "sk-test");
        assert!(!short.finds(b"sk-test"));
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        let redactor =
            redactor(&[("hf", "hf_QwErTyUiOpAsDfGhJkLz0123456789"), ("key", "sk-ant-api03-aaaaBBBBcccc")]);
        let hashes: String =
            (0..2_000_u32).map(|k| format!("{:064x} {k}\n", u128::from(k) * 0x9e37_79b9_7f4a_7c15)).collect();
        let blob = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVo".repeat(500);
        for text in
            [hashes.as_str(), &blob, "hf_QwErTyUiOpAsDfGhJkLz012345678", "token: hf_…", "%41%42\\u0026"]
        {
            assert!(matches!(redactor.text(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn values_of_json_are_cleaned_wherever_they_stand() {
        let mut value = serde_json::json!({"a": ["x hf_0123456789"], "hf_0123456789": 1, "n": null});
        let redactor = redactor(&[("hf", "hf_0123456789")]);
        assert!(redactor.finds_in_json(&value["a"]) && redactor.finds_in_json(&value));
        redactor.clean_json(&mut value);
        assert!(!redactor.finds_in_json(&value));
        assert_eq!(value, serde_json::json!({"a": ["x [redacted:hf]"], "n": null, "[redacted:hf]": 1}));
    }
}
