//! Reads an event stream (WHATWG HTML, “Server-sent events”) that comes in pieces of any size.
//!
//! One thing is done differently: a message without data is given out too when it has an id or a
//! name, because an id alone says how far the server has looked.

use std::time::Duration;

/// One message of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Message {
    /// Its name, when it has one.
    pub event: String,
    /// Its own id.
    pub id: Option<String>,
    /// Its lines of data.
    pub data: String,
}

/// The message, as far as it has come, is longer than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// Puts messages together.
#[derive(Debug)]
pub struct Parser {
    bytes_max: usize,
    line: Vec<u8>,
    /// The byte before was a carriage return: a line feed now belongs to it.
    returned: bool,
    /// No line has ended yet: a byte order mark may come.
    is_first: bool,
    message: Message,
    has_data: bool,
    retry: Option<Duration>,
}

impl Parser {
    /// For messages of at most `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            line: Vec::new(),
            returned: false,
            is_first: true,
            message: Message::default(),
            has_data: false,
            retry: None,
        }
    }

    /// How long the server wants to be left alone before it is asked again, once it has said.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The messages that a piece completes.
    ///
    /// # Errors
    /// [`TooLong`], after which the stream is of no use.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<Vec<Message>, TooLong> {
        let mut messages = Vec::new();
        if self.returned && !piece.is_empty() {
            self.returned = false;
            piece = piece.strip_prefix(b"\n").unwrap_or(piece);
        }
        while let Some(end) = piece.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
            self.keep(&piece[..end])?;
            messages.extend(self.line_ended());
            let rest = &piece[end + 1..];
            piece = match (piece[end], rest.first()) {
                (b'\r', Some(b'\n')) => &rest[1..],
                (b'\r', None) => {
                    self.returned = true;
                    rest
                }
                _ => rest,
            };
        }
        self.keep(piece)?;
        Ok(messages)
    }

    fn keep(&mut self, part: &[u8]) -> Result<(), TooLong> {
        let size = self.message.data.len() + self.line.len() + part.len();
        if size > self.bytes_max {
            return Err(TooLong);
        }
        self.line.extend_from_slice(part);
        Ok(())
    }

    fn line_ended(&mut self) -> Option<Message> {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line = text.as_ref();
        if std::mem::take(&mut self.is_first) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            return self.message_ended();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.message.event),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.message.data.push('\n');
                }
                self.message.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.message.id = Some(value.to_owned()),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            // A comment (its field is empty), or a field of tomorrow.
            _ => {}
        }
        None
    }

    fn message_ended(&mut self) -> Option<Message> {
        let message = std::mem::take(&mut self.message);
        let has_data = std::mem::take(&mut self.has_data);
        (has_data || message.id.is_some() || !message.event.is_empty()).then_some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pieces: &[&[u8]]) -> Vec<Message> {
        let mut parser = Parser::new(1_000);
        let read = |piece: &&[u8]| parser.feed(piece).unwrap();
        pieces.iter().flat_map(read).collect()
    }

    fn message(event: &str, id: Option<&str>, data: &str) -> Message {
        Message {
            event: event.into(),
            id: id.map(str::to_owned),
            data: data.into(),
        }
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        let text = "\u{feff}: hello\r\n\r\nid: 1\r\nevent: task.submitted\r\ndata: {\"a\":\r\n\
                    data:  \"ü\"}\r\n\r\nretry: 250\rid:2\rdata\rdata:x\r\r: still here\n\n\
                    event: lagged\ndata: {\"next\": 2}\nwhat: ever\n\nid: 3\n\ndata: cut off";
        let expected = [
            message("task.submitted", Some("1"), "{\"a\":\n \"ü\"}"),
            message("", Some("2"), "\nx"),
            message("lagged", None, "{\"next\": 2}"),
            message("", Some("3"), ""),
        ];
        let bytes = text.as_bytes();
        assert_eq!(read(&[bytes]), expected);
        for cut in 0..=bytes.len() {
            let (one, two) = bytes.split_at(cut);
            assert_eq!(read(&[one, two]), expected, "cut at {cut}");
            assert_eq!(read(&[one, b"", two]), expected, "cut at {cut}, twice");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), expected);
    }

    #[test]
    fn the_servers_pause_is_kept() {
        let mut parser = Parser::new(100);
        assert_eq!(parser.retry(), None);
        parser.feed(b"retry: 250\n\nretry: soon\n\n").unwrap();
        assert_eq!(parser.retry(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn a_message_has_a_bound() {
        let mut line = Parser::new(10);
        assert!(line.feed(b"data: 6789").unwrap().is_empty());
        assert_eq!(line.feed(b"x"), Err(TooLong));
        let mut lines = Parser::new(20);
        assert_eq!(
            lines.feed(b"data: 1234567890\ndata: 123456\n"),
            Err(TooLong)
        );
        let mut many = Parser::new(20);
        for _ in 0..100 {
            assert_eq!(many.feed(b"data: 1234567890\n\n").unwrap().len(), 1);
        }
    }
}
