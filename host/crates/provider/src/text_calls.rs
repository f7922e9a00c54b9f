//! Tool calls that a model wrote into its text, because its server did not know its format.
//!
//! While text streams, [`TextCalls`] gives out what is certainly text and holds back from where a call may
//! begin. At the end [`parse`] reads what was held. A call is taken for one only if it stands outside of
//! code and names a tool that was offered; JSON without a mark of its own also has to be the last thing said.

mod json;
mod parse;
mod xml;

use std::sync::Arc;

use protocol::ToolSpec;

use crate::answer::DraftCall;
use crate::rough::NotUnderstood;

/// What announces a call, and whose habit it is.
pub(crate) const MARKS: [&str; 12] = [
    "<tool_call>",                  // Hermes, Qwen, GLM
    "<function=",                   // Qwen3-Coder, Llama 3.1
    "<invoke name=",                // Claude, MiniMax, DeepSeek V3.2
    "<function_calls>",             // around it
    "<minimax:tool_call>",          // around it
    "<|python_tag|>",               // Llama
    "[TOOL_CALLS]",                 // Mistral
    "<|tool_call|>",                // Granite, Phi
    "<|tool_calls_section_begin|>", // Kimi: seen, not read
    "<|tool_call_begin|>",          // Kimi
    "<｜tool▁calls▁begin｜>",       // DeepSeek
    "<|channel|>commentary to=",    // gpt-oss
];

/// Bytes after which something that still may be the beginning of a call is not waited for any longer.
const UNDECIDED: usize = 1024;

/// The text of an answer on its way through.
#[derive(Debug)]
pub(crate) struct TextCalls {
    tools: Arc<[ToolSpec]>,
    state: State,
    /// Not given out yet.
    pending: String,
    /// Bytes of `pending` that need not be looked at again for the end of a code block.
    seen: usize,
    line: Line,
}

/// What the current line has been so far.
#[derive(Clone, Copy, Debug)]
struct Line {
    is_blank: bool,
    /// Inside of `code`.
    in_code: bool,
    /// The character before.
    before: char,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Prose,
    /// In a code block that holds no call.
    Code {
        ticks: usize,
    },
    /// In a code block that may hold one: `pending` starts with it.
    HeldCode {
        ticks: usize,
    },
    /// `pending` starts with what looks like a call; the rest of the answer decides.
    Held(Form),
}

/// How a call that is held back is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Form {
    Marked,
    /// JSON on its own.
    Bare,
    /// JSON in a code block.
    Fenced,
}

/// What was found in held text.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) calls: Vec<DraftCall>,
    /// What is text after all.
    pub(crate) text: String,
}

/// Whether something is the beginning of a call, as far as it can be seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Looks {
    Like,
    Unlike,
    /// More has to come before one can tell.
    Open,
}

/// Where prose stops being certainly prose.
enum Stop {
    Nowhere,
    /// More has to come.
    Open(usize),
    /// What follows is in another state.
    At(usize, State),
}

impl TextCalls {
    pub(crate) fn new(tools: Arc<[ToolSpec]>) -> Self {
        let line = Line { is_blank: true, in_code: false, before: '\n' };
        Self { tools, state: State::Prose, pending: String::new(), seen: 0, line }
    }

    /// Takes a piece of text and gives out what is certainly text.
    pub(crate) fn push(&mut self, piece: &str, mut show: impl FnMut(&str)) {
        self.pending.push_str(piece);
        let mut given = 0;
        while self.step(&mut given) {}
        if given > 0 {
            show(&self.pending[..given]);
            self.pending.drain(..given);
        }
    }

    /// Forgets everything that is held.
    pub(crate) fn forget(&mut self) {
        *self = Self::new(Arc::clone(&self.tools));
    }

    pub(crate) fn into_held(self) -> String {
        self.pending
    }

    /// Reads what is held, at the end of an answer that was cut off by a limit or not.
    pub(crate) fn finish(self, cut_off: bool) -> Result<Found, NotUnderstood> {
        let Self { tools, state, pending, .. } = self;
        let form = match state {
            State::Held(form) => form,
            State::HeldCode { .. } => Form::Fenced,
            State::Prose | State::Code { .. } => {
                return Ok(Found { calls: Vec::new(), text: pending });
            }
        };
        match parse::held(form, &pending, &tools) {
            Err(_) if cut_off => Ok(parse::cut_off(pending, &tools)),
            found => found,
        }
    }

    /// Decides about what is pending behind the first `given` bytes. False: more text is needed.
    fn step(&mut self, given: &mut usize) -> bool {
        match self.state {
            State::Held(_) => false,
            State::Prose => match self.find_stop(*given) {
                Stop::Nowhere => self.give(given, self.pending.len(), State::Prose, false),
                Stop::Open(at) => self.give(given, at, State::Prose, false),
                Stop::At(at, state) => self.give(given, at, state, true),
            },
            State::Code { ticks } => self.code(given, ticks),
            State::HeldCode { ticks } => self.held_code(given, ticks),
        }
    }

