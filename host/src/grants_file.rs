//! The user's grants file: changed by one process at a time, in one step on the disk.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use agent::KeepGrant;
use audit::Act;
use manifest::Capabilities;
use runtime::{Grants, Source};
use rustix::fs::{FlockOperation, flock};
use toml_edit::{Array, DocumentMut, Item, RawString, Table, TableLike, TomlError, Value};

use crate::assemble::Setup;
use crate::cli::PlaceArgs;
use crate::exit::Failure;
use crate::managed;
use crate::paths::{make_private, read_own, replace, way};

/// What was granted, by plugin.
type Tables = BTreeMap<String, Capabilities>;

/// The tables of the file.
pub(crate) fn read(path: &Path) -> Result<Tables, Failure> {
    Ok(Grants::parse(path, &text_of(path)?).map_err(Failure::settings)?.into_tables())
}

fn text_of(path: &Path) -> Result<String, Failure> {
    Ok(read_own(path).map_err(Failure::settings)?.unwrap_or_default())
}

/// Changes the tables of the file.
pub(crate) fn change(path: &Path, edit: impl FnOnce(&mut Tables)) -> Result<(), Failure> {
    let failed = |reason: String| Failure::settings(anyhow::anyhow!("{}: {reason}", path.display()));
    let io = |e: std::io::Error| failed(e.to_string());
    make_private(path.parent().unwrap_or(Path::new("."))).map_err(io)?;
    let mut private = OpenOptions::new();
    private.write(true).create(true).truncate(false).mode(0o600);
    // What is taken back by one process is not written back by another.
    let lock = private.open(path.with_extension("lock")).map_err(io)?;
    flock(&lock, FlockOperation::LockExclusive).map_err(|e| io(e.into()))?;
    let text = text_of(path)?;
    let mut grants = Grants::parse(path, &text).map_err(Failure::settings)?.into_tables();
    let before = grants.clone();
    edit(&mut grants);
    let text = rewritten(&text, &before, &grants).map_err(failed)?;
    // A link is the person's own way to keep it elsewhere: it stays one.
    let real = way(path).pop().unwrap_or_else(|| path.to_owned());
    replace(&real, text.as_bytes()).map_err(io)
}

/// The file with what changed of its tables, and everything else as the person wrote it.
fn rewritten(text: &str, before: &Tables, now: &Tables) -> Result<String, String> {
    let mut file: DocumentMut = text.parse().map_err(|e: TomlError| e.to_string())?;
    for id in before.keys().filter(|id| !now.contains_key(*id)) {
        take_out(&mut file, id);
    }
    for (id, given) in now.iter().filter(|(id, given)| before.get(*id) != Some(given)) {
        let given = toml::to_string(given).map_err(|e| e.to_string())?;
        let given: DocumentMut = given.parse().map_err(|e: TomlError| e.to_string())?;
        let table = file.entry(id).or_insert_with(|| Item::Table(Table::new()));
        merge(table.as_table_like_mut().ok_or_else(|| format!("[{id}] is not a table"))?, given.as_table());
    }
    Ok(file.to_string())
}

/// Changes what is different. What is the same keeps its place and the comments beside it.
fn merge(table: &mut dyn TableLike, now: &Table) {
    let gone = table.iter().map(|(key, _)| key.to_owned()).filter(|key| !now.contains_key(key));
    gone.collect::<Vec<_>>().iter().for_each(|key| drop(table.remove(key)));
    for (key, item) in now {
        match table.get_mut(key) {
            Some(known) if known.is_table_like() => {
                if let (Some(known), Some(now)) = (known.as_table_like_mut(), item.as_table()) {
                    merge(known, now);
                }
            }
            Some(known) if value(known) == value(item) => {}
            Some(known) if known.is_array() && item.is_array() => {
                if let (Some(known), Some(now)) = (known.as_array_mut(), item.as_array()) {
                    merge_list(known, now);
                }
            }
            Some(known) => {
                let decor = known.as_value().map(|known| known.decor().clone());
                *known = item.clone();
                if let (Some(value), Some(decor)) = (known.as_value_mut(), decor) {
                    *value.decor_mut() = decor;
                }
            }
            None => drop(table.insert(key, item.clone())),
        }
    }
}

