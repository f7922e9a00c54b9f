//! Where links lead, so that a person sees it before following one.

use std::borrow::Cow;

use url::{Host, Url};

/// Characters that end an address in running text.
const ENDS: [char; 9] = [' ', '\t', ')', ']', '>', '"', '\'', '`', '|'];

/// A line with the addresses as a browser goes to them: a host in letters that look like others is shown as
/// it is asked for, `xn--…`.
pub(crate) fn honest(line: &str) -> Cow<'_, str> {
    if line.is_ascii() || !line.contains("://") {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("http://").into_iter().chain(rest.find("https://")).min() {
        let (before, from) = rest.split_at(at);
        let (address, after) = from.split_at(from.find(ENDS).unwrap_or(from.len()));
        out.push_str(before);
        out.push_str(&asked_for(address));
        rest = after;
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Only the host is replaced: the rest of an address is what the person may want to copy.
fn asked_for(address: &str) -> Cow<'_, str> {
    let Ok(url) = Url::parse(address) else { return Cow::Borrowed(address) };
    let Some((scheme, rest)) = address.split_once("://") else { return Cow::Borrowed(address) };
    let end = rest.find(['/', '?', '#', '\\']).unwrap_or(rest.len());
    match url.host() {
        Some(Host::Domain(host)) if !rest[..end].is_ascii() => {
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            Cow::Owned(format!("{scheme}://{host}{port}{}", &rest[end..]))
        }
        _ => Cow::Borrowed(address),
    }
}

/// A line of Markdown in which every link `[text](target)` is followed by its target, exactly; code is left
/// alone.
pub(crate) fn with_targets(line: &str) -> Cow<'_, str> {
    if !line.contains("](") {
        return Cow::Borrowed(line);
    }
    let parts = line.split('`').enumerate();
    let told = parts.map(|(k, part)| if k % 2 == 0 { outside_code(part) } else { part.to_owned() });
    Cow::Owned(told.collect::<Vec<_>>().join("`"))
}

fn outside_code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(middle) = rest.find("](") {
        let target_from = middle + "](".len();
        let start = rest[..middle].rfind('[');
        let (Some(start), Some(length)) = (start, rest[target_from..].find(')')) else {
            out.push_str(&rest[..target_from]);
            rest = &rest[target_from..];
            continue;
        };
        let (words, target) = (&rest[start + 1..middle], &rest[target_from..target_from + length]);
        out.push_str(rest[..start].strip_suffix('!').unwrap_or(&rest[..start]));
        if !words.is_empty() && words != target {
            out.push_str(words);
            out.push(' ');
        }
        // As code, for emphasis would take characters out of it.
        out.push_str(&format!("(`{target}`)"));
        rest = &rest[target_from + length + 1..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_shows_where_it_leads() {
        for (text, shown) in [
            ("see [the docs](https://a.example/x) now", "see the docs (`https://a.example/x`) now"),
            (
                "[https://huggingface.co](https://evil.example/*a*)",
                "https://huggingface.co (`https://evil.example/*a*`)",
            ),
            ("[https://a.example](https://a.example)", "(`https://a.example`)"),
            ("![logo](http://x/y.png) [](z)", "logo (`http://x/y.png`) (`z`)"),
            ("`[a](b)` and [c](d)", "`[a](b)` and c (`d`)"),
            ("a](b) [c](d", "a](b) [c](d"),
            ("no link [here] (there)", "no link [here] (there)"),
        ] {
            assert_eq!(with_targets(text), shown);
        }
    }

    #[test]
    fn a_host_is_shown_as_it_is_asked_for() {
        // The first letter is Cyrillic.
        assert_eq!(honest("at https://аpple.com/ä?q=ü."), "at https://xn--pple-43d.com/ä?q=ü.");
        assert_eq!(honest("(http://user@bücher.example:8080)"), "(http://xn--bcher-kva.example:8080)");
        assert_eq!(honest("https://apple.com/größe https://x"), "https://apple.com/größe https://x");
        assert_eq!(honest("größe http:// ü"), "größe http:// ü");
        assert_eq!(honest("https://hugging\u{ff0e}face\u{3002}co/ä"), "https://hugging.face.co/ä");
    }
}
