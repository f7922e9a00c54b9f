//! Attacks that need more than one argument, each told line by line: what worked, and what was refused.

use std::fmt::{Debug, Display};
use std::fs::{self, File, OpenOptions};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};

use schemars::JsonSchema;
use sdk::exec::Command;
use sdk::files::{self, Expectation};
use sdk::http::Request;
use sdk::{Call, Output, Tool, ToolError};
use serde::Deserialize;

/// Arguments of `attack`.
#[derive(Deserialize, JsonSchema)]
pub(crate) struct Attack {
    how: How,
    /// A path or URL, as the attack needs it.
    with: Option<String>,
    /// What is tried, one after another.
    list: Vec<String>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum How {
    /// Reads each path.
    Read,
    /// Asks for all that can be known of each path without reading it.
    Look,
    /// Changes the path and what lies in it in every way that WASI has, from a copy in `/tmp`.
    Change,
    /// Writes and reads the path as often as the first of the list says.
    Race,
    /// Opens sockets to and for each address, and asks for each name.
    Sockets,
    /// Sends a request with each header, `Name: value`.
    Headers,
    /// Gets the URL and tells the whole answer.
    Fetch,
    /// Gets the URL a hundred times.
    Flood,
    /// Sends a method, a host and headers that are far too long or too many, and a header after them.
    Extremes,
    /// Runs `printf` with the list as its arguments.
    Arguments,
    /// Runs `true` with each name set in its environment.
    Variables,
    /// Has the host write so many files of so many bytes, each other than the one before: under names that begin
    /// with the path, or all to it.
    Write,
    /// Has the host write each of the list to the path, whatever became of the one before.
    Insist,
    /// Opens the path again and again and closes nothing.
    Leak,
}

impl Tool for Attack {
    const NAME: &'static str = "attack";
    const DESCRIPTION: &'static str = "Misbehaves with more to say.";

