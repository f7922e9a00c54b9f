use std::io::IsTerminal;

use crate::environment::Environment;

/// Colours, or none of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    pub(crate) color: bool,
}

impl Style {
    /// Colours where the stream is a terminal that wants them.
    pub(crate) fn of(stream: &impl IsTerminal, environment: &Environment) -> Self {
        let forced = environment.text("FORCE_COLOR").is_some_and(|value| value != "0");
        let unwanted = environment.text("NO_COLOR").is_some() || environment.text("TERM") == Some("dumb");
        Self { color: !unwanted && (stream.is_terminal() || forced) }
    }

    #[cfg(test)]
    pub(crate) const PLAIN: Self = Self { color: false };

    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    pub(crate) fn gold(self, text: &str) -> String {
        self.paint("38;2;255;200;80", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(crate) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(crate) fn yellow(self, text: &str) -> String {
        self.paint("33", text)
    }
}
