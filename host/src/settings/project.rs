//! Settings of a project: a few keys that can do no harm. The rest is the person's own.

use std::collections::BTreeSet;
use std::path::Path;

use provider::Effort;
use serde_json::{Map, Value};

use super::{Layer, Settings, layer, locate};

/// Keys that a project may set, for messages.
const KEYS: &str = "model_name, reasoning_effort, max_iterations, limits, dirs";

const LIMITS: [&str; 4] = ["cpu_ms", "memory_bytes", "wall_time_s", "output_bytes"];

/// A key or value that a project may not set, and where it stands.
type Refused = (Vec<String>, String);

/// Adds a project's settings above the user's.
///
/// The error is every reason why the file does not count, with file and line.
pub(crate) fn add_project(layers: &mut Vec<Layer>, mut own: Layer, folder: &Path) -> Result<(), Vec<String>> {
    let refused = refused(&own.value, folder);
    if !refused.is_empty() {
        let left_out = |(path, reason): &Refused| {
            format!("{}: {reason}; the file is left out", locate::describe(std::slice::from_ref(&own), path))
        };
        return Err(refused.iter().map(left_out).collect());
    }
    if let Some(Value::Array(dirs)) = own.value.get_mut("dirs") {
        for dir in dirs {
            *dir = Value::from(folder.join(dir.as_str().unwrap_or_default()).display().to_string());
        }
    }
    own.project = true;
    layers.push(own);
    Ok(())
}

/// What of a project's settings file would be refused, for the sheet.
pub(crate) fn refused_of_project(path: &Path, text: &str, folder: &Path) -> Vec<String> {
    match layer(path.display().to_string(), text.to_owned()) {
        Err(failure) => vec![failure.to_string()],
        Ok(layer) => add_project(&mut Vec::new(), layer, folder).err().unwrap_or_default(),
    }
}

fn refused(value: &Value, folder: &Path) -> Vec<Refused> {
    let mut out = Vec::new();
    for (key, value) in value.as_object().into_iter().flatten() {
        let mut refuse = |below: &[&str], reason: String| {
            let path = std::iter::once(key.as_str()).chain(below.iter().copied());
            out.push((path.map(str::to_owned).collect(), reason));
        };
        match (key.as_str(), value) {
            ("model_name", Value::String(text)) if !text.contains("${") => {}
            ("model_name", _) => {
                refuse(&[], "must be a model id, and `${…}` is not filled in here".to_owned());
            }
            ("reasoning_effort", Value::Null) => {}
            ("reasoning_effort", Value::String(level)) if is_effort(level) => {}
            ("reasoning_effort", _) => refuse(&[], "must be a level of effort".to_owned()),
            ("max_iterations", value) if value.as_u64().is_some_and(|n| n > 0) => {}
            ("max_iterations", _) => refuse(&[], "must be a number above 0".to_owned()),
            ("limits", Value::Object(limits)) => {
                for (name, value) in limits {
                    if !LIMITS.contains(&name.as_str())
                        || value.as_u64().is_none_or(|n| u32::try_from(n).is_err())
                    {
                        refuse(&[name], format!("must be a number, of {}", LIMITS.join(", ")));
                    }
                }
            }
            ("limits", _) => refuse(&[], "must be an object".to_owned()),
            ("dirs", Value::Array(dirs)) => {
                for (k, dir) in dirs.iter().enumerate() {
                    if let Err(reason) = inside(dir, folder) {
                        refuse(&[&k.to_string()], reason);
                    }
                }
            }
            ("dirs", _) => refuse(&[], "must be a list".to_owned()),
            _ => refuse(&[], format!("cannot be set by a project, which may set {KEYS}")),
        }
    }
    out
}

fn is_effort(level: &str) -> bool {
    let level = level.to_lowercase();
    matches!(level.as_str(), "off" | "none") || level.parse::<Effort>().is_ok()
}

/// A folder of a project is one inside it, for reading.
fn inside(dir: &Value, folder: &Path) -> Result<(), String> {
    let text = dir.as_str().ok_or("must be a folder")?;
    if text.contains("${") || text.ends_with(":rw") || text.ends_with(":ro") {
        return Err("must be a folder inside this one, by its name alone".to_owned());
    }
    let path = folder.join(text).canonicalize().map_err(|e| format!("{text}: {e}"))?;
    if path.is_dir() && path.starts_with(folder) {
        Ok(())
    } else {
        Err(format!("{text}: a project can name folders inside it only"))
    }
}

