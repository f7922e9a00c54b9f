//! Large file storage: the links of a batch stand for URLs that commands do not see.

use std::collections::VecDeque;
use std::sync::PoisonError;

use bytes::Bytes;
use egress::Origin;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use serde_json::Value;
use url::Url;

use crate::answer::{Answered, whole};
use crate::asked::Asked;
use crate::fetch::{Ask, granted};
use crate::gateway::Shared;
use crate::hub::{HUB, HubFile, HubWrite, HubWriteKind};
use crate::refusal::Refusal;

/// Links that are kept; the oldest goes with each one more.
const MAX_OBJECTS: usize = 16 << 10;

/// Bytes of the answer to a batch.
const ANSWER_BYTES: usize = 16 << 20;

/// What a link stands for.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    url: Url,
    /// What the Hub wants to be said there. It may be a credential.
    headers: HeaderMap,
    /// Somebody said yes to writing there.
    is_upload: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Objects {
    next: u64,
    held: VecDeque<(u64, Object)>,
}

impl Objects {
    fn add(&mut self, object: Object) -> u64 {
        let id = self.next;
        self.next += 1;
        if self.held.len() == MAX_OBJECTS {
            self.held.pop_front();
        }
        self.held.push_back((id, object));
        id
    }

    pub(crate) fn get(&self, id: u64) -> Option<Object> {
        let (first, _) = self.held.front()?;
        let index = usize::try_from(id.checked_sub(*first)?).ok()?;
        self.held.get(index).map(|(_, object)| object.clone())
    }
}

impl Shared {
    /// Asks for links to files: for reading as it is, for writing once somebody said yes.
    pub(crate) async fn batch(
        &self,
        here: &str,
        asked: Asked,
        repository: String,
        body: Bytes,
    ) -> Result<Response<Answered>, Refusal> {
        let question: Value =
            serde_json::from_slice(&body).map_err(|e| Refusal::bad(format!("the batch is not JSON: {e}")))?;
        let is_upload = match question.get("operation").and_then(Value::as_str) {
            Some("download") => false,
            Some("upload") => true,
            _ => return Err(Refusal::bad("a batch is a download or an upload")),
        };
        // What was read here is what is asked: written anew, no key stands there twice.
        let body = Bytes::from(question.to_string());
        if is_upload {
            self.asked_about(HubWrite {
                method: asked.method.clone(),
                target: asked.path.clone(),
                repository: Some(repository),
                kind: HubWriteKind::LargeFiles,
                files: objects_of(&question),
                private: None,
                bytes: body.len() as u64,
            })
            .await?;
        }
        let url = asked.url(HUB, "")?;
        let credential = self.credential(&url);
        let Asked { method, headers, .. } = asked;
        let grants = &self.hub.questions;
        let ask = Ask { method, url, headers, body, grants, credential, packed: false };
        let mut answer = self.ask(ask, |_, _| true).await?;
        if !answer.status.is_success() {
            return Ok(self.handed_on(answer));
        }
        let mut text = Vec::new();
        while let Some(piece) = answer.chunk().await? {
            text.extend_from_slice(&piece);
            if text.len() > ANSWER_BYTES {
                return Err(Refusal::new(StatusCode::BAD_GATEWAY, "the answer to the batch is too large"));
            }
        }
        let mut links: Value = serde_json::from_slice(&text)
            .map_err(|_| Refusal::new(StatusCode::BAD_GATEWAY, "the answer to the batch is not JSON"))?;
        self.relink(here, &mut links, is_upload);
        let mut response = Response::new(whole(Bytes::from(links.to_string())));
        let kind = HeaderValue::from_static("application/vnd.git-lfs+json");
        response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
        Ok(response)
    }

