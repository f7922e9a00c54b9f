use serde_json::Value;

/// An error as a provider words it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ServerError {
    /// Its type and code fields, in lower case.
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) is_html: bool,
}

impl ServerError {
    pub(crate) fn new(kind: &str, message: &str) -> Self {
        Self { kind: kind.to_ascii_lowercase(), message: readable(message), is_html: false }
    }

    /// Reads the body of an error, whatever it is.
    pub(crate) fn read(body: &[u8]) -> Self {
        match serde_json::from_slice::<Value>(body) {
            Ok(value) => Self::of(&value),
            Err(_) => Self::of_text(&String::from_utf8_lossy(body)),
        }
    }

    /// Reads an error object, or an object that holds one.
    pub(crate) fn of(value: &Value) -> Self {
        let inner = match value {
            Value::Array(list) => list.first().unwrap_or(value),
            _ => value,
        };
        let error = Some(&inner["error"]).filter(|error| error.is_object()).unwrap_or(inner);
        if let Some(text) = error.as_str() {
            return Self::of_text(text);
        }
        let mut kind = String::new();
        for field in [&error["type"], &error["code"], &error["status"], &inner["error_type"]] {
            match field {
                Value::String(word) => kind += &format!("{} ", word.to_ascii_lowercase()),
                Value::Number(number) => kind += &format!("{number} "),
                _ => {}
            }
        }
        let message = message(error).unwrap_or_else(|| value.to_string());
        // Routers put what the provider behind them said into a field of their own.
        let raw = error["metadata"]["raw"].as_str().filter(|raw| !message.contains(raw));
        let message = raw.map_or_else(|| message.clone(), |raw| format!("{message}: {raw}"));
        Self { kind, message: readable(&message), is_html: false }
    }

    fn of_text(text: &str) -> Self {
        let start = text.trim_start().get(..200).unwrap_or(text).to_ascii_lowercase();
        if !start.starts_with("<!doctype") && !start.contains("<html") {
            return Self { message: readable(text), ..Self::default() };
        }
        let lower = text.to_ascii_lowercase();
        let title = lower.find("<title").and_then(|tag| {
            let start = tag + lower[tag..].find('>')? + 1;
            text.get(start..start + lower[start..].find("</title")?)
        });
        let message = title
            .map(readable)
            .filter(|title| !title.is_empty())
            .unwrap_or_else(|| "an HTML page".to_owned());
        Self { kind: String::new(), message, is_html: true }
    }
}

fn message(error: &Value) -> Option<String> {
    let places = [&error["message"], &error["error"], &error["detail"], &error["msg"], &error["errors"][0]];
    places.into_iter().find_map(|place| match place {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(list) => message(list.first()?),
        Value::Object(_) => message(place),
        _ => None,
    })
}

/// A text on one line, without anything that a terminal would act on.
fn readable(text: &str) -> String {
    protocol::text::plain(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::ServerError;

    #[test]
    fn the_message_is_found_wherever_it_is() {
        for (body, kind, message) in [
            (r#"{"error":{"message":"no","type":"Bad","code":"x"}}"#, "bad x ", "no"),
            (
                r#"{"type":"error","error":{"type":"overloaded_error","message":"busy"}}"#,
                "overloaded_error ",
                "busy",
            ),
            (r#"{"error":"plain words"}"#, "", "plain words"),
            (r#"{"message":"top","code":429}"#, "429 ", "top"),
            (r#"{"detail":"Not Found"}"#, "", "Not Found"),
            (r#"{"detail":[{"msg":"field required"}]}"#, "", "field required"),
            (r#"[{"error":{"message":"in a list","status":"INVALID"}}]"#, "invalid ", "in a list"),
            (
                r#"{"error":{"message":"Provider returned error","metadata":{"raw":"tokens!"}}}"#,
                "",
                "Provider returned error: tokens!",
            ),
            (r#"{"odd":1}"#, "", r#"{"odd":1}"#),
            ("<html><head><TITLE>502 Bad\nGateway</TITLE></head>", "", "502 Bad Gateway"),
            ("<!DOCTYPE html><body>x", "", "an HTML page"),
            ("  spread\n\tout \u{1b}[31mred", "", "spread out red"),
            ("", "", ""),
        ] {
            let error = ServerError::read(body.as_bytes());
            assert_eq!((error.kind.as_str(), error.message.as_str()), (kind, message), "{body}");
        }
        assert_eq!(ServerError::read(b"caf\xe9").message, "caf\u{fffd}");
    }
}
