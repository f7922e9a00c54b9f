//! A publisher's secret key, in the file format of minisign (<https://jedisct1.github.io/minisign/>).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use blake2b_simd::Params as Blake2b;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use secrecy::{ExposeSecret as _, SecretSlice, SecretString};

/// Ed25519, over the bytes or over their BLAKE2b digest.
const ALGORITHM: &[u8; 2] = b"Ed";
const PREHASHED: &[u8; 2] = b"ED";
/// How the checksum is made.
const CHECKSUM: &[u8; 2] = b"B2";
const SCRYPT: &[u8; 2] = b"Sc";
const NOT_ENCRYPTED: &[u8; 2] = &[0, 0];

/// What minisign spends on a password: 2^20 rounds in 1 GiB, some seconds.
const OPS_LIMIT: u64 = 33_554_432;
const MEM_LIMIT: u64 = 1 << 30;

/// Bytes of the number of a key, of the seed, and of the seed with its public key and the checksum behind it.
const NUMBER: usize = 8;
const SEED: usize = 32;
const SEALED: usize = NUMBER + 2 * SEED + 32;

/// Bytes of a key file: three names of methods, the salt, two limits, and what is sealed.
const FILE: usize = 3 * 2 + 32 + 2 * 8 + SEALED;

#[derive(Debug, thiserror::Error)]
pub(super) enum KeyError {
    #[error("it is no secret key of minisign")]
    NotKey,
    #[error("it is encrypted in a way that this program does not know")]
    Encryption,
    #[error("the password is wrong")]
    Password,
    #[error("its password would need more memory or time than minisign ever asks for")]
    TooDear,
    #[error("{0}")]
    Random(#[from] getrandom::Error),
}

/// A key that can sign.
pub(super) struct SecretKey {
    number: [u8; NUMBER],
    seed: SecretSlice<u8>,
    pair: Ed25519KeyPair,
}

/// The fields of a file, before its password is known.
pub(super) struct Locked {
    salt: [u8; 32],
    ops: u64,
    mem: u64,
    sealed: SecretSlice<u8>,
    encrypted: bool,
}

impl Locked {
    /// Takes a key's file apart: a line of comment, and one of base64.
    pub(super) fn parse(text: &str) -> Result<Self, KeyError> {
        let line = text.lines().nth(1).ok_or(KeyError::NotKey)?;
        let bytes = SecretSlice::from(STANDARD.decode(line.trim()).map_err(|_| KeyError::NotKey)?);
        let mut rest = bytes.expose_secret();
        if rest.len() != FILE {
            return Err(KeyError::NotKey);
        }
        let mut take = |count: usize| {
            let (taken, left) = rest.split_at_checked(count).ok_or(KeyError::NotKey)?;
            rest = left;
            Ok::<_, KeyError>(taken)
        };
        if take(2)? != ALGORITHM {
            return Err(KeyError::NotKey);
        }
        let encrypted = match take(2)? {
            kdf if kdf == SCRYPT => true,
            kdf if kdf == NOT_ENCRYPTED => false,
            _ => return Err(KeyError::Encryption),
        };
        if take(2)? != CHECKSUM {
            return Err(KeyError::Encryption);
        }
        let salt = take(32)?.try_into().map_err(|_| KeyError::NotKey)?;
        let mut number =
            || Ok::<_, KeyError>(u64::from_le_bytes(take(8)?.try_into().map_err(|_| KeyError::NotKey)?));
        let (ops, mem) = (number()?, number()?);
        let sealed = SecretSlice::from(take(SEALED)?.to_vec());
        if rest.is_empty() { Ok(Self { salt, ops, mem, sealed, encrypted }) } else { Err(KeyError::NotKey) }
    }

    pub(super) fn wants_password(&self) -> bool {
        self.encrypted
    }

    /// The key. `password` is not looked at if it is not encrypted.
    pub(super) fn open(&self, password: &SecretString) -> Result<SecretKey, KeyError> {
        let mut open = self.sealed.expose_secret().to_vec();
        if self.encrypted {
            let stream = stretched(password, &self.salt, self.ops, self.mem)?;
            open.iter_mut().zip(stream.expose_secret()).for_each(|(byte, key)| *byte ^= key);
        }
        let open = SecretSlice::from(open);
        let (number, rest) = open.expose_secret().split_at(NUMBER);
        let (both, checksum) = rest.split_at(2 * SEED);
        if self.encrypted && checksum_of(number, both) != *checksum {
            return Err(KeyError::Password);
        }
        let number = number.try_into().map_err(|_| KeyError::NotKey)?;
        SecretKey::of(number, &both[..SEED])
            .filter(|key| *key.public() == both[SEED..])
            .ok_or(KeyError::NotKey)
    }
}

impl SecretKey {
    /// A new key.
    pub(super) fn generate() -> Result<Self, KeyError> {
        let (mut number, mut seed) = ([0; NUMBER], [0; SEED]);
        getrandom::fill(&mut number)?;
        getrandom::fill(&mut seed)?;
        Self::of(number, &seed).ok_or(KeyError::NotKey)
    }

