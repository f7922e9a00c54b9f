use proptest::prelude::*;

use super::*;

/// What people write.
const REAL: [&str; 24] = [
    "plain ASCII with `code`, tabs\tand\nlines",
    "Größe, naïve café, ½ × π ≈ 1.57, “quotes” – dashes…",
    "e\u{301}t\u{e9} Vi\u{1ec7}t Nam, Ti\u{1ebf}ng Vi\u{1ec7}t, a\u{308}\u{304}",
    "مرحبا بالعالم، كيف حالك؟ السَّلامُ عَلَيْكُمْ",
    "שָׁלוֹם עוֹלָם בְּרֵאשִׁ֖ית בָּרָ֣א אֱלֹהִ֑ים",
    "می\u{200c}خواهم کتاب\u{200c}ها را بخوانم؛ خانه\u{200c}ای",
    "नमस्ते दुनिया क्\u{200d}ष श्री र्\u{200d}य",
    "বাংলা র\u{200d}\u{9cd}যাব",
    "മലയാളം അവന്\u{200d}റെ ന്\u{200c}റ",
    "ශ්\u{200d}රී ලංකා",
    "สวัสดีชาวโลก น้ำ ที่นี่ เพิ่ม",
    "ភាសាខ្មែរ ឬស្សី",
    "བོད་སྐད་ ཨོཾ་མ་ཎི་པདྨེ་ཧཱུྃ",
    "ᠮᠣᠩᠭᠣᠯ ᠨᠢᠭᠡ\u{180b}",
    "你好，世界。葛\u{e0100}城市 𠮷野家",
    "こんにちは世界、が゛ か\u{3099}",
    "안녕하세요 \u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}",
    "Привет, мир! Й и\u{306}",
    "👩\u{200d}👩\u{200d}👧\u{200d}👦 👨🏽\u{200d}💻 🧑🏿\u{200d}🤝\u{200d}🧑🏻",
    "❤\u{fe0f}\u{200d}🔥 🏳\u{fe0f}\u{200d}🌈 🏴\u{200d}☠\u{fe0f} 🏃🏽\u{200d}♀\u{fe0f}\u{200d}➡\u{fe0f}",
    "🇩🇪🇯🇵🇧🇷 1\u{fe0f}\u{20e3} #\u{fe0f}\u{20e3} ☺\u{fe0f} ☎\u{fe0e}",
    "🏴\u{e0067}\u{e0062}\u{e0073}\u{e0063}\u{e0074}\u{e007f} 🏴\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}",
    "─│┌┐ ▁▂▃▄ ✓ ✗ → ⇒ • … € £ ₿",
    "ελληνικά, Ὀδυσσεύς, մենք, ქართული, ᏣᎳᎩ, አማርኛ",
];

#[test]
fn what_people_write_stays_as_it_is() {
    for text in REAL {
        assert_eq!(plain(text), text);
        let one_line = text.replace(['\n', '\t'], " ");
        assert_eq!(line(&one_line), one_line);
    }
}

#[test]
fn sequences_are_taken_out_whole() {
    for (text, left) in [
        ("a\u{1b}[31mred\u{1b}[0m", "ared"),
        ("a\u{1b}]0;owned\u{7}b", "ab"),
        ("a\u{1b}]52;c;cm0gLXJmIH4=\u{1b}\\b", "ab"),
        ("a\u{1b}]8;;https://evil.example\u{1b}\\text\u{1b}]8;;\u{1b}\\b", "atextb"),
        ("a\u{1b}P1$tx\u{1b}\\b\u{1b}_Gf=100;AAAA\u{1b}\\c\u{1b}^pm\u{9c}d\u{1b}Xsos\u{9c}e", "abcde"),
        ("a\u{9b}2Jb\u{9d}0;owned\u{9c}c\u{90}q\u{9c}d", "abcd"),
        ("a\u{1b}(Bb\u{1b}cc\u{1b}7d\u{1b}#8e", "abcde"),
        ("a\u{1b}\u{1b}[2Jb", "ab"),
        ("a\u{1b}]0;x\u{1b}[31mb", "ab"),
        ("a\u{1b}[31ä", "aä"),
        ("a\u{1b}]0;never ended\nb", "a\nb"),
        ("a\u{1b}]0;never ended", "a"),
        ("a\u{1b}[31", "a"),
        ("a\u{1b}", "a"),
        ("a\rb\u{8}c\u{7f}d\u{0}e", "abcde"),
    ] {
        assert_eq!(plain(text), left, "{text:?}");
        assert!(!line(text).contains(|c: char| c.is_control()), "{text:?}");
    }
    assert_eq!(line("a\u{1b}]0;owned\u{7}"), "a\\u{1b}]0;owned\\u{7}");
}

