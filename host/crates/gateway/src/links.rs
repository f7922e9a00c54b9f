//! Links to mirrored origins, made to lead back to the gateway while a page passes.

use aho_corasick::{AhoCorasick, MatchKind};
use bytes::Bytes;

/// Replaces links piece by piece, and holds back no more than the longest of them.
#[derive(Debug)]
pub(crate) struct Links {
    /// None where there is nothing to look for.
    found: Option<AhoCorasick>,
    instead: Vec<Vec<u8>>,
    longest: usize,
    held: Vec<u8>,
}

impl Links {
    /// `pairs` are where links lead, and where they are to lead, all without a slash at the end. One that JSON has
    /// with its slashes escaped is the same.
    pub(crate) fn new(pairs: &[(String, String)]) -> Self {
        let (mut patterns, mut instead) = (Vec::new(), Vec::new());
        for (from, to) in pairs {
            for (from, to) in [(format!("{from}/"), format!("{to}/")), (escaped(from), escaped(to))] {
                patterns.push(from.into_bytes());
                instead.push(to.into_bytes());
            }
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let found = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&patterns).ok();
        Self { found, instead, longest, held: Vec::new() }
    }

    /// Takes the next piece and gives what is decided of all that came so far.
    pub(crate) fn push(&mut self, piece: &[u8]) -> Bytes {
        self.held.extend_from_slice(piece);
        // A link that begins before this is whole in what is held.
        let decided = self.held.len().saturating_sub(self.longest.saturating_sub(1));
        self.take(decided)
    }

    /// What was held back, when nothing follows.
    pub(crate) fn end(&mut self) -> Bytes {
        self.take(self.held.len())
    }

    fn take(&mut self, decided: usize) -> Bytes {
        let (mut out, mut taken) = (Vec::with_capacity(decided), 0);
        let found = self.found.iter().flat_map(|found| found.find_iter(&self.held));
        for link in found.take_while(|link| link.start() < decided) {
            out.extend_from_slice(&self.held[taken..link.start()]);
            out.extend_from_slice(&self.instead[link.pattern().as_usize()]);
            taken = link.end();
        }
        let end = decided.max(taken);
        out.extend_from_slice(&self.held[taken..end]);
        self.held.drain(..end);
        out.into()
    }
}

fn escaped(place: &str) -> String {
    format!("{place}/").replace('/', "\\/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_back_wherever_a_piece_ends_and_the_rest_stays() {
        let pair = |from: &str, to: &str| (from.to_owned(), format!("http://127.0.0.1:1{to}"));
        let pairs = [
            pair("https://files.pythonhosted.org", "/files"),
            pair("http://m.test/pypi", ""),
            pair("http://m.test/pypi/files", "/files"),
        ];
        let page = concat!(
            r#"<a href="https://files.pythonhosted.org/a.whl#sha256=0">a</a> <a href="../../b">b</a>"#,
            r#""https:\/\/files.pythonhosted.org\/c" http://m.test/pypi/simple/ http://m.test/pypi/files/d "#,
            r#"https://files.pythonhosted.org.evil.test/ https://files.pythonhosted.or"#,
        );
        let rewritten = concat!(
            r#"<a href="http://127.0.0.1:1/files/a.whl#sha256=0">a</a> <a href="../../b">b</a>"#,
            r#""http:\/\/127.0.0.1:1\/files\/c" http://127.0.0.1:1/simple/ http://127.0.0.1:1/files/d "#,
            r#"https://files.pythonhosted.org.evil.test/ https://files.pythonhosted.or"#,
        );
        for size in [1, 2, 3, 7, 31, 4096] {
            let mut links = Links::new(&pairs);
            let mut out = Vec::new();
            for piece in page.as_bytes().chunks(size) {
                out.extend_from_slice(&links.push(piece));
                assert!(links.held.len() <= links.longest, "{size}");
            }
            out.extend_from_slice(&links.end());
            assert_eq!(String::from_utf8(out).unwrap(), rewritten, "{size}");
        }
    }
}