/// Takes out and adds what is different in a list, whose order says nothing. A comment that stood before what goes
/// may be about what stands before that: it stays.
fn merge_list(list: &mut Array, now: &Array) {
    let has = |list: &Array, value: &Value| list.iter().any(|known| known.as_str() == value.as_str());
    let text = |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or_default().to_owned();
    let (mut at, mut left) = (0, String::new());
    while let Some(value) = list.get_mut(at) {
        let (prefix, suffix) = (text(value.decor().prefix()), text(value.decor().suffix()));
        if has(now, value) {
            if left.contains('#') {
                value.decor_mut().set_prefix(format!("{left}{prefix}"));
            }
            left.clear();
            at += 1;
        } else {
            left.push_str(&prefix);
            left.push_str(&suffix);
            list.remove(at);
        }
    }
    if left.contains('#') {
        let trailing = text(Some(list.trailing()));
        list.set_trailing(format!("{left}{trailing}"));
    }
    for value in now.iter().filter(|value| !has(list, value)).cloned().collect::<Vec<_>>() {
        list.push(value);
    }
}

/// What an item says, whatever stands around it.
fn value(item: &Item) -> Option<String> {
    let mut value = item.as_value()?.clone();
    value.decor_mut().clear();
    match &mut value {
        Value::Array(array) => {
            Some(array.iter().filter_map(Value::as_str).map(|text| format!("{text:?},")).collect())
        }
        value => Some(value.to_string()),
    }
}

/// Takes a table out. The comment above it stays, as it may be about more than the table.
fn take_out(file: &mut DocumentMut, id: &str) {
    let Some((key, mut gone)) = file.remove_entry(id) else { return };
    // `a.b = …` has no line for `a`: what stands above each of its lines does.
    let mut comment = gone.as_table().map(comments_of_dotted).unwrap_or_default();
    let gone = gone.as_table_mut().and_then(first_shown);
    let decor = gone.as_ref().map_or(key.leaf_decor(), |table| table.decor());
    comment.push_str(decor.prefix().and_then(RawString::as_str).unwrap_or_default());
    let position = gone.and_then(|table| table.position());
    let next = file.iter_mut().filter_map(|(_, item)| item.as_table_mut().and_then(first_shown));
    let next = next.filter(|table| table.position() > position).min_by_key(|table| table.position());
    match next {
        Some(next) => {
            let own = next.decor().prefix().and_then(RawString::as_str).unwrap_or_default();
            let both = format!("{comment}{own}");
            next.decor_mut().set_prefix(both);
        }
        None => {
            let own = file.trailing().as_str().unwrap_or_default();
            let both = format!("{comment}{own}");
            file.set_trailing(both);
        }
    }
}

/// What stands above the lines of a table that are written `a.b = …`.
fn comments_of_dotted(table: &Table) -> String {
    if !table.is_dotted() {
        return String::new();
    }
    let of = |(key, item): (&str, &Item)| match item.as_table() {
        Some(inner) => comments_of_dotted(inner),
        None => {
            let prefix = table.key(key).and_then(|key| key.leaf_decor().prefix()).and_then(RawString::as_str);
            prefix.unwrap_or_default().to_owned()
        }
    };
    table.iter().map(of).collect()
}

/// The first table with a line of its own, of a table and those in it: `[a.b]` alone makes an `a` that has none.
fn first_shown(table: &mut Table) -> Option<&mut Table> {
    if !table.is_implicit() && !table.is_dotted() {
        return Some(table);
    }
    let inner = table.iter_mut().filter_map(|(_, item)| item.as_table_mut().and_then(first_shown));
    inner.min_by_key(|table| table.position())
}

