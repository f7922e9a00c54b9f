use serde_json::Value;

use crate::environment::Environment;

/// Fills `${NAME}` and `${NAME:-default}` in every string value. Keys are left alone.
///
/// The error is the path of the value and the reason.
pub(super) fn substitute(value: &mut Value, environment: &Environment) -> Result<(), (Vec<String>, String)> {
    let mut path = Vec::new();
    walk(value, environment, &mut path).map_err(|reason| (path, reason))
}

/// The variables that a text takes up.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    let inside = text.split("${").skip(1).filter_map(|after| Some(after.split_once('}')?.0));
    inside.map(|inside| inside.split_once(':').map_or(inside, |(name, _)| name))
}

fn walk(value: &mut Value, environment: &Environment, path: &mut Vec<String>) -> Result<(), String> {
    match value {
        Value::String(text) if text.contains("${") => *text = fill(text, environment)?,
        Value::Array(items) => {
            for (k, item) in items.iter_mut().enumerate() {
                path.push(k.to_string());
                walk(item, environment, path)?;
                path.pop();
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                path.push(key.clone());
                walk(field, environment, path)?;
                path.pop();
            }
        }
        _ => {}
    }
    Ok(())
}

fn fill(text: &str, environment: &Environment) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        out.push_str(before);
        let Some((inside, after)) = after.split_once('}') else {
            out.push_str("${");
            rest = after;
            continue;
        };
        let (name, default) = match inside.split_once(':') {
            Some((name, default)) => (name, default.strip_prefix('-')),
            None => (inside, None),
        };
        match (environment.get(name), default) {
            // A variable that is set to nothing is set.
            (Some(value), _) => out.push_str(value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => {
                return Err(format!(
                    "the variable {name} is not set; set it in the environment or in the `.env` of the settings folder, or \
                     write ${{{name}:-DEFAULT}}"
                ));
            }
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, String> {
        fill(text, &Environment::of(&[("A", "1"), ("EMPTY", "")]))
    }

    #[test]
    fn placeholders() {
        assert_eq!(filled("x${A}y${A}").unwrap(), "x1y1");
        assert_eq!(filled("${NONE:-d}${NONE:-}").unwrap(), "d");
        assert_eq!(filled("[${EMPTY:-d}]").unwrap(), "[]");
        assert_eq!(filled("$A ${ open").unwrap(), "$A ${ open");
        assert!(filled("${NONE}").unwrap_err().contains("NONE is not set"));
        assert!(filled("${NONE:xyz}").unwrap_err().contains("NONE is not set"));
    }
}
