use std::collections::{BTreeMap, HashMap};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use egress::{Egress, NetworkGrant};
use manifest::{Capabilities, Mount};
use protocol::{FileChange, HostReply, HostRequest, PermissionDenial, Tier, ToolCallId};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot};
use wasmtime::component::{HasData, ResourceTable};
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::call::Clock;
use crate::credentials::Bound;
use crate::folders::open_root;
use crate::limits::{EPOCH_MS, HOSTCALL_BYTES, Limits, MAX_STDIO_BYTES, Meter, max_handles};
use crate::metered::Metered;
use crate::runtime::Pending;
use crate::sent::Sent;
use crate::session::SessionContext;
use crate::sources::Sources;

/// What a store of one call holds.
pub(crate) struct CallState {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(crate) meter: Meter,
    pub(crate) limits: Limits,
    pub(crate) cpu: Cpu,
    pub(crate) output: Scrap,
    /// Below what is open: that is closed before others may count what lies there.
    pub(crate) metered: Metered,
    /// None while a plugin describes itself: every import refuses.
    pub(crate) call: Option<Call>,
}

/// The call a store was made for, and what came of it so far.
pub(crate) struct Call {
    pub(crate) id: ToolCallId,
    pub(crate) tool: String,
    pub(crate) plugin: Arc<str>,
    /// Whom its data and values belong to.
    pub(crate) owner: Arc<str>,
    /// Declared and granted.
    pub(crate) capabilities: Capabilities,
    pub(crate) network: Vec<NetworkGrant>,
    /// What a person said yes to during this call, and what was refused: neither is asked again.
    pub(crate) approved: Vec<NetworkGrant>,
    pub(crate) refused: BTreeMap<String, String>,
    /// Changes of sealed paths that were refused: the path, the digest of what would have stood there, and why.
    pub(crate) refused_changes: BTreeMap<(String, Option<String>), String>,
    /// Folders that are being listed, where rules deny paths.
    pub(crate) listed: HashMap<u32, PathBuf>,
    /// What it declares, granted or not.
    pub(crate) declared: Arc<[NetworkGrant]>,
    /// Those it declares, by name.
    pub(crate) credentials: Arc<BTreeMap<String, Bound>>,
    pub(crate) session: Arc<SessionContext>,
    pub(crate) egress: Egress,
    pub(crate) needs: mpsc::Sender<Pending>,
    pub(crate) cancel: tokio_util::sync::CancellationToken,
    pub(crate) clock: Arc<Clock>,
    pub(crate) changes: Vec<FileChange>,
    pub(crate) denial: Option<PermissionDenial>,
    /// Where text came from that it read and that nobody vouches for. It outlives the call.
    pub(crate) read: Arc<Sources>,
    pub(crate) order: Option<String>,
    /// It looks for an order, and changes nothing.
    pub(crate) looks: bool,
    /// Requests that change something elsewhere.
    pub(crate) sent: Arc<Sent>,
    pub(crate) log_messages: usize,
    pub(crate) http_requests: usize,
}

/// CPU time of a guest, counted in epochs that passed while it ran.
#[derive(Debug)]
pub(crate) struct Cpu {
    left: u64,
    pub(crate) limit_ms: u64,
    pub(crate) exceeded: bool,
}

/// The type parameter that ties the generated bindings to [`CallState`].
pub(crate) struct HostCalls;

impl HasData for HostCalls {
    type Data<'a> = &'a mut CallState;
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl CallState {
    /// A state in which nothing is granted.
    pub(crate) fn refusing(limits: &Limits) -> Self {
        let output = Scrap::default();
        Self::with(
            limits,
            WasiCtxBuilder::new().stdout(output.clone()).stderr(output.clone()).build(),
            output,
            None,
        )
    }

    /// A state for a call, with the folders it was granted.
    pub(crate) fn for_call(limits: &Limits, call: Call) -> Result<Self, String> {
        let output = Scrap::default();
        let mut wasi = WasiCtxBuilder::new();
        wasi.max_random_size(HOSTCALL_BYTES as u64);
        wasi.allow_blocking_current_thread(true).stdout(output.clone()).stderr(output.clone());
        wasi.env("ML_INTERN_PLUGIN", &call.plugin).env("HOME", "/data").env("TMPDIR", "/tmp");
        let folders = &call.session.folders;
        let mut metered = Metered::default();
        // The last one: most folders are seen under two names.
        let mut last: Option<(PathBuf, OwnedFd)> = None;
        let mut mount = |guest: &str, host: &Path, perms: FsPerms| {
            if last.as_ref().is_none_or(|(path, _)| path != host) {
                let folder =
                    open_root(host).map_err(|e| format!("{} cannot be opened: {e}", host.display()))?;
                last = Some((host.to_owned(), folder));
            }
            let fd = last.as_ref().map_or(-1, |(_, folder)| folder.as_raw_fd());
            let opened = wasi.preopened_dir(format!("/proc/self/fd/{fd}"), guest, perms);
            opened.map(|_| ()).map_err(|e| format!("{} cannot be opened: {e:#}", host.display()))
        };
        for granted in &call.capabilities.paths {
            match granted {
                Mount::Workspace => {
                    let shown =
                        folders.readable().into_iter().filter(|(_, host)| folders.denies(host).is_none());
                    for (guest, host) in shown {
                        mount(&guest, host, FsPerms::ReadOnly)?;
                    }
                }
                Mount::Tmp => {
                    mount("/tmp", &folders.tmp, FsPerms::ReadWrite)?;
                    let own = folders.tmp.to_string_lossy();
                    mount(&own, &folders.tmp, FsPerms::ReadWrite)?;
                    for name in ["/tmp", own.as_ref()] {
                        metered.mounts.push((name.to_owned(), call.session.tmp_share(limits)));
                    }
                }
                Mount::Data => {
                    let data = call.session.plugin_data.join(&*call.owner);
                    std::fs::create_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
                    mount("/data", &data, FsPerms::ReadWrite)?;
                    let share = call.session.data_share(&call.owner, &data, limits);
                    metered.mounts.push(("/data".to_owned(), share));
                }
            }
        }
        Ok(Self { metered, ..Self::with(limits, wasi.build(), output, Some(call)) })
    }

    fn with(limits: &Limits, wasi: WasiCtx, output: Scrap, call: Option<Call>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(max_handles());
        let cpu = Cpu { left: 0, limit_ms: limits.cpu_ms, exceeded: false };
        let (meter, metered) = (Meter::new(limits), Metered::default());
        Self { wasi, table, meter, limits: *limits, cpu, output, metered, call }
    }

    /// A store whose every resource is limited before any code runs in it.
    pub(crate) fn into_store(mut self, engine: &Engine, cpu_ms: u64) -> Store<Self> {
        self.cpu.left = cpu_ms.div_ceil(EPOCH_MS);
        let mut store = Store::new(engine, self);
        store.limiter(|state| &mut state.meter);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(max_handles());
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let cpu = &mut store.data_mut().cpu;
            // A long wait in the host lets many epochs pass but is charged as one at most.
            let Some(left) = cpu.left.checked_sub(1) else {
                cpu.exceeded = true;
                return Ok(UpdateDeadline::Interrupt);
            };
            cpu.left = left;
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())))
        });
        store
    }
}

