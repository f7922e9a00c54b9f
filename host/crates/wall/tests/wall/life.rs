//! How commands and sessions end.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Command as HostCommand, ExitCode, Stdio};
use std::time::{Duration, Instant};

use ml_intern_wall::{Command, Mode};
use tokio_util::sync::CancellationToken;

use crate::roles::Test;
use crate::session::{Session, Text as _, Variant, eventually, mark, ok, processes, sh};

pub(crate) const TESTS: &[Test] = &[
    ("a_background_job_lives_across_calls", background_job),
    ("a_background_job_with_the_output_does_not_hold_the_call", background_output),
    ("a_timeout_ends_the_group_and_nothing_else", timeout),
    ("what_ignores_a_timeout_is_killed", stubborn),
    ("a_cancelled_command_ends", cancelled),
    ("a_dropped_call_ends_its_command", dropped),
    ("commands_run_at_the_same_time", parallel),
    ("the_session_ends_its_daemons", daemons),
    ("the_session_ends_its_daemons_without_a_wall", daemons_unconfined),
    ("the_session_outruns_fork_bombs", fork_bombs),
    ("a_killed_host_leaves_nothing", killed_host),
    ("a_killed_supervisor_is_replaced", killed_supervisor),
    ("a_stopped_supervisor_is_given_up", stopped_supervisor),
    ("a_wall_dropped_ends_its_session", dropped_wall),
    ("where_mounts_are_refused_the_wall_does_without", no_mounts),
    ("the_environment_block_can_be_cleared", scrubbed),
];

/// What a session may take to end everything.
const END: Duration = Duration::from_secs(2);

fn background_job(variant: &Variant) {
    let session = Session::new(variant);
    let pid = ok(&session.sh(
        "nohup sh -c 'while ! test -e stop; do sleep 0.01; done; echo done > log' > /dev/null 2>&1 & echo $!",
    ));
    ok(&session.sh(&format!("kill -0 {pid}")));
    ok(&session.sh("touch stop"));
    eventually(Duration::from_secs(10), "the job ends", || session.work().join("log").exists());
    eventually(Duration::from_secs(10), "it is reaped", || {
        session.sh(&format!("kill -0 {pid}")).code != Some(0)
    });

    let pid = ok(&session.sh("sleep 1000 > /dev/null 2>&1 & echo $!"));
    ok(&session.sh(&format!("kill {pid}")));
    // Its number says something within the session only.
    eventually(Duration::from_secs(10), "a later call ends it", || {
        session.sh(&format!("kill -0 {pid}")).code != Some(0)
    });
}

fn background_output(variant: &Variant) {
    let session = Session::new(variant);
    let started = Instant::now();
    // It writes until it has written more than any pipe holds, then says so.
    let exit = session.sh("echo first; (while ! test -e go; do sleep 0.01; done; head -c 1000000 /dev/zero; echo ok > written) & exit 0");
    assert_eq!(ok(&exit), "first");
    assert!(started.elapsed() < Duration::from_secs(10));
    ok(&session.sh("touch go"));
    eventually(Duration::from_secs(10), "the job's output is drained", || {
        session.work().join("written").exists()
    });

    let flood = session.sh("yes & exit 0");
    assert_eq!(flood.code, Some(0));
}