    fn run(self, call: &Call) -> Result<Output, ToolError> {
        let with = self.with.unwrap_or_default();
        let each = |attack: &dyn Fn(&String) -> String| self.list.iter().map(attack).collect::<Vec<_>>();
        let lines = match self.how {
            How::Read => each(&|path| told(path, fs::read_to_string(path))),
            How::Look => self.list.iter().flat_map(|path| look(path)).collect(),
            How::Change => change(&with),
            How::Race => vec![race(call, &with, &self.list)],
            How::Sockets => self.list.iter().flat_map(|address| sockets(address)).collect(),
            How::Headers => each(&|header| {
                let (name, value) = header.split_once(": ").unwrap_or((header.as_str(), ""));
                told(header, Request::get(&with).header(name, value).send().map(|_| "sent"))
            }),
            How::Fetch => vec![format!("{:?}", Request::get(&with).send()?)],
            How::Flood => vec![flood(&with)],
            How::Extremes => extremes(&with),
            How::Arguments => {
                let exit = Command::new("printf", self.list).run()?;
                vec![String::from_utf8_lossy(&exit.stdout.head).into_owned()]
            }
            How::Variables => each(&|name| {
                told(name, Command::new("true", [""; 0]).env(name.as_str(), "/tmp/evil").run().map(|_| "set"))
            }),
            How::Write => vec![write(&with, &self.list)],
            How::Insist => each(&|text| {
                told(text, files::write(with.as_ref(), text.as_bytes(), &Expectation::Any).map(|_| ()))
            }),
            How::Leak => vec![leak(&with)],
        };
        Ok(Output::text(lines.join("\n")))
    }
}

fn told<T: Debug, E: Display>(what: &str, result: Result<T, E>) -> String {
    match result {
        Ok(value) => format!("WORKED {what:?}: {value:?}"),
        Err(e) => format!("refused {what:?}: {e}"),
    }
}

fn look(path: &str) -> Vec<String> {
    let names =
        || fs::read_dir(path)?.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<Vec<_>>>();
    vec![
        told(&format!("stat {path}"), fs::metadata(path).map(|about| about.len())),
        told(&format!("link {path}"), fs::symlink_metadata(path).map(|about| about.file_type())),
        told(&format!("leads {path}"), fs::read_link(path)),
        told(&format!("list {path}"), names()),
        told(&format!("hard link {path}"), fs::hard_link(path, "/tmp/hard-link")),
    ]
}

/// `target` is a file in a folder that is only to be read.
fn change(target: &str) -> Vec<String> {
    let folder = target.rsplit_once('/').map_or("/", |(folder, _)| folder);
    let beside = |name: &str| format!("{folder}/{name}");
    let own = "/tmp/own-file";
    let mut lines = vec![told("make in /tmp", fs::write(own, "x")).replace("WORKED", "done")];
    lines.extend([
        told("append", OpenOptions::new().append(true).open(target)),
        told("truncate", OpenOptions::new().write(true).truncate(true).open(target)),
        told("create", OpenOptions::new().write(true).create_new(true).open(beside("created"))),
        told("set length", File::open(target).and_then(|file| file.set_len(0))),
        told("set times", File::open(target).and_then(|f| f.set_modified(std::time::SystemTime::UNIX_EPOCH))),
        told("hard link into", fs::hard_link(own, beside("linked"))),
        told("hard link out of", fs::hard_link(target, "/tmp/linked")),
        told("rename into", fs::rename(own, beside("renamed"))),
        told("rename over", fs::rename(own, target)),
        told("rename out of", fs::rename(target, "/tmp/renamed")),
        told("rename within", fs::rename(target, beside("renamed"))),
        told("rename upwards", fs::rename("/tmp/own-file", format!("/tmp/..{target}"))),
        told("make folder", fs::create_dir(beside("folder"))),
        told("remove", fs::remove_file(target)),
        told("remove folder", fs::remove_dir_all(folder)),
    ]);
    lines
}

fn race(call: &Call, path: &str, times: &[String]) -> String {
    let path = call.path(path);
    let (mut written, mut refused, mut leaked) = (0, 0, 0);
    for _ in 0..times.first().and_then(|n| n.parse().ok()).unwrap_or(0) {
        match files::write(&path, b"attack\n", &Expectation::Any) {
            Ok(_) => written += 1,
            Err(_) => refused += 1,
        }
        leaked += usize::from(fs::read_to_string(&path).is_ok_and(|text| text.contains("secret")));
    }
    format!("written {written} refused {refused} leaked {leaked}")
}

fn write(path: &str, list: &[String]) -> String {
    let number = |at: usize| list.get(at).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let one_file = list.get(2).is_some_and(|word| word == "same");
    for k in 0..number(0) {
        let path = if one_file { path.to_owned() } else { format!("{path}{k}") };
        let content = if k % 2 == 0 { b"a" } else { b"b" }.repeat(number(1));
        if let Err(e) = files::write(path.as_ref(), &content, &Expectation::Any) {
            return format!("{k} written, then {e}");
        }
    }
    format!("{} written", number(0))
}

fn sockets(address: &str) -> Vec<String> {
    let datagram = || UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"out", address));
    // An address needs nobody who knows it.
    let is_name = address.parse::<SocketAddr>().is_err();
    let resolved =
        is_name.then(|| told(&format!("resolve {address}"), address.to_socket_addrs().map(Vec::from_iter)));
    let mut lines = Vec::from_iter(resolved);
    lines.extend([
        told(&format!("connect {address}"), TcpStream::connect(address)),
        told(&format!("listen {address}"), TcpListener::bind(address)),
        told(&format!("bind {address}"), UdpSocket::bind(address)),
        told(&format!("send {address}"), datagram()),
    ]);
    lines
}

fn flood(url: &str) -> String {
    let mut answered = 0;
    for _ in 0..100 {
        match Request::get(url).send() {
            Ok(_) => answered += 1,
            Err(e) => return format!("{answered} answered, then {e}"),
        }
    }
    format!("{answered} answered")
}

fn extremes(url: &str) -> Vec<String> {
    let host = format!("http://{}names.example:8099/", "a.".repeat(100_000));
    // As many as make a map of headers overflow.
    let headers = (0..24_577).fold(Request::get(url), |request, k| request.header(format!("x-{k}"), ""));
    vec![
        told("method", Request::new("M".repeat(1 << 20), url).send()),
        told("host", Request::get(host).send()),
        told("headers", headers.send()),
    ]
}

fn leak(path: &str) -> String {
    for k in 0..1_000_000 {
        match File::open(path) {
            Ok(file) => std::mem::forget(file),
            Err(e) => return format!("opened {k}, then {e}"),
        }
    }
    "opened a million".to_owned()
}
