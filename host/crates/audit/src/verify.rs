use std::collections::BTreeMap;
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

/// A chain that was read.
struct Known {
    hashes: Vec<String>,
    path: PathBuf,
}

impl AuditLog {
    /// Reads every chain, and looks for a head that somebody kept.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn verify(&self, head: Option<&str>) -> io::Result<Report> {
        let mut report = Report::default();
        let mut sessions = BTreeMap::new();
        let (mut begun, mut ended) = (Vec::new(), BTreeMap::new());
        let user = self.check(USER, &mut report, &mut |entry| match &entry.act {
            Act::Start { session, .. } => {
                begun.push(session.to_string());
                ended.remove(session.as_str());
            }
            Act::End { session, head: Some(head) } => {
                ended.insert(session.to_string(), head.clone());
            }
            _ => {}
        })?;
        for name in self.names()? {
            let known = self.check(&name, &mut report, &mut |_| {})?;
            sessions.insert(name, known);
        }
        begun.sort();
        begun.dedup();
        for session in &begun {
            let known = sessions.get(&session_name(session));
            match (known, ended.get(session)) {
                (None, _) => report.findings.push(Finding {
                    path: current(self.folder(), &session_name(session)),
                    line: 0,
                    what: "this session began, and its chain is missing".to_owned(),
                }),
                (Some(known), Some(end)) if known.hashes.last() != Some(end) => {
                    report.findings.push(Finding {
                        path: known.path.clone(),
                        line: 0,
                        what: format!("the session ended with {end}, and the chain does not"),
                    });
                }
                (Some(_), Some(_)) => {}
                (Some(_), None) => report.open.push(session.clone()),
            }
        }
        for (name, known) in &sessions {
            if !begun.iter().any(|id| session_name(id) == *name) {
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
        let (mut head, mut seq, mut hashes) = (genesis(name), 0, Vec::new());
        let mut files = parts(self.folder(), name);
        if path.exists() {
            files.push(path.clone());
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
                let mut wrong = |what: String| {
                    report.findings.push(Finding { path: file.clone(), line: number, what });
                };
                let text = String::from_utf8_lossy(&line);
                let Some((hash, entry)) = read(text.trim_end_matches('\n')) else {
                    wrong("this line is no record, or it was changed".to_owned());
                    continue;
                };
                if entry.prev != head {
                    wrong(format!("record {} does not follow the one before it", entry.seq));
                } else if entry.seq != seq {
                    wrong(format!("record {seq} is missing, {} stands here", entry.seq));
                }
                report.records += 1;
                see(&entry);
                head.clone_from(&hash);
                seq = entry.seq + 1;
                hashes.push(hash);
            }
        }
        Ok(Known { hashes, path })
    }
}
