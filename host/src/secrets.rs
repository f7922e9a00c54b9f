//! The secrets the host holds: where each was found, and what keeps them from showing.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use egress::Secret;
use redact::Redactor;
use runtime::{CredentialSource, Grants};
use secrecy::{ExposeSecret as _, SecretString};

use crate::environment::{Environment, clean};
use crate::paths::{Paths, make_private};
use crate::settings::Settings;

/// The name under which the Hugging Face token is stored.
pub(crate) const HUB: &str = "hf";

/// Bytes of a stored value.
pub(crate) const MAX_VALUE: u64 = 16 << 10;

/// Variables that hold a Hugging Face token, first to last.
const HUB_VARIABLES: [&str; 2] = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];

/// Variables that hold a provider's key.
const PROVIDER_VARIABLES: [&str; 7] = [
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "LOCAL_LLM_API_KEY",
    "OLLAMA_API_KEY",
    "VLLM_API_KEY",
    "LMSTUDIO_API_KEY",
    "LLAMACPP_API_KEY",
];

/// What the host holds.
#[derive(Debug)]
pub(crate) struct Held {
    /// The Hugging Face token, and where it was found.
    pub(crate) hub: Option<(SecretString, String)>,
    /// Values of granted credentials.
    pub(crate) granted: runtime::Secrets,
    /// All of it, for whatever is shown, sent or kept.
    pub(crate) redactor: Redactor,
}

impl Held {
    /// Looks for all that is named.
    pub(crate) fn find(
        environment: &Environment,
        paths: &Paths,
        settings: &Settings,
        grants: &[&Grants],
    ) -> Self {
        let hubs = hub_tokens(environment, paths);
        let stored = Stored::of(paths);
        let value_of = |source: &CredentialSource| match source {
            CredentialSource::Environment(name) => environment.secret(name),
            CredentialSource::HuggingFace => hubs.first().map(|(value, _)| value.clone()),
            CredentialSource::Stored(name) => stored.value(name),
        };
        let is_hubs =
            |value: &SecretString| hubs.iter().any(|(hub, _)| hub.expose_secret() == value.expose_secret());
        let mut granted = runtime::Secrets::new();
        let mut known: Vec<(String, SecretString)> = Vec::new();
        for (name, source) in grants.iter().flat_map(|grants| grants.sources()) {
            if let Some(value) = value_of(&source) {
                known.push((name, value.clone()));
                let hugging_face = source == CredentialSource::HuggingFace || is_hubs(&value);
                granted.insert(source, Secret { value, hugging_face });
            }
        }
        known.extend(hubs.iter().map(|(value, _)| (HUB.to_owned(), value.clone())));
        let custom = settings.providers.values().filter_map(|provider| provider.key_env.as_deref());
        let variables = PROVIDER_VARIABLES.into_iter().chain(custom);
        known.extend(variables.filter_map(|name| Some((name.to_owned(), environment.secret(name)?))));
        known
            .extend(stored.names().into_iter().filter_map(|name| Some((name.clone(), stored.value(&name)?))));
        Self { hub: hubs.into_iter().next(), granted, redactor: Redactor::new(known) }
    }
}

/// Every Hugging Face token there is, in the order of the Hub's own clients, the stored one last.
fn hub_tokens(environment: &Environment, paths: &Paths) -> Vec<(SecretString, String)> {
    let variables =
        HUB_VARIABLES.into_iter().filter_map(|name| Some((environment.secret(name)?, name.to_owned())));
    let file = environment.text("HF_TOKEN_PATH").map(PathBuf::from).unwrap_or_else(|| {
        let home = environment.text("HF_HOME").map(PathBuf::from);
        home.unwrap_or_else(|| paths.home.join(".cache/huggingface")).join("token")
    });
    let of_file = || Some((clean(&std::fs::read_to_string(&file).ok()?)?, file.display().to_string()));
    let of_login = || Some((Stored::of(paths).value(HUB)?, "ml-intern login".to_owned()));
    variables.chain(of_file()).chain(of_login()).collect()
}

/// Values that `ml-intern login` keeps: one file each, for this user alone.
pub(crate) struct Stored {
    folder: PathBuf,
}

impl Stored {
    pub(crate) fn of(paths: &Paths) -> Self {
        Self { folder: paths.state.join("credentials") }
    }

    /// Where a value lies. `name` must be a credential's name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The names there are values for.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| manifest::is_credential_name(name)).collect();
        names.sort();
        names
    }

    pub(crate) fn value(&self, name: &str) -> Option<SecretString> {
        if !manifest::is_credential_name(name) {
            return None;
        }
        let file = OpenOptions::new().read(true).custom_flags(no_link()).open(self.path(name)).ok()?;
        let mut text = String::new();
        file.take(MAX_VALUE).read_to_string(&mut text).ok()?;
        clean(&text)
    }

    /// Keeps a value in place of the one before, in one step on the disk.
    pub(crate) fn put(&self, name: &str, value: &SecretString) -> io::Result<()> {
        make_private(&self.folder)?;
        let temporary = self.folder.join(format!(".{}.tmp", std::process::id()));
        let _ = std::fs::remove_file(&temporary);
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(no_link())
            .open(&temporary)?;
        file.write_all(value.expose_secret().as_bytes())?;
        file.sync_data()?;
        std::fs::rename(&temporary, self.path(name))
    }

    /// Forgets a value. Returns whether there was one.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        match std::fs::remove_file(self.path(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            removed => removed.map(|()| true),
        }
    }
}

fn no_link() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}
