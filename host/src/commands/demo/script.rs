//! What the scripted model does. It reads the results of its calls, and its summary is made from them.

use serde_json::{Value, json};

const AUDIT: &str = include_str!("../../../../configs/demo/audit.sh");
const BASELINE: &str = include_str!("../../../../configs/demo/baseline.sh");

/// How two texts are found to be the same: first letter by letter, then without case and punctuation.
const EXACT: &str = "key = $2";
const FOLDED: &str = "key = tolower($2); gsub(/[^a-z0-9]+/, \" \", key); gsub(/^ | $/, \"\", key)";

/// One answer: text, and calls with id, tool and arguments.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) calls: Vec<(String, &'static str, Value)>,
}

/// The answer to a conversation, chosen by how often the model has spoken.
pub(super) fn answer(messages: &[Value]) -> Answer {
    let said = messages.iter().filter(|m| m["role"] == "assistant").count();
    let results: Vec<&str> =
        messages.iter().filter(|m| m["role"] == "tool").filter_map(|m| m["content"].as_str()).collect();
    let (text, calls) = step(said, &results);
    let calls = calls
        .into_iter()
        .enumerate()
        .map(|(k, (tool, arguments))| (format!("call_{said}_{k}"), tool, arguments));
    Answer { text, calls: calls.collect() }
}

fn step(number: usize, results: &[&str]) -> (String, Vec<(&'static str, Value)>) {
    let (text, calls) = match number {
        0 => (
            "I start with a plan and a look at the data.",
            vec![("plan_tool", plan(0)), ("read", json!({ "path": "reviews.tsv", "limit": 6 }))],
        ),
        1 => (
            "Two columns, label and text. I write a small audit.",
            vec![("write", json!({ "path": "audit.sh", "content": AUDIT }))],
        ),
        2 => (
            "",
            vec![(
                "bash",
                json!({ "command": "sh audit.sh reviews.tsv", "description": "count rows, labels, duplicates" }),
            )],
        ),
        3 => (
            "That counts identical texts only. Texts that differ in case or punctuation leak between splits just as well, so I fold them.",
            vec![("edit", json!({ "path": "audit.sh", "old_str": EXACT, "new_str": FOLDED }))],
        ),
        4 => ("", vec![("bash", json!({ "command": "sh audit.sh reviews.tsv" }))]),
        5 => (
            "More than before. I put a clean copy where other projects look for data.",
            vec![
                ("plan_tool", plan(2)),
                ("bash", json!({ "command": clean("/usr/local/share/reviews.clean.tsv") })),
            ],
        ),
        6 => (
            "The wall refused that: only the working directory can be written to. The clean copy goes there.",
            vec![("bash", json!({ "command": clean("reviews.clean.tsv") }))],
        ),
        7 => (
            "Now a baseline: a majority vote and naive Bayes, on every fifth row held out.",
            vec![("write", json!({ "path": "baseline.sh", "content": BASELINE }))],
        ),
        8 => (
            "",
            vec![
                ("bash", json!({ "command": "sh baseline.sh reviews.tsv" })),
                ("bash", json!({ "command": "sh baseline.sh reviews.clean.tsv" })),
            ],
        ),
        9 => ("", vec![("plan_tool", plan(4))]),
        _ => return (summary(results), Vec::new()),
    };
    (text.to_owned(), calls)
}

fn plan(done: usize) -> Value {
    let items = ["Look at the data", "Find duplicates", "Write a clean copy", "Score a baseline"];
    let todo = |(k, content): (usize, &&str)| {
        let status = match k.cmp(&done) {
            std::cmp::Ordering::Less => "completed",
            std::cmp::Ordering::Equal => "in_progress",
            std::cmp::Ordering::Greater => "pending",
        };
        json!({ "id": (k + 1).to_string(), "content": content, "status": status })
    };
    json!({ "todos": items.iter().enumerate().map(todo).collect::<Vec<_>>() })
}

fn clean(target: &str) -> String {
    let program =
        format!("NR == 1 {{ print; next }} {{ {FOLDED} }} !(key in seen) {{ seen[key] = 1; print }}");
    format!("awk -F '\\t' '{program}' reviews.tsv > {target} && wc -l {target}")
}

/// Puts the figures of the results together. A figure that is not there is said to be missing.
fn summary(results: &[&str]) -> String {
    let figures = |name: &str| -> Vec<&str> {
        let lines = results.iter().flat_map(|result| result.lines());
        lines.filter_map(|line| line.trim().strip_prefix(name)).map(str::trim).collect()
    };
    let figure = |name: &str, k: usize| figures(name).get(k).copied().unwrap_or("?");
    let refused = if results.iter().any(|result| result.contains("the wall refused")) {
        "refused"
    } else {
        "not refused"
    };
    format!(
        "## Result\n\n\
         - {} rows; **{} duplicates** letter by letter, **{}** once case and punctuation are folded.\n\
         - Majority vote {}, naive Bayes **{}** on the raw file; {} and **{}** on the clean one, where no test row was seen in training.\n\
         - The clean copy is `reviews.clean.tsv`; `audit.sh` and `baseline.sh` repeat every number.\n\
         - Writing outside the working directory was {refused} by the wall.\n\n\
         The score on the clean file is the one to beat.",
        figure("rows ", 0),
        figure("duplicates ", 0),
        figure("duplicates ", 1),
        figure("majority accuracy ", 0),
        figure("naive_bayes accuracy ", 0),
        figure("majority accuracy ", 1),
        figure("naive_bayes accuracy ", 1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_made_from_the_results() {
        let results = [
            "rows 9\nduplicates 2",
            "rows 9\nduplicates 3",
            "sh: cannot create x: Read-only file system\nthe wall refused to write `x`",
        ];
        let summary = summary(&results);
        assert!(summary.contains("9 rows; **2 duplicates** letter by letter, **3** once"), "{summary}");
        assert!(summary.contains("Majority vote ?") && summary.contains("was refused by"), "{summary}");
    }

    #[test]
    fn the_edit_fits_the_script_it_edits() {
        assert_eq!(AUDIT.matches(EXACT).count(), 1);
        assert!(clean("x").ends_with("> x && wc -l x"));
    }
}
