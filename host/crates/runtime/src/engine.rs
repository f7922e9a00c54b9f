use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::PluginError;
use crate::bindings::Plugin;
use crate::limits::{EPOCH_MS, Limits, MAX_CALLS, MAX_STACK_BYTES, MAX_TABLE_ELEMENTS};
use crate::metered::meter;
use crate::state::{CallState, HostCalls};

/// Core instances, memories and tables that a component has, on average over all that run.
const CORE_INSTANCES: u32 = 8;
const MEMORIES: u32 = 2;
const TABLES: u32 = 4;

/// Memories that stay ready for the plugin that used them last.
const WARM_SLOTS: u32 = 8;

/// Bytes of a memory, and of a table or stack, that are cleared in place between two calls; what is
/// beyond them goes back to the system.
const KEPT_MEMORY_BYTES: usize = 2 << 20;
const KEPT_BYTES: usize = 64 << 10;

/// Where code is to run.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// On this processor, with all it can do.
    Host,
    /// On any processor of a target triple: its baseline.
    Baseline(&'a str),
}

/// What all plugins of a process share.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<CallState>,
    ticker: Arc<Ticker>,
}

impl Shared {
    pub(crate) fn new(target: Target<'_>) -> Result<Self, PluginError> {
        let engine = engine(target)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(PluginError::engine)?;
        meter(&mut linker).map_err(PluginError::engine)?;
        Plugin::add_to_linker::<_, HostCalls>(&mut linker, |state| state).map_err(PluginError::engine)?;
        let ticker = Ticker::start(engine.weak())?;
        Ok(Self { engine, linker, ticker })
    }

    /// Epochs pass as long as one of these is held.
    pub(crate) fn running(&self) -> Running {
        self.ticker.change(1);
        Running(self.ticker.clone())
    }
}

/// An engine with memory set aside for all calls that can run at a time, so that a call maps and unmaps
/// nothing. Where the address space for that cannot be had (`ulimit -v`), memory is mapped call by call.
pub(crate) fn engine(target: Target<'_>) -> Result<Engine, PluginError> {
    let mut config = config(target)?;
    config.allocation_strategy(pool());
    if let Ok(engine) = Engine::new(&config) {
        return Ok(engine);
    }
    config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
    Engine::new(&config).map_err(PluginError::engine)
}

fn config(target: Target<'_>) -> Result<Config, PluginError> {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(false)
        .max_wasm_stack(MAX_STACK_BYTES)
        .generate_address_map(false)
        .native_unwind_info(false);
    if let Target::Baseline(triple) = target {
        config.target(triple).map_err(PluginError::engine)?;
    }
    Ok(config)
}

fn pool() -> PoolingAllocationConfig {
    let calls = u32::try_from(MAX_CALLS).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(calls)
        .total_core_instances(calls * CORE_INSTANCES)
        .total_memories(calls * MEMORIES)
        .total_tables(calls * TABLES)
        .total_stacks(calls)
        // What one component takes: the pool is for all.
        .max_core_instances_per_component(CORE_INSTANCES * 4)
        .max_memories_per_component(MEMORIES * 4)
        .max_tables_per_component(TABLES * 4)
        .max_memory_size(Limits::default().memory_bytes)
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_unused_warm_slots(WARM_SLOTS)
        .linear_memory_keep_resident(KEPT_MEMORY_BYTES)
        .table_keep_resident(KEPT_BYTES)
        .async_stack_keep_resident(KEPT_BYTES)
        // Where the kernel can say which pages were written (Linux 6.7), only those are cleared.
        .pagemap_scan(Enabled::Auto);
    pool
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.ticker.close();
    }
}

/// A thread that advances the epoch while calls run, sleeps when none does, and ends with the engine.
struct Ticker {
    state: Mutex<State>,
    changed: Condvar,
}

/// Epochs without a call after which the thread sleeps: to wake it costs the next call more than these do.
const IDLE_EPOCHS: u32 = 5;

#[derive(Default)]
struct State {
    running: usize,
    closed: bool,
    /// Whether the thread waits to be woken.
    asleep: bool,
}

impl Ticker {
    fn start(engine: EngineWeak) -> Result<Arc<Self>, PluginError> {
        let ticker = Arc::new(Self { state: Mutex::default(), changed: Condvar::new() });
        let thread = ticker.clone();
        let body = move || {
            let mut idle = 0;
            while thread.has_work(&mut idle) {
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(Duration::from_millis(EPOCH_MS));
            }
        };
        std::thread::Builder::new().name("epoch".to_owned()).spawn(body).map_err(PluginError::thread)?;
        Ok(ticker)
    }

    /// Waits until a call runs, if none did for a while; false once none ever will.
    fn has_work(&self, idle: &mut u32) -> bool {
        let mut state = self.state();
        *idle = if state.running == 0 { *idle + 1 } else { 0 };
        if *idle > IDLE_EPOCHS {
            while state.running == 0 && !state.closed {
                state.asleep = true;
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.asleep = false;
            *idle = 0;
        }
        state.running > 0 || !state.closed
    }

    fn change(&self, by: isize) {
        let mut state = self.state();
        state.running = state.running.saturating_add_signed(by);
        if state.asleep {
            drop(state);
            self.changed.notify_one();
        }
    }

    fn close(&self) {
        self.state().closed = true;
        self.changed.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps the epoch moving.
pub(crate) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}
