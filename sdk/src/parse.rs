use serde::Deserializer;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde_json::{Map, Value};

use crate::bindings::ml_intern::plugin::types as wit;
use crate::{Call, Tool, ToolError};

/// Runs a tool on a call: what `export!` dispatches to.
///
/// # Errors
/// The tool's own, or `invalid-args` when the arguments are not the tool's.
pub fn invoke<T: Tool>(call: wit::ToolCall) -> Result<wit::ToolOutput, wit::Error> {
    let tool: T = parse(&call.arguments)?;
    Ok(tool.run(&Call::from_wit(&call))?.into())
}

/// Parses arguments strictly: an unknown field is refused with the known names.
fn parse<T: DeserializeOwned>(json: &str) -> Result<T, ToolError> {
    let refused =
        |error: serde_json::Error| ToolError::invalid(format!("the arguments cannot be used: {error}"));
    let value: Value = serde_json::from_str(json).map_err(refused)?;
    let Value::Object(fields) = value else {
        return Err(ToolError::invalid("the arguments must be a JSON object"));
    };
    T::deserialize(Strict(fields)).map_err(refused)
}

/// An object that knows which fields it may have as soon as it is asked to be a struct.
struct Strict(Map<String, Value>);

impl<'de> Deserializer<'de> for Strict {
    type Error = serde_json::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        Value::Object(self.0).deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        if let Some(unknown) = self.0.keys().find(|key| !fields.contains(&key.as_str())) {
            let known = fields.join("`, `");
            return Err(Self::Error::custom(format!("unknown field `{unknown}`; the fields are `{known}`")));
        }
        Value::Object(self.0).deserialize_struct(name, fields, visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Input {
        path: String,
        limit: Option<u32>,
    }

    #[test]
    fn unknown_fields_are_refused_with_the_known_names() {
        let error = parse::<Input>(r#"{"path": "a", "lines": 3}"#).unwrap_err();
        assert_eq!(
            error.message,
            "the arguments cannot be used: unknown field `lines`; the fields are `path`, `limit`"
        );
    }

    #[test]
    fn missing_and_wrong_fields_are_named() {
        assert!(parse::<Input>("{}").unwrap_err().message.contains("missing field `path`"));
        assert!(parse::<Input>("[]").unwrap_err().message.contains("must be a JSON object"));
        assert_eq!(parse::<Input>(r#"{"path": "a"}"#).unwrap(), Input { path: "a".to_owned(), limit: None });
    }
}
