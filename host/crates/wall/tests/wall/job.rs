//! Work in a process of its own: what it may use, and what it is refused.

use std::time::Duration;

use ml_intern_wall::{Job, JobEnd, JobError, SupervisorCommand};

use crate::roles::Test;
use crate::session::Variant;

pub(crate) const TESTS: &[Test] = &[
    ("work_is_done_and_answered", work_is_done_and_answered),
    ("work_has_no_more_memory_than_it_was_given", work_has_no_more_memory),
    ("work_computes_no_longer_than_it_may", work_computes_no_longer),
    ("work_takes_no_longer_than_it_may", work_takes_no_longer),
    ("work_reaches_no_file_and_no_network", work_reaches_nothing),
    ("work_answers_no_more_than_it_may", work_answers_no_more),
    ("an_answer_that_broke_off_is_none", a_broken_answer_is_none),
    ("work_that_nobody_waits_for_is_ended", work_is_ended),
];

/// What the process does: the first line of the input says it.
pub(crate) fn be_a_worker() -> std::process::ExitCode {
    ml_intern_wall::job_main(
        || std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string()),
        |listener, input| match input {
            b"eat" => {
                let kept: Vec<Vec<u8>> = (0..512).map(|_| vec![1; 1 << 20]).collect();
                Ok(vec![kept[511][7]])
            }
            b"spin" => loop {
                std::hint::black_box(());
            },
            b"sleep" => {
                std::thread::sleep(Duration::from_secs(20));
                Ok(Vec::new())
            }
            b"flood" => Ok(vec![7; 1 << 20]),
            b"break off" => {
                std::io::Write::write_all(&mut std::io::stdout(), b"\0half").unwrap();
                std::io::Write::flush(&mut std::io::stdout()).unwrap();
                std::process::abort()
            }
            b"refuse" => Err("no".to_owned()),
            b"reach" => {
                let reached = [
                    std::fs::read("/etc/passwd").is_ok(),
                    std::fs::write("/tmp/job", "").is_ok(),
                    std::fs::read_dir("/").is_ok(),
                    std::net::TcpStream::connect(listener.local_addr().unwrap()).is_ok(),
                    std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
                    std::process::Command::new("true").status().is_ok(),
                    std::env::vars_os().next().is_some(),
                ];
                Ok(format!("{reached:?}").into_bytes())
            }
            other => Ok(other.to_ascii_uppercase()),
        },
    )
}

fn job() -> Job {
    let program = std::env::current_exe().unwrap();
    Job {
        command: SupervisorCommand { program, args: vec!["worker".into()] },
        memory_bytes: 64 << 20,
        cpu_time: Duration::from_secs(60),
        wall_time: Duration::from_secs(60),
        answer_bytes: 1 << 19,
    }
}

fn work_is_done_and_answered(_: &Variant) {
    assert_eq!(job().run(b"hello").unwrap(), b"HELLO");
    let large = vec![b'x'; 500 << 10];
    assert_eq!(job().run(&large).unwrap().len(), large.len());
    assert!(matches!(job().run(b"refuse"), Err(JobError::Refused(reason)) if reason == "no"));
    let missing = Job { command: SupervisorCommand { program: "/none".into(), args: Vec::new() }, ..job() };
    assert!(matches!(missing.run(b""), Err(JobError::Start(_))));
}

fn work_has_no_more_memory(_: &Variant) {
    let error = job().run(b"eat").unwrap_err();
    assert!(matches!(error, JobError::Memory { .. }), "{error}");
}

fn work_computes_no_longer(_: &Variant) {
    let error = Job { cpu_time: Duration::from_secs(1), ..job() }.run(b"spin").unwrap_err();
    assert!(matches!(error, JobError::Cpu(_)), "{error}");
}

fn work_takes_no_longer(_: &Variant) {
    let error = Job { wall_time: Duration::from_millis(200), ..job() }.run(b"sleep").unwrap_err();
    assert!(matches!(error, JobError::Time(_)), "{error}");
}

fn work_reaches_nothing(_: &Variant) {
    let reached = job().run(b"reach").unwrap();
    assert_eq!(String::from_utf8(reached).unwrap(), format!("{:?}", [false; 7]));
}

fn work_answers_no_more(_: &Variant) {
    let error = job().run(b"flood").unwrap_err();
    assert!(matches!(error, JobError::TooLarge { .. }), "{error}");
}

fn a_broken_answer_is_none(_: &Variant) {
    let error = job().run(b"break off").unwrap_err();
    assert!(matches!(error, JobError::Memory { .. }), "{error}");
}

fn work_is_ended(_: &Variant) {
    let end = JobEnd::default();
    let ended =
        |error| matches!(error, JobError::Memory { status, .. } if status.to_string().contains("SIGKILL"));
    std::thread::scope(|scope| {
        let of_job = end.of_job();
        let running = scope.spawn(move || job().run_until(b"sleep", &of_job));
        end.end();
        assert!(ended(running.join().unwrap().unwrap_err()));
    });
    // Also one that did not begin.
    assert!(ended(job().run_until(b"sleep", &end).unwrap_err()));
}
