//! Which repository of the Hub a call is about, so that the host can tell what is the user's own.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::at;

/// Characters of a name of the Hub.
const MAX_NAME: usize = 96;

/// Where a call says which repository it is about.
///
/// In the mode `auto` nobody is asked about a call that makes a private repository in the user's own
/// namespace, or that changes one which the session made. What is not said here, or not exactly so, is
/// decided like every other call.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RepositoryUse {
    /// The argument with `NAMESPACE/NAME`: a field, or a JSON pointer.
    pub argument: String,
    /// The argument with its kind; without one, or where it is left out, the kind is `model`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind_argument: Option<String>,
    /// When a call makes the repository. The answer for programs then says so: `repository.created` is true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<When>,
    /// When a call changes this repository and nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<When>,
    /// The argument that is `true` for a private repository.
    pub private_argument: String,
}

/// Calls of a tool: `true`, all of them; or those with one of these values, exactly as they stand.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum When {
    Always(bool),
    Among(Among),
}

/// Values of an argument.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Among {
    pub argument: String,
    #[serde(rename = "in")]
    pub any_of: Vec<String>,
}

/// A repository of the Hub.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Repository {
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// What a call does to a repository.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RepositoryCall {
    /// Makes it, private.
    CreatesPrivate(Repository),
    /// Changes it, and publishes nothing.
    Changes(Repository),
}

impl RepositoryUse {
    /// What a call does to a repository, if that is said exactly.
    #[must_use]
    pub fn of(&self, arguments: &Value) -> Option<RepositoryCall> {
        let repository = Repository::of(at(arguments, &self.argument)?.as_str()?, self.kind(arguments)?)?;
        let holds = |when: &Option<When>| when.as_ref().is_some_and(|when| when.holds(arguments));
        let private = at(arguments, &self.private_argument).filter(|value| !value.is_null());
        let is_private = private.map(|value| *value == Value::Bool(true));
        match (holds(&self.create), holds(&self.change), is_private) {
            (true, false, Some(true)) => Some(RepositoryCall::CreatesPrivate(repository)),
            (false, true, None | Some(true)) => Some(RepositoryCall::Changes(repository)),
            _ => None,
        }
    }

    fn kind(&self, arguments: &Value) -> Option<String> {
        match self.kind_argument.as_ref().and_then(|name| at(arguments, name)) {
            None | Some(Value::Null) => Some("model".to_owned()),
            Some(Value::String(kind)) => Some(kind.clone()),
            Some(_) => None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let empty = |when: &When| match when {
            When::Always(always) => !always,
            When::Among(among) => among.any_of.is_empty(),
        };
        let given = [&self.create, &self.change];
        if given.iter().all(|when| when.is_none()) || given.into_iter().flatten().any(empty) {
            return Err(
                "`repository` needs `create`, `change` or both: `true`, or an argument and its values",
            );
        }
        Ok(())
    }
}

impl When {
    fn holds(&self, arguments: &Value) -> bool {
        match self {
            Self::Always(always) => *always,
            Self::Among(Among { argument, any_of }) => at(arguments, argument)
                .and_then(Value::as_str)
                .is_some_and(|value| any_of.iter().any(|known| known == value)),
        }
    }
}

impl Repository {
    /// `NAMESPACE/NAME` as the Hub itself writes it; what a tool would have to make sense of is none.
    fn of(id: &str, kind: String) -> Option<Self> {
        let (namespace, name) = id.split_once('/')?;
        let is_kind = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_lowercase());
        (is_kind && is_name(namespace) && is_name(name)).then(|| Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

/// Whether this can be the name of a user or a repository of the Hub.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    text.len() <= MAX_NAME
        && text.bytes().all(fits)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && !text.contains("..")
        && !text.ends_with('.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn declared() -> RepositoryUse {
        let text = r#"
            argument = "repo"
            kind_argument = "kind"
            create = { argument = "operation", in = ["create"] }
            change = { argument = "operation", in = ["upload"] }
            private_argument = "private"
        "#;
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_private_creation_and_a_change_are_told_exactly() {
        let repository = |kind: &str| Repository {
            kind: kind.to_owned(),
            namespace: "me".to_owned(),
            name: "x".to_owned(),
        };
        let of = |arguments: Value| declared().of(&arguments);
        let created = of(json!({"operation": "create", "repo": "me/x", "private": true}));
        assert_eq!(created, Some(RepositoryCall::CreatesPrivate(repository("model"))));
        let changed = of(json!({"operation": "upload", "repo": "me/x", "kind": "dataset"}));
        assert_eq!(changed, Some(RepositoryCall::Changes(repository("dataset"))));
        for other in [
            json!({"operation": "create", "repo": "me/x"}),
            json!({"operation": "create", "repo": "me/x", "private": false}),
            json!({"operation": "create", "repo": "me/x", "private": "true"}),
            json!({"operation": "create", "repo": "me/x", "private": null}),
            json!({"operation": "Create", "repo": "me/x", "private": true}),
            json!({"operation": "upload", "repo": "me/x", "private": false}),
            json!({"operation": "move", "repo": "me/x", "private": true}),
            json!({"operation": "create", "repo": "x", "private": true}),
            json!({"operation": "create", "repo": "me/x/y", "private": true}),
            json!({"operation": "create", "repo": "me/../x", "private": true}),
            json!({"operation": "create", "repo": "me/x ", "private": true}),
            json!({"operation": "create", "repo": "https://huggingface.co/me/x", "private": true}),
            json!({"operation": "create", "repo": ["me/x"], "private": true}),
            json!({"operation": "create", "repo": "me/x", "private": true, "kind": "Data set"}),
            json!({"operation": "create", "repo": "me/x", "private": true, "kind": 3}),
            json!({"repo": "me/x", "private": true}),
        ] {
            assert_eq!(of(other.clone()), None, "{other}");
        }
    }

    #[test]
    fn it_says_when() {
        let check = |create: Option<When>, change: Option<When>| {
            RepositoryUse { create, change, ..declared() }.check().is_ok()
        };
        let among = |any_of| Some(When::Among(Among { argument: "operation".to_owned(), any_of }));
        assert!(check(Some(When::Always(true)), None) && check(None, among(vec!["x".to_owned()])));
        assert!(!check(None, None) && !check(Some(When::Always(false)), None));
        assert!(!check(among(Vec::new()), None));
    }
}
