//! A change before it is made, for whoever decides about it.

use protocol::FileChange;

use super::{ChangeError, Expectation, Named, difference, named, read};
use crate::folders::Place;
use crate::inspect::digest;
use crate::limits::MAX_FILE_BYTES;

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

/// What a change of a file would be, if it could be made now.
pub(crate) fn preview(
    place: &Place,
    becomes: Becomes<'_>,
    expects: &Expectation,
) -> Result<Preview, ChangeError> {
    let is_link = place.link().is_some();
    let before = if is_link { None } else { read(place)? };
    expects.met(before.as_ref())?;
    match becomes {
        Becomes::Content(content) if content.len() as u64 > MAX_FILE_BYTES => {
            return Err(ChangeError::TooLarge);
        }
        Becomes::Nothing if before.is_none() && !is_link => return Err(ChangeError::NotFound),
        Becomes::Content(_) | Becomes::Nothing => {}
    }
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

/// Checks that nothing is at a place that something is to be moved to.
pub(crate) fn vacant(place: &Place) -> Result<(), ChangeError> {
    match named(place) {
        Ok(_) | Err(ChangeError::NotAFile) => Err(ChangeError::Conflict("the target exists")),
        Err(ChangeError::NotFound) => Ok(()),
        Err(error) => Err(error),
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
        let any = &Expectation::Any;
        let Preview { sha256, change } = preview(&s.place(".env"), Becomes::Content(b"A=2\n"), any).unwrap();
        assert_eq!(sha256.as_deref(), Some(digest(b"A=2\n").as_str()));
        assert!(change.diff.unwrap().ends_with("-A=1\n+A=2\n"));
        let gone = preview(&s.place(".env"), Becomes::Nothing, any).unwrap();
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

    #[test]
    fn what_could_not_be_made_is_not_shown_to_anybody() {
        let s = session();
        std::fs::write(s.path(".env"), "A=1\n").unwrap();
        let shown = |name: &str, becomes: Becomes<'_>, expects: Expectation| {
            preview(&s.place(name), becomes, &expects).map(|_| ())
        };
        let new = Becomes::Content(b"A=2\n");
        let seen = |text: &[u8]| Expectation::Sha256(digest(text));
        shown(".env", new, seen(b"A=1\n")).unwrap();
        shown(".envrc", new, Expectation::Absent).unwrap();
        for (name, becomes, expects) in [
            (".env", new, seen(b"A=0\n")),
            (".env", new, Expectation::Absent),
            (".envrc", new, seen(b"A=1\n")),
        ] {
            assert!(matches!(shown(name, becomes, expects), Err(ChangeError::Conflict(_))), "{name}");
        }
        let large = vec![b'x'; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
        let refused = shown(".env", Becomes::Content(&large), Expectation::Any);
        assert!(matches!(refused, Err(ChangeError::TooLarge)));
        let gone = shown(".envrc", Becomes::Nothing, Expectation::Any);
        assert!(matches!(gone, Err(ChangeError::NotFound)));
        vacant(&s.place(".envrc")).unwrap();
        assert!(matches!(vacant(&s.place(".env")), Err(ChangeError::Conflict(_))));
    }
}
