use serde_json::Value;

/// Objects are merged key by key; anything else is replaced whole.
pub(super) fn merge(below: Value, above: Value) -> Value {
    match (below, above) {
        (Value::Object(mut below), Value::Object(above)) => {
            for (key, value) in above {
                let merged = match below.remove(&key) {
                    Some(old) => merge(old, value),
                    None => value,
                };
                below.insert(key, merged);
            }
            Value::Object(below)
        }
        (_, above) => above,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_merged_deeply_and_lists_replaced() {
        let merged = merge(
            json!({"a": {"x": 1, "y": [1, 2]}, "b": 1}),
            json!({"a": {"y": [3], "z": 2}, "b": {"c": 1}}),
        );
        assert_eq!(merged, json!({"a": {"x": 1, "y": [3], "z": 2}, "b": {"c": 1}}));
    }
}
