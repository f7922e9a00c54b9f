//! Who made a component: a minisign signature over its bytes, in a file beside it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use manifest::Manifest;
use minisign_verify::{Error, PublicKey, Signature};
use policy::PublisherKey;
use serde::{Deserialize, Serialize};

use crate::PluginError;

/// Bytes of a signature file; real ones have some 300.
const MAX_BYTES: u64 = 4096;

/// A publisher whose signature over a component was verified.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Publisher {
    pub key: PublisherKey,
    /// The signed comment: id, version, date.
    pub comment: String,
}

/// What is known of who made a component.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Signed {
    No,
    /// There is a signature, by a key that nobody here named: it says nothing.
    Unknown,
    Yes(Publisher),
}

impl Signed {
    /// The publisher, if the signature was verified.
    #[must_use]
    pub fn publisher(&self) -> Option<&Publisher> {
        match self {
            Self::Yes(publisher) => Some(publisher),
            Self::No | Self::Unknown => None,
        }
    }

    /// Its key.
    #[must_use]
    pub fn key(&self) -> Option<&PublisherKey> {
        self.publisher().map(|publisher| &publisher.key)
    }
}

/// Where the signature of a component lies.
#[must_use]
pub fn signature_file(component: &Path) -> PathBuf {
    let mut name = component.as_os_str().to_owned();
    name.push(".minisig");
    name.into()
}

/// What the signed comment of a component says.
#[must_use]
pub fn signed_comment(id: &str, version: &str, date: &str) -> String {
    format!("id={id} version={version} date={date}")
}

/// The text of a component's signature; nothing if there is none.
pub(crate) fn read_signature(component: &Path) -> Result<Option<String>, PluginError> {
    let path = signature_file(component);
    let failed = |e| PluginError::unreadable(&path, e);
    let metadata = match std::fs::metadata(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(failed)?,
    };
    if !metadata.is_file() || metadata.len() > MAX_BYTES {
        return Err(failed(std::io::Error::other("it is no signature: not a small regular file")));
    }
    let mut text = String::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text))
        .map_err(failed)?;
    Ok(Some(text))
}

/// Checks a signature over the very bytes that are compiled later.
///
/// # Errors
/// When it was made by one of the keys and does not hold, or says that it is for another plugin or version.
pub fn verify_signature(
    component: &Path,
    bytes: &[u8],
    manifest: &Manifest,
    signature: &str,
    keys: &[PublisherKey],
) -> Result<Signed, PluginError> {
    let refuse = |reason: String| PluginError::Signature { path: signature_file(component), reason };
    let signature = Signature::decode(signature).map_err(|_| refuse("it is no signature".to_owned()))?;
    for key in keys {
        let public = PublicKey::from_base64(key.as_str()).map_err(|e| refuse(format!("{key}: {e}")))?;
        match public.verify(bytes, &signature, false) {
            Err(Error::UnexpectedKeyId) => {}
            Err(_) => return Err(refuse(format!("it does not hold for this file and {key}"))),
            Ok(()) => {
                let comment = signature.trusted_comment().to_owned();
                check_comment(&comment, manifest).map_err(refuse)?;
                return Ok(Signed::Yes(Publisher { key: key.clone(), comment }));
            }
        }
    }
    Ok(Signed::Unknown)
}

