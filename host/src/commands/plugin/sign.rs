//! Publishers: keys, signatures over components, and whether one holds.

use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use policy::{PluginFacts, PublisherKey};
use runtime::{
    Inspection, LockIndex, Signed, inspect, read_component, signature_file, signed_comment, verify_signature,
};
use secrecy::{ExposeSecret as _, SecretString};

use super::secret_key::{Locked, SecretKey};
use crate::assemble::Setup;
use crate::cli::PlaceArgs;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::{say, shown};
use crate::secret_input::ask;

/// Makes a key: the secret one at `file`, the public one beside it.
pub(super) fn keygen(file: &Path, unencrypted: bool) -> Result<Exit, Failure> {
    let public = file.with_extension("pub");
    if public == file {
        return Err(Failure::usage(format!(
            "{}: a secret key is not called .pub; write NAME.key",
            shown(file)
        )));
    }
    if let Some(there) = [file, &public].into_iter().find(|path| path.symlink_metadata().is_ok()) {
        return Err(Failure::usage(format!("{} exists; a key is never written over", shown(there))));
    }
    let password = if unencrypted { None } else { Some(new_password()?) };
    let key = SecretKey::generate().map_err(anyhow::Error::from)?;
    let secret = key.to_file(password.as_ref()).map_err(anyhow::Error::from)?;
    write_new(file, secret.expose_secret(), 0o600)?;
    let line = key.public_key();
    write_new(
        &public,
        &format!("untrusted comment: minisign public key, made by ml-intern\n{line}\n"),
        0o644,
    )?;
    say(&format!("{} signs plugins; keep it to yourself", shown(file)));
    say(&format!("{} verifies them: {line}", shown(&public)));
    Ok(Exit::Done)
}

/// A password that is typed twice, or read from standard input.
fn new_password() -> Result<SecretString, Failure> {
    let password =
        SecretString::from(ask("password of the new key")?.trim_end_matches(['\r', '\n']).to_owned());
    if password.expose_secret().is_empty() {
        return Err(Failure::usage("the password is empty; --unencrypted makes a key without one"));
    }
    let is_typed = std::io::IsTerminal::is_terminal(&std::io::stdin());
    if is_typed && ask("once more")? != password.expose_secret() {
        return Err(Failure::usage("the two passwords are different; no key was made"));
    }
    Ok(password)
}

/// Signs a component: the signature goes into a file beside it.
pub(super) fn sign(file: &Path, key: &Path) -> Result<Exit, Failure> {
    let bytes = read_component(file).map_err(Failure::settings)?;
    let Inspection { manifest, digest, .. } = inspect(&shown(file), &bytes).map_err(Failure::settings)?;
    let unusable = |reason: String| Failure::usage(format!("--key {}: {reason}", shown(key)));
    let text = SecretString::from(std::fs::read_to_string(key).map_err(|e| unusable(e.to_string()))?);
    let locked = Locked::parse(text.expose_secret()).map_err(|e| unusable(e.to_string()))?;
    let password =
        if locked.wants_password() { ask(&format!("password of {}", shown(key)))? } else { String::new() };
    let password = SecretString::from(password.trim_end_matches(['\r', '\n']).to_owned());
    let secret = locked.open(&password).map_err(|e| unusable(e.to_string()))?;
    let date = jiff::Zoned::now().strftime("%Y-%m-%d").to_string();
    let comment = signed_comment(&manifest.id, &manifest.version, &date);
    let path = signature_file(file);
    let failed = |e: std::io::Error| Failure::usage(format!("{}: {e}", shown(&path)));
    std::fs::write(&path, secret.sign(&bytes, &comment)).map_err(failed)?;
    say(&format!("{}: {comment}", shown(&path)));
    say(&format!("digest    sha256:{digest}\npublisher {}", secret.public_key()));
    Ok(Exit::Done)
}

/// Whether the signature beside a component holds, by the key that is given, or by those that are known here.
pub(super) fn verify(
    environment: Environment,
    place: &PlaceArgs,
    file: &Path,
    key: Option<&str>,
) -> Result<Exit, Failure> {
    let bytes = read_component(file).map_err(Failure::settings)?;
    let Inspection { manifest, digest, .. } = inspect(&shown(file), &bytes).map_err(Failure::settings)?;
    let setup = Setup::read(environment, place.config.as_deref())?;
    let keys: Vec<PublisherKey> = match key {
        Some(key) => vec![publisher_key(key)?],
        None => {
            let (index, _) = LockIndex::read(&setup.plugin_dirs(place)).map_err(Failure::settings)?;
            setup.policy.publishers().chain(index.publishers()).cloned().collect()
        }
    };
    let path = signature_file(file);
    let failed = |reason: String| Failure::settings(anyhow::anyhow!("{}: {reason}", shown(&path)));
    let text = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => failed(format!(
            "there is no such file: {0} is not signed; whoever publishes it signs it with `ml-intern plugin sign {0} \
             --key FILE`",
            shown(file)
        )),
        _ => failed(e.to_string()),
    })?;
    match verify_signature(file, &bytes, &manifest, &text, &keys).map_err(Failure::settings)? {
        Signed::Yes(by) => {
            let facts = PluginFacts {
                id: &manifest.id,
                version: &manifest.version,
                digest: &digest,
                publisher: Some(by.key.as_str()),
                bundled: false,
            };
            let forbidden = |by: policy::Forbidden| failed(format!("the signature holds, and {by}"));
            setup.policy.plugin(facts).map_err(forbidden)?;
            say(&format!("signed by {}: {}\ndigest    sha256:{digest}", by.key, by.comment));
            Ok(Exit::Done)
        }
        Signed::No | Signed::Unknown => {
            let which = if key.is_some() {
                "another key than that"
            } else {
                "a key that is not known here; name the publisher's with --publisher"
            };
            Err(failed(format!("it is by {which}")))
        }
    }
}

/// A public key, given itself or as a file that minisign or `plugin keygen` wrote.
pub(super) fn publisher_key(given: &str) -> Result<PublisherKey, Failure> {
    if let Ok(key) = PublisherKey::try_from(given.to_owned()) {
        return Ok(key);
    }
    // What is no name of a file may be a secret key: it is not repeated.
    let shown = if Path::new(given).is_file() { given } else { "KEY" };
    let refuse = |reason: String| Failure::usage(format!("--publisher {shown}: {reason}"));
    let path = PathBuf::from(given);
    let text = std::fs::read_to_string(&path)
        .map_err(|e| refuse(format!("it is no key (`RW…`), and no file of one: {e}")))?;
    let line = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    PublisherKey::try_from(line.to_owned()).map_err(refuse)
}

/// Writes a file that did not exist, with this mode whatever the umask takes from it.
fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    file.and_then(|mut file| {
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        std::io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()
    })
    .map_err(|e| Failure::usage(format!("{}: {e}", shown(path))))
}
