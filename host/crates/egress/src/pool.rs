use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use http::{HeaderValue, Uri};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::Resumption;
use rustls::{ClientConfig, RootCertStore};

use crate::body::Pieces;
use crate::ceiling::Denials;
use crate::connector::{Checked, Connector, Gate};
use crate::reach::Reach;
use crate::{Caller, CertificateFiles, Certificates, EgressError, Proxy};

/// Headers of an answer, in number and in bytes.
const MAX_HEADERS: usize = 128;
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Bytes that are read at once of what commands fetch: files of many GiB. A head may be as long.
const COMMANDS_READ: usize = 256 << 10;

/// Time that a connection waits for its next request.
const IDLE: Duration = Duration::from_secs(90);

/// TLS sessions that a pool can resume.
const SESSIONS: usize = 64;

/// Pools that are kept; beyond, all are let go.
const MAX_POOLS: usize = 256;

pub(crate) type Client = legacy::Client<Connector, Pieces>;

/// Connections that wait for their next request. None is shared by two callers, nor by two decisions about
/// which addresses may be connected to.
#[derive(Debug, Default)]
pub(crate) struct Pools {
    trust: Trust,
    proxy: Option<Proxy>,
    denied: Arc<Denials>,
    tls: OnceLock<ClientConfig>,
    clients: Mutex<HashMap<Key, Client>>,
}

/// Whom its connections trust beside the machine's authorities, and how they show who they are.
#[derive(Debug)]
pub(crate) enum Trust {
    Read(Certificates),
    /// Read when the first connection is encrypted.
    Files(CertificateFiles),
}

impl Default for Trust {
    fn default() -> Self {
        Self::Read(Certificates::default())
    }
}

#[derive(Debug, Eq, Hash, PartialEq)]
struct Key {
    caller: Caller,
    reach: Reach,
    encrypted: bool,
}

impl Pools {
    pub(crate) fn new(trust: Trust, proxy: Option<Proxy>, denied: Arc<Denials>) -> Self {
        Self { trust, proxy, denied, ..Self::default() }
    }

    /// The same without connections, with certificates of its own.
    pub(crate) fn with_certificates(&self, certificates: Certificates) -> Self {
        Self::new(Trust::Read(certificates), self.proxy.clone(), Arc::clone(&self.denied))
    }

    /// What a request shows to the proxy that forwards it.
    pub(crate) fn proxy_authorization(&self, to: &Uri) -> Option<HeaderValue> {
        self.proxy.as_ref()?.authorization(to)
    }

    /// The client whose connections such a request may use.
    pub(crate) fn client(
        &self,
        caller: &Caller,
        reach: Reach,
        encrypted: bool,
    ) -> Result<Client, EgressError> {
        let is_command = matches!(caller, Caller::Command(_));
        // All commands are of one session and share its workspace.
        let caller = match caller {
            Caller::Command(_) => &Caller::Command(String::new()),
            other => other,
        };
        let key = Key { caller: caller.clone(), reach, encrypted };
        if let Some(client) = self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(client.clone());
        }
        // Without certificates where nothing is encrypted: reading them takes longer than all the rest.
        let tls = if encrypted {
            // Sessions are resumed by those who opened them only.
            let mut tls = self.tls()?.clone();
            tls.resumption = Resumption::in_memory_sessions(SESSIONS);
            tls
        } else {
            configuration(RootCertStore::empty(), &Certificates::default())?
        };
        let gate = Gate {
            reach: Arc::new(key.reach.clone()),
            denied: Arc::clone(&self.denied),
            is_own: matches!(caller, Caller::Host(_)),
        };
        let client = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http1_max_headers(MAX_HEADERS)
            .http1_max_buf_size(if is_command { COMMANDS_READ } else { MAX_HEAD_BYTES })
            .http2_max_header_list_size(MAX_HEAD_BYTES as u32)
            .build(Connector::new(gate, tls, self.proxy.clone()));
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= MAX_POOLS {
            clients.clear();
        }
        Ok(clients.entry(key).or_insert(client).clone())
    }

    /// Makes the connections of one tunnel, which is encrypted by its ends if at all.
    pub(crate) fn tunneller(&self, reach: Reach) -> Checked {
        let gate = Gate { reach: Arc::new(reach), denied: Arc::clone(&self.denied), is_own: false };
        Checked { gate, proxy: self.proxy.clone() }
    }

    /// How its connections are encrypted. The first call reads the machine's certificates.
    pub(crate) fn tls(&self) -> Result<&ClientConfig, EgressError> {
        if let Some(tls) = self.tls.get() {
            return Ok(tls);
        }
        let read;
        let certificates = match &self.trust {
            Trust::Read(certificates) => certificates,
            Trust::Files(files) => {
                read = Certificates::read(files).map_err(|e| EgressError::Tls(e.to_string()))?;
                &read
            }
        };
        let tls = configuration(certificates.roots()?, certificates)?;
        Ok(self.tls.get_or_init(|| tls))
    }
}

fn configuration(roots: RootCertStore, certificates: &Certificates) -> Result<ClientConfig, EgressError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| EgressError::Tls(e.to_string()))?
        .with_root_certificates(roots);
    certificates.authenticate(tls)
}