/// Keeps what a person granted for good while a call ran. On record before it is written.
pub(crate) fn keeper(setup: &Setup, place: &PlaceArgs) -> KeepGrant {
    let (path, audit, policy) = (setup.paths.grants(), setup.audit(), setup.policy.clone());
    let dirs = setup.known_dirs(place);
    Arc::new(move |plugin, grant| {
        managed::may_grant(&policy).map_err(|e| e.to_string())?;
        let (name, approval) = (plugin.grants_name(), plugin.described.approval());
        let granted = vec![format!("network {grant}")];
        let act = Act::Grant { plugin: name.clone(), granted, revoked: Vec::new() };
        audit.user(act).map_err(|e| e.to_string())?;
        let kept = change(&path, |grants| {
            let table = table_for(grants, name, approval);
            if !table.network.iter().any(|known| known == grant) {
                table.network.push(grant.to_owned());
            }
        });
        kept.map_err(|failure| failure.to_string())?;
        // What a person gives something to is let in as it is.
        match plugin.source {
            Source::File(_) => dirs.vouch(&plugin.described).map_err(|e| e.to_string()),
            Source::Bundled(_) | Source::Project(_) => Ok(()),
        }
    })
}

/// What bounds a plugin and gives it nothing.
fn bounds_of(table: &Capabilities) -> Capabilities {
    Capabilities { limits: table.limits.clone(), ..Capabilities::default() }
}

