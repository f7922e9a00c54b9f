//! What is kept of what commands write.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use ml_intern_wall::Command;

use crate::roles::Test;
use crate::session::{Session, Variant, ok, sh};

pub(crate) const TESTS: &[Test] = &[
    ("long_output_goes_to_a_file", long_output),
    ("much_output_does_not_fill_memory", much_output),
    ("binary_output_is_kept_as_it_is", binary_output),
    ("endless_output_does_not_fill_the_disk", endless_output),
];

fn long_output(variant: &Variant) {
    let session = Session::new(variant);
    let command = Command { max_output: 1000, ..sh("seq 1 10000; seq 1 100 >&2") };
    let exit = session.run(command).unwrap();
    let all: String = (1..=10000).map(|number| format!("{number}\n")).collect();
    assert_eq!(exit.stdout.head, &all.as_bytes()[..250]);
    assert_eq!(exit.stdout.tail, &all.as_bytes()[all.len() - 750..]);
    assert_eq!(exit.stdout.total, all.len() as u64);
    let name = exit.stdout.file.as_deref().unwrap().strip_prefix("/tmp/").unwrap().to_owned();
    let path = session.root.join("tmp").join(&name);
    assert_eq!(fs::read_to_string(&path).unwrap(), all);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert_eq!(ok(&session.sh(&format!("wc -l < $TMPDIR/{name}"))), "10000");
    assert_eq!((exit.stderr.file, exit.stderr.total, exit.stderr.tail.len()), (None, 292, 0));
}

fn much_output(variant: &Variant) {
    let session = Session::new(variant);
    ok(&session.sh("true"));
    let peak = || {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
    };
    let before = peak();
    let exit = session.run(Command { max_output: 1 << 20, ..sh("head -c 104857600 /dev/zero") }).unwrap();
    let grown = peak() - before;
    assert_eq!((exit.code, exit.stdout.total), (Some(0), 100 << 20));
    assert!(grown < 8 << 20, "memory grew by {grown} bytes");
    let name = exit.stdout.file.unwrap();
    let path = session.root.join("tmp").join(name.strip_prefix("/tmp/").unwrap());
    assert_eq!(fs::metadata(path).unwrap().len(), 100 << 20);
    println!("100 MB in {} ms, memory grew by {} KiB", exit.duration_ms, grown >> 10);
}

fn binary_output(variant: &Variant) {
    let session = Session::new(variant);
    let bytes: Vec<u8> = (0..=255).cycle().take(60_000).collect();
    fs::write(session.work().join("f"), &bytes).unwrap();
    let exit = session.sh("cat f");
    assert_eq!((exit.stdout.head, exit.stdout.total), (bytes, 60_000));
}

fn endless_output(variant: &Variant) {
    let session = Session::new(variant);
    let exit = session.sh("head -c 300000000 /dev/zero");
    assert_eq!(exit.stdout.total, 300_000_000);
    let path = session.root.join("tmp").join(exit.stdout.file.unwrap().strip_prefix("/tmp/").unwrap());
    assert_eq!(fs::metadata(path).unwrap().len(), 256 << 20);
    assert!(exit.notes[0].contains("256 MiB"), "{:?}", exit.notes);
}
