//! What would change the Hub: held, told, and sent once somebody said yes, with the host's credential.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Response};
use serde_json::Value;

use crate::answer::Answered;
use crate::asked::Asked;
use crate::fetch::Ask;
use crate::gateway::Shared;
use crate::hub::HUB;
use crate::refusal::Refusal;

/// Asks whether a write may be sent. What it says against it is told to the command.
pub type AskWrite = Arc<dyn Fn(HubWrite) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// A write that a command wants to be sent to the Hub, as far as its path and body tell.
#[derive(Clone, Debug, PartialEq)]
pub struct HubWrite {
    pub method: Method,
    /// Path and query, as they will be sent.
    pub target: String,
    /// `NAMESPACE/NAME` of a model, `datasets/NAMESPACE/NAME`, `spaces/NAMESPACE/NAME`; no namespace is the user's own.
    pub repository: Option<String>,
    pub kind: HubWriteKind,
    pub files: Vec<HubFile>,
    /// What a repository that is made is to be, if the body says.
    pub private: Option<bool>,
    /// Bytes of the body. Large files follow later, by the sizes of `files`.
    pub bytes: u64,
}

/// A file that a write is about.
#[derive(Clone, Debug, PartialEq)]
pub struct HubFile {
    /// In the repository; of a batch of large files only the digests are known.
    pub path: String,
    pub bytes: Option<u64>,
    pub is_deleted: bool,
}

/// What a write does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HubWriteKind {
    Commit,
    /// The beginnings of files, before a commit.
    Preupload,
    /// Large files: the answer names where they go.
    LargeFiles,
    GitPush,
    Create,
    Delete,
    Move,
    /// Anything else, with its path alone to tell.
    Other,
}

impl Shared {
    pub(crate) async fn write(
        &self,
        asked: Asked,
        kind: HubWriteKind,
        repository: Option<String>,
        body: Bytes,
    ) -> Result<Response<Answered>, Refusal> {
        let query = asked.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let mut write = HubWrite {
            method: asked.method.clone(),
            target: format!("{}{query}", asked.path),
            repository,
            kind,
            files: Vec::new(),
            private: None,
            bytes: body.len() as u64,
        };
        let body = told(&mut write, body)?;
        self.asked_about(write).await?;
        let url = asked.url(HUB, "")?;
        let credential = self.credential(&url);
        let Asked { method, headers, .. } = asked;
        let grants = &self.hub.writes;
        let ask = Ask { method, url, headers, body, grants, credential, packed: false };
        // Sent once, and nowhere but where was said.
        let answer = self.ask(ask, |_, _| false).await?;
        Ok(self.handed_on(answer))
    }

    /// Whom to ask about a write, if it can be sent at all.
    pub(crate) fn may_be_asked(&self) -> Result<&AskWrite, Refusal> {
        let Some(ask) = &self.hub.ask else {
            return Err(Refusal::forbidden(
                "commands only read the Hub here; nobody can be asked about a write in this session",
            ));
        };
        if self.hub.credential.is_none() {
            return Err(Refusal::new(
                http::StatusCode::UNAUTHORIZED,
                "the host has no Hugging Face token to write with; a person gives it one with `ml-intern login`",
            ));
        }
        Ok(ask)
    }

    /// Asks somebody about a write.
    pub(crate) async fn asked_about(&self, write: HubWrite) -> Result<(), Refusal> {
        self.may_be_asked()?(write).await.map_err(Refusal::forbidden)
    }
}

/// Reads from a body what a person has to know, and gives what is sent: read once, written once.
fn told(write: &mut HubWrite, body: Bytes) -> Result<Bytes, Refusal> {
    match write.kind {
        HubWriteKind::Commit => {
            write.files = committed(&body)?;
            Ok(body)
        }
        HubWriteKind::Preupload => {
            let json = json(&body)?;
            let files = json.get("files").and_then(Value::as_array).into_iter().flatten();
            write.files = files.map(|file| file_of(file, false)).collect();
            Ok(json.to_string().into())
        }
        HubWriteKind::Create | HubWriteKind::Delete => {
            let json = json(&body)?;
            write.repository = Some(named(&json)?);
            write.private = json.get("private").and_then(Value::as_bool);
            Ok(json.to_string().into())
        }
        HubWriteKind::Move => {
            let json = json(&body)?;
            let text = |key| json.get(key).and_then(Value::as_str).unwrap_or("?");
            write.repository = Some(format!("{}{} to {}", kind_of(&json), text("fromRepo"), text("toRepo")));
            Ok(json.to_string().into())
        }
        HubWriteKind::GitPush | HubWriteKind::LargeFiles | HubWriteKind::Other => Ok(body),
    }
}