    fn of(number: [u8; NUMBER], seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self { number, seed: seed.to_vec().into(), pair })
    }

    fn public(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }

    /// The public key, as minisign writes it.
    pub(super) fn public_key(&self) -> String {
        STANDARD.encode([&ALGORITHM[..], &self.number, self.public()].concat())
    }

    /// The text of its file, encrypted if there is a password.
    pub(super) fn to_file(&self, password: Option<&SecretString>) -> Result<SecretString, KeyError> {
        let both = SecretSlice::from([self.seed.expose_secret(), self.public()].concat());
        let checksum = checksum_of(&self.number, both.expose_secret());
        let mut sealed = [&self.number[..], both.expose_secret(), &checksum].concat();
        let (mut salt, mut ops, mut mem, mut kdf) = ([0; 32], 0, 0, NOT_ENCRYPTED);
        if let Some(password) = password {
            getrandom::fill(&mut salt)?;
            (ops, mem, kdf) = (OPS_LIMIT, MEM_LIMIT, SCRYPT);
            let stream = stretched(password, &salt, ops, mem)?;
            sealed.iter_mut().zip(stream.expose_secret()).for_each(|(byte, key)| *byte ^= key);
        }
        let sealed = SecretSlice::from(sealed);
        let head = [&ALGORITHM[..], kdf, CHECKSUM, &salt, &ops.to_le_bytes(), &mem.to_le_bytes()].concat();
        let line = STANDARD.encode([&head, sealed.expose_secret()].concat());
        Ok(format!("untrusted comment: minisign secret key, made by ml-intern\n{line}\n").into())
    }

    /// A signature over a component, as the text of its file.
    pub(super) fn sign(&self, bytes: &[u8], comment: &str) -> String {
        let digest = Blake2b::new().hash_length(64).hash(bytes);
        let signature = self.pair.sign(digest.as_bytes());
        let whole = self.pair.sign(&[signature.as_ref(), comment.as_bytes()].concat());
        let first = STANDARD.encode([&PREHASHED[..], &self.number, signature.as_ref()].concat());
        let second = STANDARD.encode(whole.as_ref());
        format!(
            "untrusted comment: signature of an ml-intern plugin\n{first}\ntrusted comment: {comment}\n{second}\n"
        )
    }
}

fn checksum_of(number: &[u8], both: &[u8]) -> Vec<u8> {
    let whole = SecretSlice::from([&ALGORITHM[..], number, both].concat());
    Blake2b::new().hash_length(32).hash(whole.expose_secret()).as_bytes().to_vec()
}

