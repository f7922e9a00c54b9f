use std::fs::File;
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;

/// Names that are tried before the text is given up.
const ATTEMPTS: usize = 4;

/// Keeps a text in a new file of the session's `/tmp` and gives its path.
///
/// Commands of the session write to that folder too. The name cannot be guessed and nothing that exists is
/// opened: a pipe made there beforehand would block the call, a link would lead the text elsewhere.
pub(crate) fn keep(call: &str, text: &str) -> Option<String> {
    let call: String =
        call.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-')).take(64).collect();
    for _ in 0..ATTEMPTS {
        let random = RandomState::new().hash_one(text.len());
        let path = format!("/tmp/bash_output_{call}_{random:016x}.txt");
        match File::create_new(&path) {
            Ok(mut file) => return file.write_all(text.as_bytes()).ok().map(|()| path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(_) => return None,
        }
    }
    None
}
