//! The tools `read`, `write` and `edit`.

mod edit;
mod paths;
mod python;
mod read;
mod replace;
mod seen;
mod write;

sdk::export!(read::Read, write::Write, edit::Edit);
