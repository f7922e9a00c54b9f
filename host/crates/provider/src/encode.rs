//! What the three encoders share: writing JSON into memory and fitting the transcript to a wire.

use protocol::ToolCall;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::completion::CompletionOptions;

/// Longest tool call id that every wire takes.
const ID_BYTES: usize = 64;

/// The mark that ends a part of the prompt which the provider is to cache.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum CacheControl {
    Ephemeral,
}

/// The mark as the last field of an object that is still open.
pub(crate) const MARK: &[u8] = br#","cache_control":{"type":"ephemeral"}"#;

pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "wire types hold text, numbers and raw JSON: nothing that cannot be written"
    )]
    serde_json::to_vec(value).expect("wire types can be written")
}

/// An object without its closing brace, so that a field can still follow.
pub(crate) fn open_json(value: &impl Serialize) -> Vec<u8> {
    let mut object = json(value);
    object.pop();
    object
}

/// The fields of `value`, each with a comma before it, for the end of an open object.
pub(crate) fn more_fields(value: &impl Serialize) -> Vec<u8> {
    let mut fields = open_json(value);
    match fields.as_mut_slice() {
        [brace] => {
            *brace = b' ';
            fields
        }
        [brace, ..] => {
            *brace = b',';
            fields
        }
        [] => fields,
    }
}

/// The arguments of a call if they are an object, which is what every wire wants.
pub(crate) fn arguments(call: &ToolCall) -> Option<&RawValue> {
    serde_json::from_str::<&RawValue>(&call.arguments).ok().filter(|raw| raw.get().starts_with('{'))
}

/// The arguments of a call as text.
pub(crate) fn arguments_text(call: &ToolCall) -> &str {
    arguments(call).map_or("{}", RawValue::get)
}

/// A call's id in an alphabet and length that every wire takes; ids of other providers may not have it.
pub(crate) fn portable_id(id: &str) -> String {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !id.is_empty() && id.len() <= ID_BYTES && id.bytes().all(fits) {
        return id.to_owned();
    }
    // FNV-1a: the same id has to be written the same way in every request and every run.
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("call_{hash:016x}")
}

/// Whether calls are possible, forbidden for this request, or not spoken of.
pub(crate) fn tool_choice(has_tools: bool, options: &CompletionOptions) -> Option<&'static str> {
    match (has_tools, options.tools) {
        (false, _) => None,
        (true, true) => Some("auto"),
        (true, false) => Some("none"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_other_providers_are_rewritten_and_stay_distinct() {
        assert_eq!(portable_id("toolu_01-A"), "toolu_01-A");
        let (one, two) = (portable_id("functions.bash:0"), portable_id("functions.bash:1"));
        assert_eq!(one, portable_id("functions.bash:0"));
        assert_ne!(one, two);
        assert!(portable_id(&"x".repeat(65)).starts_with("call_"));
        assert!(portable_id("").starts_with("call_"));
    }

    #[test]
    fn only_objects_are_arguments() {
        for (arguments, sent) in [
            (r#" {"a": 1.50} "#, r#"{"a": 1.50}"#),
            ("", "{}"),
            ("[1]", "{}"),
            (r#"{"a":"#, "{}"),
            (r#"{"a":1} x"#, "{}"),
            ("null", "{}"),
        ] {
            let call = ToolCall { id: "a".into(), name: "b".into(), arguments: arguments.into() };
            assert_eq!(arguments_text(&call), sent, "{arguments}");
        }
    }
}
