//! What is read of the Hub: answers keep what clients look for in them, and lead nowhere else.

use bytes::Bytes;
use egress::{Incoming, Origin};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use url::Url;

use crate::answer::{Answered, streamed, whole, with_head};
use crate::asked::Asked;
use crate::fetch::Ask;
use crate::gateway::Shared;
use crate::hub::HUB;
use crate::refusal::Refusal;

/// What the Hub says about a file when it leads to where it lies. The storage says none of it.
const OF_FILE: [&str; 3] = ["x-repo-commit", "x-linked-etag", "x-linked-size"];

impl Shared {
    pub(crate) async fn read(
        &self,
        here: &str,
        asked: Asked,
        of_repository: bool,
    ) -> Result<Response<Answered>, Refusal> {
        let url = asked.url(HUB, "")?;
        let credential = self.credential(&url).filter(|_| of_repository);
        let Asked { method, headers, .. } = asked;
        let asks_for_head = method == Method::HEAD;
        let ask = Ask {
            method,
            url,
            headers,
            body: Bytes::new(),
            grants: &self.hub.reads,
            credential,
            packed: false,
        };
        let mut said = HeaderMap::new();
        let answer = self
            .ask(ask, |answer, next| {
                remember(&mut said, &answer.headers);
                // What a HEAD is for stands there already.
                !(asks_for_head && said.contains_key("x-linked-size") && is_elsewhere(&answer.url, next))
            })
            .await?;
        if answer.leads_to.is_some() {
            return described(&said);
        }
        if answer.status.is_redirection() && answer.status != StatusCode::NOT_MODIFIED {
            return Err(Refusal::new(StatusCode::BAD_GATEWAY, "the Hub redirects to nowhere"));
        }
        let is_elsewhere = Origin::of(&answer.url)?.to_string() != HUB;
        if !is_elsewhere {
            remember(&mut said, &answer.headers);
        }
        let next = next_page(&self.hub_places()?, here, &answer.headers);
        let mut response = self.handed_on(answer);
        let headers = response.headers_mut();
        for (name, value) in &said {
            headers.insert(name.clone(), value.clone());
        }
        if let (true, Some(etag)) = (is_elsewhere, said.get("x-linked-etag")) {
            headers.insert(header::ETAG, etag.clone());
        }
        if let Some(next) = next {
            headers.insert(header::LINK, next);
        }
        Ok(response)
    }

    /// A question that is asked by POST.
    pub(crate) async fn question(
        &self,
        here: &str,
        asked: Asked,
        body: Bytes,
    ) -> Result<Response<Answered>, Refusal> {
        let url = asked.url(HUB, "")?;
        let credential = self.credential(&url);
        let Asked { method, headers, .. } = asked;
        let grants = &self.hub.questions;
        let ask = Ask { method, url, headers, body, grants, credential, packed: false };
        let answer = self.ask(ask, |_, _| true).await?;
        let next = next_page(&self.hub_places()?, here, &answer.headers);
        let mut response = self.handed_on(answer);
        if let Some(next) = next {
            response.headers_mut().insert(header::LINK, next);
        }
        Ok(response)
    }

    pub(crate) fn handed_on(&self, answer: Incoming) -> Response<Answered> {
        let (status, headers) = (answer.status, answer.headers.clone());
        with_head(status, &headers, streamed(answer))
    }

    fn hub_places(&self) -> Result<Vec<String>, Refusal> {
        let url = Url::parse(HUB).map_err(|e| Refusal::bad(e.to_string()))?;
        Ok(self.egress.places_of(&Origin::of(&url)?))
    }
}

/// What the Hub says about a file, by the last that says it.
fn remember(said: &mut HeaderMap, headers: &HeaderMap) {
    for name in OF_FILE {
        if let Some(value) = headers.get(name) {
            said.insert(HeaderName::from_static(name), value.clone());
        }
    }
}

fn is_elsewhere(from: &Url, to: &Url) -> bool {
    match (Origin::of(from), Origin::of(to)) {
        (Ok(from), Ok(to)) => from != to,
        _ => true,
    }
}

/// The head of a file that lies in storage, as a client would see it there.
fn described(said: &HeaderMap) -> Result<Response<Answered>, Refusal> {
    let mut answer = with_head(StatusCode::OK, said, whole(Bytes::new()));
    let headers = answer.headers_mut();
    let pairs = [(header::CONTENT_LENGTH, "x-linked-size"), (header::ETAG, "x-linked-etag")];
    for (name, from) in pairs {
        if let Some(value) = said.get(from) {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    Ok(answer)
}

/// Where a list goes on, on the gateway. Other links are left out: they lead to other services.
fn next_page(places: &[String], here: &str, headers: &HeaderMap) -> Option<HeaderValue> {
    let links = headers.get_all(header::LINK).iter().filter_map(|links| links.to_str().ok());
    let next = links.flat_map(|links| links.split(", ")).find(|link| link.contains("rel=\"next\""))?;
    let (url, _) = next.trim().strip_prefix('<')?.split_once('>')?;
    let path = places.iter().find_map(|place| url.strip_prefix(place.as_str())).unwrap_or(url);
    let is_path =
        path.starts_with('/') && !path.starts_with("//") && !path.contains(['<', '>', '"', ' ', '\\']);
    if !is_path {
        return None;
    }
    HeaderValue::from_str(&format!("<{here}{path}>; rel=\"next\"")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_next_page_is_linked_and_it_is_here() {
        let places = ["https://huggingface.co".to_owned(), "http://m.test/hub".to_owned()];
        let next = |link: &str| {
            let headers = HeaderMap::from_iter([(header::LINK, HeaderValue::from_str(link).unwrap())]);
            next_page(&places, "http://h:1", &headers).map(|next| next.to_str().unwrap().to_owned())
        };
        let here = Some("<http://h:1/api/models?cursor=a%3D>; rel=\"next\"".to_owned());
        for link in [
            "<https://huggingface.co/api/models?cursor=a%3D>; rel=\"next\"",
            "<https://cas.test/token>; rel=\"xet-auth\", <http://m.test/hub/api/models?cursor=a%3D>; rel=\"next\"",
            "</api/models?cursor=a%3D>; rel=\"next\"",
        ] {
            assert_eq!(next(link), here, "{link}");
        }
        for link in [
            "<https://evil.test/x>; rel=\"next\"",
            "<https://huggingface.co.evil.test/x>; rel=\"next\"",
            "<https://huggingface.co/api/x>; rel=\"xet-auth\"",
            "<//evil.test/x>; rel=\"next\"",
        ] {
            assert_eq!(next(link), None, "{link}");
        }
    }
}
