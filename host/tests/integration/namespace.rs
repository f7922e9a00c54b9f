//! Runs in a network of their own, in which every address leads to a listener and every packet is counted.
//!
//! Such a network needs Linux, a namespace that can be made (as root, or where users may), and `ip`. Where
//! that cannot be had, the tests say so and return.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketType, sockopt};
use serde_json::{Value, json};
use testkit::Step;

use crate::support::{TestHost, call};

/// Set in the process that runs inside.
const INSIDE: &str = "ML_INTERN_TEST_NAMESPACE";

/// A public address that is nobody's here, and so this machine's.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(93, 184, 215, 14);

/// Everything leads to the loopback: what leaves is seen, and arrives.
const SETUP: &str = "ip link set lo up && ip route add local default dev lo && \
                     (ip -6 route add local default dev lo || true) && mount --bind \"$1\" /etc/resolv.conf";

/// Runs a test again in a network of its own. Outside gives false, and then there is nothing more to do.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "a test that starts itself again, or says why not"
)]
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let dir = tempfile::tempdir().unwrap();
    let resolv = dir.path().join("resolv.conf");
    std::fs::write(&resolv, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.arg("-nm");
        if !rustix::process::geteuid().is_root() {
            command.arg("-r");
        }
        command.args(["sh", "-c", script, "sh"]).arg(&resolv);
        command
    };
    let made = unshared(SETUP).output();
    if !made.as_ref().is_ok_and(|made| made.status.success()) {
        eprintln!("NOT RUN: no network namespace can be made here: {made:?}");
        return false;
    }
    let again = format!("{SETUP} && shift && exec \"$@\"");
    let ran = unshared(&again)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// Sees every packet of this network.
struct Watch {
    seen: Arc<Mutex<BTreeSet<SocketAddr>>>,
}

impl Watch {
    fn start() -> Self {
        // All protocols, in network byte order.
        let all = Protocol::from_raw(NonZeroU32::new(u32::from(3_u16.to_be())).unwrap());
        let socket = rustix::net::socket(AddressFamily::PACKET, SocketType::DGRAM, Some(all)).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 8 << 20).unwrap();
        let seen = Arc::<Mutex<BTreeSet<SocketAddr>>>::default();
        let kept = Arc::clone(&seen);
        std::thread::spawn(move || {
            let mut packet = [0; 128];
            while let Ok((length, _)) = rustix::net::recv(&socket, &mut packet[..], RecvFlags::TRUNC) {
                if let Some(to) = destination(&packet[..length.min(128)]) {
                    kept.lock().unwrap().insert(to);
                }
            }
        });
        Self { seen }
    }

    /// Where connections were opened to and datagrams were sent to, apart from answers.
    fn seen(&self) -> Vec<SocketAddr> {
        self.seen.lock().unwrap().iter().copied().collect()
    }

    /// Waits until a datagram of our own was seen, and so everything before it.
    fn settle(&self) {
        let mark = SocketAddr::from((Ipv4Addr::new(127, 9, 9, 9), 9));
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        while !self.seen().contains(&mark) {
            socket.send_to(b"mark", mark).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        self.seen.lock().unwrap().remove(&mark);
    }
}

