//! The secrets the host holds: where each was found, and what keeps them from showing.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use egress::{ProxyUrls, Secret};
use redact::Redactor;
use runtime::{CredentialSource, Grants};
use secrecy::{ExposeSecret as _, SecretString};

use crate::environment::{Environment, clean};
use crate::paths::{Paths, make_private};
use crate::settings::Loaded;

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
        loaded: &Loaded,
        proxy: Option<&ProxyUrls>,
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
        let custom = loaded.settings.providers.values().filter_map(|provider| provider.key_env.as_deref());
        let variables = PROVIDER_VARIABLES.into_iter().chain(custom).chain(loaded.header_variables());
        known.extend(variables.filter_map(|name| Some((name.to_owned(), environment.secret(name)?))));
        let passwords = proxy.map(ProxyUrls::passwords).unwrap_or_default();
        known.extend(passwords.into_iter().map(|password| ("proxy".to_owned(), password)));
        known
            .extend(stored.names().into_iter().filter_map(|name| Some((name.clone(), stored.value(&name)?))));
        Self { hub: hubs.into_iter().next(), granted, redactor: Redactor::new(known) }
    }
}

/// Every Hugging Face token there is, in the order of the Hub's own clients, then the stored one. A project's
/// comes last: the person's own stands for whom they are, wherever it lies.
fn hub_tokens(environment: &Environment, paths: &Paths) -> Vec<(SecretString, String)> {
    let variables =
        HUB_VARIABLES.into_iter().filter_map(|name| Some((environment.own_secret(name)?, name.to_owned())));
    let of_project = HUB_VARIABLES.into_iter().filter_map(|name| {
        let (value, file) = environment.project_secret(name)?;
        Some((value, format!("{name} in {}", file.display())))
    });
    let file = environment.text("HF_TOKEN_PATH").map(PathBuf::from).unwrap_or_else(|| {
        let home = environment.text("HF_HOME").map(PathBuf::from);
        home.unwrap_or_else(|| paths.home.join(".cache/huggingface")).join("token")
    });
    let of_file = || Some((clean(&std::fs::read_to_string(&file).ok()?)?, file.display().to_string()));
    let of_login = || Some((Stored::of(paths).value(HUB)?, "ml-intern login".to_owned()));
    variables.chain(of_file()).chain(of_login()).chain(of_project).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings;

    struct Home {
        _root: tempfile::TempDir,
        paths: Paths,
        environment: Environment,
    }

    fn home(variables: &[(&str, &str)]) -> Home {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().to_str().unwrap().to_owned();
        let environment = Environment::of(&[&[("HOME", folder.as_str())], variables].concat());
        Home { paths: Paths::find(&environment).unwrap(), environment, _root: root }
    }

    fn first(home: &Home) -> (String, String) {
        let (value, from) = hub_tokens(&home.environment, &home.paths).remove(0);
        (value.expose_secret().to_owned(), from)
    }

    #[test]
    fn a_projects_token_counts_where_the_person_has_none() {
        let mut home = home(&[]);
        let file = PathBuf::from("/work/project/.env");
        home.environment.add_project(vec![("HF_TOKEN".to_owned(), "hf_project".to_owned())], file);
        let pair = |value: &str, from: &str| (value.to_owned(), from.to_owned());
        assert_eq!(first(&home), pair("hf_project", "HF_TOKEN in /work/project/.env"));
        Stored::of(&home.paths).put(HUB, &SecretString::from("hf_login")).unwrap();
        assert_eq!(first(&home), pair("hf_login", "ml-intern login"));
        let file = home.paths.home.join(".cache/huggingface/token");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "hf_file").unwrap();
        assert_eq!(first(&home), pair("hf_file", &file.display().to_string()));
        // All of them are looked for, whichever is used.
        assert_eq!(hub_tokens(&home.environment, &home.paths).len(), 3);
        let own = Environment::of(&[("HF_TOKEN", "hf_variable")]);
        assert_eq!(hub_tokens(&own, &home.paths)[0].1, "HF_TOKEN");
    }

    #[test]
    fn what_headers_take_up_and_passwords_of_proxies_are_secrets() {
        let variables = [
            ("WORK_KEY", "work-secret-0123"),
            ("USER", "researcher"),
            ("HTTPS_PROXY", "http://me:pass%2Bword%40proxy@proxy.example:3128"),
        ];
        let Home { paths, mut environment, _root } = home(&variables);
        let user = serde_json::json!({
            "proxy": {"url": "environment"},
            "providers": {"w": {"wire": "chat", "base_url": "https://a.example", "headers": {
                "authorization": "Bearer ${WORK_KEY}", "x-user": "${USER}", "x-team": "${TEAM:-ml}",
            }}},
        });
        std::fs::create_dir_all(&paths.config).unwrap();
        std::fs::write(paths.settings(), user.to_string()).unwrap();
        let loaded = settings::load(&paths, &mut environment, None).unwrap();
        let proxy = crate::way_out::proxy_urls(&environment, &loaded.settings);
        let held = Held::find(&environment, &paths, &loaded, proxy.as_ref(), &[]);
        let text = |text: &str| held.redactor.text(text).into_owned();
        assert_eq!(text("a work-secret-0123 b"), "a [redacted:WORK_KEY] b");
        assert_eq!(text("pass+word@proxy pass%2Bword%40proxy"), "[redacted:proxy] [redacted:proxy]");
        assert_eq!(text("/home/researcher"), "/home/researcher");
    }
}