fn json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body).map_err(|e| Refusal::bad(format!("the body is not JSON: {e}")))
}

fn text<'a>(json: &'a Value, key: &str) -> Option<&'a str> {
    json.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// `datasets/`, `spaces/` or nothing.
fn kind_of(json: &Value) -> &'static str {
    match text(json, "type") {
        Some("dataset") => "datasets/",
        Some("space") => "spaces/",
        _ => "",
    }
}

/// The repository that a body names.
fn named(json: &Value) -> Result<String, Refusal> {
    let name = text(json, "name").ok_or_else(|| Refusal::bad("the body names no repository"))?;
    let organization = text(json, "organization").map(|name| format!("{name}/")).unwrap_or_default();
    Ok(format!("{}{organization}{name}", kind_of(json)))
}

/// The files of a commit: lines of JSON, each with a key that is known.
fn committed(body: &[u8]) -> Result<Vec<HubFile>, Refusal> {
    let mut files = Vec::new();
    for line in body.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let line = json(line)?;
        let value = line.get("value").unwrap_or(&Value::Null);
        match text(&line, "key") {
            Some("header") => {}
            Some("file" | "lfsFile") => files.push(file_of(value, false)),
            Some("deletedFile" | "deletedFolder" | "deletedEntry") => files.push(file_of(value, true)),
            Some("copyFile") => files.push(file_of(value, false)),
            other => {
                let other = other.unwrap_or("nothing");
                return Err(Refusal::bad(format!("a commit with `{other}` cannot be told to a person")));
            }
        }
    }
    Ok(files)
}

fn file_of(value: &Value, is_deleted: bool) -> HubFile {
    let bytes = value.get("size").and_then(Value::as_u64).or_else(|| {
        let content = text(value, "content")?;
        let is_packed = text(value, "encoding") == Some("base64");
        Some(if is_packed { content.trim_end_matches('=').len() * 3 / 4 } else { content.len() } as u64)
    });
    HubFile { path: text(value, "path").unwrap_or("?").to_owned(), bytes, is_deleted }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(kind: HubWriteKind) -> HubWrite {
        HubWrite {
            method: Method::POST,
            target: "/api/x".to_owned(),
            repository: None,
            kind,
            files: Vec::new(),
            private: None,
            bytes: 0,
        }
    }

    #[test]
    fn a_commit_is_told_by_its_files() {
        let body = concat!(
            r#"{"key":"header","value":{"summary":"s"}}"#,
            "\n",
            r#"{"key":"file","value":{"path":"a.txt","content":"aGVsbG8=","encoding":"base64"}}"#,
            "\n",
            r#"{"key":"lfsFile","value":{"path":"b.bin","algo":"sha256","oid":"0","size":9}}"#,
            "\n",
            r#"{"key":"deletedFile","value":{"path":"c"}}"#,
            "\n\n",
        );
        let mut commit = write(HubWriteKind::Commit);
        told(&mut commit, Bytes::from(body)).unwrap();
        let file = |path: &str, bytes, is_deleted| HubFile { path: path.to_owned(), bytes, is_deleted };
        let files = [file("a.txt", Some(5), false), file("b.bin", Some(9), false), file("c", None, true)];
        assert_eq!(commit.files, files);
        for strange in [r#"{"key":"chown","value":{}}"#, r#"{"value":{}}"#, "{", "[]"] {
            assert!(told(&mut commit, Bytes::from(strange)).is_err(), "{strange}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_sent_once_as_it_was_told() {
        let mut create = write(HubWriteKind::Create);
        let body = r#"{"name":"mine","type":"dataset","organization":"org","private":true,"name":"other"}"#;
        let sent = told(&mut create, Bytes::from(body)).unwrap();
        assert_eq!((create.repository.as_deref(), create.private), (Some("datasets/org/other"), Some(true)));
        assert!(!String::from_utf8_lossy(&sent).contains("mine"));
    }
}
