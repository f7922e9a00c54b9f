use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use url::Url;

use crate::{Body, EgressError, Origin, Outgoing};

/// Headers that go with a redirect to another origin, and a range: a part of a large file that lies
/// elsewhere would else come as the whole of it.
const HARMLESS: [header::HeaderName; 3] = [header::ACCEPT, header::ACCEPT_LANGUAGE, header::USER_AGENT];

/// Where an answer sends the request, if it does.
pub(crate) fn target(status: StatusCode, headers: &HeaderMap, from: &Url) -> Option<Url> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    from.join(headers.get(header::LOCATION)?.to_str().ok()?).ok()
}

/// Drops all headers but those that say nothing about who asks, and these.
pub(crate) fn keep_harmless(headers: &mut HeaderMap, and: &[header::HeaderName]) {
    let kept = HARMLESS.iter().chain(and).filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    let range = headers.get(header::RANGE).filter(|range| is_one_range(range)).cloned();
    *headers = kept.chain(range.map(|range| (header::RANGE, range))).collect();
}

/// `bytes=1-2`, `bytes=1-` or `bytes=-2`.
fn is_one_range(range: &HeaderValue) -> bool {
    let number = |text: &str| text.len() < 20 && text.bytes().all(|b| b.is_ascii_digit());
    let range = range.to_str().ok().and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    range.is_some_and(|(from, to)| number(from) && number(to) && !(from.is_empty() && to.is_empty()))
}

impl Outgoing {
    /// Makes it the request that a redirect asks for. Another origin gets none of the caller's headers, no
    /// body, and nothing that does more than ask.
    ///
    /// # Errors
    /// When it cannot be requested at all, would no longer be encrypted, or has a body for another origin.
    pub fn follow(&mut self, from: &Origin, status: StatusCode, to: Url) -> Result<(), EgressError> {
        let next = Origin::of(&to)?;
        if from.is_encrypted() && !next.is_encrypted() {
            return Err(EgressError::Downgrade { origin: from.to_string(), to: next.to_string() });
        }
        let asks_anew = status == StatusCode::SEE_OTHER && self.method != Method::HEAD;
        if asks_anew || (self.method == Method::POST && status.as_u16() < 303) {
            self.method = Method::GET;
            self.body = Body::default();
            for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::CONTENT_LANGUAGE] {
                self.headers.remove(name);
            }
        }
        if next != *from {
            if !self.method.is_safe() || self.body.len() > 0 {
                let method = self.method.to_string();
                return Err(EgressError::Elsewhere {
                    origin: from.to_string(),
                    to: next.to_string(),
                    method,
                });
            }
            keep_harmless(&mut self.headers, &[]);
        }
        self.url = to;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;
    use crate::{Caller, Limits, Policy};

    fn followed(method: Method, status: u16, from: &str, to: &str) -> Result<Outgoing, String> {
        let mut request = Outgoing {
            caller: Caller::Plugin("p".to_owned()),
            policy: Policy::Granted(Vec::new()),
            approved: Vec::new(),
            method,
            url: from.parse().unwrap(),
            headers: HeaderMap::new(),
            body: Body::default(),
            decompress: false,
            limits: Limits::default(),
            credential: None,
        };
        let (from, to) = (Origin::of(&request.url).unwrap(), to.parse().unwrap());
        let followed = request.follow(&from, StatusCode::from_u16(status).unwrap(), to);
        followed.map(|()| request).map_err(|e| e.to_string())
    }

    #[test]
    fn what_was_encrypted_stays_encrypted() {
        let error = followed(Method::GET, 302, "https://a.test/", "http://a.test/").unwrap_err();
        assert_eq!(error, "https://a.test redirects to http://a.test, which is not encrypted");
        assert!(followed(Method::GET, 302, "http://a.test/", "https://a.test/").is_ok());
    }

    #[test]
    fn what_cannot_be_requested_is_not_redirected_to() {
        for to in ["ftp://a.test/", "file:///etc/passwd", "https://u:p@a.test/"] {
            assert!(followed(Method::GET, 302, "https://a.test/", to).is_err(), "{to}");
        }
    }

    #[test]
    fn nothing_that_does_more_than_ask_is_taken_to_another_origin() {
        for (method, status, goes) in [
            (Method::GET, 307, true),
            (Method::HEAD, 308, true),
            (Method::POST, 302, true),
            (Method::POST, 303, true),
            (Method::POST, 307, false),
            (Method::POST, 308, false),
            (Method::PUT, 302, false),
            (Method::PUT, 303, true),
            (Method::DELETE, 301, false),
        ] {
            let to = followed(method.clone(), status, "https://a.test/", "https://b.test/");
            assert_eq!(to.is_ok(), goes, "{method} {status}");
            let error = to.err().unwrap_or_default();
            assert!(goes || error.contains("is not taken along to another origin"), "{error}");
        }
    }

    #[test]
    fn a_single_range_goes_anywhere_and_nothing_else_in_its_name() {
        for (range, goes) in [
            ("bytes=0-7", true),
            ("bytes=8-", true),
            ("bytes=-500", true),
            ("bytes=0-1,5-6", false),
            ("bytes=-", false),
            ("bytes=a-b", false),
            ("bytes=0-7; secret", false),
            ("items=0-7", false),
            ("bytes=00000000000000000000-1", false),
        ] {
            let mut headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
            keep_harmless(&mut headers, &[]);
            assert_eq!(headers.contains_key(header::RANGE), goes, "{range}");
        }
    }

    #[test]
    fn methods_change_as_browsers_change_them() {
        for (method, status, becomes) in [
            (Method::POST, 301, Method::GET),
            (Method::POST, 302, Method::GET),
            (Method::PUT, 302, Method::PUT),
            (Method::DELETE, 303, Method::GET),
            (Method::HEAD, 303, Method::HEAD),
            (Method::POST, 307, Method::POST),
            (Method::PUT, 308, Method::PUT),
        ] {
            let request = followed(method, status, "https://a.test/", "https://a.test/b").unwrap();
            assert_eq!(request.method, becomes, "{status}");
        }
    }
}
