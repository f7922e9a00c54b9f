use base64::engine::general_purpose::{STANDARD, URL_SAFE};

/// What encoders of URLs keep beside letters and digits: nothing, the standard's unreserved characters,
/// those of forms, and of `encodeURIComponent`.
const KEPT: [&[u8]; 4] = [b"", b"-._~", b"-._*", b"-._~!*'()"];

/// Characters that each of them keeps or not, as it was told.
const SOMETIMES_KEPT: [u8; 4] = *b"/=+:";

/// What encoders of whole URLs do not keep: of a query, and of a path.
const ENCODED: [&[u8]; 3] = [b" \"#<>", b" \"#<>'", b" \"#<>?`{}"];

const UPPER: &[u8; 16] = b"0123456789ABCDEF";
const LOWER: &[u8; 16] = b"0123456789abcdef";

/// Every form of a value that is looked for, each once.
pub(crate) fn forms(value: &str) -> Vec<Vec<u8>> {
    let bytes = value.as_bytes();
    let mut forms = vec![bytes.to_vec()];
    for digits in [UPPER, LOWER] {
        forms.push(hex(bytes, digits));
        forms.push(bytes.iter().flat_map(|byte| percent(*byte, digits)).collect());
        for kept in KEPT {
            for some in 0..1_usize << SOMETIMES_KEPT.len() {
                let sometimes = SOMETIMES_KEPT.iter().enumerate().filter(|(k, _)| some & (1 << k) != 0);
                let also: Vec<u8> = sometimes.map(|(_, byte)| *byte).collect();
                let stays =
                    |byte: u8| byte.is_ascii_alphanumeric() || kept.contains(&byte) || also.contains(&byte);
                forms.extend(url(bytes, stays, digits));
            }
        }
        for encoded in ENCODED {
            forms.extend(url(bytes, |byte| matches!(byte, b' '..=b'~') && !encoded.contains(&byte), digits));
        }
    }
    for offset in 0..3 {
        forms.extend([STANDARD, URL_SAFE].map(|alphabet| base64(bytes, offset, &alphabet)));
    }
    forms.extend([false, true].map(|careful| json(value, careful)));
    forms.sort();
    forms.dedup();
    forms
}

fn hex(bytes: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    bytes.iter().flat_map(|byte| nibbles(*byte, digits)).collect()
}

fn nibbles(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    [digits[usize::from(byte >> 4)], digits[usize::from(byte & 15)]]
}

fn percent(byte: u8, digits: &[u8; 16]) -> [u8; 3] {
    let [high, low] = nibbles(byte, digits);
    [b'%', high, low]
}

/// As in a URL, and as in a form, where a blank is a plus.
fn url(bytes: &[u8], stays: impl Fn(u8) -> bool, digits: &[u8; 16]) -> [Vec<u8>; 2] {
    [false, true].map(|plus| {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            match byte {
                b' ' if plus => out.push(b'+'),
                byte if stays(*byte) => out.push(*byte),
                byte => out.extend(percent(*byte, digits)),
            }
        }
        out
    })
}

/// The characters of a base64 text that `bytes` alone decide, `offset` bytes behind a border of three.
fn base64(bytes: &[u8], offset: usize, alphabet: &impl base64::Engine) -> Vec<u8> {
    let mut aligned = vec![0; offset];
    aligned.extend_from_slice(bytes);
    let decided = (8 * offset).div_ceil(6)..8 * aligned.len() / 6;
    aligned.resize(aligned.len().next_multiple_of(3), 0);
    alphabet.encode(aligned).as_bytes()[decided].to_vec()
}

/// As inside a JSON string; `careful` as encoders for web pages do it.
fn json(value: &str, careful: bool) -> Vec<u8> {
    let quoted = serde_json::Value::from(value).to_string();
    let inner = quoted[1..quoted.len() - 1].to_owned();
    if !careful {
        return inner.into_bytes();
    }
    let escapes = [("/", "\\/"), ("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")];
    escapes.iter().fold(inner, |text, (from, to)| text.replace(from, to)).into_bytes()
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;

    use super::*;

    fn has(value: &str, form: &str) -> bool {
        forms(value).iter().any(|known| known == form.as_bytes())
    }

    #[test]
    fn forms_that_others_make_of_a_value() {
        let value = "tok/en+with=signs\"&";
        for form in [
            value,
            "746f6b2f656e2b776974683d7369676e732226",
            "746F6B2F656E2B776974683D7369676E732226",
            "tok%2Fen%2Bwith%3Dsigns%22%26",
            "tok/en%2bwith=signs%22%26",
            "tok/en+with=signs\\\"&",
            "tok\\/en+with=signs\\\"\\u0026",
        ] {
            assert!(has(value, form), "{form}");
        }
        for form in ["a+b~c%2A%27%28d", "a%20b%7Ec*%27%28d", "a%20b~c*'(d", "a+b%7ec*%27%28d"] {
            assert!(has("a b~c*'(d", form), "{form}");
        }
        assert!(has("aaaaaaaa", "%61%61%61%61%61%61%61%61"));
    }

    #[test]
    fn base64_is_known_wherever_it_begins() {
        let value = "hf_AbCd?>~0123";
        for before in 0..7 {
            for after in 0..4 {
                let text = format!("{}{value}{}", "x".repeat(before), "y".repeat(after));
                for alphabet in [STANDARD, URL_SAFE] {
                    let encoded = alphabet.encode(&text);
                    let found =
                        forms(value).iter().any(|form| encoded.contains(std::str::from_utf8(form).unwrap()));
                    assert!(found, "{encoded}");
                }
            }
        }
    }
}
