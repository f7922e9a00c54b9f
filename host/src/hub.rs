//! Whose Hugging Face token it is: asked where that matters, once, and kept.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent::AskNamespace;
use egress::{Body, Caller, Credential, Egress, Limits, NetworkGrant, Outgoing, Placement, Policy, Secret};
use secrecy::{ExposeSecret as _, SecretString};

use crate::assemble::Setup;
use crate::paths::{check_own, replace};
use crate::secrets::HUB;
use crate::way_out::HUB as ORIGIN;

const WHOAMI: &str = "https://huggingface.co/api/whoami-v2";

/// Time for that question.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of the file of names, and names in it; the oldest token's goes with the file.
const MAX_BYTES: u64 = 64 << 10;
const MAX_NAMES: usize = 32;

/// The token, for the Hub alone.
pub(crate) fn credential(value: SecretString) -> anyhow::Result<Credential> {
    let placement = Placement::Header { name: http::header::AUTHORIZATION, prefix: "Bearer ".to_owned() };
    let secret = Secret { value, hugging_face: true };
    Ok(Credential::new(HUB, &[ORIGIN.to_owned()], placement, secret)?)
}

/// Asks the Hub whose a token is.
pub(crate) async fn whose(
    egress: &Egress,
    purpose: &'static str,
    value: SecretString,
) -> anyhow::Result<String> {
    let request = Outgoing {
        caller: Caller::Host(purpose),
        policy: Policy::Granted(vec![NetworkGrant::parse(&format!("{ORIGIN} GET"))?]),
        approved: Vec::new(),
        method: http::Method::GET,
        url: WHOAMI.parse()?,
        headers: http::HeaderMap::new(),
        body: Body::default(),
        limits: Limits {
            head: PATIENCE,
            idle: PATIENCE,
            total: Some(PATIENCE),
            max_bytes: 1 << 20,
            ..Limits::default()
        },
        credential: Some(credential(value)?),
        decompress: false,
    };
    let answer = egress.send(request).await?;
    let status = answer.status;
    anyhow::ensure!(status != http::StatusCode::UNAUTHORIZED, "Hugging Face does not accept it");
    anyhow::ensure!(status.is_success(), "Hugging Face answered {status}");
    let body: serde_json::Value = serde_json::from_slice(&answer.bytes().await?)?;
    let name = body.get("name").and_then(serde_json::Value::as_str);
    name.map(str::to_owned).ok_or_else(|| anyhow::anyhow!("Hugging Face did not say whose it is"))
}

/// What a session asks when it has to know the user's own namespace. Nothing is asked before that, and
/// nothing at all with `--offline`.
pub(crate) fn ask_namespace(setup: &Setup, egress: &Egress, offline: bool) -> AskNamespace {
    let token = setup.hf_token().filter(|_| !offline);
    // A mirror has names of its own.
    let mirror = setup.rewrites().ok().and_then(|all| {
        all.iter()
            .find(|rewrite| rewrite.from().to_string() == ORIGIN)
            .map(|rewrite| rewrite.to().to_string())
    });
    let real = mirror.unwrap_or_else(|| ORIGIN.to_owned());
    let (egress, names) = (egress.clone(), Names(setup.paths.state.join("hub.json")));
    std::sync::Arc::new(move || {
        let (token, egress, names, real) = (token.clone(), egress.clone(), names.clone(), real.clone());
        Box::pin(async move {
            let Some(token) = token else { return Ok(None) };
            // The token itself is nowhere in the file.
            let key = audit::digest(format!("whose token\n{real}\n{}", token.expose_secret()).as_bytes());
            if let Some(name) = names.read().remove(&key) {
                return Ok(Some(name));
            }
            let name = whose(&egress, "hub", token).await.map_err(|error| format!("{error:#}"))?;
            if !manifest::is_name(&name) {
                return Err("Hugging Face gave a name that is none".to_owned());
            }
            names.keep(key, &name);
            Ok(Some(name))
        })
    })
}

/// Names by the digest of the token and of where it was asked.
#[derive(Clone, Debug)]
struct Names(PathBuf);

impl Names {
    fn read(&self) -> BTreeMap<String, String> {
        read(&self.0).unwrap_or_default()
    }

    /// Keeps a name. That it cannot be kept costs a question in the next run.
    fn keep(&self, key: String, name: &str) {
        let mut names = self.read();
        if names.len() >= MAX_NAMES {
            names.clear();
        }
        names.insert(key, name.to_owned());
        let kept = serde_json::to_vec(&names).map_err(std::io::Error::from);
        if let Err(error) = kept.and_then(|json| replace(&self.0, &json)) {
            tracing::warn!(%error, "the name of the Hub's user");
        }
    }
}

/// What the file says, if it is this user's alone and holds nothing but names.
fn read(path: &Path) -> Option<BTreeMap<String, String>> {
    use std::io::Read as _;
    check_own(path).ok()?;
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    let names: BTreeMap<String, String> = serde_json::from_str(&text).ok()?;
    names.values().all(|name| manifest::is_name(name)).then_some(names)
}