/// Puts a project's settings above the others, below the ceilings that these set. What does not get lower
/// than a ceiling is taken out of the layer, so that nobody is told it came from there.
pub(super) fn put_above(value: &mut Value, own: &mut Value, user: &Settings) {
    let Some(own) = own.as_object_mut() else { return };
    let ceiling = u64::try_from(user.max_iterations).ok();
    own.retain(|key, value| {
        key != "max_iterations" || ceiling.is_none_or(|most| value.as_u64() < Some(most))
    });
    let ceilings = [
        user.limits.cpu_ms,
        user.limits.memory_bytes as u64,
        user.limits.wall_time_s.into(),
        user.limits.output_bytes as u64,
    ];
    if let Some(Value::Object(limits)) = own.get_mut("limits") {
        let ceiling_of = |name: &str| LIMITS.iter().position(|known| *known == name).map(|at| ceilings[at]);
        limits.retain(|name, value| ceiling_of(name).is_some_and(|most| value.as_u64() < Some(most)));
    }
    let mut above = own.clone();
    if let Some(Value::Array(dirs)) = above.get_mut("dirs") {
        let users = value.get("dirs").and_then(Value::as_array).cloned().unwrap_or_default();
        dirs.splice(0..0, users);
    }
    *value = super::merge::merge(std::mem::take(value), Value::Object(above));
}

/// Variables that the user's settings fill in where a credential or a model stands, and those that hold
/// keys: a trusted project may give them. One that also decides where something goes is not among them.
pub(crate) fn names_in_use(layers: &[Layer]) -> BTreeSet<String> {
    let (mut harmless, mut decisive) = (BTreeSet::new(), BTreeSet::new());
    for layer in layers {
        collect(&layer.value, &mut Vec::new(), &mut harmless, &mut decisive);
        let providers = layer.value.get("providers").and_then(Value::as_object);
        let keys =
            providers.into_iter().flat_map(Map::values).filter_map(|entry| entry.get("key_env")?.as_str());
        harmless.extend(keys.map(str::to_owned));
    }
    harmless.difference(&decisive).cloned().collect()
}

