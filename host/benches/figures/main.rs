//! The figures of the README, measured on the release binary: `cargo bench --bench figures`.
//!
//! Nothing is asserted: a figure above its bar is marked, not a failure. Each row is the median of its
//! runs, with the lowest and the highest.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark that cannot go on ends")]

mod calls;
mod process;
mod server;

use std::time::Duration;

/// A figure: what was measured, its bar, and all values.
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    bar: f64,
    values: Vec<f64>,
}

impl Figure {
    pub(crate) fn new(name: impl Into<String>, unit: &'static str, bar: f64, values: Vec<f64>) -> Self {
        Self { name: name.into(), unit, bar, values }
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    }

    fn row(&self) -> String {
        let Self { name, unit, bar, values } = self;
        let (low, high) =
            values.iter().fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(*v), high.max(*v)));
        let bar = if bar.is_finite() { format!("≤ {} {unit}", round(*bar)) } else { "–".to_owned() };
        let mark = if self.median() > self.bar { " (!)" } else { "" };
        format!(
            "| {name} | {bar} | {} {unit}{mark} | {} – {} |",
            round(self.median()),
            round(low),
            round(high)
        )
    }
}

/// Two digits behind the point, none if they are zeros.
fn round(value: f64) -> String {
    let text = format!("{value:.2}");
    text.strip_suffix(".00").map_or(text.clone(), str::to_owned)
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub(crate) fn us(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn main() {
    let mut figures = process::figures();
    figures.extend(calls::figures());
    println!("\n| figure | bar | median | lowest – highest |");
    println!("|---|---|---|---|");
    for figure in &figures {
        println!("{}", figure.row());
    }
}
