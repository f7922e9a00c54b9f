use std::sync::Arc;

use proptest::prelude::*;

use super::{Found, TextCalls};
use crate::rough::NotUnderstood;
use crate::testing::tool;

/// What was shown while streaming, and what the end brought.
fn read(pieces: &[&str], cut_off: bool) -> (String, Result<Found, NotUnderstood>) {
    let tools = Arc::from([tool("bash"), tool("read_file")]);
    let mut text = TextCalls::new(tools);
    let mut shown = String::new();
    for piece in pieces {
        text.push(piece, |part| shown.push_str(part));
    }
    (shown, text.finish(cut_off))
}

/// All text, and the calls.
fn outcome(pieces: &[&str]) -> Result<(String, Vec<(String, String)>), NotUnderstood> {
    let (shown, found) = read(pieces, false);
    let found = found?;
    let calls = found.calls.into_iter().map(|call| (call.name, call.arguments)).collect();
    Ok((shown + &found.text, calls))
}

/// Name and arguments.
type Call = (&'static str, &'static str);

/// Answers with calls: what is left as text, and the calls.
const CALLS: &[(&str, &str, &[Call])] = &[
    (
        "<tool_call>\n{\"name\": \"bash\", \"arguments\": {\"text\": \"ls -l\"}}\n</tool_call>",
        "",
        &[("bash", r#"{"text":"ls -l"}"#)],
    ),
    (
        "I look.\n<tool_call>{\"name\":\"bash\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"read_file\",\"parameters\":{\"text\":\"a\"}}</tool_call>",
        "I look.\n",
        &[("bash", "{}"), ("read_file", r#"{"text":"a"}"#)],
    ),
    ("<tool_call>{\"name\":\"bash\",\"arguments\":{\"text\":\"x\"}}", "", &[("bash", r#"{"text":"x"}"#)]),
    (
        "<tool_call>{\"name\":\"bash\",\"arguments\":{\"text\":\"x\"}}}\n</tool_call>",
        "",
        &[("bash", r#"{"text":"x"}"#)],
    ),
    (
        "<tool_call>{\"name\":\"bash\",\"arguments\":{\"text\":\"a\nb\"}}</tool_call>",
        "",
        &[("bash", r#"{"text":"a\nb"}"#)],
    ),
    (
        "<tool_call>\n<function=bash>\n<parameter=text>\necho 1\necho \"<2>\"\n</parameter>\n<parameter=count>\n3\n</parameter>\n</function>\n</tool_call>",
        "",
        &[("bash", r#"{"text":"echo 1\necho \"<2>\"","count":3}"#)],
    ),
    (
        "Now:\n<function=read_file>\n<parameter=text>\n12\n</parameter>\n</function>\n</tool_call>",
        "Now:\n",
        &[("read_file", r#"{"text":"12"}"#)],
    ),
    ("<function=bash>{\"text\": \"ls\"}</function>", "", &[("bash", r#"{"text":"ls"}"#)]),
    (
        "<tool_call>bash\n<arg_key>text</arg_key>\n<arg_value>ls</arg_value>\n<arg_key>count</arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
        "",
        &[("bash", r#"{"text":"ls","count":2}"#)],
    ),
    (
        "<function_calls>\n<invoke name=\"bash\">\n<parameter name=\"text\">ls</parameter>\n</invoke>\n<invoke name=\"read_file\">\n</invoke>\n</function_calls>",
        "",
        &[("bash", r#"{"text":"ls"}"#), ("read_file", "{}")],
    ),
    (
        "<minimax:tool_call>\n<invoke name=\"bash\">\n<parameter name=\"text\">ls</parameter>\n</invoke>\n</minimax:tool_call>",
        "",
        &[("bash", r#"{"text":"ls"}"#)],
    ),
    (
        "<|python_tag|>{\"name\": \"bash\", \"parameters\": {\"text\": \"ls\"}}<|eom_id|>",
        "",
        &[("bash", r#"{"text":"ls"}"#)],
    ),
    (
        "{\"name\": \"bash\", \"parameters\": {\"text\": \"a\"}}; {\"name\": \"bash\", \"parameters\": {\"text\": \"b\"}}",
        "",
        &[("bash", r#"{"text":"a"}"#), ("bash", r#"{"text":"b"}"#)],
    ),
    (
        "Sure:\n\n{\"type\": \"function\", \"function\": {\"name\": \"bash\", \"arguments\": \"{\\\"text\\\":\\\"a\\\"}\"}}\n",
        "Sure:\n\n",
        &[("bash", r#"{"text":"a"}"#)],
    ),
    (
        "{\"tool_calls\": [{\"name\": \"bash\", \"arguments\": {\"count\": 1}}]}",
        "",
        &[("bash", r#"{"count":1}"#)],
    ),
    (
        "I will do it.\n```json\n{\"name\": \"bash\", \"arguments\": {\"text\": \"ls\"}}\n```",
        "I will do it.\n",
        &[("bash", r#"{"text":"ls"}"#)],
    ),
    (
        "```json\n{\"name\": \"bash\", \"arguments\": {\"text\": \"a\"}}\n```\n\n```\n[{\"name\": \"read_file\", \"arguments\": {}}]\n```\n",
        "",
        &[("bash", r#"{"text":"a"}"#), ("read_file", "{}")],
    ),
    ("```xml\n<tool_call>{\"name\": \"bash\", \"arguments\": {}}</tool_call>\n```", "", &[("bash", "{}")]),
    (
        "[TOOL_CALLS][{\"name\": \"bash\", \"arguments\": {\"text\": \"ls\"}}]",
        "",
        &[("bash", r#"{"text":"ls"}"#)],
    ),
    (
        "[TOOL_CALLS]bash[ARGS]{\"text\": \"a\"}[TOOL_CALLS]read_file{\"text\": \"b\"}",
        "",
        &[("bash", r#"{"text":"a"}"#), ("read_file", r#"{"text":"b"}"#)],
    ),
    // One of two is offered: the other is for the agent to refuse.
    (
        "<tool_call>{\"name\":\"bash\",\"arguments\":{}}</tool_call><tool_call>{\"name\":\"fly\",\"arguments\":{}}</tool_call>",
        "",
        &[("bash", "{}"), ("fly", "{}")],
    ),
    (
        "The `<tool_call>` mark is mine.\n<tool_call>{\"name\":\"bash\",\"arguments\":{}}</tool_call>",
        "The `<tool_call>` mark is mine.\n",
        &[("bash", "{}")],
    ),
];

/// Answers that only talk.
const TALK: &[&str] = &[
    "",
    "plain words",
    "Use JSON such as {\"name\": \"bash\", \"arguments\": {}} for it.",
    "The <tool_call> tag goes around JSON. So does `<function=bash>`.",
    "Write `<tool_call>{\"name\": \"bash\", \"arguments\": {}}</tool_call>` and it runs.",
    "```json\n{\"name\": \"bash\", \"arguments\": {\"text\": \"ls\"}}\n```\nThis is how a call looks.",
    "```json\n{\"name\": \"my-package\", \"version\": \"1.0\"}\n```\nis your package.json",
    "{\"name\": \"Ada\", \"parameters\": {\"age\": 36}}",
    "{\"name\": \"bash\"}",
    "{\"name\": \"bash\", \"arguments\": {}}\nThat was JSON.",
    "{\"accuracy\": 0.93, \"loss\": [1, 2]}",
    "[1] a citation\n[TODO] b\n[",
    "a < b and c <t\n<too",
    "``` \nnot closed",
    "```python\nx = {\"name\": \"bash\", \"arguments\": {}}\n```\n",
    "````\n```json\n{\"name\": \"bash\", \"arguments\": {}}\n```\n````\n",
    "# Title\n\n- `[TOOL_CALLS]` is Mistral's\n- <b>bold</b>\n\n| a | b |\n",
    "<function=2 < 3",
    "<invoke name=x>",
    "<tool_call>",
];

#[test]
fn calls_are_taken_out_of_the_text() {
    for (answer, text, calls) in CALLS {
        let (left, found) = outcome(&[answer]).unwrap_or_else(|e| panic!("{e}: {answer}"));
        let found: Vec<(&str, &str)> =
            found.iter().map(|(name, arguments)| (name.as_str(), arguments.as_str())).collect();
        assert_eq!((left.as_str(), found.as_slice()), (*text, *calls), "{answer}");
    }
}

#[test]
fn talk_passes_unchanged() {
    for answer in TALK {
        assert_eq!(outcome(&[answer]), Ok(((*answer).to_owned(), Vec::new())), "{answer}");
    }
}

#[test]
fn borders_of_pieces_do_not_matter_to_any_of_them() {
    for answer in TALK.iter().copied().chain(CALLS.iter().map(|(answer, ..)| *answer)) {
        let letters: Vec<&str> = answer.split_inclusive(|_| true).collect();
        assert_eq!(outcome(&letters), outcome(&[answer]), "{answer}");
    }
}

#[test]
fn nothing_of_a_call_is_shown_while_it_comes() {
    for (answer, text, _) in CALLS {
        let letters: Vec<&str> = answer.split_inclusive(|_| true).collect();
        for end in 0..=letters.len() {
            let (shown, _) = read(&letters[..end], false);
            assert!(text.starts_with(&shown), "{shown:?} of {answer}");
        }
    }
}

#[test]
fn ordinary_text_is_shown_as_it_comes() {
    let mut text = TextCalls::new(Arc::from([tool("bash")]));
    for (piece, expected) in [
        ("Hello", "Hello"),
        (" a <", " a "),
        ("b> `{\"name", "<b> `{\"name"),
        ("`\n```js", "`\n"),
        ("on\n{\"na", ""),
        ("me\": \"x\",\n\"y", "```json\n{\"name\": \"x\",\n\"y"),
        ("\": 1}\n``", "\": 1}\n"),
        ("`\nend", "```\nend"),
    ] {
        let mut shown = String::new();
        text.push(piece, |part| shown.push_str(part));
        assert_eq!(shown, expected, "{piece:?}");
    }
}

#[test]
fn a_clear_try_that_cannot_be_read_is_told() {
    for answer in [
        "<tool_call>{\"name\": bash}</tool_call>",
        "<tool_call>{\"command\": \"ls\"}</tool_call>",
        "<|python_tag|>bash.call(text=\"ls\")",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.bash:0<|tool_call_argument_begin|>{}",
        "[TOOL_CALLS]",
    ] {
        assert_eq!(outcome(&[answer]), Err(NotUnderstood::Unreadable), "{answer}");
    }
    let unknown = outcome(&["<tool_call>{\"name\": \"fly\", \"arguments\": {}}</tool_call>"]);
    assert_eq!(unknown, Err(NotUnderstood::NoSuchTool("fly".to_owned())));
}

#[test]
fn a_call_that_a_limit_cut_off_keeps_its_name() {
    for answer in
        ["<tool_call>{\"name\": \"bash\", \"arguments\": {\"text\": \"ls", "<function=bash><parameter=te"]
    {
        let (_, found) = read(&[answer], true);
        let found = found.unwrap();
        assert_eq!(found.calls[0].name, "bash", "{answer}");
        assert_eq!(found.text, "");
    }
    let (_, found) = read(&["<tool_call>{\"na"], true);
    assert_eq!(found.unwrap().text, "<tool_call>{\"na");
}

proptest! {
    #[test]
    fn any_text_is_either_shown_or_a_call(words in prop::collection::vec(prop::sample::select(vec![
        "<tool_call>", "</tool_call>", "{", "}", "\"name\"", ":", "\"bash\"", ",", "\"arguments\"", "```", "\n", "json", "`",
        "[", "]", "<function=bash>", "</function>", "<parameter=text>", "</parameter>", "x", "é", "<", "[TOOL_CALLS]", " ",
    ]), 0..24)) {
        let answer = words.concat();
        let whole = outcome(&[&answer]);
        prop_assert_eq!(&outcome(&words), &whole);
        if let Ok((text, calls)) = whole && calls.is_empty() {
            prop_assert_eq!(text, answer);
        }
    }
}
