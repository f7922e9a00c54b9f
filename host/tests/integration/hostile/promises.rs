//! What SECURITY.md says is held by tests has these tests.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The tests of this repository by name, and the files and folders that have any.
pub(crate) struct Tests {
    pub(crate) names: BTreeSet<String>,
    places: BTreeSet<String>,
}

impl Tests {
    /// Reads the sources: a test is a function behind `#[test]`, or an entry of a list in the wall's own
    /// harness.
    pub(crate) fn of_the_sources() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut files = Vec::new();
        for folder in ["host/src", "host/crates", "host/tests", "plugins", "sdk"] {
            sources(&root.join(folder), &mut files);
        }
        let mut tests = Self { names: BTreeSet::new(), places: BTreeSet::new() };
        for path in files {
            let text = std::fs::read_to_string(&path).unwrap();
            let own_harness = path.to_string_lossy().contains("crates/wall/tests");
            let found = if own_harness { listed(&text) } else { marked(&text) };
            if found.is_empty() {
                continue;
            }
            tests.names.extend(found);
            let place = path.strip_prefix(&root).unwrap().with_extension("");
            let parts = place.iter().map(|part| part.to_string_lossy().into_owned());
            tests.places.extend(parts.filter(|part| !EVERYWHERE.contains(&part.as_str())));
        }
        tests
    }

    /// Whether a name, which may end with `…`, is that of a test or of a place that has tests.
    fn knows(&self, name: &str) -> bool {
        match name.strip_suffix('…') {
            Some(start) => !start.is_empty() && self.names.iter().any(|test| test.starts_with(start)),
            None => self.names.contains(name) || self.places.contains(name),
        }
    }
}

/// Parts of a path that say nothing about what is tested there.
const EVERYWHERE: [&str; 7] = ["crates", "host", "integration", "main", "mod", "src", "tests"];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(&path, files);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn marked(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        } else if let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) {
            names.extend(rest.split('(').next().map(str::to_owned));
            is_test = false;
        }
    }
    names
}

/// Entries as `("name", function),`.
fn listed(text: &str) -> Vec<String> {
    let entry = |line: &str| {
        let (name, function) = line.trim().strip_prefix("(\"")?.strip_suffix("),")?.split_once("\", ")?;
        let is_name = |text: &str| {
            text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
        };
        (is_name(name) && is_name(function)).then(|| name.to_owned())
    };
    text.lines().filter_map(entry).collect()
}

/// `a::b` and `a::{b, c}` between backticks, each by its last name.
fn named(page: &str) -> Vec<String> {
    let mut names = Vec::new();
    for code in page.split('`').skip(1).step_by(2) {
        if let Some((_, list)) = code.split_once("::{").filter(|_| code.ends_with('}')) {
            names.extend(list.trim_end_matches('}').split(',').map(|name| name.trim().to_owned()));
        } else if code.contains("::") {
            // The tests of a module are a part of its own that is called so everywhere.
            let last = code.split("::").filter(|part| *part != "tests").last();
            names.extend(last.map(str::to_owned));
        }
    }
    names
}

fn page() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../SECURITY.md")).unwrap()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let (tests, page) = (Tests::of_the_sources(), page());
    let missing: Vec<String> = named(&page).into_iter().filter(|name| !tests.knows(name)).collect();
    assert!(missing.is_empty(), "SECURITY.md names tests that are not there: {missing:#?}");
    let promises: Vec<&str> = page.lines().filter(|line| line.starts_with("| **")).collect();
    assert_eq!(promises.len(), 9, "{promises:#?}");
    for promise in promises {
        let cells: Vec<&str> = promise.trim_matches('|').split('|').map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{promise}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{promise}");
        assert!(!named(cells[3]).is_empty(), "it is held by no test: {promise}");
    }
}

#[test]
fn a_test_that_is_missing_is_noticed() {
    let tests = Tests::of_the_sources();
    assert!(tests.names.len() > 300, "{}", tests.names.len());
    assert!(tests.knows("a_test_that_is_missing_is_noticed") && tests.knows("a_test_that_is_miss…"));
    assert!(
        tests.knows("fork_bombs") == tests.names.contains("fork_bombs")
            && tests.knows("the_session_outruns_fork_bombs")
    );
    for missing in ["of_the_sources", "no_such_test", "no_such…", "…", "named"] {
        assert!(!tests.knows(missing), "{missing}");
    }
    assert_eq!(named("x `a::b` `c` `d::{e, f_…}` `g::h::i`"), ["b", "e", "f_…", "i"]);
    assert_eq!(
        marked("#[test]\n#[ignore]\nfn one() {}\nfn two() {}\n#[tokio::test(x)]\nasync fn three() {"),
        ["three"]
    );
}
