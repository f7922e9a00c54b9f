//! What a request to the Hub is, by its method and path. What is not known to read is a write.

use http::Method;

use crate::asked::Asked;
use crate::hub::{HubWriteKind, is_method};
use crate::refusal::Refusal;

/// Kinds of repositories, in paths.
const TYPES: [&str; 3] = ["models", "datasets", "spaces"];

/// What follows the name of a repository where its content is read.
const CONTENT: [&str; 8] = ["resolve", "raw", "blob", "tree", "info", "commits", "commit", "resolve-cache"];

/// First parts of paths that are about a person's account. No command needs them, and no credential goes there.
const ACCOUNT: [&str; 8] = ["login", "logout", "oauth", "settings", "join", "connect", "account", "password"];

/// Parts of the API that hand out credentials, or what belongs to them.
const HANDED_OUT: [&str; 4] = ["jwt", "secrets", "variables", "webhooks"];

/// What is done with a request.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Route {
    /// With the host's credential if it is of a repository.
    Read {
        of_repository: bool,
    },
    /// Asked by POST, and only reads.
    Question,
    GitFetch,
    /// Links to files in large file storage of a repository: for reading or for writing, as its body says.
    Batch(String),
    /// One of those links.
    Object(u64),
    Write(HubWriteKind, Option<String>),
}