    /// Puts links of the gateway in place of all URLs of a batch, and takes out what goes with them.
    fn relink(&self, here: &str, links: &mut Value, is_upload: bool) {
        let mut objects = self.hub.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stand_in = |url: &str, headers: &HeaderMap| {
            let url = self.egress.canonical(Url::parse(url).ok()?);
            let id = objects.add(Object { url, headers: headers.clone(), is_upload });
            Some(Value::from(format!("{here}/_lfs/{id}")))
        };
        let all = links.get_mut("objects").and_then(Value::as_array_mut).into_iter().flatten();
        let actions = all.filter_map(|object| object.get_mut("actions")?.as_object_mut());
        for action in actions.flat_map(|actions| actions.values_mut()).filter_map(Value::as_object_mut) {
            let mut headers = HeaderMap::new();
            if let Some(Value::Object(said)) = action.get_mut("header") {
                // `chunk_size` and the URLs of numbered parts are for the client, the rest for the other side.
                said.retain(|name, value| {
                    if name == "chunk_size" {
                        return true;
                    }
                    if name.bytes().all(|b| b.is_ascii_digit()) {
                        let part = value.as_str().and_then(|url| stand_in(url, &HeaderMap::new()));
                        *value = part.unwrap_or(Value::Null);
                        return true;
                    }
                    let name = HeaderName::from_bytes(name.as_bytes()).ok();
                    let text = value.as_str().and_then(|text| HeaderValue::from_str(text).ok());
                    if let (Some(name), Some(text)) = (name, text) {
                        headers.insert(name, text);
                    }
                    false
                });
            }
            let link = action.get("href").and_then(Value::as_str).and_then(|url| stand_in(url, &headers));
            action.insert("href".to_owned(), link.unwrap_or(Value::Null));
        }
    }

    /// Asks for what a link stands for.
    pub(crate) async fn object(
        &self,
        asked: Asked,
        object: Object,
        body: Bytes,
    ) -> Result<Response<Answered>, Refusal> {
        let Asked { method, headers: passed, .. } = asked;
        let reads = matches!(method, Method::GET | Method::HEAD);
        let writes = object.is_upload && matches!(method, Method::PUT | Method::POST);
        if !reads && !writes {
            return Err(Refusal::forbidden("nobody said yes to writing there"));
        }
        let mut headers = passed;
        headers.extend(object.headers);
        let origin = Origin::of(&object.url)?.to_string();
        // The Hub named it: for reading it has to be its own, for writing somebody said yes.
        let own;
        let grants = if reads {
            &self.hub.reads
        } else {
            own = granted(&[&origin], method.as_str());
            &own
        };
        let is_said = headers.contains_key(http::header::AUTHORIZATION);
        let credential = self.credential(&object.url).filter(|_| !is_said);
        let ask = Ask { method, url: object.url, headers, body, grants, credential, packed: false };
        let answer = self.ask(ask, |_, _| reads).await?;
        Ok(self.handed_on(answer))
    }
}

/// What a batch is about: digests, which stand for what is sent then.
fn objects_of(question: &Value) -> Vec<HubFile> {
    let objects = question.get("objects").and_then(Value::as_array).into_iter().flatten();
    let file = |object: &Value| HubFile {
        path: format!("sha256:{}", object.get("oid").and_then(Value::as_str).unwrap_or("?")),
        bytes: object.get("size").and_then(Value::as_u64),
        is_deleted: false,
    };
    objects.map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_links_go_and_others_are_found() {
        let object = |n: u64| Object {
            url: Url::parse(&format!("https://cdn.test/{n}")).unwrap(),
            headers: HeaderMap::new(),
            is_upload: false,
        };
        let mut objects = Objects::default();
        assert!(objects.get(0).is_none());
        for n in 0..MAX_OBJECTS as u64 + 2 {
            assert_eq!(objects.add(object(n)), n);
        }
        assert!(objects.get(1).is_none() && objects.held.len() == MAX_OBJECTS);
        assert_eq!(objects.get(2).unwrap().url.path(), "/2");
        assert!(objects.get(MAX_OBJECTS as u64 + 2).is_none() && objects.get(u64::MAX).is_none());
    }
}
