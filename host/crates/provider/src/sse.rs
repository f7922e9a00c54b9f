//! Bytes to server-sent events.
//!
//! The crate `eventsource-stream` does the same but has no limit on what a server can make it collect, ends
//! the stream at the first byte that is not UTF-8, and moves the rest of its buffer for every line.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

/// Bytes of one event at most.
pub(crate) const MAX_EVENT: usize = 8 << 20;

/// One event. Its data need not be UTF-8.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Event {
    /// It is called `error`.
    pub(crate) is_error: bool,
    pub(crate) data: Bytes,
}

/// An event that is longer than [`MAX_EVENT`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an event of the stream is longer than {} MiB", MAX_EVENT >> 20)]
pub(crate) struct TooLong;

/// Reads events out of the pieces of a body.
#[derive(Debug, Default)]
pub(crate) struct Events {
    buffer: BytesMut,
    /// Bytes of the buffer that hold no end of a line.
    scanned: usize,
    after_cr: bool,
    started: bool,
    data: BytesMut,
    has_data: bool,
    is_error: bool,
    /// Lines that no event stream has.
    pub(crate) stray_lines: u64,
}

impl Events {
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next event that is complete.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, TooLong> {
        while let Some(line) = self.next_line()? {
            if let Some(event) = self.take(&line) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// The event that the body ended in, although nothing closed it.
    pub(crate) fn last(&mut self) -> Option<Event> {
        let line = self.buffer.split().freeze();
        self.scanned = 0;
        self.take(&line).or_else(|| self.dispatch())
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, TooLong> {
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let Some(end) = memchr2(b'\n', b'\r', &self.buffer[self.scanned..]).map(|at| self.scanned + at)
        else {
            self.scanned = self.buffer.len();
            return if self.buffer.len() + self.data.len() > MAX_EVENT { Err(TooLong) } else { Ok(None) };
        };
        let line = self.buffer.split_to(end).freeze();
        self.after_cr = self.buffer[0] == b'\r';
        self.buffer.advance(1);
        self.scanned = 0;
        if line.len() + self.data.len() > MAX_EVENT { Err(TooLong) } else { Ok(Some(line)) }
    }

    fn take(&mut self, line: &Bytes) -> Option<Event> {
        let line = if std::mem::replace(&mut self.started, true) {
            line.clone()
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").map_or_else(|| line.clone(), |rest| line.slice_ref(rest))
        };
        if line.is_empty() {
            return self.dispatch();
        }
        let (name, value) = match memchr::memchr(b':', &line) {
            // Proxies put a bare JSON object into the stream when something failed.
            _ if line[0] == b'{' => (&b"data"[..], line.clone()),
            Some(colon) => {
                let value = line.slice(colon + 1..);
                (&line[..colon], if value.starts_with(b" ") { value.slice(1..) } else { value })
            }
            None => (&line[..], Bytes::new()),
        };
        match name {
            b"data" => self.add_data(value),
            // How older llama.cpp servers tell of an error.
            b"error" => {
                self.is_error = true;
                self.add_data(value);
            }
            b"event" => self.is_error = &value[..] == b"error",
            b"" | b"id" | b"retry" => {}
            _ => self.stray_lines += 1,
        }
        None
    }

    fn add_data(&mut self, value: Bytes) {
        if !self.has_data {
            self.has_data = true;
            self.data = BytesMut::from(value);
        } else {
            self.data.extend_from_slice(b"\n");
            self.data.extend_from_slice(&value);
        }
    }

    fn dispatch(&mut self) -> Option<Event> {
        let is_error = std::mem::take(&mut self.is_error);
        let had_data = std::mem::take(&mut self.has_data);
        let data = self.data.split().freeze();
        had_data.then_some(Event { is_error, data })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(pieces: &[&[u8]]) -> Vec<(bool, String)> {
        let mut events = Events::default();
        let mut seen = Vec::new();
        for piece in pieces {
            events.feed(piece);
            while let Some(event) = events.next().unwrap() {
                seen.push(event);
            }
        }
        seen.extend(events.last());
        seen.into_iter().map(|e| (e.is_error, String::from_utf8_lossy(&e.data).into_owned())).collect()
    }

    fn data(body: &str) -> Vec<String> {
        read(&[body.as_bytes()]).into_iter().map(|(_, data)| data).collect()
    }

    #[test]
    fn events_in_all_their_spellings() {
        assert_eq!(data("data: a\n\ndata:b\n\n"), ["a", "b"]);
        assert_eq!(data("data: a\r\n\r\ndata: b\r\rdata: c\n\n"), ["a", "b", "c"]);
        assert_eq!(data(": note\n\nid: 1\nevent: x\ndata: a\ndata:  b\n\n"), ["a\n b"]);
        assert_eq!(data("\u{feff}data: a\n\n"), ["a"]);
        assert_eq!(data("data: a"), ["a"]);
        assert_eq!(data("data\n\n"), [""]);
        assert_eq!(data("{\"error\":1}\n\n"), ["{\"error\":1}"]);
        assert_eq!(data("\n\n\nretry: 3\n\n"), [""; 0]);
    }

    #[test]
    fn errors_are_told_from_other_events() {
        let seen = read(&[b"event: error\ndata: x\n\nerror: y\n\ndata: z\n\n"]);
        let seen: Vec<_> = seen.iter().map(|(is_error, data)| (*is_error, data.as_str())).collect();
        assert_eq!(seen, [(true, "x"), (true, "y"), (false, "z")]);
    }

    #[test]
    fn bytes_that_are_not_text_spoil_one_event_only() {
        let seen = read(&[b"data: \xff\xfe\n\ndata: ok\n\n"]);
        assert_eq!(seen[1].1, "ok");
    }

    #[test]
    fn an_endless_line_or_event_is_refused() {
        let mut events = Events::default();
        events.feed(&vec![b'x'; MAX_EVENT + 1]);
        assert_eq!(events.next(), Err(TooLong));
        let mut events = Events::default();
        let line = format!("data: {}\n", "x".repeat(MAX_EVENT / 4));
        let refused = (0..5).any(|_| {
            events.feed(line.as_bytes());
            events.next().is_err()
        });
        assert!(refused);
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_the_same_in_pieces(
            body in prop::collection::vec(prop::sample::select(&b"data:event \r\n\xff\xc3\xbc{}\0:x"[..]), 0..400),
            size in 1_usize..40,
        ) {
            let pieces: Vec<&[u8]> = body.chunks(size).collect();
            prop_assert_eq!(read(&pieces), read(&[&body]));
        }

        #[test]
        fn borders_of_pieces_do_not_matter(cuts in prop::collection::vec(0usize..90, 0..12)) {
            let body = "data: {\"a\": \"ü€\"}\r\n\r\n: ping\r\n\nevent: error\r\ndata: x\ndata: y\n\r\ndata: [DONE]\r\n\r\n".as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(body.len())).collect();
            cuts.sort_unstable();
            cuts.push(body.len());
            let mut start = 0;
            let pieces: Vec<&[u8]> = cuts.into_iter().map(|cut| &body[std::mem::replace(&mut start, cut)..cut]).collect();
            prop_assert_eq!(read(&pieces), read(&[body]));
        }
    }
}