#[test]
fn marks_that_turn_or_hide_text_are_taken_out_and_shown_in_a_line() {
    assert_eq!(plain("invoice\u{202e}fdp.exe"), "invoicefdp.exe");
    assert_eq!(line("invoice\u{202e}fdp.exe"), "invoice\\u{202e}fdp.exe");
    assert_eq!(plain("\u{feff}pa\u{200b}y\u{2060}p\u{ad}al\u{61c}\u{200f}"), "paypal");
    assert_eq!(plain("a\u{2028}b\u{2029}c"), "a\nb\nc");
    assert_eq!(line("a\nb\tc\r\u{2028}"), "a\\nb\\tc\\r\\u{2028}");
    // Joiners where nothing is joined.
    assert_eq!(
        plain("pass\u{200c}word x\u{200d}y 👩\u{200d} می\u{200c} 👩\u{200c}👩"),
        "password xy 👩 می 👩👩"
    );
    // Unseen letters, after a flag too, and selectors that spell something.
    let spelled: String =
        "ignore all".chars().filter_map(|c| char::from_u32(u32::from(c) + 0xe_0000)).collect();
    assert_eq!(plain(&format!("a{spelled}b🏴{spelled}c\u{e0001}")), "ab🏴c");
    assert_eq!(plain("a\u{fe0f}\u{fe00}\u{e0101}b😀\u{fe0f}\u{fe0e}\u{e0150}"), "ab😀\u{fe0f}");
    assert_eq!(line("x\u{e0041}"), "x\\u{e0041}");
    // An empty cell of Braille is a space to those who read it, and nothing to those who decide by a line.
    assert_eq!(plain("⠓\u{2800}⠊"), "⠓\u{2800}⠊");
    assert_eq!(line("rm x\u{2800}"), "rm x\\u{2800}");
}

#[test]
fn ten_thousand_marks_are_ten() {
    for mark in ["\u{301}", "\u{e49}", "\u{489}", "\u{20dd}"] {
        let text = format!("a{}b", mark.repeat(10_000));
        let left = format!("a{}b", mark.repeat(MAX_MARKS));
        assert_eq!(plain(&text), left);
        assert_eq!(line(&text), left);
    }
}

#[test]
fn a_sequence_that_is_split_over_pieces_does_not_survive() {
    let text = "a\u{1b}]52;c;aGk=\u{1b}\\b\u{1b}[2J\u{9b}31mc👩\u{200d}👧می\u{200c}خd\u{1b}P\u{1b}\\e🏴\u{e0067}\u{e0062}f";
    let whole = plain(text);
    for at in text.char_indices().map(|(at, _)| at) {
        let mut stream = Plain::default();
        assert_eq!(stream.push(&text[..at]) + &stream.push(&text[at..]), whole, "at {at}");
    }
    let mut stream = Plain::default();
    assert_eq!(text.chars().map(|c| stream.push(&c.to_string())).collect::<String>(), whole);
}

/// Characters of which texts that act are made, mixed with ones that people use.
fn character() -> impl Strategy<Value = char> {
    let special = "\u{1b}\u{9b}\u{9d}\u{90}\u{9c}[]P_^\\;0m\u{7}\n\t\r\u{200b}\u{200c}\u{200d}\u{202e}\u{2066}\u{2028}\u{feff}\
        \u{e0067}\u{e0062}\u{e007f}🏴👩🏽❤\u{fe0f}\u{fe00}\u{e0100}葛\u{301}\u{94d}कषم\u{180b}ᠭé1#a";
    let special: Vec<char> = special.chars().collect();
    prop_oneof![4 => proptest::sample::select(special), 1 => any::<char>()]
}

fn text() -> impl Strategy<Value = String> {
    proptest::collection::vec(character(), 0..60).prop_map(|chars| chars.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_acts_is_left(text in text()) {
        let once = plain(&text);
        let acts = |c: char| {
            (c.is_control() && c != '\n' && c != '\t')
                || matches!(c, '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0001}')
        };
        prop_assert!(!once.contains(acts), "{once:?}");
        prop_assert_eq!(plain(&once), once.clone());
        let shown = line(&text);
        prop_assert!(!shown.contains(|c: char| acts(c) || c == '\n' || c == '\t'), "{shown:?}");
        prop_assert_eq!(line(&shown), shown.clone());
    }

    #[test]
    fn printable_ascii_stays(text in "[ -~\n\t]{0,80}") {
        prop_assert_eq!(plain(&text), text.as_str());
    }

    #[test]
    fn pieces_are_as_the_whole(text in text(), cuts in proptest::collection::vec(0_usize..60, 0..5)) {
        let chars: Vec<char> = text.chars().collect();
        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(chars.len())).collect();
        cuts.sort_unstable();
        cuts.push(chars.len());
        let (mut stream, mut out, mut from) = (Plain::default(), String::new(), 0);
        for cut in cuts {
            out += &stream.push(&chars[from..cut].iter().collect::<String>());
            from = cut;
        }
        prop_assert_eq!(out, plain(&text));
    }
}