pub(crate) fn of(asked: &Asked) -> Result<Route, Refusal> {
    let lower: Vec<String> = asked.parts.iter().map(|part| part.to_ascii_lowercase()).collect();
    let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
    check_handed_out(&lower)?;
    let parts = asked.parts();
    if let ["_lfs", id] = parts.as_slice() {
        let id = id.parse().map_err(|_| Refusal::missing("this link is not known here"))?;
        return Ok(Route::Object(id));
    }
    if asked.reads() {
        return Ok(Route::Read { of_repository: is_of_repository(&parts) });
    }
    let is_known = matches!(asked.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
    if !is_known {
        let status = http::StatusCode::METHOD_NOT_ALLOWED;
        return Err(Refusal::new(status, format!("the Hub is not asked with {}", asked.method)));
    }
    // What a person is asked about is what the other side understands: no name needs percent signs.
    if asked.path.split('/').take(7).any(|part| part.contains('%')) && !is_question(&parts) {
        return Err(Refusal::bad("a name has a percent sign"));
    }
    let posts = is_method(asked, &Method::POST);
    if posts && is_question(&parts) {
        return Ok(Route::Question);
    }
    Ok(match parts.as_slice() {
        [name @ .., "git-upload-pack"] if posts && repository(name).is_some() => Route::GitFetch,
        [name @ .., "info", "lfs", "objects", "batch"] if posts => {
            let name = repository(name).ok_or_else(|| Refusal::missing("no repository has such a name"))?;
            Route::Batch(name)
        }
        [name @ .., "git-receive-pack"] if posts => Route::Write(HubWriteKind::GitPush, repository(name)),
        ["api", "repos", "create"] if posts => Route::Write(HubWriteKind::Create, None),
        ["api", "repos", "delete"] => Route::Write(HubWriteKind::Delete, None),
        ["api", "repos", "move"] => Route::Write(HubWriteKind::Move, None),
        ["api", kind, rest @ ..] if TYPES.contains(kind) => in_api(kind, rest, posts),
        _ => Route::Write(HubWriteKind::Other, None),
    })
}

/// A write to a repository by the API: `api/models/NAMESPACE/NAME/…`.
fn in_api(kind: &str, rest: &[&str], posts: bool) -> Route {
    let [namespace, name, what @ ..] = rest else { return Route::Write(HubWriteKind::Other, None) };
    let repository = repository(&[kind, namespace, name]);
    let write = match what {
        ["commit", _, ..] if posts => HubWriteKind::Commit,
        ["preupload", _, ..] if posts => HubWriteKind::Preupload,
        _ => HubWriteKind::Other,
    };
    Route::Write(write, repository)
}

/// Credentials are not handed out, by whatever method and in whatever case.
fn check_handed_out(lower: &[&str]) -> Result<(), Refusal> {
    let in_api = lower.first() == Some(&"api");
    let is_xet = lower.iter().any(|part| matches!(*part, "xet-read-token" | "xet-write-token"));
    if in_api && is_xet {
        return Err(Refusal::missing(
            "xet is not spoken through the gateway: files come and go as plain HTTP",
        ));
    }
    let is_account = lower.first().is_some_and(|first| ACCOUNT.contains(first))
        || matches!(lower, ["api", "settings", ..] | ["api", "login" | "oauth" | "token" | "tokens", ..]);
    // Behind the name of a repository: one may well be called `jwt`.
    let is_handed_out = in_api && lower.iter().skip(4).any(|part| HANDED_OUT.contains(part));
    if is_account || is_handed_out {
        return Err(Refusal::forbidden("accounts and credentials are not reached through the gateway"));
    }
    Ok(())
}

/// `api/TYPE/…/paths-info/REVISION`.
fn is_question(parts: &[&str]) -> bool {
    match parts {
        ["api", kind, rest @ ..] if TYPES.contains(kind) => {
            matches!(rest, [_, "paths-info", _, ..] | [_, _, "paths-info", _, ..])
        }
        _ => false,
    }
}

/// Whether a path reads a repository, or a list of them: what the host's credential is for.
fn is_of_repository(parts: &[&str]) -> bool {
    if let ["api", kind, ..] = parts {
        return TYPES.contains(kind) || *kind == "resolve-cache";
    }
    let parts = match parts {
        [kind, rest @ ..] if TYPES.contains(kind) => rest,
        all => all,
    };
    matches!(parts, [_, what, _, ..] | [_, _, what, ..] if CONTENT.contains(what))
}

/// The name of a repository as it is shown: `NAMESPACE/NAME` of a model, `datasets/NAMESPACE/NAME`.
fn repository(parts: &[&str]) -> Option<String> {
    let (kind, name) = match parts {
        [kind, name @ ..] if TYPES.contains(kind) && !name.is_empty() => {
            (Some(*kind).filter(|k| *k != "models"), name)
        }
        name => (None, name),
    };
    if !(1..=2).contains(&name.len()) {
        return None;
    }
    let name = name.join("/");
    let name = name.strip_suffix(".git").unwrap_or(&name);
    Some(kind.map_or_else(|| name.to_owned(), |kind| format!("{kind}/{name}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Face;

    fn route(method: &str, path: &str) -> Result<Route, u16> {
        let request = http::Request::builder().method(method).uri(path).header("host", "localhost");
        let (head, ()) = request.body(()).unwrap().into_parts();
        let asked = Asked::read(&head, Face::Hub).map_err(|refusal| refusal.status.as_u16())?;
        of(&asked).map_err(|refusal| refusal.status.as_u16())
    }

    #[test]
    fn reads_are_known_and_everything_else_is_a_write() {
        let read = |of_repository| Ok(Route::Read { of_repository });
        let write = |kind, name: &str| Ok(Route::Write(kind, Some(name.to_owned())));
        for (method, path, expected) in [
            ("GET", "/org/m/resolve/main/a.bin", read(true)),
            ("HEAD", "/gpt2/resolve/main/a.bin", read(true)),
            ("GET", "/datasets/org/d/resolve/refs%2Fconvert%2Fparquet/x", read(true)),
            ("GET", "/api/models/org/m/revision/main", read(true)),
            ("GET", "/api/resolve-cache/models/org/m/0/a", read(true)),
            ("GET", "/org/m/info/refs?service=git-upload-pack", read(true)),
            ("GET", "/org/m.git/info/refs?service=git-upload-pack", read(true)),
            ("GET", "/org/m", read(false)),
            ("GET", "/api/whoami-v2", read(false)),
            ("POST", "/api/models/org/m/paths-info/main", Ok(Route::Question)),
            ("POST", "/api/datasets/d/paths-info/refs%2Fpr%2F1", Ok(Route::Question)),
            ("POST", "/org/m.git/git-upload-pack", Ok(Route::GitFetch)),
            ("POST", "/datasets/org/d/git-upload-pack", Ok(Route::GitFetch)),
            ("POST", "/org/m.git/info/lfs/objects/batch", Ok(Route::Batch("org/m".to_owned()))),
            ("GET", "/_lfs/7", Ok(Route::Object(7))),
            ("POST", "/org/m.git/git-receive-pack", write(HubWriteKind::GitPush, "org/m")),
            ("POST", "/api/models/org/m/commit/main", write(HubWriteKind::Commit, "org/m")),
            ("POST", "/api/datasets/org/d/preupload/main", write(HubWriteKind::Preupload, "datasets/org/d")),
            ("PUT", "/api/models/org/m/settings", write(HubWriteKind::Other, "org/m")),
            ("DELETE", "/api/repos/delete", Ok(Route::Write(HubWriteKind::Delete, None))),
            ("POST", "/api/anything", Ok(Route::Write(HubWriteKind::Other, None))),
            ("PUT", "/api/models/org/m/paths-info/main", write(HubWriteKind::Other, "org/m")),
            ("POST", "/api/models/org%2Fm/commit/main", Err(400)),
            ("TRACE", "/x", Err(405)),
            ("OPTIONS", "/x", Err(405)),
        ] {
            assert_eq!(route(method, path), expected, "{method} {path}");
        }
    }

    #[test]
    fn credentials_are_not_handed_out() {
        for path in [
            "/api/models/org/m/xet-read-token/main",
            "/api/models/org/m/xet-write-token/main",
            "/API/models/org/m/XET-WRITE-TOKEN/main",
            "/api/models%2Forg%2Fm%2Fxet-write-token%2Fmain",
            "/api/spaces/org/s/jwt",
            "/api/spaces/org/s/secrets",
            "/oauth/authorize",
            "/settings/tokens",
            "/api/settings/mcp",
        ] {
            for method in ["GET", "POST"] {
                assert!(matches!(route(method, path), Err(403 | 404)), "{method} {path}");
            }
        }
        assert_eq!(route("GET", "/api/models/org/jwt"), Ok(Route::Read { of_repository: true }));
    }
}
