use serde_json::Value;

use crate::assemble::Setup;
use crate::cli::ConfigCommand;
use crate::environment::Environment;
use crate::exit::{Exit, Failure};
use crate::render::say;
use crate::schema;
use crate::settings::{Loaded, without_effect};
use crate::trust::Word;

pub(super) fn run(command: &ConfigCommand, environment: Environment) -> Result<Exit, Failure> {
    let ConfigCommand::Show { origin, place } = command else {
        say(&serde_json::to_string_pretty(&schema::line()).map_err(anyhow::Error::from)?);
        return Ok(Exit::Done);
    };
    let loaded = Setup::in_place(environment, place, Word::of(place))?.loaded;
    if !origin {
        let mut value = loaded.value;
        hide(&mut value, false);
        say(&serde_json::to_string_pretty(&value).map_err(anyhow::Error::from)?);
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    leaves(&loaded, &loaded.value, &mut Vec::new(), &mut rows);
    let width = rows.iter().map(|(key, ..)| key.len()).max().unwrap_or(0);
    for (key, value, from) in rows {
        let idle = without_effect(key.split('.').next().unwrap_or_default());
        let idle = idle.map(|why| format!("; no effect: {why}")).unwrap_or_default();
        say(&format!("{key:width$}  {value}  ({from}{idle})"));
    }
    Ok(Exit::Done)
}

fn leaves(loaded: &Loaded, value: &Value, path: &mut Vec<String>, rows: &mut Vec<(String, String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, field) in fields {
                path.push(key.clone());
                leaves(loaded, field, path, rows);
                path.pop();
            }
        }
        leaf => {
            let secret = path.iter().any(|key| holds_secret(key));
            let secret = secret || leaf.as_str().is_some_and(carries_user);
            let shown = if secret && leaf.is_string() { "(hidden)".to_owned() } else { leaf.to_string() };
            rows.push((path.join("."), shown, loaded.origin(path).to_owned()));
        }
    }
}

/// Values that are credentials by their name are not printed.
fn hide(value: &mut Value, secret: bool) {
    match value {
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(key, field)| hide(field, secret || holds_secret(key)));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, secret)),
        Value::String(text) if secret || carries_user(text) => *text = "(hidden)".to_owned(),
        _ => {}
    }
}

/// Whether a text may be a URL with a password, such as a proxy's.
fn carries_user(text: &str) -> bool {
    text.contains('@') && text.contains(':')
}

fn holds_secret(key: &str) -> bool {
    key != "key_env"
        && (wall::names_a_credential(key)
            || key.eq_ignore_ascii_case("authorization")
            || key == "headers"
            || key == "env")
}
