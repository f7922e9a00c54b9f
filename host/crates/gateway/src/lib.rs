//! The way out of commands behind the wall: mirrors and tunnels on a loopback of their own.
//!
//! Commands live where there is no network but a loopback. The host listens there and hands the listeners to a
//! [`Gateway`], one for each [`Face`]. Whatever comes in is read as HTTP/1.1, decided, and asked anew through
//! [`egress`]: nothing of a command's request is passed on as it came.
//!
//! - [`Face::Pypi`]: GET and HEAD of package indexes and files. Links in index pages lead back to the gateway.
//! - [`Face::Hub`]: the Hugging Face Hub at the root, for `HF_ENDPOINT` and for `git clone`. The host adds its own
//!   credential to reads of repositories; a command's own credentials never leave. A write is held, and sent only
//!   once somebody said yes to it.
//! - [`Face::Proxy`]: `CONNECT` to hosts that were granted, and nothing else.
//! - [`Face::Npm`] and [`Face::Conda`]: mirrors like the first, where they are switched on.
//!
//! # What goes out
//!
//! A path, a query without anything that looks like a token, and a few headers (see `asked.rs`). Redirects are
//! followed here; an answer never leads away from the gateway. Each request stands in the ledger as
//! [`egress::Caller::Command`].
//!
//! # What this does not stop
//!
//! The path and the query of a GET carry bytes to the mirrored origin: a command can tell `huggingface.co` or
//! `pypi.org` what it likes, a few thousand bytes at a time, and whoever reads the logs there can read it. So do
//! the names that `git fetch` wants, and the paths of which it asks for information. What goes through a tunnel is
//! encrypted by its ends and not seen: a granted host is granted whole.
//!
//! A token is known by its shape or by the name of its parameter. One that is taken apart or encoded is not.
//!
//! # Host names
//!
//! Only `127.0.0.1`, `localhost` and `[::1]` are answered. Nobody else's name leads to this loopback, so that
//! rebinding is no concern; another name is a client that takes a mirror for a proxy, and is told so.

mod answer;
mod asked;
mod fetch;
mod gateway;
mod hub;
mod links;
mod packages;
mod patient;
mod proxy;
mod refusal;
mod tokens;

pub use gateway::{Face, Gateway, GatewayConfig, Patience, Who};
pub use hub::{AskWrite, HubConfig, HubFile, HubWrite, HubWriteKind};
