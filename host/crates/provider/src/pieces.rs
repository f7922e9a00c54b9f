use bytes::{Bytes, BytesMut};

/// Bytes that only grow, kept in few pieces so that a request can be sent without being joined.
///
/// Every piece is more than twice as long as the next, so there are at most about 30 of them, and a byte
/// is copied only when its piece has grown by half: a logarithmic number of times, never once per request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    list: Vec<Bytes>,
    bytes: usize,
}

impl Pieces {
    pub(crate) fn push(&mut self, piece: impl Into<Bytes>) {
        let piece = piece.into();
        if piece.is_empty() {
            return;
        }
        self.bytes += piece.len();
        let mut start = self.list.len();
        let mut length = piece.len();
        while let Some(before) =
            start.checked_sub(1).map(|i| self.list[i].len()).filter(|before| *before <= 2 * length)
        {
            length += before;
            start -= 1;
        }
        if start == self.list.len() {
            self.list.push(piece);
            return;
        }
        let mut joined = BytesMut::with_capacity(length);
        for part in self.list.drain(start..) {
            joined.extend_from_slice(&part);
        }
        joined.extend_from_slice(&piece);
        self.list.push(joined.freeze());
    }

    /// Moves everything out of `other` to the end of this.
    pub(crate) fn append(&mut self, other: &mut Self) {
        other.bytes = 0;
        for piece in other.list.drain(..) {
            self.push(piece);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    pub(crate) fn copy_to(&self, body: &mut Vec<Bytes>) {
        body.extend(self.list.iter().cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_say_what_was_pushed_and_stay_few(lengths in prop::collection::vec(0usize..3000, 0..400)) {
            let mut pieces = Pieces::default();
            let mut plain = Vec::new();
            for (index, length) in lengths.iter().enumerate() {
                let part = vec![b'a' + (index % 26) as u8; *length];
                plain.extend_from_slice(&part);
                pieces.push(part);
            }
            let mut body = Vec::new();
            pieces.copy_to(&mut body);
            prop_assert_eq!(body.concat(), plain);
            prop_assert!(body.len() <= 22, "{} pieces", body.len());
            prop_assert_eq!(pieces.len(), lengths.iter().sum::<usize>());
        }
    }

    #[test]
    fn appending_empties_the_other() {
        let (mut one, mut two) = (Pieces::default(), Pieces::default());
        one.push("ab");
        two.push("cd");
        one.append(&mut two);
        assert!(two.is_empty());
        assert_eq!(one.len(), 4);
    }
}