/// Where a packet that begins something goes: a TCP opening, or a datagram.
fn destination(packet: &[u8]) -> Option<SocketAddr> {
    const TCP: u8 = 6;
    const UDP: u8 = 17;
    let (protocol, to, rest) = match packet.first()? >> 4 {
        4 => {
            let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            let header = usize::from(packet[0] & 15) * 4;
            (packet[9], IpAddr::from(Ipv4Addr::from(octets)), packet.get(header..)?)
        }
        6 => {
            let octets: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (packet[6], IpAddr::from(Ipv6Addr::from(octets)), packet.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?);
    let begins = match protocol {
        TCP => rest.get(13)? & 0x12 == 0x02,
        UDP => true,
        _ => return None,
    };
    begins.then(|| SocketAddr::new(to, port))
}

/// A host with the probe, which was granted what it declares.
fn host(steps: Vec<Step>) -> TestHost {
    let host = TestHost::outside_tmp(steps);
    let plugins = host.home.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    std::fs::copy(guests::component("probe"), plugins.join("probe.wasm")).unwrap();
    let grants = "[probe]\nnetwork = [\"http://127.0.0.1:1 GET\", \"http://*.names.example:8099 GET\"]\n";
    host.home_file(".config/ml-intern/grants.toml", grants);
    host
}

fn run(host: &TestHost, more: &[&str]) -> (Vec<String>, Value) {
    let plugins = host.home.join("plugins").display().to_string();
    let ran = host.stream(&[&["--plugin-dir", plugins.as_str()], more].concat());
    (ran.outputs().into_iter().map(str::to_owned).collect(), ran.result().clone())
}

fn http(url: &str) -> Step {
    call("probe__probe", json!({"trick": "http", "with": url}))
}

#[test]
fn offline_contacts_the_model_and_nothing_else() {
    if !is_inside("namespace::offline_contacts_the_model_and_nothing_else") {
        return;
    }
    let python = format!(
        "python3 -c 'import socket; socket.create_connection((\"{PUBLIC}\", 80), 2)'; \
         echo x > /dev/tcp/{PUBLIC}/81; getent hosts leak.names.example; echo x > /dev/udp/{PUBLIC}/53"
    );
    let host = host(vec![
        http("http://127.0.0.1:1/"),
        http("http://a.names.example:8099/"),
        call("bash", json!({"command": format!("bash -c '{}'", python.replace('\'', "\"'\"'"))})),
        Step::text("done"),
    ]);
    let watch = Watch::start();
    let (outputs, result) = run(&host, &["--offline"]);
    watch.settle();
    assert!(outputs[..2].iter().all(|output| output.contains("--offline")), "{outputs:?}");
    let model: SocketAddr = host.server.url().trim_start_matches("http://").parse().unwrap();
    assert_eq!(watch.seen(), [model], "{outputs:?}");
    let ledger = host.requests(&["--run", result["session_id"].as_str().unwrap()]);
    let (refused, left): (Vec<&Value>, Vec<&Value>) = ledger.iter().partition(|line| line["refused"] == true);
    assert!(left.len() >= 4 && left.iter().all(|line| line["origin"] == host.server.url()), "{ledger:?}");
    let refused: Vec<&str> = refused.iter().filter_map(|line| line["origin"].as_str()).collect();
    assert_eq!(refused, ["http://127.0.0.1:1", "http://a.names.example:8099"]);
}

#[test]
fn the_demo_contacts_its_own_script_and_nothing_else() {
    if !is_inside("namespace::the_demo_contacts_its_own_script_and_nothing_else") {
        return;
    }
    for more in [["demo"].as_slice(), &["demo", "--offline"]] {
        let host = TestHost::outside_tmp([]);
        let watch = Watch::start();
        let ran = host.run(more);
        watch.settle();
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        let seen = watch.seen();
        assert!(seen.len() == 1 && seen[0].ip().is_loopback(), "{seen:?}");
        let origin = format!("http://{}", seen[0]);
        let ledger = host.requests(&[]);
        assert!(!ledger.is_empty() && ledger.iter().all(|line| line["origin"] == origin), "{ledger:?}");
    }
}

/// A name server that answers each question for an address with what `addresses` says, and counts them.
fn name_server(addresses: impl Fn(&str, usize) -> Vec<Ipv4Addr> + Send + 'static) {
    let socket = UdpSocket::bind("0.0.0.0:53").unwrap();
    std::thread::spawn(move || {
        let mut asked = std::collections::BTreeMap::<String, usize>::new();
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            let question = &question[..length];
            let mut labels = Vec::new();
            let mut at = 12;
            while question[at] != 0 {
                let end = at + 1 + usize::from(question[at]);
                labels.push(String::from_utf8_lossy(&question[at + 1..end]).into_owned());
                at = end;
            }
            let is_v4 = question[at + 1..at + 3] == [0, 1];
            let name = labels.join(".");
            let found = if is_v4 {
                let count = asked.entry(name.clone()).or_default();
                *count += 1;
                addresses(&name, *count)
            } else {
                Vec::new()
            };
            let mut answer = question[..2].to_vec();
            answer.extend([0x84, 0, 0, 1, 0, found.len() as u8, 0, 0, 0, 0]);
            answer.extend(&question[12..at + 5]);
            for address in found {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(address.octets());
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
}

#[test]
fn a_name_is_resolved_once_and_leads_nowhere_private() {
    if !is_inside("namespace::a_name_is_resolved_once_and_leads_nowhere_private") {
        return;
    }
    name_server(|name, count| match (name, count) {
        ("rebind.names.example", 1) | ("public.names.example", _) => vec![PUBLIC],
        ("rebind.names.example" | "private.names.example", _) => vec![Ipv4Addr::LOCALHOST],
        ("mixed.names.example", _) => vec![PUBLIC, Ipv4Addr::new(10, 0, 0, 1)],
        ("metadata.names.example", _) => vec![Ipv4Addr::new(169, 254, 169, 254)],
        _ => Vec::new(),
    });
    // Whatever address is connected to is this one's.
    let listener = TcpListener::bind("0.0.0.0:8099").unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let here = stream.local_addr().unwrap().ip().to_string();
            let _ = stream.read(&mut [0; 1024]);
            let head =
                format!("HTTP/1.1 200 -\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", here.len());
            stream.write_all((head + &here).as_bytes()).unwrap();
        }
    });
    let names = ["public", "rebind", "rebind", "private", "mixed", "metadata"];
    let mut steps: Vec<Step> =
        names.iter().map(|name| http(&format!("http://{name}.names.example:8099/"))).collect();
    steps.push(http("http://public.names.example:8098/"));
    steps.push(Step::text("done"));
    let host = host(steps);
    let watch = Watch::start();
    let (outputs, _) = run(&host, &[]);
    watch.settle();
    let public = PUBLIC.to_string();
    assert_eq!(outputs[..2], [public.as_str(), public.as_str()], "{outputs:?}");
    for (output, address) in
        outputs[2..6].iter().zip(["127.0.0.1", "127.0.0.1", "10.0.0.1", "169.254.169.254"])
    {
        let refusal = format!("leads to {address}, which is not a public address");
        assert!(output.contains(&refusal), "{address}: {outputs:?}");
    }
    assert!(outputs[6].contains("is not granted"), "{outputs:?}");
    let ledger = host.requests(&[]);
    let refused =
        ledger.iter().filter(|line| line["who"] == "plugin probe").map(|line| line["refused"] == true);
    assert_eq!(refused.collect::<Vec<_>>(), [false, false, true, true, true, true, true], "{ledger:?}");
    let of_plugin = watch.seen().into_iter().filter(|to| to.port() == 8099);
    assert_eq!(of_plugin.collect::<Vec<_>>(), [SocketAddr::from((PUBLIC, 8099))]);
}
