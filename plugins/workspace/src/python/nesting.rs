//! How deep a parser would have to go into a text: it goes one level of its stack deeper for every bracket,
//! block and operator that has another inside, and a guest's stack is small.

use ruff_python_ast::token::TokenKind;
use ruff_python_parser::{Mode, lexer::lex};

/// Levels that fit the stack with room to spare; people write ten.
const MAX_DEPTH: usize = 150;

/// Whether a text may be deeper than a parser's stack. Operators of one line count as if each were inside the
/// last, so that some texts count as deeper than they are.
pub(crate) fn is_deep(text: &str) -> bool {
    let mut tokens = lex(text, Mode::Module);
    // Operators so far at each bracket that is open; a comma begins anew.
    let mut open = vec![0_usize];
    // Those go deeper across commas too.
    let mut lambdas = 0;
    let mut blocks = 0_usize;
    loop {
        let last = open.len() - 1;
        match tokens.next_token() {
            TokenKind::EndOfFile => return false,
            TokenKind::Indent => blocks += 1,
            TokenKind::Dedent => blocks = blocks.saturating_sub(1),
            TokenKind::Newline | TokenKind::Semi => {
                open.truncate(1);
                (open[0], lambdas) = (0, 0);
            }
            TokenKind::Lambda => lambdas += 1,
            TokenKind::Lpar
            | TokenKind::Lsqb
            | TokenKind::Lbrace
            | TokenKind::FStringStart
            | TokenKind::TStringStart => open.push(0),
            TokenKind::Rpar
            | TokenKind::Rsqb
            | TokenKind::Rbrace
            | TokenKind::FStringEnd
            | TokenKind::TStringEnd => {
                if last > 0 {
                    open.pop();
                }
                // What follows may be called or indexed: that goes deeper, too.
                open[last.saturating_sub(1)] += 1;
            }
            TokenKind::Comma => open[last] = 0,
            TokenKind::If | TokenKind::Else | TokenKind::Await | TokenKind::Yield => open[last] += 1,
            kind if kind.is_operator() => open[last] += 1,
            _ => {}
        }
        if open.len() + open.iter().sum::<usize>() + lambdas + blocks > MAX_DEPTH {
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_deep;

    #[test]
    fn what_goes_deep_is_seen() {
        let blocks: String = (0..200).map(|k| format!("{}if x:\n", " ".repeat(k))).collect();
        for text in [
            format!("x = {}1{}\n", "(".repeat(200), ")".repeat(200)),
            format!("x = {}1\n", "-".repeat(200)),
            format!("x = {}1\n", "not ".repeat(200)),
            format!("x = 1{}\n", "+1".repeat(200)),
            format!("x = 1{}\n", " and 1".repeat(200)),
            format!("x = (1{}\n)", "\n+1".repeat(200)),
            format!("x = 1{}\n", "\\\n+1".repeat(200)),
            format!("x = {}1\n", "lambda a, b: ".repeat(200)),
            format!("x = {}1\n", "[a, b] if c else ".repeat(200)),
            format!("x = f{}\n", "()".repeat(200)),
            format!("x = a{}\n", ".b".repeat(200)),
            format!("x = {}", "f(\n".repeat(200)),
            format!("x = {}1\n", "a = ".repeat(200)),
            format!("x = {}1\n", "f'{".repeat(200)),
            blocks,
        ] {
            assert!(is_deep(&text), "{text}");
        }
    }

    #[test]
    fn long_is_not_deep() {
        let table = format!("x = [{}]\n", "-1.5, (2 + 3) * 4, ".repeat(5_000));
        let lines = "def f(a, b):\n    return a if b else not a\n".repeat(5_000);
        let keys = format!("x = {{\n{}}}\n", "    'a': [1, 2],\n".repeat(5_000));
        let words = "# one ( of\n'''(( [ {'''\nx = ')' # }\n".repeat(5_000);
        for text in [&table, &lines, &keys, &words] {
            assert!(!is_deep(text), "{}", &text[..40]);
        }
    }
}