fn timeout(variant: &Variant) {
    let session = Session::new(variant);
    let (own, other) = (mark(), mark());
    ok(&session.sh(&format!("sleep {other} > /dev/null 2>&1 &")));
    let command = Command {
        timeout: Duration::from_millis(300),
        ..sh(&format!("sleep {own} & sh -c 'sleep {own}'; echo no"))
    };
    let started = Instant::now();
    let exit = session.run(command).unwrap();
    assert!(exit.timed_out && !exit.cancelled && exit.signal.as_deref() == Some("SIGTERM"), "{exit:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "SIGTERM was enough: {:?}", started.elapsed());
    assert_eq!((processes(&own), processes(&other)), (0, 1));
}

fn stubborn(variant: &Variant) {
    let session = Session::new(variant);
    let own = mark();
    let script =
        format!("trap '' TERM; echo on; sh -c 'trap \"\" TERM; while true; do sleep 0.01; done; : {own}'");
    let exit = session.run(Command { timeout: Duration::from_millis(200), ..sh(&script) }).unwrap();
    assert!(exit.timed_out && exit.signal.as_deref() == Some("SIGKILL"), "{exit:?}");
    assert_eq!((exit.stdout.text().as_str(), processes(&own)), ("on\n", 0));
    assert!((2200..4000).contains(&exit.duration_ms), "{} ms", exit.duration_ms);
}

fn cancelled(variant: &Variant) {
    let session = Session::new(variant);
    let own = mark();
    let exit = session.block_on(async {
        let cancel = CancellationToken::new();
        let run = session.wall().run(sh(&format!("sleep {own}")), cancel.clone());
        let cancel_later = async {
            while processes(&own) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        tokio::join!(run, cancel_later).0.unwrap()
    });
    assert!(exit.cancelled && !exit.timed_out, "{exit:?}");
    assert_eq!(processes(&own), 0);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let never = session.block_on(session.wall().run(sh("touch started"), cancel)).unwrap();
    assert!(never.cancelled && !session.work().join("started").exists());
}

fn dropped(variant: &Variant) {
    let session = Session::new(variant);
    let own = mark();
    session.block_on(async {
        let run = session.wall().run(sh(&format!("sleep {own}")), CancellationToken::new());
        tokio::time::timeout(Duration::from_millis(500), run).await.unwrap_err();
    });
    session.block_on(async {
        let ended = async {
            while processes(&own) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(END, ended).await.expect("the command ends");
    });
}

fn parallel(variant: &Variant) {
    let session = Session::new(variant);
    // Each waits for the next: they end only if they run at the same time.
    let scripts: Vec<String> = (0..8)
        .map(|i| format!("touch {i}; while ! test -e {}; do sleep 0.01; done; echo {i}", (i + 1) % 8))
        .collect();
    let exits = session.block_on(async {
        let mut set = Vec::new();
        for script in &scripts {
            set.push(session.wall().run(sh(script), CancellationToken::new()));
        }
        let mut exits = Vec::new();
        let mut tasks: Vec<_> = set.into_iter().map(Box::pin).collect();
        std::future::poll_fn(|context| {
            tasks.retain_mut(|task| match task.as_mut().poll(context) {
                std::task::Poll::Ready(exit) => {
                    exits.push(exit.unwrap());
                    false
                }
                std::task::Poll::Pending => true,
            });
            if tasks.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        exits
    });
    let mut outputs: Vec<String> = exits.iter().map(ok).collect();
    outputs.sort();
    assert_eq!(outputs, (0..8).map(|i| i.to_string()).collect::<Vec<_>>());
}

/// Starts daemons that left their group and session, and orphans.
fn start_daemons(session: &Session, own: &str) {
    ok(&session.sh(&format!(
        "setsid sleep {own} > /dev/null 2>&1 & \
         (setsid sh -c 'trap \"\" TERM HUP INT; sleep {own} & sleep {own}' > /dev/null 2>&1 &) & \
         nohup sleep {own} > /dev/null 2>&1 &"
    )));
    eventually(Duration::from_secs(10), "the daemons run", || processes(own) >= 4);
}

fn daemons(variant: &Variant) {
    let mut session = Session::new(variant);
    let own = mark();
    start_daemons(&session, &own);
    let started = Instant::now();
    session.shutdown();
    assert!(started.elapsed() < END, "{:?}", started.elapsed());
    assert_eq!(processes(&own), 0);
}

fn daemons_unconfined(variant: &Variant) {
    let mut session = Session::with(variant, |config, _| config.mode = Mode::Off);
    let own = mark();
    start_daemons(&session, &own);
    session.shutdown();
    assert_eq!(processes(&own), 0);
}

fn fork_bombs(variant: &Variant) {
    let mut session = Session::new(variant);
    let own = mark();
    // Bombs that make dozens of processes, and hares: processes that are a new one all the time.
    let program = format!(
        "
import os, sys, time
mark = '{own}'
for _ in range(2):
    if os.fork() == 0:
        os.setsid()
        while True:
            if os.fork(): os._exit(0)
for _ in range(15):
    if os.fork() == 0:
        os.setsid()
        for _ in range(2): os.fork()
        while True:
            if os.fork() == 0: os._exit(0)
            try: os.wait()
            except ChildProcessError: pass
print('on')
"
    );
    ok(&session.python(&program));
    assert!(processes(&own) > 15);
    let started = Instant::now();
    session.shutdown();
    assert!(started.elapsed() < END, "{:?}", started.elapsed());
    assert_eq!(processes(&own), 0);
}

/// Runs commands until it is killed. Prints the mark of its processes.
pub(crate) fn be_a_host(variant: &Variant) -> ExitCode {
    let session = Session::new(variant);
    let own = mark();
    start_daemons(&session, &own);
    println!("{own} {}", session.root.display());
    session.sh(&format!("sleep {own}"));
    ExitCode::SUCCESS
}

fn killed_host(variant: &Variant) {
    let mut host = HostCommand::new("/proc/self/exe")
        .args(["host", &variant.name])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (own, root) = line.trim().split_once(' ').unwrap();
    eventually(Duration::from_secs(10), "the foreground command runs", || processes(own) >= 5);
    host.kill().unwrap();
    eventually(END, "every process of the session is gone", || processes(own) == 0);
    host.wait().unwrap();
    fs::remove_dir_all(root).unwrap();
}

fn killed_supervisor(variant: &Variant) {
    let session = Session::new(variant);
    let own = mark();
    let exit =
        session.sh(&format!("setsid sleep {own} > /dev/null 2>&1 & sleep 0.1; kill -9 $PPID; sleep {own}"));
    assert_eq!(exit.signal.as_deref(), Some("SIGKILL"));
    assert!(exit.notes[0].contains("supervisor"), "{:?}", exit.notes);
    assert_eq!(processes(&own), 0);
    let next = session.sh("echo again; ls /root; cat /etc/shadow");
    assert!(next.notes[0].contains("started again"), "{:?}", next.notes);
    assert_eq!(next.stdout.text(), "again\n", "as confined as before");
    assert_eq!(session.sh("true").notes, Vec::<String>::new());
}

fn stopped_supervisor(variant: &Variant) {
    let session = Session::new(variant);
    let own = mark();
    let command =
        Command { timeout: Duration::from_millis(300), ..sh(&format!("kill -STOP $PPID; sleep {own}")) };
    let exit = session.run(command).unwrap();
    assert!(exit.timed_out && exit.notes[0].contains("supervisor"), "{exit:?}");
    assert_eq!(processes(&own), 0);
    assert_eq!(ok(&session.sh("echo again")), "again");
}

fn dropped_wall(variant: &Variant) {
    let own = mark();
    let session = Session::new(variant);
    start_daemons(&session, &own);
    drop(session);
    eventually(END, "every process of the session is gone", || processes(&own) == 0);
}

/// A wall refuses mounts, so another one inside it must do without.
fn no_mounts(variant: &Variant) {
    let own = std::env::current_exe().unwrap();
    let session = Session::with(variant, |config, _| {
        config.read_dirs = vec![own.parent().unwrap().into()];
    });
    let command = Command { program: own.display().to_string(), args: vec!["nested".into()], ..sh("") };
    assert_eq!(ok(&session.run(command).unwrap()), "done");
}

pub(crate) fn be_nested() -> ExitCode {
    let session = Session::new(&Variant::from_name("nested-mounts"));
    let report = session.block_on(session.wall().probe()).unwrap();
    let why = report.residuals.iter().find(|residual| residual.contains("no private mounts")).unwrap();
    assert!(why.contains("user namespace: Operation not permitted"), "{why}");
    println!("{}", ok(&session.sh("echo done > $TMPDIR/a && cat $TMPDIR/a")));
    let killed = session.sh("kill -9 $PPID");
    assert_eq!(killed.signal.as_deref(), Some("SIGKILL"));
    ok(&session.sh("true"));
    ExitCode::SUCCESS
}

fn scrubbed(_variant: &Variant) {
    if std::env::var_os("WALL_TEST_SECRET").is_none() {
        let status = HostCommand::new("/proc/self/exe")
            .args(["one", "the_environment_block_can_be_cleared", "root-plain"])
            .envs([("WALL_TEST_SECRET", "the-secret"), ("WALL_TEST_OTHER", "the-other")])
            .env("WALL_TEST_PLAIN", "ghp_TheKeyOfAService0123")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let before = std::env::var("PATH").unwrap();
    ml_intern_wall::scrub_environment().unwrap();
    let block = fs::read_to_string("/proc/self/environ").unwrap();
    assert_eq!(block.trim_matches('\0'), "");
    // Each is as it was, but credentials.
    let variable = |name: &str| std::env::var(name).unwrap();
    assert_eq!((variable("WALL_TEST_SECRET"), variable("WALL_TEST_PLAIN")), (String::new(), String::new()));
    assert_eq!((variable("WALL_TEST_OTHER").as_str(), variable("PATH")), ("the-other", before));
    let child = HostCommand::new("/bin/sh").args(["-c", "echo $WALL_TEST_OTHER"]).output().unwrap();
    assert_eq!(child.stdout, b"the-other\n");
    std::thread::scope(|scope| {
        scope.spawn(|| assert!(ml_intern_wall::scrub_environment().is_err()));
    });
}
