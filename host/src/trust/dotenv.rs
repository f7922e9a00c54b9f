//! What may be taken from the `.env` of a project: credentials, by their names, and nothing that says where
//! they go.

use std::collections::BTreeSet;

/// Credentials that this program knows.
const KNOWN: [&str; 10] = [
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "GITHUB_TOKEN",
    "LOCAL_LLM_API_KEY",
    "OLLAMA_API_KEY",
    "VLLM_API_KEY",
    "LMSTUDIO_API_KEY",
    "LLAMACPP_API_KEY",
];

/// Parts of a name that say it is no credential but a place, a way there, or what is run or trusted.
const NEVER: [&str; 19] = [
    "URL", "URI", "URLS", "ENDPOINT", "PROXY", "HOST", "PORT", "PATH", "HOME", "DIR", "FILE", "CONFIG", "CA",
    "CERT", "BUNDLE", "PRELOAD", "LIBRARY", "COMMAND", "SHELL",
];

/// What a file gave.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) variables: Vec<(String, String)>,
    /// Names that were not taken.
    pub(super) left_out: Vec<String>,
}

/// Reads the lines of names that may be taken; `names` are those that the user's own settings use. No other
/// line is interpreted, and nothing is filled in: a value that would take up another variable is left out.
pub(super) fn take(text: &str, names: &BTreeSet<String>) -> Taken {
    let mut taken = Taken::default();
    for line in text.lines() {
        let Some((name, value)) = split(line) else { continue };
        let parsed = (may_take(name, names) && !fills_in(value)).then(|| value_of(line)).flatten();
        match parsed {
            Some(value) => taken.variables.push((name.to_owned(), value)),
            None => taken.left_out.push(name.to_owned()),
        }
    }
    taken
}

/// Whether this program reads a variable of that name from the process environment, or the libraries below
/// it do: whoever put it into the file may wonder why it has no effect.
pub(super) fn is_read(name: &str) -> bool {
    let name = name.to_uppercase();
    ["ML_INTERN_", "HF_", "XDG_", "SSL_"].iter().any(|start| name.starts_with(start))
        || ["_PROXY", "_BASE_URL", "_API_KEY", "_TOKEN"].iter().any(|end| name.ends_with(end))
}

fn split(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=')?;
    let name = name.trim();
    let mut letters = name.bytes();
    let begins = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    (begins && letters.all(|b| b.is_ascii_alphanumeric() || b == b'_')).then_some((name, value.trim()))
}

fn may_take(name: &str, names: &BTreeSet<String>) -> bool {
    let upper = name.to_uppercase();
    let is_place = upper.split('_').any(|part| NEVER.contains(&part));
    let is_ours = upper.starts_with("ML_INTERN_") || upper.starts_with("LD_") || upper.starts_with("XDG_");
    (KNOWN.contains(&name) || names.contains(name)) && !is_place && !is_ours
}

fn fills_in(value: &str) -> bool {
    value.contains('$') && !value.starts_with('\'')
}

/// The value of one line, unless it is a URL.
fn value_of(line: &str) -> Option<String> {
    let (_, value) = dotenvy::from_read_iter(line.as_bytes()).next()?.ok()?;
    (!value.contains("://")).then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn credentials_are_taken_and_places_are_not() {
        let text = "# keys\nHF_TOKEN=hf_x\nexport OPENAI_API_KEY = 'sk y'\nWORK_KEY=\"z\"\nMODEL=a/b\n\
                    HF_ENDPOINT=https://evil\nHTTPS_PROXY=http://evil\nhttps_proxy=http://evil\n\
                    ML_INTERN_CLI_CONFIG=/evil\nOPENAI_BASE_URL=https://evil\nHF_TOKEN_PATH=/etc/passwd\n\
                    LD_PRELOAD=/evil.so\nHOME=/evil\nWORK_URL=https://evil\nDATABASE=x\nnot a line\n";
        let taken = take(text, &names(&["WORK_KEY", "MODEL", "WORK_URL", "ML_INTERN_CLI_CONFIG"]));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            taken.variables,
            [
                pair("HF_TOKEN", "hf_x"),
                pair("OPENAI_API_KEY", "sk y"),
                pair("WORK_KEY", "z"),
                pair("MODEL", "a/b")
            ]
        );
        assert_eq!(
            taken.left_out,
            [
                "HF_ENDPOINT",
                "HTTPS_PROXY",
                "https_proxy",
                "ML_INTERN_CLI_CONFIG",
                "OPENAI_BASE_URL",
                "HF_TOKEN_PATH",
                "LD_PRELOAD",
                "HOME",
                "WORK_URL",
                "DATABASE"
            ]
        );
    }

    #[test]
    fn a_value_takes_up_no_other_variable_and_is_no_url() {
        let text = "HF_TOKEN=$PATH\nOPENAI_API_KEY=\"${HOME}\"\nGITHUB_TOKEN='a$b'\nANTHROPIC_API_KEY=https://x\n\
                    VLLM_API_KEY='never closed\n";
        let taken = take(text, &BTreeSet::new());
        assert_eq!(taken.variables, [("GITHUB_TOKEN".to_owned(), "a$b".to_owned())]);
        assert_eq!(taken.left_out, ["HF_TOKEN", "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "VLLM_API_KEY"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_file_says_only_known_names_come_out(
            text in "((export )?(HF_TOKEN|HF_ENDPOINT|[AB]_(URL|PROXY|HOME|KEY)|[A-Za-z_]{0,8}) ?= ?[ -~]{0,12}['\"]?\n|\\PC{0,20}\n){0,8}",
            own in "[AB]_(URL|PROXY|HOME|KEY)",
        ) {
            let own = names(&[own.as_str()]);
            for (name, value) in take(&text, &own).variables {
                prop_assert!(KNOWN.contains(&name.as_str()) || own.contains(&name), "{name}");
                prop_assert!(!["URL", "PROXY", "HOME", "PATH", "ENDPOINT"].iter().any(|w| name.ends_with(w)));
                prop_assert!(!value.contains("://"));
            }
        }
    }
}
