//! Texts that look like credentials. They are a command's own, or an attacker's: none of them goes out.

use url::form_urlencoded;

/// What tokens begin with, and how many letters and digits follow at least.
const SHAPES: [(&[u8], usize); 4] = [(b"hf_", 30), (b"hf_oauth_", 8), (b"hf_jwt_", 8), (b"api_org_", 30)];

/// Parameters of a query whose value is a credential.
const PARAMETERS: [&str; 14] = [
    "access_token",
    "api_key",
    "api_token",
    "apikey",
    "auth",
    "auth_token",
    "authorization",
    "bearer",
    "hf_token",
    "id_token",
    "jwt",
    "oauth_token",
    "private_token",
    "token",
];

/// Times that a text is taken out of its percent signs: what is written twice over may be read twice over.
const LAYERS: usize = 3;

/// Whether bytes hold something that looks like a token of the Hub.
pub(crate) fn are_in(bytes: &[u8]) -> bool {
    SHAPES.iter().any(|(prefix, least)| {
        bytes.windows(prefix.len()).enumerate().any(|(at, window)| {
            let rest = &bytes[at + prefix.len()..];
            window == *prefix && rest.iter().take_while(|b| b.is_ascii_alphanumeric()).count() >= *least
        })
    })
}

/// The same for a text that may be percent-encoded.
pub(crate) fn are_in_encoded(text: &str) -> bool {
    let mut text = text.as_bytes().to_vec();
    for _ in 0..LAYERS {
        if are_in(&text) {
            return true;
        }
        text = loosely_decoded(&text);
    }
    false
}

/// Whether a query has a parameter for a credential, or holds what looks like one.
pub(crate) fn are_in_query(query: &str) -> bool {
    let is_for_one =
        |name: &str| PARAMETERS.contains(&name.trim().to_ascii_lowercase().replace('-', "_").as_str());
    let names = |query: &[u8]| form_urlencoded::parse(query).any(|(name, _)| is_for_one(&name));
    let once = loosely_decoded(query.as_bytes());
    names(query.as_bytes()) || names(&once) || are_in_encoded(query)
}

/// Takes percent signs out where they stand for a byte.
fn loosely_decoded(text: &[u8]) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz01234567";

    #[test]
    fn tokens_are_known_by_shape_in_every_dress() {
        let percent: String = TOKEN.bytes().map(|b| format!("%{b:02x}")).collect();
        let twice = percent.replace('%', "%25");
        for text in [TOKEN.to_owned(), format!("a/x{TOKEN}y/b"), percent, twice] {
            assert!(are_in_encoded(&text), "{text}");
        }
        for text in ["hf_hub/1.2.3", "HuggingFaceH4/hf_doc_build_of_transformers_and_accelerate_x", "hf_", ""]
        {
            assert!(!are_in_encoded(text), "{text}");
        }
    }

    #[test]
    fn parameters_for_credentials_are_known_by_name() {
        for query in [
            "token=x",
            "a=b&Access_Token=x",
            "t%6fken=x",
            "access-token=y",
            "a=hf_oauth_eyJhbGciOi",
            "hf_token",
        ] {
            assert!(are_in_query(query), "{query}");
        }
        for query in ["tokenizer=x", "search=token", "cursor=eyJhIjoi&limit=10", "service=git-upload-pack"] {
            assert!(!are_in_query(query), "{query}");
        }
    }
}
