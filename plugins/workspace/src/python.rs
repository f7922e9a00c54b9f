//! Advice after a Python file was changed. It never fails the call.

mod nesting;

use ruff_python_parser::parse_module;

/// Trainer configurations that lose the model when it is not pushed.
const TRAINERS: [&str; 4] = ["TrainingArguments", "SFTConfig", "DPOConfig", "GRPOConfig"];

/// Texts above this are not parsed: a syntax tree takes many times their size.
const PARSED_BYTES: usize = 1 << 20;

/// The warnings as they follow the tool's answer; empty if there are none.
pub(crate) fn warnings(path: &str, text: &str) -> String {
    if !path.ends_with(".py") || text.len() > PARSED_BYTES {
        return String::new();
    }
    let warnings = check(text);
    if warnings.is_empty() {
        return String::new();
    }
    warnings.iter().fold("\n\nValidation warnings:".to_owned(), |out, warning| out + "\n  ⚠ " + warning)
}

fn check(text: &str) -> Vec<String> {
    if !nesting::is_deep(text)
        && let Err(error) = parse_module(text)
    {
        let line = text[..usize::from(error.location.start()).min(text.len())].matches('\n').count() + 1;
        return vec![format!("Python syntax error on line {line}: {}", error.error)];
    }
    let mut warnings = Vec::new();
    if TRAINERS.iter().any(|name| text.contains(name)) {
        if !text.contains("push_to_hub") {
            warnings.push("no push_to_hub: the model may be lost when the job ends".to_owned());
        }
        if !text.contains("hub_model_id") {
            warnings.push("no hub_model_id: name the repository the model goes to".to_owned());
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_syntax_error_is_the_only_warning() {
        let warnings = warnings("train.py", "x = 1\nimport (\nSFTConfig()\n");
        assert!(
            warnings.starts_with("\n\nValidation warnings:\n  ⚠ Python syntax error on line 2: "),
            "{warnings}"
        );
        assert_eq!(warnings.matches('⚠').count(), 1);
    }

    #[test]
    fn new_syntax_is_not_an_error() {
        let text = "type X = int\ndef f[T](x: T) -> str:\n    return f\"{x[\"a\"]!r:>{10}}\"\nmatch 1:\n    case _: pass\n";
        assert_eq!(warnings("new.py", text), "");
    }

    #[test]
    fn a_trainer_that_does_not_push_is_told() {
        assert_eq!(check("SFTConfig()\n").len(), 2);
        assert_eq!(check("SFTConfig(push_to_hub=True)\n").len(), 1);
        assert!(check("SFTConfig(push_to_hub=True, hub_model_id='a/b')\n").is_empty());
        assert_eq!(warnings("notes.txt", "SFTConfig("), "");
        assert_eq!(warnings("huge.py", &"(".repeat(PARSED_BYTES + 1)), "");
    }
}
