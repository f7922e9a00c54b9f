use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::PathBuf;

use crate::chain::{RECORD_BYTES, current, genesis, parts, read};
use crate::log::{AuditLog, USER, session_name};
use crate::record::{Act, Entry};

/// What reading all chains showed.
#[derive(Debug, Default)]
pub struct Report {
    pub chains: usize,
    pub records: u64,
    pub findings: Vec<Finding>,
    /// What is not wrong and worth knowing.
    pub notes: Vec<Finding>,
    /// Sessions that began and whose end is not recorded: they run, or were killed.
    pub open: Vec<String>,
    /// With a head that was looked for: where it stands and how many records follow.
    pub head: Option<(String, u64)>,
}

/// Something that is not as it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    pub path: PathBuf,
    /// Counts from 1; 0: about the whole file.
    pub line: u64,
    pub what: String,
}

/// Why the records of a session cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum RecordsError {
    #[error("the audit log cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("{}:{line}: {what}", path.display())]
    Changed { path: PathBuf, line: u64, what: String },
}

/// What is said besides of a last line that is no record.
const TORN: &str =
    "; if the machine lost power while it was written, the next session puts it aside and goes on";

/// A chain that was read.
struct Known {
    hashes: Vec<String>,
    path: PathBuf,
    /// How often its session ended.
    ends: usize,
    lines: u64,
    /// Heads of the user's chain that its records name, with the file that each stands in and the line.
    users: Vec<(PathBuf, u64, String)>,
}

/// What the chain of the user tells of a session.
#[derive(Default)]
struct Told {
    ends: usize,
    /// With which head it ended, unless it goes on.
    end: Option<String>,
}