impl Call {
    /// Asks the turn that made this call, and waits for its answer. The wait is not charged.
    pub(crate) async fn ask(&self, request: HostRequest) -> Option<HostReply> {
        let _pause = self.clock.pause();
        let (reply, answer) = oneshot::channel();
        let pending = Pending { call: self.id.clone(), tool: self.tool.clone(), request, reply };
        tokio::select! {
            () = self.cancel.cancelled() => None,
            answered = async { self.needs.send(pending).await.ok()?; answer.await.ok() } => answered,
        }
    }

    /// Notes where text comes from that nobody vouches for, before the guest gets it. What the guest keeps of it
    /// for other sessions is marked; where that cannot be done, the guest gets nothing.
    pub(crate) fn reads(&self, source: String) -> Result<(), String> {
        self.marks(&source)?;
        self.read.note(&source);
        Ok(())
    }

    /// Marks what the guest keeps for other sessions, if it keeps anything.
    pub(crate) fn marks(&self, source: &str) -> Result<(), String> {
        if self.capabilities.paths.contains(&Mount::Data) {
            self.session.mark_data(&self.owner, source)?;
        }
        Ok(())
    }

    /// Keeps what was refused, for the result: also if the guest keeps quiet about it.
    pub(crate) fn deny(&mut self, rule: &str, target: &str, remedy: &str, tier: Tier) {
        self.denial = Some(PermissionDenial {
            tool: self.tool.clone(),
            tool_call_id: self.id.clone(),
            tiers: [tier].into(),
            rule: rule.to_owned(),
            target: target.to_owned(),
            remedy: remedy.to_owned(),
        });
    }

    /// Keeps that a rule on paths refused something.
    pub(crate) fn deny_path(&mut self, rule: &str, path: &str, tier: Tier) {
        self.deny(&format!("rule:{rule}"), path, &format!("taking the rule `{rule}` away"), tier);
    }
}

/// What a guest wrote to its stdout and stderr: the first of it, for the diagnostics file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scrap(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Scrap {
    fn keep(&self, bytes: &[u8]) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = MAX_STDIO_BYTES.saturating_sub(kept.bytes.len()).min(bytes.len());
        kept.bytes.extend_from_slice(&bytes[..room]);
        kept.dropped += (bytes.len() - room) as u64;
    }

    /// The text, and how many bytes of it were dropped.
    pub(crate) fn take(&self) -> Option<(String, u64)> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.bytes.is_empty() {
            return None;
        }
        let bytes = std::mem::take(&mut kept.bytes);
        Some((String::from_utf8_lossy(&bytes).into_owned(), kept.dropped))
    }
}

impl IsTerminal for Scrap {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Scrap {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn wasmtime_wasi::p2::OutputStream> {
        Box::new(self.clone())
    }
}

impl wasmtime_wasi::p2::OutputStream for Scrap {
    fn write(&mut self, bytes: Bytes) -> wasmtime_wasi::p2::StreamResult<()> {
        self.keep(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> wasmtime_wasi::p2::StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> wasmtime_wasi::p2::StreamResult<usize> {
        Ok(MAX_STDIO_BYTES)
    }
}

#[wasmtime_wasi::async_trait]
impl wasmtime_wasi::p2::Pollable for Scrap {
    async fn ready(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_output_is_kept_to_its_first_bytes_and_counted() {
        let scrap = Scrap::default();
        (0..1_000).for_each(|_| scrap.keep(&[b'x'; 1_000]));
        let kept = scrap.0.lock().unwrap().bytes.capacity();
        assert!(kept <= 2 * MAX_STDIO_BYTES, "{kept}");
        let (text, dropped) = scrap.take().unwrap();
        assert_eq!((text.len(), dropped), (MAX_STDIO_BYTES, 1_000_000 - MAX_STDIO_BYTES as u64));
    }
}
