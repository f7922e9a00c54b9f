//! The tool `bash`.

mod ansi;
mod bash;

sdk::export!(bash::Bash);
