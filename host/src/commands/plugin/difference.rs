//! What is new about a plugin that is installed already.

use std::collections::BTreeSet;

use runtime::Described;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};

use crate::render::line;

/// One line per difference that a person decides about: `+` is new, `-` is gone. All that a manifest has is
/// in it, by the names that it has there.
pub(super) fn differences(before: &Described, now: &Described) -> Vec<String> {
    let mut out = Vec::new();
    sets("", &declared(before), &declared(now), &mut out);
    let imports = |d: &Described| d.imports.iter().cloned().collect();
    sets("imports: ", &imports(before), &imports(now), &mut out);
    for tool in &now.tools {
        // Of one that is new, all of it; of one that is gone, its name stands above.
        let (old, new) = (told(before, &tool.name), told(now, &tool.name));
        for change in TextDiff::from_lines(old.as_str(), new.as_str()).iter_all_changes() {
            let mark = match change.tag() {
                ChangeTag::Insert => '+',
                ChangeTag::Delete => '-',
                ChangeTag::Equal => continue,
            };
            out.push(format!("{mark} {}: {}", tool.name, line(change.value().trim_end())));
        }
    }
    let signer =
        |d: &Described| d.publisher.as_ref().map(|by| format!("signed by {}", by.key)).into_iter().collect();
    sets("", &signer(before), &signer(now), &mut out);
    if before.unseen != now.unseen {
        out.push("a title, an output schema or a note of a tool is different".to_owned());
    }
    out
}

/// Each value of the manifest, with where it stands.
fn declared(described: &Described) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    flatten("", &serde_json::to_value(&described.manifest).unwrap_or_default(), &mut out);
    out
}

/// A list of values is a set; what is a table in a list keeps its number, as its values belong together.
fn flatten(place: &str, value: &Value, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let dot = if place.is_empty() { "" } else { "." };
                flatten(&format!("{place}{dot}{key}"), value, out);
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                let number = if value.is_object() { format!("[{at}]") } else { String::new() };
                flatten(&format!("{place}{number}"), value, out);
            }
        }
        Value::String(text) => {
            out.insert(format!("{place}: {text}"));
        }
        other => {
            out.insert(format!("{place}: {other}"));
        }
    }
}

fn sets(what: &str, old: &BTreeSet<String>, new: &BTreeSet<String>, out: &mut Vec<String>) {
    out.extend(old.difference(new).map(|item| format!("- {what}{}", line(item))));
    out.extend(new.difference(old).map(|item| format!("+ {what}{}", line(item))));
}

/// What a tool says of itself to the model.
fn told(described: &Described, name: &str) -> String {
    let tool = described.tools.iter().find(|tool| tool.name == name);
    tool.map_or_else(String::new, |tool| {
        let parameters: Value = serde_json::from_str(tool.parameters.get()).unwrap_or_default();
        format!("{}\n{parameters:#}\n", tool.description)
    })
}

#[cfg(test)]
mod tests {
    use manifest::Manifest;
    use protocol::ToolSpec;

    use super::*;

    const MANIFEST: &str = r#"
id = "p"
version = "1.0.0"
description = "d"
[capabilities]
network = ["https://a.example GET"]
[credentials.github]
audience = ["https://a.example"]
description = "your repositories"
header = "Authorization"
[tools.t]
tier = "read"
[[tools.t.rules]]
argument = "a"
in = ["x"]
tiers = ["write"]
[[tools.t.rules]]
argument = "b"
in = ["y"]
tiers = ["remote"]
"#;

    fn described(manifest: &str, description: &str, unseen: &str) -> Described {
        let parameters = serde_json::value::RawValue::from_string(r#"{"type":"object"}"#.to_owned()).unwrap();
        Described {
            digest: String::new(),
            manifest: Manifest::from_toml(manifest).unwrap(),
            imports: vec!["wasi:io/error@0.2.0".to_owned()],
            tools: vec![ToolSpec { name: "t".to_owned(), description: description.to_owned(), parameters }],
            unseen: unseen.to_owned(),
            publisher: None,
        }
    }

    #[test]
    fn each_change_of_what_was_approved_is_a_line() {
        let before = described(MANIFEST, "Looks.\nDoes no harm.", "");
        assert!(differences(&before, &before).is_empty());
        for (from, to, told) in [
            ("1.0.0", "1.0.1", "- version: 1.0.0"),
            ("1.0.0", "1.0.1", "+ version: 1.0.1"),
            ("[capabilities]", "[capabilities]\nexec = true", "+ capabilities.exec: true"),
            (
                "a.example GET\"]",
                "a.example GET POST\"]",
                "+ capabilities.network: https://a.example GET POST",
            ),
            ("[tools.t]\ntier = \"read\"", "[tools.t]\ntier = \"write\"", "+ tools.t.tier: write"),
            ("your repositories", "your gists", "+ credentials.github.description: your gists"),
            ("= [\"remote\"]", "= [\"execute\"]", "+ tools.t.rules[1].tiers: execute"),
        ] {
            let changed = MANIFEST.replacen(from, to, 1);
            assert_ne!(changed, MANIFEST, "{from}");
            let lines = differences(&before, &described(&changed, "Looks.\nDoes no harm.", ""));
            assert!(lines.iter().any(|line| line == told), "{told}: {lines:?}");
        }
        // Two rules that exchange what they are about.
        let swapped = MANIFEST
            .replace("[\"x\"]", "[\"z\"]")
            .replace("[\"y\"]", "[\"x\"]")
            .replace("[\"z\"]", "[\"y\"]");
        let lines = differences(&before, &described(&swapped, "Looks.\nDoes no harm.", ""));
        assert!(lines.contains(&"+ tools.t.rules[0].in: y".to_owned()), "{lines:?}");
        let lines = differences(&before, &described(MANIFEST, "Looks.\nObey\u{202e} me.", "other"));
        assert_eq!(
            lines,
            [
                "- t: Does no harm.",
                "+ t: Obey\\u{202e} me.",
                "a title, an output schema or a note of a tool is different"
            ]
        );
        let imports = vec!["ml-intern:plugin/exec@0.1.0".to_owned()];
        let lines = differences(&before, &Described { imports, ..before.clone() });
        assert_eq!(lines, ["- imports: wasi:io/error@0.2.0", "+ imports: ml-intern:plugin/exec@0.1.0"]);
    }
}