fn collect<'a>(
    value: &'a Value,
    path: &mut Vec<&'a str>,
    harmless: &mut BTreeSet<String>,
    decisive: &mut BTreeSet<String>,
) {
    match value {
        Value::String(text) => {
            let is_harmless = matches!(
                path.as_slice(),
                ["model_name"] | ["reasoning_effort"] | ["providers" | "mcpServers", _, "headers", _]
            );
            let into = if is_harmless { harmless } else { decisive };
            into.extend(super::substitute::names(text).map(str::to_owned));
        }
        Value::Array(items) => {
            path.push("");
            items.iter().for_each(|item| collect(item, path, harmless, decisive));
            path.pop();
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                path.push(key);
                collect(field, path, harmless, decisive);
                path.pop();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::environment::Environment;
    use crate::settings::{BUNDLED, BUNDLED_NAME, complete};

    fn loaded(user: &Value, own: &Value) -> Result<crate::settings::Loaded, Vec<String>> {
        let mut layers = vec![
            layer(BUNDLED_NAME.to_owned(), BUNDLED.to_owned()).unwrap(),
            layer("user.json".to_owned(), user.to_string()).unwrap(),
        ];
        let own = layer("project.json".to_owned(), own.to_string()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("work/data")).unwrap();
        std::os::unix::fs::symlink("/etc", root.join("work/etc")).unwrap();
        add_project(&mut layers, own, &root.join("work"))?;
        Ok(complete(layers, &Environment::default()).unwrap())
    }

    #[test]
    fn a_project_sets_harmless_keys_and_the_users_limits_are_a_ceiling() {
        let user = json!({"model_name": "a/user", "max_iterations": 50, "limits": {"cpu_ms": 1000}, "dirs": ["/usr"]});
        let own = json!({"model_name": "a/project", "reasoning_effort": "low", "max_iterations": 60,
            "limits": {"cpu_ms": 2000, "wall_time_s": 5}, "dirs": ["data"]});
        let loaded = loaded(&user, &own).unwrap();
        let settings = &loaded.settings;
        assert_eq!((settings.model_name.as_str(), settings.max_iterations), ("a/project", 50));
        assert_eq!((settings.limits.cpu_ms, settings.limits.wall_time_s), (1000, 5));
        assert_eq!(settings.dirs.len(), 2);
        assert!(settings.dirs[1].ends_with("work/data"), "{:?}", settings.dirs);
        let origin = |path: &[&str]| {
            loaded.origin(&path.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>()).to_owned()
        };
        assert_eq!(origin(&["model_name"]), "project.json");
        assert_eq!(origin(&["max_iterations"]), "user.json");
        assert_eq!(origin(&["limits", "cpu_ms"]), "user.json");
        assert_eq!(origin(&["limits", "wall_time_s"]), "project.json");
    }

    #[test]
    fn everything_else_keeps_the_file_from_counting_and_is_named() {
        let forbidden = [
            "providers",
            "mcpServers",
            "yolo_mode",
            "command_env",
            "tool_runtime",
            "messaging",
            "share_traces",
            "hooks",
            "notify",
            "mode",
            "permission_mode",
            "allow",
            "deny",
            "origins",
            "proxy",
            "env",
            "api_key",
            "base_url",
            "save_sessions",
            "session_dataset_repo",
            "Model_name",
            "",
            "model_name ",
        ];
        for key in forbidden {
            let reasons = loaded(&json!({}), &json!({"model_name": "a/b", (key): {}})).unwrap_err();
            assert_eq!(reasons.len(), 1, "{key}");
            assert!(reasons[0].starts_with("project.json:1:") && reasons[0].contains(key), "{reasons:?}");
        }
        for own in [
            json!({"model_name": "${HF_TOKEN}"}),
            json!({"model_name": 1}),
            json!({"max_iterations": -1}),
            json!({"max_iterations": 1.5}),
            json!({"reasoning_effort": "enormous"}),
            json!({"limits": {"cpu": 1}}),
            json!({"limits": {"cpu_ms": -1}}),
            json!({"limits": 3}),
            json!({"dirs": ["/etc"]}),
            json!({"dirs": [".."]}),
            json!({"dirs": ["etc"]}),
            json!({"dirs": ["data:rw"]}),
            json!({"dirs": "data"}),
            json!({"dirs": ["${HOME}"]}),
            json!({"dirs": ["~"]}),
        ] {
            assert!(loaded(&json!({}), &own).is_err(), "{own}");
        }
    }

    #[test]
    fn variables_that_decide_where_something_goes_are_the_users_own() {
        let user = json!({"model_name": "${M}", "dirs": ["${D}"], "providers": {"w": {"wire": "chat",
            "base_url": "https://${TENANT}.example.com", "key_env": "WORK_KEY",
            "headers": {"x": "Bearer ${T} ${TENANT}", "y": "${Y:-z}"}}}, "mcpServers": {"s": {"url": "${U}"}}});
        let names = names_in_use(&[layer("user.json".to_owned(), user.to_string()).unwrap()]);
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["M", "T", "WORK_KEY", "Y"]);
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z/$.{}~:]{0,8}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(
                    ("model_name|limits|cpu_ms|dirs|providers|base_url|yolo_mode|[a-z_]{1,6}", inner),
                    0..4
                )
                .prop_map(|fields| fields.into_iter().collect::<Value>()),
            ]
        })
    }

    /// A key that a project may set, with a value that it may nearly have.
    fn any_field() -> impl Strategy<Value = (String, Value)> {
        let number = || (-9..9_000_000_i64).prop_map(Value::from);
        prop_oneof![
            ("max_iterations", number()),
            ("model_name", "[a-z]{1,3}/[a-z${}]{1,4}".prop_map(Value::from)),
            (
                "limits",
                (prop::sample::select(LIMITS.to_vec()), number()).prop_map(|(name, n)| json!({ (name): n }))
            ),
            ("dirs", "data|etc|[.][.]|data/[.][.]|data:rw".prop_map(|dir| json!([dir]))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever a project writes: it counts with harmless keys alone, or not at all.
        #[test]
        fn a_project_never_changes_what_is_the_persons_own(
            fields in prop::collection::vec(
                prop_oneof![
                    3 => any_field(),
                    1 => ("model_name|limits|dirs|providers|yolo_mode|command_env|[a-z_]{1,8}", any_json()),
                ],
                0..4,
            ),
        ) {
            let own: Value = fields.into_iter().collect();
            if let Ok(loaded) = loaded(&json!({"limits": {"cpu_ms": 77}}), &own) {
                let settings = loaded.settings;
                prop_assert!(!settings.yolo_mode && settings.providers.is_empty() && settings.command_env.is_empty());
                prop_assert!(settings.limits.cpu_ms <= 77 && (0..=300).contains(&settings.max_iterations));
                let filled = settings.model_name.contains("${");
                prop_assert!(!filled);
                prop_assert!(settings.dirs.iter().all(|dir| dir.contains("/work")));
            }
        }
    }
}
