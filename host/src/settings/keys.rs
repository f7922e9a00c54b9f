use serde_json::Value;

use super::{Layer, Loaded, locate, substitute, without_effect};
use crate::exit::Failure;

/// Variables that a header may carry and that are no secrets: a name or a place.
const ORDINARY: [&str; 8] = ["HOME", "HOSTNAME", "LANG", "LOGNAME", "PWD", "SHELL", "TMPDIR", "USER"];

impl Loaded {
    /// Variables that headers of providers take up: how a key gets into a header.
    pub(crate) fn header_variables(&self) -> impl Iterator<Item = &str> {
        let providers = self.layers.iter().filter_map(|layer| layer.value.get("providers")?.as_object());
        let headers =
            providers.flat_map(|all| all.values()).filter_map(|entry| entry.get("headers")?.as_object());
        let texts = headers.flat_map(|headers| headers.values()).filter_map(Value::as_str);
        texts.flat_map(substitute::names).filter(|name| !ORDINARY.contains(name))
    }
}

/// Keys stand in `.env`, not in settings, which are shown and copied. What stands there is not repeated.
pub(super) fn refuse(layers: &[Layer]) -> Result<(), Failure> {
    fn find(value: &Value, path: &mut Vec<String>) -> bool {
        let mut within = |key: String, value: &Value| {
            path.push(key);
            let found = find(value, path);
            if !found {
                path.pop();
            }
            found
        };
        match value {
            Value::String(text) => wall::looks_like_key(text.trim_start_matches("Bearer ")),
            Value::Array(items) => items.iter().enumerate().any(|(k, item)| within(k.to_string(), item)),
            Value::Object(fields) => fields.iter().any(|(key, field)| within(key.clone(), field)),
            _ => false,
        }
    }
    for layer in layers {
        let fields = layer.value.as_object().into_iter().flatten();
        for (key, field) in fields.filter(|(key, _)| without_effect(key).is_none()) {
            let mut path = vec![key.clone()];
            if find(field, &mut path) {
                let place = locate::describe(layers, &path);
                let how = if path.last().is_some_and(|last| last == "key_env") {
                    "name that variable here: \"key_env\": \"WORK_KEY\""
                } else {
                    "write ${WORK_KEY} here"
                };
                return Err(Failure::settings(anyhow::anyhow!(
                    "{place}: a key stands here in the clear; put it as WORK_KEY=… into ~/.config/ml-intern/.env and {how}"
                )));
            }
        }
    }
    Ok(())
}
