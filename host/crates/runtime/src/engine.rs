use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak};

use crate::PluginError;
use crate::bindings::Plugin;
use crate::limits::{EPOCH_MS, MAX_STACK_BYTES};
use crate::state::{CallState, HostCalls};

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

pub(crate) fn engine(target: Target<'_>) -> Result<Engine, PluginError> {
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
    Engine::new(&config).map_err(PluginError::engine)
}

/// A thread that advances the epoch while calls run, and sleeps when none does.
struct Ticker {
    running: Mutex<usize>,
    changed: Condvar,
}

impl Ticker {
    fn start(engine: EngineWeak) -> Result<Arc<Self>, PluginError> {
        let ticker = Arc::new(Self { running: Mutex::new(0), changed: Condvar::new() });
        let weak = Arc::downgrade(&ticker);
        let body = move || {
            while let Some(ticker) = weak.upgrade() {
                ticker.wait_for_work();
                let Some(engine) = engine.upgrade() else { return };
                engine.increment_epoch();
                drop((ticker, engine));
                std::thread::sleep(Duration::from_millis(EPOCH_MS));
            }
        };
        std::thread::Builder::new().name("epoch".to_owned()).spawn(body).map_err(PluginError::thread)?;
        Ok(ticker)
    }

    fn wait_for_work(&self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        while *running == 0 {
            running = self.changed.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn change(&self, by: isize) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        *running = running.saturating_add_signed(by);
        drop(running);
        self.changed.notify_one();
    }
}

/// Keeps the epoch moving.
pub(crate) struct Running(Arc<Ticker>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.change(-1);
    }
}
