//! A change before it is made, for whoever decides about it.

use protocol::FileChange;

use super::{ChangeError, Named, difference, named, read};
use crate::folders::Place;
use crate::inspect::digest;

/// What a file would become.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Becomes<'a> {
    Content(&'a [u8]),
    Nothing,
}

/// A change that was not made yet, for whoever decides about it.
pub(crate) struct Preview {
    /// Digest of what would stand there.
    pub(crate) sha256: Option<String>,
    pub(crate) change: FileChange,
}

/// What a change of a file would be.
pub(crate) fn preview(place: &Place, becomes: Becomes<'_>) -> Result<Preview, ChangeError> {
    let before = match place.link() {
        Some(_) => None,
        None => read(place)?,
    };
    let before = before.as_ref().map(|before| before.content.as_slice());
    Ok(match becomes {
        Becomes::Content(content) => {
            Preview { sha256: Some(digest(content)), change: difference(&place.path, before, Some(content)) }
        }
        Becomes::Nothing => Preview { sha256: None, change: difference(&place.path, before, None) },
    })
}

/// The bytes of a file that is to be moved where only those bytes may stand that a person saw.
pub(crate) fn moved(from: &Place) -> Result<Vec<u8>, ChangeError> {
    match named(from)? {
        Named::File(before) => Ok(before.content),
        Named::Link(_) => Err(ChangeError::Conflict("it is a link, and what it leads to could change")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::changes::rename;
    use crate::changes::tests::session;

    #[test]
    fn what_is_shown_of_a_change_is_what_is_made() {
        let s = session();
        std::fs::write(s.path(".env"), "A=1\n").unwrap();
        std::fs::write(s.path("new"), "A=2\n").unwrap();
        let Preview { sha256, change } = preview(&s.place(".env"), Becomes::Content(b"A=2\n")).unwrap();
        assert_eq!(sha256.as_deref(), Some(digest(b"A=2\n").as_str()));
        assert!(change.diff.unwrap().ends_with("-A=1\n+A=2\n"));
        let gone = preview(&s.place(".env"), Becomes::Nothing).unwrap();
        assert_eq!((gone.sha256, gone.change.removed), (None, 1));
        // What was shown of a file that is moved is what is moved.
        let shown = moved(&s.place("new")).unwrap();
        std::fs::write(s.path("new"), "A=3\n").unwrap();
        let again = |expects: &[u8]| {
            rename(&s.place("new"), &mut s.place(".envrc"), Some(expects), 0o022, &s.undo, "c")
        };
        assert!(matches!(again(&shown), Err(ChangeError::Conflict(_))) && !s.path(".envrc").exists());
        again(b"A=3\n").unwrap();
        std::os::unix::fs::symlink("anything", s.path("link")).unwrap();
        assert!(matches!(moved(&s.place("link")), Err(ChangeError::Conflict(_))));
    }
}