/// A signature for another plugin or an older version does not vouch for this one.
fn check_comment(comment: &str, manifest: &Manifest) -> Result<(), String> {
    let said = |name: &str| {
        let mut values =
            comment.split_whitespace().filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next().filter(|_| values.next().is_none())
    };
    for (name, wanted) in [("id", manifest.id.as_str()), ("version", manifest.version.as_str())] {
        if said(name) != Some(wanted) {
            return Err(format!(
                "its signed comment says `{comment}`, and the component says {name} `{wanted}`; sign it with `ml-intern plugin sign`"
            ));
        }
    }
    said("date").map(drop).ok_or_else(|| format!("its signed comment `{comment}` names no date"))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    /// `minisign -G -W` and `minisign -S` of minisign 0.11 made these.
    const KEY: &str = "RWSXzjSQQ/E1x1KaBzDHZD+tuaXLThAqWgpeQDK6U9gys441yJyUIvci";
    const OTHER: &str = "RWTlcLcVd1loCsEhQwHn0OlGv0ZY6OtsmNoVThnMD4fi2CyOe7vey2KS";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\nRUSXzjSQQ/E1xwIWX4aKhzFtbGrJUbi1U6NtsDuqhq8OLtIq/ADh/Ut2JzOnLzurT26oeqeF0dpC7ATP5TAUWmDTB1AyeVC0PQM=\ntrusted comment: id=p version=1.0.0 date=2026-01-01\n1DI2cekdN9Fh6UL1JeGOQcBGsVo8QUgQcA4YW2DC8uidZcVcmsALfU8I3mFvpLrhNlkPp0tehnfcK0AbQZYxAg==\n";

    fn manifest(id: &str, version: &str) -> Manifest {
        let text = format!(
            "id = \"{id}\"\nversion = \"{version}\"\ndescription = \"\"\n[tools.t]\ntier = \"read\"\n"
        );
        Manifest::from_toml(&text).unwrap()
    }

    fn key(text: &str) -> PublisherKey {
        PublisherKey::try_from(text.to_owned()).unwrap()
    }

    fn check(
        bytes: &[u8],
        manifest: &Manifest,
        signature: &str,
        keys: &[PublisherKey],
    ) -> Result<Signed, String> {
        verify_signature(Path::new("p.wasm"), bytes, manifest, signature, keys).map_err(|e| e.to_string())
    }

    #[test]
    fn a_signature_of_minisign_holds_for_these_bytes_this_plugin_and_this_version() {
        let p = manifest("p", "1.0.0");
        let keys = [key(OTHER), key(KEY)];
        let held = check(b"bytes", &p, SIGNATURE, &keys).unwrap();
        assert_eq!(held.publisher().unwrap().key, keys[1]);
        assert_eq!(check(b"bytes", &p, SIGNATURE, &keys[..1]), Ok(Signed::Unknown));
        assert_eq!(check(b"bytes", &p, SIGNATURE, &[]), Ok(Signed::Unknown));
        let refused = |bytes: &[u8], manifest: &Manifest, signature: &str| {
            check(bytes, manifest, signature, &keys).unwrap_err()
        };
        assert!(refused(b"Bytes", &p, SIGNATURE).contains("does not hold"));
        assert!(refused(b"bytes", &manifest("q", "1.0.0"), SIGNATURE).contains("id `q`"));
        assert!(refused(b"bytes", &manifest("p", "1.1.0"), SIGNATURE).contains("version `1.1.0`"));
        assert!(refused(b"bytes", &p, "untrusted").contains("no signature"));
        // The comment is part of what is signed.
        let forged = SIGNATURE.replace("version=1.0.0", "version=1.1.0");
        assert!(refused(b"bytes", &manifest("p", "1.1.0"), &forged).contains("does not hold"));
        // A key of the same number as the right one is another key all the same.
        let mut same_number = STANDARD.decode(KEY).unwrap();
        same_number[20] ^= 1;
        let keys = [key(&STANDARD.encode(same_number))];
        assert!(check(b"bytes", &p, SIGNATURE, &keys).is_err());
    }

    #[test]
    fn a_comment_names_one_plugin_one_version_and_a_date() {
        let p = manifest("p", "1.0.0");
        assert!(check_comment(&signed_comment("p", "1.0.0", "2026-01-01"), &p).is_ok());
        for comment in [
            "",
            "id=p version=1.0.0",
            "id=p id=q version=1.0.0 date=x",
            "id=pp version=1.0.0 date=x",
            "xid=p version=1.0.0 date=x",
            "timestamp:1700000000\tfile:p.wasm\thashed",
        ] {
            assert!(check_comment(comment, &p).is_err(), "{comment}");
        }
    }
}