impl AuditLog {
    /// Reads every chain, and looks for a head that somebody kept.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn verify(&self, head: Option<&str>) -> io::Result<Report> {
        let mut report = Report::default();
        let mut sessions = BTreeMap::new();
        let mut begun: BTreeMap<String, Told> = BTreeMap::new();
        let user = self.check(USER, &mut report, &mut |entry| match &entry.act {
            Act::Start { session, .. } => begun.entry(session.to_string()).or_default().end = None,
            Act::End { session, head: Some(head) } => {
                let told = begun.entry(session.to_string()).or_default();
                told.ends += 1;
                told.end = Some(head.clone());
            }
            _ => {}
        })?;
        for name in self.names()? {
            let known = self.check(&name, &mut report, &mut |_| {})?;
            sessions.insert(name, known);
        }
        for (session, told) in &begun {
            let name = session_name(session);
            let mut wrong = |what: String| {
                report.findings.push(Finding { path: current(self.folder(), &name), line: 0, what });
            };
            let Some(known) = sessions.get(&name) else {
                wrong("this session began, and its chain is missing".to_owned());
                continue;
            };
            match &told.end {
                Some(end) if known.hashes.last() != Some(end) => {
                    wrong(format!("the session ended with {end}, and the chain does not"));
                }
                _ if known.ends > told.ends => {
                    wrong("the session ended, and the chain of the user does not say so".to_owned());
                }
                Some(_) => {}
                None => report.open.push(session.clone()),
            }
        }
        let hashes: HashSet<&String> = user.hashes.iter().collect();
        for known in sessions.values() {
            let missing = known.users.iter().filter(|(.., head)| !hashes.contains(head));
            report.findings.extend(missing.map(|(path, line, head)| Finding {
                path: path.clone(),
                line: *line,
                what: format!(
                    "the session began when the chain of the user ended with {head}, which is not in it"
                ),
            }));
        }
        for (name, known) in &sessions {
            // A file without a line is left by a session that could not begin.
            let is_known = begun.keys().any(|id| session_name(id) == *name);
            if !is_known && known.lines > 0 {
                report.findings.push(Finding {
                    path: known.path.clone(),
                    line: 0,
                    what: "the chain of the user does not know this session".to_owned(),
                });
            }
        }
        sessions.insert(USER.to_owned(), user);
        report.head = head.and_then(|head| {
            sessions.values().find_map(|known| {
                let at = known.hashes.iter().position(|hash| hash == head)?;
                Some((known.path.display().to_string(), (known.hashes.len() - at - 1) as u64))
            })
        });
        Ok(report)
    }

    /// Every record of a chain as it stands, oldest first.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn lines(&self, session: Option<&str>) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let name = session.map_or_else(|| USER.to_owned(), session_name);
        self.check(&name, &mut Report::default(), &mut |entry| entries.push(entry.clone()))?;
        Ok(entries)
    }

    /// Every record of a session, if all of them are as they were written.
    ///
    /// # Errors
    /// When the chain cannot be read, or something in it was changed.
    pub fn records(&self, session: &str) -> Result<Vec<Entry>, RecordsError> {
        let (mut entries, mut report) = (Vec::new(), Report::default());
        self.check(&session_name(session), &mut report, &mut |entry| entries.push(entry.clone()))?;
        match report.findings.into_iter().next() {
            // A session's first record is there before anything else of it.
            None if entries.is_empty() => {
                let (path, what) =
                    (current(self.folder(), &session_name(session)), "its records are missing");
                Err(RecordsError::Changed { path, line: 0, what: what.to_owned() })
            }
            None => Ok(entries),
            Some(Finding { path, line, what }) => Err(RecordsError::Changed { path, line, what }),
        }
    }

    /// Sessions that have a chain.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn sessions(&self) -> io::Result<Vec<String>> {
        let names = self.names()?;
        Ok(names.iter().filter_map(|name| name.strip_prefix("session-")).map(str::to_owned).collect())
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.folder()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|e| Some(e.file_name().to_str()?.strip_suffix(".jsonl")?.to_owned()))
            .filter_map(|name| {
                name.starts_with("session-").then(|| name.split('.').next().map(str::to_owned))?
            })
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// Reads one chain, link by link.
    fn check(&self, name: &str, report: &mut Report, see: &mut dyn FnMut(&Entry)) -> io::Result<Known> {
        let path = current(self.folder(), name);
        let (mut head, mut seq) = (genesis(name), 0);
        let mut known = Known {
            hashes: Vec::new(),
            path: current(self.folder(), name),
            ends: 0,
            lines: 0,
            users: Vec::new(),
        };
        let mut files = parts(self.folder(), name)?;
        if path.exists() {
            files.push(path);
        }
        report.chains += usize::from(!files.is_empty());
        for file in files {
            let mut reader = BufReader::new(File::open(&file)?);
            for number in 1.. {
                let mut line = Vec::new();
                reader.by_ref().take(RECORD_BYTES as u64 + 128).read_until(b'\n', &mut line)?;
                if line.is_empty() {
                    break;
                }
                known.lines += 1;
                let at = |what: String| Finding { path: file.clone(), line: number, what };
                let text = String::from_utf8_lossy(&line);
                let Some((hash, entry)) = read(text.strip_suffix('\n').unwrap_or(&text)) else {
                    let what = "this line is no record, or it was changed";
                    // Nothing was written behind it: a power loss leaves this too.
                    let torn = if reader.fill_buf()?.is_empty() { TORN } else { "" };
                    report.findings.push(at(format!("{what}{torn}")));
                    continue;
                };
                if entry.prev != head {
                    report
                        .findings
                        .push(at(format!("record {} does not follow the one before it", entry.seq)));
                } else if entry.seq != seq {
                    report.findings.push(at(format!("record {seq} is missing, {} stands here", entry.seq)));
                }
                match &entry.act {
                    Act::Torn { file, bytes, .. } => report.notes.push(at(format!(
                        "{bytes} bytes that were no record were cut off here, as after a power loss; the file as it was is \
                         {file}: look at its end, and keep it or remove it"
                    ))),
                    Act::End { .. } => known.ends += 1,
                    Act::Start { user: Some(head), .. } => {
                        known.users.push((file.clone(), number, head.clone()));
                    }
                    _ => {}
                }
                report.records += 1;
                see(&entry);
                head.clone_from(&hash);
                seq = entry.seq + 1;
                known.hashes.push(hash);
            }
        }
        Ok(known)
    }
}