    fn code(&mut self, given: &mut usize, ticks: usize) -> bool {
        let rest = &self.pending[*given..];
        let (line, whole) = rest.find('\n').map_or((rest, false), |end| (&rest[..=end], true));
        let may_close = self.line.is_blank && line.trim().bytes().all(|byte| byte == b'`');
        let end = *given + line.len();
        match (whole, may_close) {
            (false, true) => false,
            (true, true) if line.trim().len() >= ticks => self.give(given, end, State::Prose, true),
            (more, _) => self.give(given, end, State::Code { ticks }, more),
        }
    }

    fn held_code(&mut self, given: &mut usize, ticks: usize) -> bool {
        let from = self.seen.max(*given + first_line(&self.pending[*given..]));
        let Some(end) = block_end(&self.pending, from, ticks) else {
            // What is given goes before the next call.
            self.seen = self.pending.rfind('\n').map_or(0, |newline| newline + 1).saturating_sub(*given);
            return false;
        };
        self.seen = 0;
        if parse::block_calls(&self.pending[*given..end], &self.tools).is_some() {
            self.state = State::Held(Form::Fenced);
            return false;
        }
        self.give(given, end, State::Prose, true)
    }

    /// Gives out what is pending up to `end`, and goes on with `state`.
    fn give(&mut self, given: &mut usize, end: usize, state: State, go_on: bool) -> bool {
        self.line = self.pending[*given..end].chars().fold(self.line, Line::after);
        *given = end;
        self.state = state;
        go_on
    }

    fn find_stop(&self, from: usize) -> Stop {
        let mut line = self.line;
        for (at, c) in self.pending[from..].char_indices().map(|(at, c)| (from + at, c)) {
            let rest = &self.pending[at..];
            let outside = !line.in_code && line.before != '`';
            match c {
                '<' | '[' | '{' if outside => match self.call_at(rest, line.is_blank) {
                    (Looks::Like, form) => return Stop::At(at, State::Held(form)),
                    (Looks::Open, _) if rest.len() < UNDECIDED => return Stop::Open(at),
                    (Looks::Open, _) => {}
                    (Looks::Unlike, _) => {}
                },
                '`' if line.is_blank => match self.block_at(rest) {
                    Some(State::Code { ticks }) => {
                        return Stop::At(at + first_line(rest), State::Code { ticks });
                    }
                    Some(state) => return Stop::At(at, state),
                    None if rest.len() < UNDECIDED && may_be_block(rest) => return Stop::Open(at),
                    None => {}
                },
                _ => {}
            }
            line = line.after(c);
        }
        Stop::Nowhere
    }

    /// Whether a call begins here.
    fn call_at(&self, rest: &str, at_line_start: bool) -> (Looks, Form) {
        let marked = parse::marked_start(rest, &self.tools);
        if marked != Looks::Unlike {
            return (marked, Form::Marked);
        }
        if at_line_start {
            return (json::start(rest, &self.tools), Form::Bare);
        }
        (Looks::Unlike, Form::Bare)
    }

    /// What the code block that begins here holds. None if it has to go on before one can tell, or if it
    /// is none.
    fn block_at(&self, rest: &str) -> Option<State> {
        let ticks = rest.len() - rest.trim_start_matches('`').len();
        if ticks < 3 || !rest.contains('\n') {
            return None;
        }
        match parse::block_start(&rest[first_line(rest)..], &self.tools) {
            Looks::Like => Some(State::HeldCode { ticks }),
            Looks::Unlike => Some(State::Code { ticks }),
            Looks::Open => None,
        }
    }
}

fn may_be_block(rest: &str) -> bool {
    "```".starts_with(rest) || rest.starts_with("```")
}

/// How long the first line is.
fn first_line(text: &str) -> usize {
    text.find('\n').map_or(text.len(), |newline| newline + 1)
}

impl Line {
    fn after(self, c: char) -> Self {
        match c {
            '\n' => Self { is_blank: true, in_code: false, before: c },
            '`' => Self { is_blank: false, in_code: !self.in_code, before: c },
            _ => Self { is_blank: self.is_blank && c.is_whitespace(), in_code: self.in_code, before: c },
        }
    }
}

/// Where the line ends that closes a code block, looking from `from`, the start of a line.
fn block_end(text: &str, from: usize, ticks: usize) -> Option<usize> {
    let mut at = from;
    for line in text[from..].split_inclusive('\n') {
        at += line.len();
        let content = line.trim();
        if content.len() >= ticks && content.bytes().all(|byte| byte == b'`') && line.ends_with('\n') {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests;
