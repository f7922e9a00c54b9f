//! The small words a policy is made of, each checked when it is read.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `sha256:` and 64 hexadecimal digits.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct Digest(String);

impl Digest {
    /// Of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Self(hex)
    }

    /// The digits alone.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hex = text.strip_prefix("sha256:").map(str::to_lowercase);
        let hex = hex.filter(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()));
        hex.map(Self).ok_or_else(|| {
            format!(
                "`{text}` is no digest; write `sha256:` and 64 digits, as `ml-intern plugin info` prints it"
            )
        })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// The public key of a publisher, as minisign writes it: `RW…`, 56 characters.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublisherKey(String);

impl PublisherKey {
    /// As minisign writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number minisign shows for it, 16 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        let bytes = STANDARD.decode(&self.0).unwrap_or_default();
        bytes.get(2..10).unwrap_or_default().iter().rev().map(|byte| format!("{byte:02X}")).collect()
    }
}

impl TryFrom<String> for PublisherKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bytes = STANDARD.decode(&text).unwrap_or_default();
        if bytes.len() == 42 && bytes.starts_with(b"Ed") {
            return Ok(Self(text));
        }
        // Not repeated whole: what is taken for a public key may be the secret one.
        if bytes.len() > 42 && bytes.starts_with(b"Ed") {
            return Err("this is no public key, and may be the secret one; name the .pub file".to_owned());
        }
        let begins: String = text.chars().take(8).collect();
        Err(format!("`{begins}…` is no publisher key; write the `RW…` line of a minisign .pub file"))
    }
}

impl From<PublisherKey> for String {
    fn from(key: PublisherKey) -> Self {
        key.0
    }
}

impl fmt::Display for PublisherKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a text fits a pattern, in which `*` stands for anything.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}
