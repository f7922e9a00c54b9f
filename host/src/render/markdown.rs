//! Markdown as it streams in: a line is rendered when it is complete, a table when it is.

use protocol::text::Plain;
use termimad::MadSkin;
use termimad::crossterm::style::{Attribute, Color};

use crate::render::links::{honest, with_targets};
use crate::render::style::Style;

/// Spaces before everything the model says.
const INDENT: &str = "  ";

/// The state of a text that is not complete yet.
pub(crate) struct Markdown {
    skin: Option<MadSkin>,
    /// What acts is taken out before anything else, also if it comes in pieces.
    plain: Plain,
    width: usize,
    line: String,
    table: String,
    in_fence: bool,
}

impl Markdown {
    /// Without colours the text is left as it is.
    pub(crate) fn new(style: Style, width: usize) -> Self {
        let skin = style.color.then(skin);
        Self {
            skin,
            plain: Plain::default(),
            width: width.clamp(20, 120),
            line: String::new(),
            table: String::new(),
            in_fence: false,
        }
    }

    /// Takes a piece and gives back what can be shown.
    pub(crate) fn push(&mut self, piece: &str) -> String {
        let mut out = String::new();
        for part in self.plain.push(piece).split_inclusive('\n') {
            self.line.push_str(part);
            if self.line.ends_with('\n') {
                let line = std::mem::take(&mut self.line);
                self.complete(line.trim_end_matches('\n'), &mut out);
            }
        }
        out
    }

    /// Gives back the rest: the text is complete.
    pub(crate) fn finish(&mut self) -> String {
        let mut out = String::new();
        let line = std::mem::take(&mut self.line);
        if !line.is_empty() {
            self.complete(&line, &mut out);
        }
        self.end_table(&mut out);
        self.in_fence = false;
        self.plain = Plain::default();
        out
    }

    fn complete(&mut self, line: &str, out: &mut String) {
        let is_row = !self.in_fence && line.trim_start().starts_with('|');
        if is_row && self.skin.is_some() {
            self.table.push_str(&with_targets(&honest(line)));
            self.table.push('\n');
            return;
        }
        self.end_table(out);
        if line.trim_start().starts_with("```") {
            self.in_fence = !self.in_fence;
            if self.skin.is_none() {
                self.indented(line, out);
            }
            return;
        }
        let line = &*if self.in_fence { line.into() } else { honest(line) };
        match &self.skin {
            Some(_) if self.in_fence => {
                self.indented(&format!("\u{1b}[38;2;120;220;255m{line}\u{1b}[0m"), out);
            }
            Some(skin) if !line.trim().is_empty() => {
                let rendered = skin.text(&with_targets(line), Some(self.width - INDENT.len())).to_string();
                self.indented(&rendered, out);
            }
            _ => self.indented(line, out),
        }
    }

    fn end_table(&mut self, out: &mut String) {
        let table = std::mem::take(&mut self.table);
        if let Some(skin) = self.skin.as_ref().filter(|_| !table.is_empty()) {
            let rendered = skin.text(&table, Some(self.width - INDENT.len())).to_string();
            self.indented(&rendered, out);
        }
    }

    fn indented(&self, text: &str, out: &mut String) {
        let indent = if self.skin.is_some() { INDENT } else { "" };
        for line in text.trim_end_matches('\n').split('\n') {
            if !line.is_empty() {
                out.push_str(indent);
                out.push_str(line);
            }
            out.push('\n');
        }
    }
}

fn skin() -> MadSkin {
    let rgb = |r, g, b| Color::Rgb { r, g, b };
    let mut skin = MadSkin::default();
    for (header, color) in
        skin.headers.iter_mut().zip([rgb(255, 200, 80), rgb(240, 180, 95), rgb(220, 165, 100)])
    {
        header.set_fg(color);
        header.compound_style.add_attr(Attribute::Bold);
        header.align = termimad::Alignment::Left;
    }
    skin.bold.set_fg(rgb(255, 200, 80));
    skin.italic.set_fg(rgb(180, 140, 40));
    skin.inline_code.set_fg(rgb(120, 220, 255));
    skin.inline_code.object_style.background_color = None;
    skin
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(style: Style, pieces: &[&str]) -> String {
        let mut markdown = Markdown::new(style, 60);
        let mut out: String = pieces.iter().map(|piece| markdown.push(piece)).collect();
        out.push_str(&markdown.finish());
        out
    }

    #[test]
    fn nothing_the_model_says_acts_even_if_it_comes_in_pieces() {
        let pieces = [
            "a\u{1b}",
            "]52;c;cm0g",
            "LXJm\u{1b}",
            "\\b\u{9b}",
            "2Jc\u{202e}",
            "d\u{1b}]0;x",
            "\u{7}e👩",
            "\u{200d}",
            "👧\n",
        ];
        assert_eq!(rendered(Style::PLAIN, &pieces), "abcde👩\u{200d}👧\n");
        // What is left open ends with the text.
        let mut markdown = Markdown::new(Style::PLAIN, 60);
        assert_eq!(markdown.push("a\u{1b}]0;") + &markdown.finish(), "a\n");
        assert_eq!(markdown.push("b\n"), "b\n");
    }

    #[test]
    fn links_show_their_targets() {
        let text = ["see [https://huggingface.co](https://evil.example/*a*b) and https://аpple.com\n"];
        let shown = rendered(Style { color: true }, &text);
        assert!(shown.contains("https://evil.example/*a*b"), "{shown}");
        assert!(shown.contains("https://xn--pple-43d.com"), "{shown}");
    }

    #[test]
    fn without_colours_the_text_is_as_it_was() {
        let text = "# A\n\n- b **c**\n```py\nx = 1\n```\n| a | b |\n|---|---|\n| 1 | 2 |\nend\n";
        let pieces: Vec<String> = text.chars().map(|c| c.to_string()).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        assert_eq!(rendered(Style::PLAIN, &pieces), text);
    }

    #[test]
    fn pieces_do_not_change_what_is_shown() {
        let text =
            "# Title\nsome **bold** text and `code`\n\n```\nlet x;\n```\n| a | b |\n|---|---|\n| 1 | 2 |\n";
        let whole = rendered(Style { color: true }, &[text]);
        let pieces: Vec<String> = text.chars().map(|c| c.to_string()).collect();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        assert_eq!(rendered(Style { color: true }, &pieces), whole);
        assert!(whole.contains("let x;") && !whole.contains("```") && !whole.contains("**"), "{whole}");
    }

    #[test]
    fn a_model_cannot_act_on_the_terminal() {
        assert_eq!(rendered(Style::PLAIN, &["a\u{1b}[2Jb\u{7}\n"]), "ab\n");
    }
}
