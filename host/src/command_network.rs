//! What commands reach through the host: mirrors of package indexes and of the Hub, and hosts that were granted.

use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use agent::Rules;
use egress::{Egress, NetworkGrant};
use gateway::{Face, Gateway, GatewayConfig, HubConfig, Patience};
use tokio::task::AbortHandle;
use wall::{CommandList, Loopback, Network, WallConfig};

use crate::assemble::Setup;
use crate::exit::Failure;
use crate::hub::credential;

/// Ports of the loopback that commands have of their own. They stand in files that outlive a session, such as lock
/// files, so they are always the same.
const FACES: [(Face, u16); 3] = [(Face::Hub, HUB_PORT), (Face::Pypi, PYPI_PORT), (Face::Proxy, PROXY_PORT)];
const HUB_PORT: u16 = 41_201;
const PYPI_PORT: u16 = 41_202;
const PROXY_PORT: u16 = 41_203;

/// Serves commands where they have a loopback and may have more than nothing.
pub(crate) fn serve(
    setup: &Setup,
    egress: &Egress,
    rules: &Rules,
    wall: &mut WallConfig,
) -> Result<(), Failure> {
    if wall.network == Network::Gateway {
        wall.loopback = Some(loopback(setup, egress, rules, &wall.commands)?);
    }
    Ok(())
}

/// The loopback of commands. What is served there ends with it.
fn loopback(
    setup: &Setup,
    egress: &Egress,
    rules: &Rules,
    commands: &Arc<CommandList>,
) -> Result<Loopback, Failure> {
    let hub = match setup.hf_token() {
        Some(token) => Some(credential(token).map_err(Failure::settings)?),
        None => None,
    };
    let (commands, redactor) = (commands.clone(), setup.held().redactor.clone());
    let who = move || {
        // Who asks gets an answer, and with it text that nobody vouches for.
        commands.fetches();
        redactor.text(&commands.newest().unwrap_or_default()).into_owned()
    };
    let gateway = Gateway::new(GatewayConfig {
        egress: egress.clone(),
        who: Arc::new(who),
        hub: HubConfig { credential: hub, ..HubConfig::default() },
        tunnels: tunnels(rules),
        more_indexes: false,
        patience: Patience::default(),
    });
    let served = Served::default();
    Ok(Loopback {
        ports: FACES.iter().map(|(_, port)| *port).collect(),
        env: environment(),
        listening: Arc::new(move |listeners| served.serve(&gateway, listeners)),
    })
}

/// Hosts that a person's rules allow.
fn tunnels(rules: &Rules) -> Vec<NetworkGrant> {
    rules.allowed_hosts().filter_map(|host| NetworkGrant::parse(&format!("https://{host}")).ok()).collect()
}

/// By what programs find it.
fn environment() -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let at = |port: u16, path: &str| format!("http://127.0.0.1:{port}{path}");
    let (index, hub, proxy) = (at(PYPI_PORT, "/simple"), at(HUB_PORT, ""), at(PROXY_PORT, ""));
    let own = "127.0.0.1,localhost,::1".to_owned();
    let git = format!("url.{hub}/.insteadOf");
    let variables = [
        ("PIP_INDEX_URL", index.clone()),
        ("PIP_DISABLE_PIP_VERSION_CHECK", "1".to_owned()),
        ("UV_DEFAULT_INDEX", index),
        ("HF_ENDPOINT", hub),
        // Its servers take tokens of their own, which commands do not have.
        ("HF_HUB_DISABLE_XET", "1".to_owned()),
        ("HTTPS_PROXY", proxy.clone()),
        ("https_proxy", proxy),
        ("NO_PROXY", own.clone()),
        ("no_proxy", own),
        ("GIT_CONFIG_COUNT", "1".to_owned()),
        ("GIT_CONFIG_KEY_0", git),
        ("GIT_CONFIG_VALUE_0", "https://huggingface.co/".to_owned()),
    ];
    variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// What is served now. A supervisor that was started again has listeners of its own.
#[derive(Default)]
struct Served(Mutex<Vec<AbortHandle>>);

impl Served {
    fn serve(&self, gateway: &Gateway, listeners: Vec<TcpListener>) {
        let mut tasks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
        for ((face, _), listener) in FACES.into_iter().zip(listeners) {
            let listener =
                listener.set_nonblocking(true).and_then(|()| tokio::net::TcpListener::from_std(listener));
            match listener {
                Ok(listener) => {
                    let gateway = gateway.clone();
                    let task = tokio::spawn(async move { gateway.serve(face, listener).await });
                    tasks.push(task.abort_handle());
                }
                Err(error) => tracing::warn!("commands have no network: {error}"),
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let tasks = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.drain(..).for_each(|task| task.abort());
    }
}