/// As many bytes of a password as hide a key, with the parameters that libsodium derives from its limits.
fn stretched(password: &SecretString, salt: &[u8], ops: u64, mem: u64) -> Result<SecretSlice<u8>, KeyError> {
    const BLOCK: u64 = 8;
    if ops > OPS_LIMIT || mem > MEM_LIMIT {
        return Err(KeyError::TooDear);
    }
    let ops = ops.max(32_768);
    let by_ops = ops < mem / 32;
    let most = if by_ops { ops / (BLOCK * 4) } else { mem / (BLOCK * 128) };
    let rounds = (1..63).find(|n| 1_u64 << n > most / 2).ok_or(KeyError::TooDear)?;
    let lanes = if by_ops { 1 } else { (ops / 4).min(0x3fff_ffff << rounds) / (1 << rounds) / BLOCK };
    let (block, lanes) = (8, u32::try_from(lanes.max(1)).map_err(|_| KeyError::TooDear)?);
    let params = scrypt::Params::new(rounds, block, lanes).map_err(|_| KeyError::TooDear)?;
    let mut stream = vec![0; SEALED];
    scrypt::scrypt(password.expose_secret().as_bytes(), salt, &params, &mut stream)
        .map_err(|_| KeyError::TooDear)?;
    Ok(stream.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by minisign 0.11: `-G -W`, and `-G` with the password `correct horse`.
    const OPEN: &str = "untrusted comment: minisign encrypted secret key\nRWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAl840kEPxNcecrP84/PIFm3ztdKiY4YIxvTf/2g/LX/3zl1Psv9V60FKaBzDHZD+tuaXLThAqWgpeQDK6U9gys441yJyUIvciAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    const OPEN_PUBLIC: &str = "RWSXzjSQQ/E1x1KaBzDHZD+tuaXLThAqWgpeQDK6U9gys441yJyUIvci";
    const LOCKED: &str = "untrusted comment: minisign encrypted secret key\nRWRTY0IycS0YjCZQS3pnV0MfgIQr49QlV2VUC2Mjh2OBsU6cYQoAAAACAAAAAAAAAEAAAAAAEIQBXAXuuiTf/lVSuhKoBFzp1Sc4fDkyHPQMPoPApaDxdQQ2oepJ1et6yup9gR5KbF1qtukR2qb/W8G/ACZP1o2WuZHQOOBhUqRjQwyZxzCW2m7DX+eSyC6VARaRG1ODSdmbhZ+oFjY=\n";
    const LOCKED_PUBLIC: &str = "RWQj+FPyLvPiGZlrBQCGhkcmTdM97omHh4W1/5DQm9UF+6QniKFFesMu";

    fn word(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[test]
    fn keys_of_minisign_are_read() {
        let open = Locked::parse(OPEN).unwrap();
        assert!(!open.wants_password());
        assert_eq!(open.open(&word("")).unwrap().public_key(), OPEN_PUBLIC);
        let locked = Locked::parse(LOCKED).unwrap();
        assert!(locked.wants_password());
        assert_eq!(locked.open(&word("correct horse")).unwrap().public_key(), LOCKED_PUBLIC);
    }

    #[test]
    fn a_wrong_password_and_a_broken_key_are_told() {
        // One whose password is cheap, so that it can be tried often.
        let key = SecretKey::generate().unwrap();
        let text = key.to_file(None).unwrap();
        let mut bytes = STANDARD.decode(text.expose_secret().lines().nth(1).unwrap()).unwrap();
        bytes[2..4].copy_from_slice(SCRYPT);
        bytes[38..46].copy_from_slice(&32_768_u64.to_le_bytes());
        bytes[46..54].copy_from_slice(&(1_u64 << 20).to_le_bytes());
        let stream = stretched(&word("right"), &bytes[6..38], 32_768, 1 << 20).unwrap();
        bytes[54..].iter_mut().zip(stream.expose_secret()).for_each(|(byte, key)| *byte ^= key);
        let file = |bytes: &[u8]| format!("untrusted comment: x\n{}\n", STANDARD.encode(bytes));
        let opened = |bytes: &[u8], password: &str| Locked::parse(&file(bytes))?.open(&word(password));
        assert_eq!(opened(&bytes, "right").unwrap().public_key(), key.public_key());
        assert!(matches!(opened(&bytes, "wrong"), Err(KeyError::Password)));
        let with = |at: usize, value: u8| {
            let mut bytes = bytes.clone();
            bytes[at] = value;
            opened(&bytes, "right").err().unwrap()
        };
        assert!(matches!(with(0, b'X'), KeyError::NotKey));
        assert!(matches!(with(2, b'X'), KeyError::Encryption));
        assert!(matches!(with(53, 1), KeyError::TooDear));
        assert!(matches!(with(60, bytes[60] ^ 1), KeyError::Password));
        assert!(matches!(opened(&bytes[..100], "right"), Err(KeyError::NotKey)));
        assert!(matches!(Locked::parse("nothing"), Err(KeyError::NotKey)));
        // One that is not encrypted and whose halves do not belong together.
        let mut halves = STANDARD.decode(OPEN.lines().nth(1).unwrap()).unwrap();
        halves[70] ^= 1;
        assert!(matches!(opened(&halves, ""), Err(KeyError::NotKey)));
    }

    #[test]
    fn what_it_signs_another_program_verifies() {
        let key = SecretKey::generate().unwrap();
        let text = key.sign(b"bytes", "id=p");
        let public = minisign_verify::PublicKey::from_base64(&key.public_key()).unwrap();
        let signature = minisign_verify::Signature::decode(&text).unwrap();
        public.verify(b"bytes", &signature, false).unwrap();
        assert_eq!(signature.trusted_comment(), "id=p");
        assert!(public.verify(b"Bytes", &signature, false).is_err());
        let forged = minisign_verify::Signature::decode(&text.replace("id=p", "id=q")).unwrap();
        assert!(public.verify(b"bytes", &forged, false).is_err());
    }
}
