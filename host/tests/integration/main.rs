//! The real binary, with real components, against a scripted model on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod asking;
mod audit;
mod budget;
mod bytes;
mod card;
mod cli;
mod compaction;
mod credentials;
mod formats;
mod guests;
mod hostile;
mod hub;
mod hygiene;
mod jobs;
mod limits;
mod namespace;
mod network;
mod orders;
mod permissions;
mod places;
mod plugins;
mod policy;
mod provenance;
mod resume;
mod rules;
mod screen;
mod sdk;
mod signals;
mod support;
mod taint;
mod tools;
mod tools_edges;
mod trust;
mod turns;
mod wit;