/// The table of a plugin as it is now. What was given to one that is not here any more is no part of it.
pub(crate) fn table_for(grants: &mut Tables, name: String, approval: String) -> &mut Capabilities {
    let table = grants.entry(name).or_default();
    if table.approval.as_ref().is_some_and(|given_for| *given_for != approval) {
        *table = bounds_of(table);
    }
    // One that was written by hand stays for whatever has its name.
    if *table == bounds_of(table) {
        table.approval = Some(approval);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# Who may what.\n# Ask Ada first.\n\n[probe] # the probe\nkv = true\n# only to look\nnetwork = [\"https://a.example GET\"] # for now\n\n# not the probe\n[search]\nexec = true\npaths = [ \"workspace\" ]\n[search.credentials]\n# of the team\nhf = \"hf\"\n\n# the end\n";

    fn rewritten_by(edit: impl FnOnce(&mut Tables)) -> String {
        let path = Path::new("grants.toml");
        let before = Grants::parse(path, FILE).unwrap().into_tables();
        let mut now = before.clone();
        edit(&mut now);
        let text = rewritten(FILE, &before, &now).unwrap();
        assert_eq!(Grants::parse(path, &text).unwrap().into_tables(), now, "{text}");
        text
    }

    #[test]
    fn only_what_changed_is_written_anew() {
        assert_eq!(rewritten_by(|_| ()), FILE);
        let more = rewritten_by(|tables| {
            tables.get_mut("probe").unwrap().network.push("https://b.example GET".to_owned());
            tables.get_mut("search").unwrap().credentials.insert("other".to_owned(), "env:OTHER".to_owned());
        });
        for comment in [
            "# Ask Ada first.",
            "# the probe",
            "# only to look",
            "# for now",
            "# not the probe",
            "# of the team",
            "# the end",
        ] {
            assert!(more.contains(comment), "{comment}: {more}");
        }
        assert!(more.contains("paths = [ \"workspace\" ]\n"), "{more}");
        let added = rewritten_by(|tables| {
            tables.insert("third".to_owned(), Capabilities { kv: true, ..Capabilities::default() });
        });
        assert!(added.starts_with(FILE.trim_end_matches("\n# the end\n")), "{added}");
    }

    #[test]
    fn what_is_taken_out_leaves_the_comments_about_more_than_it() {
        let first = rewritten_by(|tables| drop(tables.remove("probe")));
        assert!(
            first.starts_with("# Who may what.\n# Ask Ada first.\n") && first.contains("# not the probe"),
            "{first}"
        );
        let last = rewritten_by(|tables| drop(tables.remove("search")));
        assert!(last.contains("# not the probe") && last.contains("# the end"), "{last}");
        let none = rewritten_by(BTreeMap::clear);
        assert!(none.contains("# Ask Ada first.") && none.contains("# the end"), "{none}");
    }

    #[test]
    fn comments_outlive_tables_without_a_line_of_their_own_and_values_of_lists() {
        let path = Path::new("grants.toml");
        let changed = |text: &str, edit: &dyn Fn(&mut Tables)| {
            let before = Grants::parse(path, text).unwrap().into_tables();
            let mut now = before.clone();
            edit(&mut now);
            let text = rewritten(text, &before, &now).unwrap();
            assert_eq!(Grants::parse(path, &text).unwrap().into_tables(), now, "{text}");
            text
        };
        let own = "# top\n\n[probe.credentials]\nhf = \"hf\"\n";
        let other = "# other\n[search.credentials]\nhf = \"hf\"\n";
        let none = changed(own, &|tables| tables.clear());
        assert_eq!(none, "# top\n\n");
        let left = changed(&format!("{own}{other}"), &|tables| drop(tables.remove("probe")));
        assert_eq!(left, format!("# top\n\n{other}"));
        let left = changed(&format!("{own}{other}"), &|tables| drop(tables.remove("search")));
        assert!(left.starts_with(own) && left.ends_with("# other\n"), "{left}");
        let inline = changed("# top\nprobe = { kv = true }\n", &|tables| tables.clear());
        assert!(inline.contains("# top"), "{inline}");

        let dotted =
            "# keep me\nprobe.kv = true\n# two\nprobe.limits.cpu_ms = 9\n# three\nprobe.exec = true\n";
        let none = changed(dotted, &|tables| tables.clear());
        assert_eq!(none, "# keep me\n# two\n# three\n");
        let left = changed(&format!("{dotted}{other}"), &|tables| drop(tables.remove("probe")));
        assert_eq!(left, format!("# keep me\n# two\n# three\n{other}"));

        let list = "[probe]\nnetwork = [\n  # the first\n  \"https://a.example GET\", # why a\n  \"https://b.example GET\", # why b\n]\n";
        let add = |tables: &mut Tables| {
            let network = &mut tables.get_mut("probe").unwrap().network;
            network.push("https://c.example GET".to_owned());
        };
        for edit in [
            &add as &dyn Fn(&mut Tables),
            &|tables| drop(tables.get_mut("probe").unwrap().network.remove(0)),
            &|tables| drop(tables.get_mut("probe").unwrap().network.remove(1)),
            &|tables| tables.get_mut("probe").unwrap().network.clear(),
        ] {
            let text = changed(list, edit);
            let has = |comment: &&str| text.contains(*comment);
            assert!(["# the first", "# why a", "# why b"].iter().all(has), "{text}");
        }
    }

    #[test]
    fn a_link_to_the_file_stays_one() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, dotfiles) = (dir.path().join("config"), dir.path().join("dotfiles"));
        for made in [&folder, &dotfiles] {
            make_private(made).unwrap();
        }
        let (path, real) = (folder.join("grants.toml"), dotfiles.join("grants.toml"));
        replace(&real, FILE.as_bytes()).unwrap();
        std::os::unix::fs::symlink("../dotfiles/grants.toml", &path).unwrap();
        change(&path, |tables| drop(tables.remove("probe"))).unwrap();
        assert!(path.is_symlink() && real.symlink_metadata().unwrap().is_file());
        assert_eq!(read(&path).unwrap().keys().collect::<Vec<_>>(), ["search"]);
        // Also to one that does not exist yet.
        std::fs::remove_file(&real).unwrap();
        change(&path, |tables| drop(tables.insert("p".to_owned(), Capabilities::default()))).unwrap();
        assert!(path.is_symlink() && read(&path).unwrap().contains_key("p"));
    }
}
