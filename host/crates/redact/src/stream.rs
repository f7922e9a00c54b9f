use crate::Redactor;

/// Bytes that come in pieces, without secrets. It holds back as many as the longest form takes up, less one.
#[derive(Debug)]
pub struct Scrubber {
    redactor: Redactor,
    held: Vec<u8>,
}

impl Scrubber {
    pub(crate) fn new(redactor: Redactor) -> Self {
        Self { redactor, held: Vec::new() }
    }

    /// Takes the next piece and gives what can be shown of all that came so far.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(piece);
        let longest = self.redactor.net().map_or(0, |net| net.longest);
        // A form that begins before this is whole in what is held, and so is every longer one.
        let decided = self.held.len().saturating_sub(longest.saturating_sub(1));
        self.take(decided)
    }

    /// The same for text that somebody reads while it comes: only what may be the beginning of a secret is held
    /// back, which in most text is nothing.
    pub fn push_text(&mut self, piece: &str) -> String {
        self.held.extend_from_slice(piece.as_bytes());
        let mut decided = self.redactor.net().map_or(self.held.len(), |net| net.begun(&self.held));
        // Not within a character.
        while decided > 0 && self.held.get(decided).is_some_and(|byte| byte & 0xc0 == 0x80) {
            decided -= 1;
        }
        String::from_utf8_lossy(&self.take(decided)).into_owned()
    }

    /// What was held back, when nothing follows.
    pub fn end(&mut self) -> Vec<u8> {
        self.take(self.held.len())
    }

    /// Hands out what begins before `decided`.
    fn take(&mut self, decided: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(decided);
        let mut taken = 0;
        if let Some(net) = self.redactor.net() {
            let found = net.find(&self.held);
            for (place, instead) in found.into_iter().take_while(|(place, _)| place.start < decided) {
                // What overlaps with one before is taken out with it.
                if place.start >= taken {
                    out.extend_from_slice(&self.held[taken..place.start]);
                    out.extend_from_slice(instead);
                }
                taken = taken.max(place.end);
            }
        }
        let end = decided.max(taken);
        out.extend_from_slice(&self.held[taken..end]);
        self.held.drain(..end);
        out
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;
    use secrecy::SecretString;

    use super::*;
    use crate::forms::forms;

    fn scrubbed(secret: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let mut scrubber = Redactor::new([("s".to_owned(), SecretString::from(secret))]).scrubber();
        let mut out: Vec<u8> = pieces.iter().flat_map(|piece| scrubber.push(piece)).collect();
        out.extend(scrubber.end());
        out
    }

    #[test]
    fn it_does_not_matter_where_a_piece_ends() {
        let secret = "se+cret/value=1";
        let text = format!("a {secret} b {} {secret}{secret}", STANDARD.encode(format!("user:{secret}")));
        let whole = scrubbed(secret, &[text.as_bytes()]);
        assert!(String::from_utf8_lossy(&whole).starts_with("a [redacted:s] b "));
        for size in [1, 2, 3, 7, 20] {
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            assert_eq!(scrubbed(secret, &pieces), whole, "{size}");
        }
    }

    #[test]
    fn no_more_is_held_back_than_could_be_a_secret() {
        let secret = "0123456789";
        let longest = crate::lines::broken(forms(secret).iter().map(Vec::len).max().unwrap());
        let mut scrubber = Redactor::new([("s".to_owned(), SecretString::from(secret))]).scrubber();
        let shown = scrubber.push(&vec![b'x'; 1_000]).len();
        assert_eq!(shown, 1_000 - (longest - 1));
    }

    #[test]
    fn text_that_is_read_while_it_comes_is_held_back_where_a_secret_may_begin() {
        let secret = "hf_0123456789abcdef";
        let redactor = Redactor::new([("s".to_owned(), SecretString::from(secret))]);
        let mut scrubber = redactor.scrubber();
        assert_eq!(scrubber.push_text("so far so good, "), "so far so good, ");
        assert_eq!(scrubber.push_text("it is hf_01"), "it is ");
        assert_eq!(scrubber.push_text("23456789abcde"), "");
        assert_eq!(scrubber.push_text("f. And hf_0 é"), "[redacted:s]. And hf_0 é");
        assert_eq!(scrubber.push_text("hf_0123456\\"), "");
        assert_eq!(scrubber.push_text("n  789abcdef!"), "[redacted:s]!");
        assert_eq!(scrubber.push_text("hf_"), "");
        assert_eq!(scrubber.end(), b"hf_");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]
        #[test]
        fn text_in_pieces_is_as_clean_as_in_one(
            secret in "[ -~é]{8,40}",
            around in prop::collection::vec("[a-zé%\\\\\\n ]{0,9}", 1..6),
            choice in prop::collection::vec(any::<prop::sample::Index>(), 6),
            sizes in prop::collection::vec(1_usize..9, 1..9),
        ) {
            let forms = forms(&secret);
            let mut text = String::new();
            for (benign, choice) in around.iter().zip(&choice) {
                text.push_str(benign);
                text.push_str(&String::from_utf8_lossy(&forms[choice.index(forms.len())]));
                text.push('\0');
            }
            let mut scrubber = Redactor::new([("s".to_owned(), SecretString::from(secret.as_str()))]).scrubber();
            let (mut shown, mut k) = (String::new(), 0);
            let characters: Vec<char> = text.chars().collect();
            let mut rest = &characters[..];
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(sizes[k % sizes.len()].min(rest.len()));
                shown.push_str(&scrubber.push_text(&piece.iter().collect::<String>()));
                (rest, k) = (more, k + 1);
            }
            shown.push_str(&String::from_utf8_lossy(&scrubber.end()));
            prop_assert_eq!(shown.into_bytes(), scrubbed(&secret, &[text.as_bytes()]));
        }

        #[test]
        fn nothing_of_a_secret_remains_and_the_rest_is_untouched(
            secret in "[ -~]{8,40}",
            around in prop::collection::vec("[\u{80}-\u{2ff}]{0,9}", 1..6),
            choice in prop::collection::vec(any::<prop::sample::Index>(), 6),
            sizes in prop::collection::vec(1_usize..9, 1..9),
        ) {
            let forms = forms(&secret);
            let (mut text, mut expected) = (Vec::new(), Vec::new());
            for (benign, choice) in around.iter().zip(&choice) {
                text.extend_from_slice(benign.as_bytes());
                expected.extend_from_slice(benign.as_bytes());
                text.extend_from_slice(&forms[choice.index(forms.len())]);
                expected.extend_from_slice(b"[redacted:s]");
                // What follows belongs to no form: two of them together could be a third.
                text.push(0);
                expected.push(0);
            }
            let mut pieces = Vec::new();
            let (mut rest, mut k) = (&text[..], 0);
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(sizes[k % sizes.len()].min(rest.len()));
                pieces.push(piece);
                (rest, k) = (more, k + 1);
            }
            prop_assert_eq!(scrubbed(&secret, &pieces), expected);
        }

        #[test]
        fn text_without_secrets_stays_byte_for_byte(
            secret in "[a-z]{12,40}",
            text in prop::collection::vec(prop::num::u8::ANY, 0..400),
            size in 1_usize..40,
        ) {
            let known = forms(&secret);
            prop_assume!(!known.iter().any(|form| text.windows(form.len()).any(|w| w == &form[..])));
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            prop_assert_eq!(scrubbed(&secret, &pieces), text);
        }
    }
}
