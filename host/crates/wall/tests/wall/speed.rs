//! How long things take; printed, not asserted: `cargo test … -- --ignored --nocapture speed`.

use std::time::{Duration, Instant};

use ml_intern_wall::Command;

use crate::roles::Test;
use crate::session::{Session, Variant, ok, sh};

pub(crate) const TESTS: &[Test] = &[("speed", speed)];

const ROUNDS: u32 = 200;

fn speed(variant: &Variant) {
    let session = Session::new(variant);
    let true_command = || Command { program: "true".into(), args: Vec::new(), ..sh("") };
    let started = Instant::now();
    ok(&session.run(true_command()).unwrap());
    let first = started.elapsed();
    let ready = session.block_on(session.wall().probe()).unwrap().start;
    let in_wall = average(|| ok(&session.run(true_command()).unwrap()));
    let direct = average(|| std::process::Command::new("/bin/true").status().unwrap());
    println!(
        "{}: first command {first:?} (supervisor {ready:?}), later {in_wall:?}, without a wall {direct:?}",
        variant.name
    );
}

fn average<T>(mut run: impl FnMut() -> T) -> Duration {
    let started = Instant::now();
    for _ in 0..ROUNDS {
        run();
    }
    started.elapsed() / ROUNDS
}
