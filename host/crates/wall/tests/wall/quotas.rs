//! What commands may use together.

use ml_intern_wall::CommandLimits;

use crate::roles::Test;
use crate::session::{Session, Text as _, Variant, ok};

pub(crate) const TESTS: &[Test] = &[
    ("processes_have_an_end", processes),
    ("memory_has_an_end_and_who_met_it_is_told", memory),
    ("files_in_memory_count", files_in_memory),
];

fn processes(variant: &Variant) {
    if !variant.full {
        return;
    }
    let limits = CommandLimits { processes: CommandLimits::MIN_PROCESSES, ..CommandLimits::default() };
    let session = Session::with(variant, |config, _| config.limits = limits);
    let fork = "import os, time\n\
                made = 0\n\
                try:\n\
                \x20   while made < 2000:\n\
                \x20       if os.fork() == 0:\n\
                \x20           time.sleep(30); os._exit(0)\n\
                \x20       made += 1\n\
                except (BlockingIOError, OSError): pass\n\
                print(made)";
    let made: u32 = ok(&session.python(fork)).parse().unwrap();
    assert!((100..=CommandLimits::MIN_PROCESSES).contains(&made), "{made}");
    // The session is not lost.
    let next = session.sh("true");
    ok(&next);
    assert!(next.notes.iter().any(|note| note.contains("as many processes as they may")), "{next:?}");
    assert_eq!(ok(&session.sh("ls /proc | grep -c '^[0-9]'")).parse::<u32>().unwrap().min(6), 5);
}

fn memory(variant: &Variant) {
    if !variant.full {
        return;
    }
    let limits = CommandLimits { memory_bytes: Some(300 << 20), ..CommandLimits::default() };
    let session = Session::with(variant, |config, _| config.limits = limits);
    ok(&session.python("import mmap; m = mmap.mmap(-1, 8 << 40, flags=0x4022); x = bytearray(100 << 20)"));
    let ran = session.python("import time\nx = bytearray(b'1' * (700 << 20))\ntime.sleep(30)");
    assert_eq!(ran.signal.as_deref(), Some("SIGKILL"), "{} {}", ran.stdout.text(), ran.stderr.text());
    assert!(
        ran.notes.iter().any(|note| note.contains("may have 300 MiB") && note.contains("`python3")),
        "{ran:?}"
    );
    ok(&session.sh("true"));
    // What many share counts once: a data set in memory and workers that read it.
    let shared = "import os, time\n\
                  x = bytearray(b'1' * (120 << 20))\n\
                  for _ in range(8):\n\
                  \x20   if os.fork() == 0: time.sleep(2); os._exit(0)\n\
                  [os.wait() for _ in range(8)]";
    let ran = session.python(shared);
    ok(&ran);
    assert_eq!(ran.notes, Vec::<String>::new());
    let mapped =
        "import mmap, time\nm = mmap.mmap(-1, 800 << 20)\nm.write(b'1' * (800 << 20))\ntime.sleep(30)";
    assert_eq!(session.python(mapped).signal.as_deref(), Some("SIGKILL"));
}

fn files_in_memory(variant: &Variant) {
    if !variant.full {
        return;
    }
    let limits = CommandLimits { memory_bytes: Some(200 << 20), ..CommandLimits::default() };
    let session = Session::with(variant, |config, _| config.limits = limits);
    ok(&session.sh("head -c 150M /dev/zero > /dev/shm/some"));
    // Ending a process would not give them back: nothing else is ended for them.
    ok(&session.sh("head -c 100M /dev/zero > /dev/shm/more; sleep 1"));
    ok(&session.sh("rm /dev/shm/more /dev/shm/some"));
}
