//! The tool `bash`.

mod ansi;
mod bash;
mod spill;

sdk::export!(bash::Bash);
